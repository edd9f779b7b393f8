"""silu_mul against plain torch in fp64."""

import pytest
import torch
from helpers.numerics import DTYPES, assert_dense_like, assert_rounded, smallest_step

import mistral_ext  # noqa: F401  registers the operators

silu_mul = torch.ops.mistral_ext.silu_mul

SHAPES = [(), (0,), (1,), (7, 33), (1, 1536), (2, 3, 64), (2, 40_000), (2, 0, 3)]


def oracle(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.silu(gate.double()) * up.double()


def roundings(dtype: torch.dtype) -> float:
    # One rounding of the result in the 16-bit types; e^-z, the sum, the quotient and the product in
    # the others.
    return 0.51 if dtype.itemsize == 2 else 4.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_oracle(dtype, shape, device):
    gate, up = (4 * torch.randn(2, *shape, dtype=dtype, device=device)).unbind()
    y = silu_mul(gate, up)
    assert_dense_like(y, gate)
    assert_rounded(y, oracle(gate, up), roundings(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_gates_neither_overflow_nor_turn_into_nan(dtype, device):
    top = min(torch.finfo(dtype).max, 1e30)
    gate = torch.tensor([-top, -1e4, -200.0, -90.0, -20.0, 0.0, 20.0, 90.0, 1e4], device=device)
    gate = gate.double().to(dtype)
    y = silu_mul(gate, torch.ones_like(gate))
    # fp32's exponential ends at e^88: what is smaller than that is 0.
    expected = oracle(gate, torch.ones_like(gate))
    atol = max(1e-36, smallest_step(dtype))
    torch.testing.assert_close(y.double(), expected, rtol=4 * torch.finfo(dtype).eps, atol=atol)
    grads = torch.ops.mistral_ext.silu_mul_backward(torch.ones_like(gate), gate, gate.clamp(-9, 9))
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_any_strides(dtype, device):
    wide = torch.randn(4, 3, 2 * 40, dtype=dtype, device=device)
    halves = wide.chunk(2, dim=-1)  # the two halves of one product, gate beside up
    views = [halves, (wide[..., ::2], wide[..., 1::2]), (halves[0].mT, halves[1].mT)]
    views.append((halves[0], halves[1].contiguous()))
    for gate, up in views:
        dense = silu_mul(gate.contiguous(), up.contiguous())
        torch.testing.assert_close(silu_mul(gate, up), dense, rtol=0, atol=0)


def test_gradient_equals_finite_differences(device):
    gate, up = torch.randn(2, 5, 3, dtype=torch.float64, device=device).unbind()
    assert torch.autograd.gradcheck(silu_mul, (gate.requires_grad_(), up.requires_grad_()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(0,), (3, 7), (2, 576)])
def test_backward_equals_the_gradient_in_fp64(dtype, shape, device):
    gate, up, grad_y = torch.randn(3, *shape, dtype=dtype, device=device).unbind()
    wide = [x.double().requires_grad_() for x in (gate, up)]
    expected = torch.autograd.grad(oracle(*wide), wide, grad_y.double())
    grads = torch.ops.mistral_ext.silu_mul_backward(grad_y, gate, up)
    for grad, exact in zip(grads, expected, strict=True):
        assert_rounded(grad, exact, 4.0, scale=1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_registration_is_sound(dtype, device):
    gate, up, grad_y = torch.randn(3, 2, 8, dtype=dtype, device=device).unbind()
    torch.library.opcheck(torch.ops.mistral_ext.silu_mul_backward, (grad_y, gate, up))
    torch.library.opcheck(silu_mul, (gate.clone().requires_grad_(), up.clone().requires_grad_()))


X = torch.zeros(2, 8)
BAD = [
    (X.long(), X.long(), "gate must be float32, .*, got Long"),
    (X, X[:1], r"up must have gate's shape \[2, 8\], got \[1, 8\]"),
    (X, X.half(), "up must have gate's dtype Float, got Half"),
    (X, X.to("meta"), "up must be on gate's device cpu, got meta"),
]


@pytest.mark.parametrize(("gate", "up", "message"), BAD)
def test_refuses_bad_input_by_name(gate, up, message):
    with pytest.raises(ValueError, match=f"^silu_mul: {message}"):
        silu_mul(gate, up)


def test_backward_refuses_another_gradient():
    with pytest.raises(ValueError, match="silu_mul_backward: grad_y must have gate's shape"):
        torch.ops.mistral_ext.silu_mul_backward(X[0], X, X)
