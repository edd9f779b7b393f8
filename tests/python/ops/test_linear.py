"""linear against a product in fp64."""

import pytest
import torch
from helpers.numerics import DTYPES, assert_dense_like

import mistral_ext  # noqa: F401  registers the operators

linear = torch.ops.mistral_ext.linear
linear_backward = torch.ops.mistral_ext.linear_backward

# Around the steps of every vector width, and enough for x to leave the first-level cache.
IN_FEATURES = [1, 7, 16, 31, 32, 33, 64, 100, 576, 4100]
OUT_FEATURES = [1, 3, 16, 17, 50]
# Blocks of 8, 4, 2 and 1 rows; more rows than the kernel for few rows takes.
ROWS = [1, 2, 3, 7, 8, 13, 16, 70]


def assert_equals_product(y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> None:
    """y against x weight^T in fp64, with the error that sums in fp32 may have."""
    exact = x.double() @ weight.double().mT
    magnitude = x.double().abs() @ weight.double().abs().mT
    accumulate = torch.finfo(torch.float64 if y.dtype == torch.float64 else torch.float32).eps
    # One rounding to the dtype, and a random walk of fp32 roundings along the sum: a few units of
    # the sum of the terms' sizes, for up to 4100 terms.
    info = torch.finfo(y.dtype)
    bound = 0.51 * info.eps * exact.abs() + 8 * accumulate * magnitude
    assert ((y.double() - exact).abs() <= bound + info.smallest_normal * info.eps).all()


def make(
    device: torch.device, dtype: torch.dtype, rows: int, in_features: int, out_features: int
) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(rows, in_features, device=device).to(dtype)
    weight = torch.randn(out_features, in_features, device=device).to(dtype)
    return x, weight


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("in_features", IN_FEATURES)
def test_equals_the_oracle(dtype, in_features, device):
    for rows in ROWS:
        for out_features in OUT_FEATURES:
            x, weight = make(device, dtype, rows, in_features, out_features)
            y = linear(x, weight)
            assert y.shape == (rows, out_features)
            assert y.dtype == dtype
            assert y.is_contiguous()
            assert_equals_product(y, x, weight)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("in_features", [131072, 131080, 300000])
@pytest.mark.parametrize("rows", [1, 4, 8])
def test_rows_may_be_longer_than_kernels_have_room_for_sums(dtype, in_features, rows, device):
    x, weight = make(device, dtype, rows, in_features, 5)
    assert_equals_product(linear(x, weight), x, weight)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(64,), (1, 64), (2, 3, 64), (1, 1, 64), (2, 1, 9, 64)])
def test_keeps_the_leading_dimensions(dtype, shape, device):
    x = torch.randn(shape, device=device).to(dtype)
    weight = torch.randn(24, 64, device=device).to(dtype)
    y = linear(x, weight)
    assert y.shape == (*shape[:-1], 24)
    assert_equals_product(y, x, weight)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "in_features", "out_features"), [(0, 8, 4), (2, 0, 4), (2, 8, 0)])
def test_empty_products_are_empty_or_zero(dtype, rows, in_features, out_features, device):
    x, weight = make(device, dtype, rows, in_features, out_features)
    assert_dense_like(linear(x, weight), torch.zeros(rows, out_features, dtype=dtype))
    assert not linear(x, weight).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("in_features", [33, 576, 4100])
def test_few_rows_on_cpu_do_not_depend_on_each_other(dtype, in_features):
    x, weight = make(torch.device("cpu"), dtype, 12, in_features, 50)
    one_by_one = torch.cat([linear(row, weight) for row in x.split(1)])
    # More than 4 rows of many bf16 features are the library's.
    is_wide = dtype == torch.bfloat16 and in_features > 1024
    for rows in (2, 3, 4) if is_wide else (2, 5, 8, 12):
        torch.testing.assert_close(linear(x[:rows], weight), one_by_one[:rows], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_many_outputs_are_shared_among_threads(dtype, device):
    x, weight = make(device, dtype, 2, 576, 5001)
    assert_equals_product(linear(x, weight), x, weight)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_reads_any_strides(dtype, rows, device):
    x, weight = make(device, dtype, rows, 100, 50)
    dense = linear(x[:, :40].contiguous(), weight[:, :40].contiguous())
    torch.testing.assert_close(linear(x[:, :40], weight[:, :40]), dense, rtol=1e-2, atol=1e-1)
    for views in [
        (x[:, 1::2], weight[:, ::2]),
        (x[:, :50], torch.randn(50, 20, device=device).to(dtype).mT),
        (x[:1].expand(rows, 100), weight[:1].expand(7, 100)),
        (torch.randn(4, rows, 9, 64, device=device).to(dtype)[:, :1, -1], weight[::2, :64]),
    ]:
        assert_equals_product(linear(*views), *views)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_infinite_and_nan_weights_stay_where_they_are(dtype, device):
    x, weight = make(device, dtype, 1, 64, 8)
    weight[2, 5], weight[4, 6] = float("inf"), float("nan")
    y = linear(x, weight)[0]
    assert y[2].isinf()
    assert y[4].isnan()
    assert y[[0, 1, 3, 5, 6, 7]].isfinite().all()


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_gradients_equal_finite_differences(shape, device):
    x = torch.randn(shape, dtype=torch.float64, device=device, requires_grad=True)
    weight = torch.randn(4, 5, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradcheck(linear, (x, weight))
    assert torch.autograd.gradcheck(linear, (x, weight.detach()))
    assert torch.autograd.gradcheck(linear, (x.detach(), weight))


@pytest.mark.parametrize("dtype", DTYPES)
def test_backward_equals_the_products_in_fp64(dtype, device):
    x, weight = make(device, dtype, 6, 40, 24)
    grad_y = torch.randn(2, 3, 24, device=device).to(dtype)
    grad_x, grad_weight = linear_backward(grad_y, x.view(2, 3, 40), weight)
    assert_equals_product(grad_x, grad_y, weight.mT)
    assert_equals_product(grad_weight, grad_y.flatten(0, 1).mT, x.mT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_registration_is_sound(dtype, device):
    x, weight = make(device, dtype, 3, 8, 4)
    torch.library.opcheck(linear_backward, (x[:, :4].contiguous(), x, weight))
    torch.library.opcheck(linear, (x.requires_grad_(), weight.requires_grad_()))


X = torch.zeros(2, 8)
W = torch.zeros(4, 8)
BAD = [
    (X.long(), W.long(), "x must be float32, .*, got Long"),
    (torch.tensor(1.0), W, "x must have at least one dimension, got a scalar"),
    (X, W[:, :7], r"weight must have shape \[out_features, 8\], got \[4, 7\]"),
    (X, W[0], r"weight must have shape \[out_features, 8\], got \[8\]"),
    (X, W.half(), "weight must have x's dtype Float, got Half"),
    (X, W.to("meta"), "weight must be on x's device cpu, got meta"),
]


@pytest.mark.parametrize(("x", "weight", "message"), BAD)
def test_refuses_bad_input_by_name(x, weight, message):
    with pytest.raises(ValueError, match=f"^linear: {message}"):
        linear(x, weight)
    with pytest.raises(ValueError, match=f"^linear_backward: {message}"):
        linear_backward(torch.zeros(2, 4), x, weight)


def test_backward_refuses_another_gradient():
    message = r"linear_backward: grad_y must have shape \[2, 4\], got \[2, 8\]"
    with pytest.raises(ValueError, match=message):
        linear_backward(X, X, W)
