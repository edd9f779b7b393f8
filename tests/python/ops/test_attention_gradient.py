"""attention's gradients against autograd through the fp64 oracle."""

import pytest
import torch
from helpers.attention import DTYPES, attention_oracle, make_inputs

import mistral_ext  # noqa: F401  registers the operators

attention = torch.ops.mistral_ext.attention
attention_backward = torch.ops.mistral_ext.attention_backward

# Relative to the largest element of each gradient, or to 1, the size of the terms that cancel in
# it: sums of some hundred products in fp32; bf16 and fp16 round the result, the saved output and,
# in the forward pass, the weights.
TOLERANCE = {
    torch.float64: 1e-11,
    torch.float32: 1e-5,
    torch.bfloat16: 2e-2,
    torch.float16: 3e-3,
}


def gradients(function, inputs, grad_output, scale, **arguments):
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    output, _ = function(*leaves, scale, **arguments)
    return torch.autograd.grad(output, leaves, grad_output.to(output.dtype))


def assert_gradients_equal_oracle(inputs, **arguments):
    query = inputs[0]
    scale = query.shape[-1] ** -0.5
    grad_output = torch.randn(query.shape, device=query.device).to(query.dtype)
    ours = gradients(attention, inputs, grad_output, scale, **arguments)
    doubles = [x.double() for x in inputs]
    expected = gradients(attention_oracle, doubles, grad_output, scale, **arguments)
    for name, one, other in zip(("query", "key", "value"), ours, expected, strict=True):
        assert one.dtype == query.dtype
        error = (one.double() - other).abs().max() / other.abs().max().clamp_min(1)
        assert error <= TOLERANCE[query.dtype], f"{name}: {error}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (3, 3), (8, 1)])
@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 130, 300])
def test_prompt(dtype, heads, kv_heads, length, device):
    assert_gradients_equal_oracle(make_inputs(device, dtype, heads, kv_heads, 64, length, length))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [1, 7, 33, 80, 96, 128, 256])
def test_any_head_dim(dtype, head_dim, device):
    assert_gradients_equal_oracle(make_inputs(device, dtype, 6, 2, head_dim, 70, 70))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("query_len", [1, 5, 40, 99])
def test_queries_fewer_than_keys(dtype, query_len, device):
    assert_gradients_equal_oracle(make_inputs(device, dtype, 6, 2, 64, query_len, 200))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [1, 2, 63, 64, 65, 130, 500])
@pytest.mark.parametrize("query_len", [5, 200])
def test_window(dtype, window, query_len, device):
    inputs = make_inputs(device, dtype, 6, 2, 32, query_len, 200)
    assert_gradients_equal_oracle(inputs, sliding_window=window)


@pytest.mark.parametrize("window", [0, 20])
@pytest.mark.parametrize("query_len", [2, 130])
def test_without_causality(window, query_len, device):
    inputs = make_inputs(device, torch.float32, 6, 2, 32, query_len, 130)
    assert_gradients_equal_oracle(inputs, is_causal=False, sliding_window=window)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("query_len", [5, 150])
@pytest.mark.parametrize("kind", ["padding", "keys", "boolean", "additive", "sequences", "all"])
def test_masks(dtype, query_len, kind, device):
    key_len = 150
    inputs = make_inputs(device, dtype, 6, 2, 32, query_len, key_len)
    arguments = {}
    if kind == "padding":
        arguments["mask"] = torch.ones(2, key_len, dtype=torch.bool, device=device)
        arguments["mask"][0, :70] = False
        arguments["mask"][1, -9:] = False
    if kind == "keys":
        arguments["mask"] = torch.randint(0, 2, (2, key_len), device=device)
    if kind in ("boolean", "all"):
        arguments["mask"] = torch.rand(2, 6, query_len, key_len, device=device) > 0.5
    if kind == "additive":
        mask = torch.randn(1, 6, query_len, key_len, device=device).to(dtype)
        mask[torch.rand(mask.shape, device=device) > 0.5] = torch.finfo(dtype).min
        arguments["mask"] = mask
    if kind in ("sequences", "all"):
        arguments["sequence_ids"] = torch.arange(key_len, device=device)[None] // 40
    if kind == "all":
        arguments["sliding_window"] = 65
    assert_gradients_equal_oracle(inputs, **arguments)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("query_len", [1, 5, 150])
def test_row_with_no_visible_key_gives_and_takes_nothing(dtype, query_len, device):
    inputs = make_inputs(device, dtype, 6, 2, 32, query_len, 150)
    mask = torch.ones(2, 150, dtype=torch.bool, device=device)
    mask[1] = False
    grad_output = torch.randn(inputs[0].shape, device=device)
    for gradient in gradients(attention, inputs, grad_output, 0.2, mask=mask):
        assert (gradient[1] == 0).all()
        assert torch.isfinite(gradient).all()
        assert (gradient[0] != 0).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_of_any_strides(dtype, device):
    query, key, value = (
        x.transpose(1, 2).contiguous().transpose(1, 2)
        for x in make_inputs(device, dtype, 6, 2, 32, 70, 70)
    )
    output, logsumexp = attention(query, key, value, 0.2)
    grad_output = torch.randn(query.shape, device=device).to(dtype)
    expected = attention_backward(grad_output, query, key, value, output, logsumexp, 0.2)
    strided = (grad_output.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0), query, key, value)
    output = output.transpose(1, 2).contiguous().transpose(1, 2)
    logsumexp = logsumexp.transpose(1, 2).contiguous().transpose(1, 2)
    ours = attention_backward(*strided, output, logsumexp, 0.2)
    for one, other in zip(ours, expected, strict=True):
        # The reference (fp64, and every dtype on an accelerator) sums in an order that depends on
        # the strides: a few roundings of values of order 1.
        is_reference = dtype == torch.float64 or device.type != "cpu"
        atol = 32 * torch.finfo(dtype).eps if is_reference else 0
        torch.testing.assert_close(one, other, rtol=0, atol=atol)
        assert one.is_contiguous()


@pytest.mark.parametrize("dtype", DTYPES)
def test_expanded_gradient(dtype, device):
    leaves = [x.requires_grad_() for x in make_inputs(device, dtype, 6, 2, 32, 70, 70)]
    attention(*leaves, 0.2)[0].sum().backward()  # its gradient is one element for all
    for leaf in leaves[:2]:
        assert torch.isfinite(leaf.grad).all()
    # Each row's weights add up to 1, and each key's of the three query heads are summed.
    total = leaves[2].grad.double().sum()
    assert abs(total / (2 * 70 * 6 * 32) - 1) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "query_len", "key_len"), [(0, 3, 5), (2, 0, 5), (2, 0, 0)])
def test_empty_inputs_give_zero_gradients(dtype, batch, query_len, key_len, device):
    leaves = make_inputs(device, dtype, 4, 2, 8, query_len, key_len, batch)
    leaves = [x.requires_grad_() for x in leaves]
    attention(*leaves, 1.0)[0].sum().backward()
    for leaf in leaves:
        assert leaf.grad.shape == leaf.shape
        assert (leaf.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_does_not_depend_on_the_number_of_threads(dtype, device):
    inputs = make_inputs(device, dtype, 6, 2, 64, 300, 300)
    grad_output = torch.randn(inputs[0].shape, device=device)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = gradients(attention, inputs, grad_output, 0.2)
        torch.set_num_threads(3)
        several = gradients(attention, inputs, grad_output, 0.2)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(one, several, strict=True))


@pytest.mark.parametrize("needed", [0, 1, 2])
def test_only_the_inputs_that_ask_get_a_gradient(needed, device):
    inputs = list(make_inputs(device, torch.float32, 4, 2, 16, 9, 9))
    inputs[needed].requires_grad_()
    output, logsumexp = attention(*inputs, 0.25)
    assert output.requires_grad
    assert not logsumexp.requires_grad
    output.sum().backward()
    assert [x.grad is not None for x in inputs] == [i == needed for i in range(3)]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"sliding_window": 3},
        {"is_causal": False},
        {"mask": "keys"},
        {"mask": "additive"},
        {"sequence_ids": "packed"},
    ],
    ids=str,
)
def test_gradient_equals_finite_differences(arguments, device):
    inputs = make_inputs(device, torch.float64, 4, 2, 3, 4, 6)
    values = {
        "keys": torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]], device=device),
        "additive": torch.randn(2, 1, 4, 6, dtype=torch.float64, device=device),
        "packed": torch.tensor([[0, 0, 0, 1, 1, 1]], device=device),
    }
    arguments = {
        name: values[value] if isinstance(value, str) else value
        for name, value in arguments.items()
    }
    leaves = [x.requires_grad_() for x in inputs]

    def output(*inputs):
        return attention(*inputs, 0.6, **arguments)[0]

    assert torch.autograd.gradcheck(output, leaves)


def test_a_second_derivative_is_refused_and_not_wrong(device):
    query, key, value = make_inputs(device, torch.float64, 2, 1, 4, 3, 3)
    query.requires_grad_()
    output, _ = torch.ops.mistral_ext.attention(query, key, value, 0.5)
    (gradient,) = torch.autograd.grad(output.sum(), query, create_graph=True)
    with pytest.raises(RuntimeError, match="attention_backward is not implemented"):
        gradient.sum().backward()


def test_a_forward_mode_tangent_is_refused_and_not_dropped(device):
    query, key, value = make_inputs(device, torch.float64, 2, 1, 4, 3, 3)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(query, torch.ones_like(query))
        with pytest.raises(RuntimeError, match="jvp"):
            torch.ops.mistral_ext.attention(dual, key, value, 0.5)
