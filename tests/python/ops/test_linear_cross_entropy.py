"""linear_cross_entropy against the head's product and torch's loss in fp64."""

import pytest
import torch
from helpers.numerics import DTYPES
from transformers.loss.loss_utils import ForCausalLMLoss

import mistral_ext  # noqa: F401  registers the operators

ops = torch.ops.mistral_ext
linear_cross_entropy = ops.linear_cross_entropy

# A chunk holds 64 MiB of logits in fp32: this vocabulary makes chunks of 64 rows.
LARGE_VOCAB = 2**18

# Few rows beside 24 features keep the logits for the backward, many the gradients, in every dtype.
ROWS = [9, 61]


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


def kept_for_backward(hidden, weight, labels):
    """The shapes of what the graph keeps beside its inputs."""
    shapes = []

    def pack(tensor):
        if not any(tensor is given for given in (hidden, weight, labels)):
            shapes.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        linear_cross_entropy(hidden, weight, labels)
    return [shape for shape in shapes if len(shape) == 2 and shape != tuple(weight.shape)], [
        shape for shape in shapes if shape == tuple(weight.shape)
    ]


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_rows_keep_their_logits_and_many_the_gradients(dtype, device):
    # Twice the logits' bytes against those of the weight's gradient in fp32, fp64 for fp64.
    limit = 24 if dtype.itemsize == 2 else 12
    for rows in (1, limit - 1):
        hidden, weight, labels = make(device, dtype, rows)
        others, like_weight = kept_for_backward(hidden, weight, labels)
        assert (rows, 50) in others
        assert len(like_weight) <= 1  # at most the weight itself
    for rows, frozen in ((limit, False), (limit + 1, False), (1, True)):
        hidden, weight, labels = make(device, dtype, rows)
        others, _ = kept_for_backward(hidden, weight.detach() if frozen else weight, labels)
        assert (rows, 50) not in others


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [2, 16])
def test_kept_logits_lose_no_more_than_hugging_faces_loss(dtype, rows, device):
    errors = torch.zeros(2, 3, dtype=torch.float64)
    for _ in range(8):
        hidden, weight, labels = make(device, dtype, rows, hidden_size=64, vocab_size=500)
        labels[0] = 1
        count = (labels != -100).sum()
        expected = exact(hidden, weight, labels, 1 / count.item())
        ours = linear_cross_entropy(hidden, weight, labels) / count
        theirs = ForCausalLMLoss((hidden @ weight.mT)[None], None, 500, shift_labels=labels)
        for i, loss in enumerate((ours, theirs)):
            found = (loss * count, *torch.autograd.grad(loss, (hidden, weight)))
            for j, (actual, oracle) in enumerate(zip(found, expected, strict=True)):
                errors[i, j] += relative_error(actual.detach(), oracle) ** 2
    # As many roundings as theirs, in the same places.
    assert (errors[0].sqrt() <= 1.1 * errors[1].sqrt()).all(), errors.sqrt()


@pytest.mark.parametrize("rows", [3, 150])
def test_fp16_holds_the_gradients_of_a_small_and_of_a_large_factor(rows, device):
    hidden, weight, labels = make(device, torch.float16, rows, hidden_size=64)
    labels[0] = 1
    for scale in (2**-13 / 3, 2**13 / 3):
        grads = torch.autograd.grad(
            scale * linear_cross_entropy(hidden, weight, labels), (hidden, weight)
        )
        for actual, oracle in zip(grads, exact(hidden, weight, labels, scale)[1:], strict=True):
            # Below fp16's smallest normal number, 6e-5, a step is 6e-8.
            torch.testing.assert_close(
                actual.double(), oracle, rtol=8 * TOLERANCE[torch.float16], atol=1e-3 * scale + 6e-8
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_several_chunks_with_kept_logits_give_the_gradients_of_one(dtype, device):
    hidden, weight, labels = make(device, dtype, rows=100, hidden_size=256, vocab_size=LARGE_VOCAB)
    labels[2:32] = -100
    found = ops.linear_cross_entropy_logits(hidden.detach(), weight.detach(), labels, -100)
    one = torch.ones((), device=device)
    inputs = (one, hidden.detach(), weight.detach(), labels, found[1], -100)
    grad_hidden, grad_weight = ops.linear_cross_entropy_logits_backward(*inputs, True, True)
    other = ops.linear_cross_entropy_gradients(
        hidden.detach(), weight.detach(), labels, -100, True, True
    )
    torch.testing.assert_close(found[0], other[0])
    # Each is off by what TOLERANCE allows; here they are compared with each other.
    assert relative_error(grad_hidden, other[1].double()) <= 2 * TOLERANCE[dtype]
    assert relative_error(grad_weight, other[2].double()) <= 2 * TOLERANCE[dtype]


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
    torch.testing.assert_close(hidden.grad, only_hidden)  # made by the other way of the two
    assert torch.equal(weight.grad, only_weight)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kept_logits_give_only_the_gradients_that_are_wanted(dtype, device):
    hidden, weight, labels = make(device, dtype)
    hidden, weight = hidden.detach(), weight.detach()
    loss, logits = ops.linear_cross_entropy_logits(hidden, weight, labels, -100)
    assert torch.equal(loss, linear_cross_entropy(hidden, weight, labels))
    inputs = (loss, hidden, weight, labels, logits, -100)
    backward = ops.linear_cross_entropy_logits_backward
    both = backward(*inputs, True, True)
    for wanted in ((True, False), (False, True), (False, False)):
        for one, found, expected in zip(wanted, backward(*inputs, *wanted), both, strict=True):
            assert found.dtype == dtype
            assert torch.equal(found, expected) if one else found.shape == (0,)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("ignore_index", [-100, 4, 1000])
def test_ignored_rows_add_nothing_and_have_no_gradient(ignore_index, rows, device):
    hidden, weight, labels = make(device, torch.float64, rows)
    labels = labels.masked_fill(labels == 4, 5).masked_fill(labels == -100, ignore_index)
    linear_cross_entropy(hidden, weight, labels, ignore_index).backward()
    ignored = labels == ignore_index
    assert not hidden.grad[ignored].any()
    expected = exact(hidden, weight, labels.masked_fill(ignored, -100))
    assert relative_error(hidden.grad, expected[1]) <= 1e-13
    assert relative_error(weight.grad, expected[2]) <= 1e-13


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", ROWS)
def test_ignored_rows_take_no_part_in_a_product(rows, dtype, device):
    hidden, weight, labels = make(device, dtype, rows)
    with torch.no_grad():
        hidden[labels == -100] = torch.nan
    loss = linear_cross_entropy(hidden, weight, labels)
    loss.backward()
    assert loss.isfinite()
    assert weight.grad.isfinite().all()
    assert not hidden.grad[labels == -100].any()
    assert hidden.grad[labels != -100].all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", ROWS)
def test_a_mean_over_nothing_is_nan_and_its_gradients_are_zero_as_torchs(rows, dtype, device):
    hidden, weight, labels = make(device, dtype, rows)
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
@pytest.mark.parametrize("rows", [5, 20])
def test_reads_any_strides(rows, dtype, device):
    hidden = torch.randn(rows, 3, 40, device=device).to(dtype)
    weight = (torch.randn(60, 50, device=device) / 5).to(dtype)
    labels = torch.randint(25, (2 * rows,), device=device)[::2]
    for views in (
        (hidden[:, 1, ::2], weight[:, :20]),
        (hidden[:, 2, :20], weight[::2, ::2][:, :20]),
        (hidden[:, 0], weight.mT[:, :40]),
        (hidden[:1, 0].expand(rows, 40), weight[:, :40]),
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


@pytest.mark.parametrize("hidden_size", [3, 10])
def test_gradients_equal_finite_differences(hidden_size, device):
    hidden, weight, labels = make(device, torch.float64, 4, hidden_size, vocab_size=5)

    def mean(*leaves):
        return linear_cross_entropy(*leaves, labels) / 3

    assert torch.autograd.gradcheck(mean, (hidden, weight))
    assert torch.autograd.gradcheck(mean, (hidden.detach(), weight))
    assert torch.autograd.gradcheck(mean, (hidden, weight.detach()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", ROWS)
def test_a_kept_graph_gives_the_same_gradients_again(rows, dtype, device):
    hidden, weight, labels = make(device, dtype, rows)
    loss = linear_cross_entropy(hidden, weight, labels)
    first = torch.autograd.grad(2 * loss, (hidden, weight), retain_graph=True)
    second = torch.autograd.grad(2 * loss, (hidden, weight))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("rows", ROWS)
def test_gradients_accumulate_over_calls(rows, device):
    hidden, weight, labels = make(device, torch.float64, rows)
    for _ in range(3):
        linear_cross_entropy(hidden, weight, labels).backward()
    for leaf, gradient in zip((hidden, weight), exact(hidden, weight, labels, 3)[1:], strict=True):
        assert relative_error(leaf.grad, gradient) <= 1e-13


@pytest.mark.parametrize("wanted", [0, 1])
@pytest.mark.parametrize("rows", ROWS)
def test_a_second_derivative_is_refused(rows, wanted, device):
    leaves = make(device, torch.float64, rows)
    loss = linear_cross_entropy(*leaves)
    (grad,) = torch.autograd.grad(loss, leaves[wanted], create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        grad.square().sum().backward()


@pytest.mark.parametrize("rows", ROWS)
def test_a_weight_changed_before_the_backward_is_found(rows, device):
    hidden, weight, labels = make(device, torch.float32, rows)
    loss = linear_cross_entropy(hidden, weight, labels)
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [3, 20])
def test_registration_is_sound(rows, dtype, device):
    hidden, weight, labels = make(device, dtype, rows, hidden_size=8, vocab_size=6)
    torch.library.opcheck(linear_cross_entropy, (hidden, weight, labels))
    hidden, weight = hidden.detach(), weight.detach()
    gradients = ops.linear_cross_entropy_gradients
    for wanted in ((True, True), (False, True)):
        torch.library.opcheck(gradients, (hidden, weight, labels, -100, *wanted))
    loss, *found = gradients(hidden, weight, labels, -100, True, True)
    torch.library.opcheck(ops.linear_cross_entropy_backward, (loss, hidden, weight, *found))


@pytest.mark.parametrize("dtype", DTYPES)
def test_registration_with_kept_logits_is_sound(dtype, device):
    hidden, weight, labels = make(device, dtype, rows=3, hidden_size=8, vocab_size=6)
    hidden, weight, labels = hidden.detach(), weight.detach(), labels.clamp_min(0)
    forward = ops.linear_cross_entropy_logits
    torch.library.opcheck(forward, (hidden, weight, labels, -100))
    inputs = (hidden, weight, labels.index_fill(0, labels[:1] * 0, -100))
    loss, logits = forward(*inputs, -100)
    for wanted in ((True, True), (False, True)):
        torch.library.opcheck(
            ops.linear_cross_entropy_logits_backward, (loss, *inputs, logits, -100, *wanted)
        )
