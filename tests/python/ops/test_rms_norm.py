"""rms_norm and add_rms_norm against plain torch in fp64, and Hugging Face's MistralRMSNorm."""

import pytest
import torch
from helpers.numerics import DTYPES, assert_dense_like, assert_rounded
from transformers.models.mistral.modeling_mistral import MistralRMSNorm

import mistral_ext  # noqa: F401  registers the operators

rms_norm = torch.ops.mistral_ext.rms_norm
add_rms_norm = torch.ops.mistral_ext.add_rms_norm

EPS = 1e-5
# Around the width of a vector and of four, empty, one element, one row.
SHAPES = [(1, 1), (3, 7), (1, 576), (2, 3, 64), (5, 67), (7,), (2, 4097), (0, 8), (2, 0, 8), (3, 0)]


def oracle(x: torch.Tensor, weight: torch.Tensor, eps: float = EPS) -> torch.Tensor:
    wide = x.double()
    normalised = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return normalised * weight.double()


def roundings(dtype: torch.dtype) -> float:
    # Half a unit each for the cast before the weight and the product in the 16-bit types; in the
    # others the running sums of up to 4097 squares add a few units.
    return 1.1 if dtype.itemsize == 2 else 16.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_rms_norm_equals_the_oracle(dtype, shape, device):
    x = torch.randn(shape, dtype=dtype, device=device)
    weight = torch.randn(shape[-1], dtype=dtype, device=device)
    y = rms_norm(x, weight, EPS)
    assert_dense_like(y, x)
    assert_rounded(y, oracle(x, weight), roundings(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_add_rms_norm_is_the_norm_of_the_rounded_sum(dtype, shape, device):
    x = torch.randn(shape, dtype=dtype, device=device)
    residual = torch.randn(shape, dtype=dtype, device=device)
    weight = torch.randn(shape[-1], dtype=dtype, device=device)
    y, total = add_rms_norm(x, residual, weight, EPS)
    assert_dense_like(y, x)
    assert total.is_contiguous()
    torch.testing.assert_close(total, x + residual, rtol=0, atol=0)
    assert_rounded(y, oracle(total, weight), roundings(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_casts_before_the_product_with_the_weight_as_hugging_face_does(dtype, device):
    module = MistralRMSNorm(576, eps=EPS).to(device=device, dtype=dtype)
    torch.nn.init.normal_(module.weight)
    x = torch.randn(50, 576, dtype=dtype, device=device)
    with torch.no_grad():
        expected = module(x)
        y = rms_norm(x, module.weight, EPS)
    # The reciprocal root may differ in its last bit of fp32, which turns a rounding now and then.
    assert (y != expected).float().mean() < 0.01
    torch.testing.assert_close(y, expected, rtol=2 * torch.finfo(dtype).eps, atol=0)


def test_equals_hugging_face_in_fp32(device):
    module = MistralRMSNorm(576, eps=EPS).to(device)
    torch.nn.init.normal_(module.weight)
    x = torch.randn(2, 9, 576, device=device)
    with torch.no_grad():
        torch.testing.assert_close(rms_norm(x, module.weight, EPS), module(x), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_any_strides(dtype, device):
    wide = torch.randn(4, 3, 2 * 40, dtype=dtype, device=device)
    weight = torch.randn(80, dtype=dtype, device=device)[::2]
    views = [wide[..., 40:], wide[..., ::2], wide.transpose(0, 1)[..., :40], wide[:, 1:2, :40]]
    for x in [*views, wide[0, :, :40].expand(4, 3, 40)]:
        dense = rms_norm(x.contiguous(), weight.contiguous(), EPS)
        torch.testing.assert_close(rms_norm(x, weight, EPS), dense, rtol=0, atol=0)
        both = add_rms_norm(x, x.flip(0), weight, EPS)
        dense = add_rms_norm(x.contiguous(), x.flip(0), weight.contiguous(), EPS)
        torch.testing.assert_close(both, dense, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_large_and_tiny_rows_stay_finite(dtype, device):
    weight = torch.ones(64, dtype=dtype, device=device)
    x = torch.tensor([[3e4], [1e-4], [0.0]], device=device).to(dtype).expand(3, 64)
    y = rms_norm(x, weight, 1e-6)
    assert_rounded(y, oracle(x, weight, 1e-6), 4.0)


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 20), (1, 3), (40, 6)])
def test_gradients_equal_finite_differences(shape, device):
    def make(*size: int) -> torch.Tensor:
        return torch.randn(*size, dtype=torch.float64, device=device, requires_grad=True)

    x, residual, weight = make(*shape), make(*shape), make(shape[-1])
    assert torch.autograd.gradcheck(rms_norm, (x, weight, EPS))
    assert torch.autograd.gradcheck(add_rms_norm, (x, residual, weight, EPS))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 7), (70, 65), (2, 3, 576), (0, 8)])
def test_backwards_equal_the_gradient_in_fp64(dtype, shape, device):
    x, grad_y, grad_sum = torch.randn(3, *shape, dtype=dtype, device=device).unbind()
    weight = torch.randn(shape[-1], dtype=dtype, device=device)
    wide, wide_weight = x.double().requires_grad_(), weight.double().requires_grad_()
    expected = torch.autograd.grad(oracle(wide, wide_weight), (wide, wide_weight), grad_y.double())
    grads = torch.ops.mistral_ext.rms_norm_backward(grad_y, x, weight, EPS)
    # The normalised input enters the weight's gradient rounded, as the forward used it.
    assert_rounded(grads[0], expected[0], 16.0, scale=1.0)
    assert_rounded(grads[1], expected[1], 16.0, scale=shape[0] ** 0.5)
    fused = torch.ops.mistral_ext.add_rms_norm_backward(grad_y, grad_sum, x, weight, EPS)
    assert_rounded(fused[0], expected[0] + grad_sum.double(), 16.0, scale=1.0)
    torch.testing.assert_close(fused[1], grads[1], rtol=0, atol=0)


def test_a_second_derivative_is_refused_and_not_wrong(device):
    x = torch.randn(3, 4, dtype=torch.float64, device=device, requires_grad=True)
    weight = torch.ones(4, dtype=torch.float64, device=device)
    (grad,) = torch.autograd.grad(rms_norm(x, weight, EPS).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="rms_norm_backward is not implemented"):
        grad.sum().backward()


def test_records_no_graph_where_nothing_requires_a_gradient(device):
    x, weight = torch.randn(2, 4, device=device), torch.ones(4, device=device)
    assert rms_norm(x, weight, EPS).grad_fn is None
    with torch.no_grad():
        assert rms_norm(x, weight.clone().requires_grad_(), EPS).grad_fn is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_registration_is_sound(dtype, device):
    def make(*size: int, grad: bool = True) -> torch.Tensor:
        return torch.randn(*size, dtype=dtype, device=device, requires_grad=grad)

    torch.library.opcheck(rms_norm, (make(2, 3, 8), make(8), EPS))
    torch.library.opcheck(add_rms_norm, (make(2, 3, 8), make(2, 3, 8), make(8), EPS))
    dense = [make(2, 8, grad=False) for _ in range(3)]
    weight = make(8, grad=False)
    torch.library.opcheck(torch.ops.mistral_ext.rms_norm_backward, (*dense[:2], weight, EPS))
    torch.library.opcheck(torch.ops.mistral_ext.add_rms_norm_backward, (*dense, weight, EPS))


X = torch.zeros(2, 8)
BAD = [
    ((X.long(), torch.zeros(8).long(), EPS), "x must be float32, .*, got Long"),
    ((torch.tensor(1.0), torch.zeros(1), EPS), "x must have at least one dimension"),
    ((X, torch.zeros(7), EPS), r"weight must have shape \[8\], got \[7\]"),
    ((X, torch.zeros(1, 8), EPS), r"weight must have shape \[8\], got \[1, 8\]"),
    ((X, torch.zeros(8).half(), EPS), "weight must have x's dtype Float, got Half"),
    ((X, torch.zeros(8, device="meta"), EPS), "weight must be on x's device cpu, got meta"),
    ((X, torch.zeros(8), -1.0), "eps must be finite and not negative, got -1"),
    ((X, torch.zeros(8), float("nan")), "eps must be finite and not negative, got nan"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_refuses_bad_input_by_name(arguments, message):
    x, weight, eps = arguments
    with pytest.raises(ValueError, match=f"^rms_norm: {message}"):
        rms_norm(x, weight, eps)
    with pytest.raises(ValueError, match=f"add_rms_norm: {message}"):
        add_rms_norm(x, x, weight, eps)


def test_add_rms_norm_refuses_another_residual():
    with pytest.raises(ValueError, match=r"residual must have x's shape \[2, 8\], got \[1, 8\]"):
        add_rms_norm(X, X[:1], torch.zeros(8), EPS)
    with pytest.raises(ValueError, match="residual must have x's dtype Float, got Double"):
        add_rms_norm(X, X.double(), torch.zeros(8), EPS)
