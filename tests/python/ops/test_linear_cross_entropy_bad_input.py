"""What linear_cross_entropy and its parts refuse."""

import pytest
import torch

import mistral_ext  # noqa: F401  registers the operators

ops = torch.ops.mistral_ext
linear_cross_entropy = ops.linear_cross_entropy


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
]


@pytest.mark.parametrize(("hidden", "weight", "labels", "message"), BAD)
def test_refuses_bad_input_by_name(hidden, weight, labels, message):
    for requires_grad in (False, hidden.is_floating_point()):
        with pytest.raises(ValueError, match=f"^linear_cross_entropy: {message}"):
            linear_cross_entropy(hidden.detach().requires_grad_(requires_grad), weight, labels)


# torch's own, and so Hugging Face's, is an IndexError.
@pytest.mark.parametrize("label", [4, -1, -101, 2**62, -(2**63)])
@pytest.mark.parametrize("rows", [2, 9])
def test_a_label_out_of_range_is_an_index_error(label, rows, device):
    hidden = torch.randn(rows, 8, device=device, requires_grad=True)
    weight = torch.randn(4, 8, device=device, requires_grad=True)
    labels = torch.randint(4, (rows,), device=device)
    labels[1] = label
    message = rf"^linear_cross_entropy: labels must be in \[0, 4\) or ignore_index, got {label}$"
    for inputs in ((hidden, weight), (hidden.detach(), weight), (hidden.detach(), weight.detach())):
        with pytest.raises(IndexError, match=message):
            linear_cross_entropy(*inputs, labels)
    logits = torch.zeros(rows, 4, device=device)
    with pytest.raises(IndexError, match=message):
        ops.linear_cross_entropy_logits_backward(
            logits.sum(), hidden.detach(), weight.detach(), labels, logits, -100, True, True
        )


def test_backward_with_kept_logits_refuses_what_does_not_fit():
    backward = ops.linear_cross_entropy_logits_backward
    one, logits = torch.ones(()), torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"grad_loss must be a scalar, got shape \[2\]"):
        backward(torch.ones(2), X, W, Y, logits, -100, True, True)
    with pytest.raises(ValueError, match=r"logits must have shape \[2, 4\], got \[1, 4\]"):
        backward(one, X, W, Y, logits[:1], -100, True, True)
    with pytest.raises(ValueError, match="logits must have hidden's dtype Float, got Half"):
        backward(one, X, W, Y, logits.half(), -100, True, True)


def test_backward_refuses_gradients_that_do_not_fit():
    backward = ops.linear_cross_entropy_backward
    with pytest.raises(ValueError, match=r"grad_loss must be a scalar, got shape \[2\]"):
        backward(torch.ones(2), X, W, X, W)
    message = r"weight_gradient must have shape \[4, 8\], or \[0\], got \[2, 8\]"
    with pytest.raises(ValueError, match=message):
        backward(torch.ones(()), X, W, X, X)
