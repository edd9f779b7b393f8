"""linear_cross_entropy against the head's product and torch's loss in fp64."""

import pytest
import torch
from helpers.numerics import DTYPES

import mistral_ext  # noqa: F401  registers the operators

ops = torch.ops.mistral_ext
linear_cross_entropy = ops.linear_cross_entropy

# A chunk holds 64 MiB of logits in fp32: this vocabulary makes chunks of 64 rows.
LARGE_VOCAB = 2**18


def make(device, dtype, rows=9, hidden_size=24, vocab_size=50):
    hidden = torch.randn(rows, hidden_size, device=device).to(dtype).requires_grad_()
    weight = (torch.randn(vocab_size, hidden_size, device=device) / hidden_size**0.5).to(dtype)
    labels = torch.randint(vocab_size, (rows,), device=device)
    labels[::4] = -100
    return hidden, weight.requires_grad_(), labels


def exact(hidden, weight, labels, scale=1.0):
    """(loss, gradient of hidden, gradient of weight) of scale * loss, all in fp64."""
    leaves = [t.detach().double().requires_grad_() for t in (hidden, weight)]
    loss = torch.nn.functional.cross_entropy(leaves[0] @ leaves[1].T, labels, reduction="sum")
    return loss.detach(), *torch.autograd.grad(scale * loss, leaves)


def relative_error(actual, expected):
    return ((actual.double() - expected).norm() / expected.norm()).item()


# Gradients are products of softmax(logits) and a matrix: 16-bit logits, weights of the softmax and
# results are rounded once each, some halves of eps by chance in all directions.
TOLERANCE = {
    torch.float64: 1e-13,
    torch.float32: 2e-6,
    torch.bfloat16: torch.finfo(torch.bfloat16).eps,
    torch.float16: torch.finfo(torch.float16).eps,
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "hidden_size", "vocab_size"), [(1, 8, 3), (9, 24, 50), (70, 33, 1001)]
)
def test_loss_and_gradients_equal_the_oracle(dtype, rows, hidden_size, vocab_size, device):
    hidden, weight, labels = make(device, dtype, rows, hidden_size, vocab_size)
    labels[0] = 1
    loss = linear_cross_entropy(hidden, weight, labels)
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # A mean's gradient: a factor that 16 bits do not hold.
    (loss / 7).backward()
    expected = exact(hidden, weight, labels, 1 / 7)
    tolerance = TOLERANCE[dtype]
    assert relative_error(loss, expected[0]) <= tolerance
    for leaf, gradient in zip((hidden, weight), expected[1:], strict=True):
        assert leaf.grad.dtype == dtype
        assert relative_error(leaf.grad, gradient) <= tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_several_chunks_give_the_sums_of_one(dtype, device):
    hidden, weight, labels = make(device, dtype, rows=150, hidden_size=4, vocab_size=LARGE_VOCAB)
    linear_cross_entropy(hidden, weight, labels).backward()
    expected = exact(hidden, weight, labels)
    # bf16: what is rounded once in one chunk is rounded in each of three.
    tolerance = 2 * TOLERANCE[dtype]
    assert relative_error(hidden.grad, expected[1]) <= tolerance
    assert relative_error(weight.grad, expected[2]) <= tolerance


@pytest.mark.parametrize("dtype", DTYPES)
def test_only_the_gradients_that_are_wanted_are_computed(dtype, device):
    hidden, weight, labels = make(device, dtype)
    both = ops.linear_cross_entropy_gradients(hidden, weight, labels, -100, True, True)
    assert torch.equal(both[0], linear_cross_entropy(hidden.detach(), weight.detach(), labels))
    assert both[2].dtype == both[0].dtype
    for for_hidden, for_weight in ((True, False), (False, True), (False, False)):
        one = ops.linear_cross_entropy_gradients(
            hidden, weight, labels, -100, for_hidden, for_weight
        )
        assert torch.equal(one[0], both[0])
        assert torch.equal(one[1], both[1]) if for_hidden else one[1].shape == (0,)
        assert torch.equal(one[2], both[2]) if for_weight else one[2].shape == (0,)
    loss = linear_cross_entropy(hidden, weight.detach(), labels)
    (only_hidden,) = torch.autograd.grad(loss, hidden)
    (only_weight,) = torch.autograd.grad(
        linear_cross_entropy(hidden.detach(), weight, labels), weight
    )
    linear_cross_entropy(hidden, weight, labels).backward()
    assert torch.equal(hidden.grad, only_hidden)
    assert torch.equal(weight.grad, only_weight)


@pytest.mark.parametrize("ignore_index", [-100, 4, 1000])
def test_ignored_rows_add_nothing_and_have_no_gradient(ignore_index, device):
    hidden, weight, labels = make(device, torch.float64)
    labels = labels.masked_fill(labels == 4, 5).masked_fill(labels == -100, ignore_index)
    linear_cross_entropy(hidden, weight, labels, ignore_index).backward()
    ignored = labels == ignore_index
    assert not hidden.grad[ignored].any()
    expected = exact(hidden, weight, labels.masked_fill(ignored, -100))
    assert relative_error(hidden.grad, expected[1]) <= 1e-13
    assert relative_error(weight.grad, expected[2]) <= 1e-13


def test_a_mean_over_nothing_is_nan_and_its_gradients_are_zero_as_torchs(device):
    hidden, weight, labels = make(device, torch.float32)
    labels.fill_(-100)
    loss = linear_cross_entropy(hidden, weight, labels) / (labels != -100).sum()
    loss.backward()
    assert loss.isnan()
    assert not hidden.grad.any()
    assert not weight.grad.any()


@pytest.mark.parametrize("shape", [(0, 8), (3, 0)])
def test_empty_inputs(shape, device):
    hidden = torch.randn(shape, device=device, requires_grad=True)
    weight = torch.randn(5, shape[1], device=device, requires_grad=True)
    labels = torch.zeros(shape[0], dtype=torch.long, device=device)
    loss = linear_cross_entropy(hidden, weight, labels)
    expected = exact(hidden, weight, labels)[0]
    torch.testing.assert_close(loss.double(), expected)
    loss.backward()
    assert hidden.grad.shape == shape
    assert not weight.grad.any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_any_strides(dtype, device):
    hidden = torch.randn(20, 3, 40, device=device).to(dtype)
    weight = (torch.randn(60, 50, device=device) / 5).to(dtype)
    labels = torch.randint(25, (40,), device=device)[::2]
    for views in (
        (hidden[:, 1, ::2], weight[:, :20]),
        (hidden[:, 2, :20], weight[::2, ::2][:, :20]),
        (hidden[:, 0], weight.mT[:, :40]),
        (hidden[:1, 0].expand(20, 40), weight[:, :40]),
    ):
        dense = [view.clone().contiguous().requires_grad_() for view in views]
        strided = [view.detach().requires_grad_() for view in views]
        losses = [linear_cross_entropy(*pair, labels) for pair in (dense, strided)]
        for loss in losses:
            loss.backward()
        torch.testing.assert_close(*losses)
        expected = exact(*dense, labels)
        for leaf, gradient in zip(strided, expected[1:], strict=True):
            assert relative_error(leaf.grad, gradient) <= TOLERANCE[dtype]


def test_gradients_equal_finite_differences(device):
    hidden, weight, labels = make(device, torch.float64, rows=4, hidden_size=3, vocab_size=5)

    def mean(*leaves):
        return linear_cross_entropy(*leaves, labels) / 3

    assert torch.autograd.gradcheck(mean, (hidden, weight))
    assert torch.autograd.gradcheck(mean, (hidden.detach(), weight))
    assert torch.autograd.gradcheck(mean, (hidden, weight.detach()))


def test_a_kept_graph_gives_the_same_gradients_again(device):
    hidden, weight, labels = make(device, torch.float32)
    loss = linear_cross_entropy(hidden, weight, labels)
    first = torch.autograd.grad(2 * loss, (hidden, weight), retain_graph=True)
    second = torch.autograd.grad(2 * loss, (hidden, weight))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_a_second_derivative_is_refused(device):
    hidden, weight, labels = make(device, torch.float64)
    loss = linear_cross_entropy(hidden, weight, labels)
    (grad,) = torch.autograd.grad(loss, hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        grad.square().sum().backward()


def test_a_weight_changed_before_the_backward_is_found(device):
    hidden, weight, labels = make(device, torch.float32)
    loss = linear_cross_entropy(hidden, weight, labels)
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_registration_is_sound(dtype, device):
    hidden, weight, labels = make(device, dtype, rows=3, hidden_size=8, vocab_size=6)
    torch.library.opcheck(linear_cross_entropy, (hidden, weight, labels))
    hidden, weight = hidden.detach(), weight.detach()
    gradients = ops.linear_cross_entropy_gradients
    for wanted in ((True, True), (False, True)):
        torch.library.opcheck(gradients, (hidden, weight, labels, -100, *wanted))
    loss, *found = gradients(hidden, weight, labels, -100, True, True)
    torch.library.opcheck(ops.linear_cross_entropy_backward, (loss, hidden, weight, *found))


X = torch.zeros(2, 8)
W = torch.zeros(4, 8)
Y = torch.zeros(2, dtype=torch.long)
BAD = [
    (X.long(), W, Y, "hidden must be float32, .*, got Long"),
    (X[0], W, Y, r"hidden must have shape \[n, hidden_size\], got \[8\]"),
    (X, W[:, :7], Y, r"weight must have shape \[vocab_size, 8\], got \[4, 7\]"),
    (X, W[:0], Y, r"weight must have shape \[vocab_size, 8\], got \[0, 8\]"),
    (X, W.half(), Y, "weight must have hidden's dtype Float, got Half"),
    (X, W.to("meta"), Y, "weight must be on hidden's device cpu, got meta"),
    (X, W, Y.int(), "labels must be int64, got Int"),
    (X, W, Y[:, None], r"labels must have shape \[2\], got \[2, 1\]"),
    (X, W, Y + 4, r"labels must be in \[0, 4\) or ignore_index, got 4"),
    (X, W, Y - 1, r"labels must be in \[0, 4\) or ignore_index, got -1"),
]


@pytest.mark.parametrize(("hidden", "weight", "labels", "message"), BAD)
def test_refuses_bad_input_by_name(hidden, weight, labels, message):
    for requires_grad in (False, hidden.is_floating_point()):
        with pytest.raises(ValueError, match=f"^linear_cross_entropy: {message}"):
            linear_cross_entropy(hidden.detach().requires_grad_(requires_grad), weight, labels)


def test_backward_refuses_gradients_that_do_not_fit():
    backward = ops.linear_cross_entropy_backward
    with pytest.raises(ValueError, match=r"grad_loss must be a scalar, got shape \[2\]"):
        backward(torch.ones(2), X, W, X, W)
    message = r"weight_gradient must have shape \[4, 8\], or \[0\], got \[2, 8\]"
    with pytest.raises(ValueError, match=message):
        backward(torch.ones(()), X, W, X, X)
