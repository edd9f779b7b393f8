"""cross_entropy against torch's in fp64."""

import pytest
import torch
from helpers.numerics import DTYPES

import mistral_ext  # noqa: F401  registers the operators

cross_entropy = torch.ops.mistral_ext.cross_entropy


def oracle(logits: torch.Tensor, labels: torch.Tensor, ignore_index: int = -100) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(
        logits.double(), labels, ignore_index=ignore_index, reduction="sum"
    )


def assert_equals_oracle(logits, labels, ignore_index=-100):
    actual = cross_entropy(logits, labels, ignore_index)
    assert actual.dtype == (torch.float64 if logits.dtype == torch.float64 else torch.float32)
    assert actual.shape == ()
    # The logits are taken as they are: what is lost is in sums of fp32.
    tolerance = 1e-12 if logits.dtype == torch.float64 else 2e-6
    expected = oracle(logits, labels, ignore_index)
    torch.testing.assert_close(actual.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab_size", [1, 2, 7, 16, 33, 1000, 50_257])
def test_equals_the_oracle(dtype, vocab_size, device):
    logits = (3 * torch.randn(5, vocab_size, device=device)).to(dtype)
    labels = torch.randint(vocab_size, (5,), device=device)
    assert_equals_oracle(logits, labels)


@pytest.mark.parametrize("ignore_index", [-100, -1, 3, 2000])
def test_ignored_rows_add_nothing(ignore_index, device):
    logits = torch.randn(6, 50, device=device)
    labels = torch.tensor([1, ignore_index, 3, 49, ignore_index, 0], device=device)
    assert_equals_oracle(logits, labels, ignore_index)
    everything = torch.full_like(labels, ignore_index)
    assert cross_entropy(logits, everything, ignore_index) == 0


def test_large_and_infinite_logits_do_not_overflow(device):
    logits = torch.tensor([[500.0, -500.0, 0.0], [-torch.inf, 2.0, 1.0]], device=device)
    assert_equals_oracle(logits, torch.tensor([1, 1], device=device))
    logits[0, 0] = torch.nan
    assert cross_entropy(logits, torch.tensor([1, 1], device=device)).isnan()


def test_a_sure_and_right_row_keeps_its_small_loss(device):
    logits = torch.tensor([[0.0, 15.0, -3.0]], device=device)
    labels = torch.tensor([1], device=device)
    # 3.2e-7, which fp32 holds only beside 0: a difference from 15 would lose it.
    assert oracle(logits, labels) / 2 < cross_entropy(logits, labels) < 2 * oracle(logits, labels)


def test_without_rows_is_zero(device):
    labels = torch.empty(0, dtype=torch.long, device=device)
    assert cross_entropy(torch.empty(0, 9, device=device), labels) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_any_strides(dtype, device):
    logits = torch.randn(8, 3, 40, device=device).to(dtype)
    labels = torch.randint(20, (16,), device=device)[::2]
    for view in (logits[:, 1], logits[:, 0, :20], logits[:, 0, ::2], logits[0, 0].expand(8, 40)):
        assert_equals_oracle(view, labels)


def test_registration_is_sound(device):
    labels = torch.tensor([1, -100, 3], device=device)
    torch.library.opcheck(cross_entropy, (torch.randn(3, 8, device=device), labels))


def test_has_no_gradient_and_says_so(device):
    logits = torch.randn(2, 8, device=device, requires_grad=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        cross_entropy(logits, torch.tensor([1, 2], device=device)).backward()


X = torch.zeros(2, 8)
Y = torch.zeros(2, dtype=torch.long)
BAD = [
    (X.long(), Y, "logits must be float32, .*, got Long"),
    (X[0], Y, r"logits must have shape \[n, vocab_size\], got \[8\]"),
    (X[:, :0], Y, r"logits must have shape \[n, vocab_size\], got \[2, 0\]"),
    (X, Y.int(), "labels must be int64, got Int"),
    (X, Y[:1], r"labels must have shape \[2\], got \[1\]"),
    (X, X, "labels must be int64, got Float"),
    (X, Y.to("meta"), "labels must be on logits's device cpu, got meta"),
]


# torch's own, and so Hugging Face's, is an IndexError.
@pytest.mark.parametrize("label", [8, -1, -101, 2**62, -(2**63)])
def test_a_label_out_of_range_is_an_index_error(label, device):
    labels = torch.tensor([1, label], device=device)
    message = rf"^cross_entropy: labels must be in \[0, 8\) or ignore_index, got {label}$"
    with pytest.raises(IndexError, match=message):
        cross_entropy(X.to(device), labels)


@pytest.mark.parametrize(("logits", "labels", "message"), BAD)
def test_refuses_bad_input_by_name(logits, labels, message):
    with pytest.raises(ValueError, match=f"^cross_entropy: {message}"):
        cross_entropy(logits, labels)
