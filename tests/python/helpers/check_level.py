"""Every operator with CPU kernels against fp64, small: run under each MISTRAL_EXT_CPU_LEVEL."""

import torch

import mistral_ext  # noqa: F401  registers the operators
from helpers.attention import assert_equals_oracle, make_inputs
from helpers.numerics import DTYPES

ops = torch.ops.mistral_ext


def assert_close(actual: torch.Tensor, oracle: torch.Tensor) -> None:
    """To a few roundings of the dtype, the sizes being about 1."""
    tolerance = 8 * torch.finfo(actual.dtype).eps
    torch.testing.assert_close(actual.double(), oracle, rtol=tolerance, atol=tolerance)


def check(dtype: torch.dtype, width: int) -> None:
    x, up, grad = torch.randn(3, 5, width, dtype=dtype).unbind()
    weight = torch.rand(width, dtype=dtype) + 0.5
    exact = [t.double().requires_grad_() for t in (x, weight)]
    norm = exact[0] * torch.rsqrt(exact[0].square().mean(-1, keepdim=True) + 1e-5) * exact[1]
    assert_close(ops.rms_norm(x, weight, 1e-5), norm)
    y, total = ops.add_rms_norm(x, torch.zeros_like(x), weight, 1e-5)
    assert_close(y, norm)
    assert torch.equal(total, x)
    grads = torch.autograd.grad(norm, exact, grad.double())
    for actual, oracle in zip(ops.rms_norm_backward(grad, x, weight, 1e-5), grads, strict=True):
        assert_close(actual / 4, oracle / 4)

    wide = [t.double().requires_grad_() for t in (x, up)]
    product = torch.nn.functional.silu(wide[0]) * wide[1]
    assert_close(ops.silu_mul(x, up), product)
    grads = torch.autograd.grad(product, wide, grad.double())
    for actual, oracle in zip(ops.silu_mul_backward(grad, x, up), grads, strict=True):
        assert_close(actual, oracle)

    heads = torch.randn(2, 3, 2, 2 * width, dtype=dtype)
    angles = torch.rand(4, width) * 6
    cos, sin = angles.double().cos(), angles.double().sin()
    cos_sin = torch.cat((cos, sin), dim=-1).float()
    positions = torch.tensor([[3, 1, 2]])
    low, high = heads.double().chunk(2, dim=-1)
    cos, sin = (t.double()[positions][:, :, None] for t in cos_sin.chunk(2, dim=-1))
    turned = torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)
    for actual in ops.rotary_embedding(heads, heads, positions, cos_sin):
        assert_close(actual, turned)

    labels = torch.randint(width, (5,))
    labels[1] = -100
    logits = x.double().requires_grad_()
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    assert_close(ops.cross_entropy(x, labels).to(dtype) / 16, loss / 16)
    # With the identity for a head, the gradient of the hidden states is that of the logits.
    head = torch.eye(width, dtype=dtype)
    _, grad, _ = ops.linear_cross_entropy_gradients(x, head, labels, -100, True, False)
    (expected,) = torch.autograd.grad(loss, logits)
    assert_close(grad, expected)
    half = torch.tensor(0.5)
    _, kept = ops.linear_cross_entropy_logits(x, head, labels, -100)
    grad, _ = ops.linear_cross_entropy_logits_backward(
        half, x, head, labels, kept, -100, True, False
    )
    assert_close(grad, expected / 2)

    # Up to what our kernels take in every dtype: wider fp32 products are a library's, on any level.
    for rows in (1, 2, 5, 8, 12):
        x = torch.randn(rows, width, dtype=dtype)
        weight = torch.randn(37, width, dtype=dtype) / width**0.5
        assert_close(ops.linear(x, weight), x.double() @ weight.double().mT)


if __name__ == "__main__":
    torch.manual_seed(0)
    for dtype in DTYPES:
        for width in (1, 31, 64, 100, 576):
            check(dtype, width)
        for query_len in (1, 70):
            inputs = make_inputs(torch.device("cpu"), dtype, 6, 2, 33, query_len, 70)
            assert_equals_oracle(inputs)
