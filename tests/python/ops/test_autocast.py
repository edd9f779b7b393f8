"""Autocast changes nothing inside an operator: it computes in its inputs' dtype."""

import pytest
import torch

import mistral_ext  # noqa: F401  registers the operators

ops = torch.ops.mistral_ext
LABELS = torch.arange(90) % 48

# What is called, and the shapes it is called with.
CALLS = {
    "rms_norm": (lambda x, weight: ops.rms_norm(x, weight, 1e-5), [(3, 32), (32,)]),
    "silu_mul": (ops.silu_mul, [(3, 32), (3, 32)]),
    "linear, few rows": (ops.linear, [(3, 32), (48, 32)]),
    "linear, many rows": (ops.linear, [(90, 32), (48, 32)]),
    "linear_backward": (
        lambda grad, x, weight: ops.linear_backward(grad, x, weight)[1],
        [(90, 48), (90, 32), (48, 32)],
    ),
    "cross_entropy": (lambda x: ops.cross_entropy(x, LABELS.to(x.device)), [(90, 48)]),
    "linear_cross_entropy": (
        lambda x, weight: ops.linear_cross_entropy(x, weight, LABELS.to(x.device)),
        [(90, 32), (48, 32)],
    ),
    "attention": (lambda x: ops.attention(x, x, x, 0.25)[0], [(2, 70, 4, 16)]),
    # fp64 runs the reference in ATen on every device.
    "attention, reference": (
        lambda x: ops.attention(*[x.double()] * 3, 0.25)[0],
        [(2, 70, 4, 16)],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_results_and_dtypes_are_those_without_autocast(name, device):
    call, shapes = CALLS[name]
    inputs = [torch.randn(shape, device=device) for shape in shapes]
    expected = call(*inputs)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        result = call(*inputs)
    assert result.dtype == expected.dtype
    assert torch.equal(result, expected)


@pytest.mark.parametrize("key", ["AutocastCPU", "AutocastCUDA"])
def test_no_operator_is_forgotten(key):
    names = [
        name for name in torch._C._dispatch_get_all_op_names() if name.startswith("mistral_ext::")
    ]
    assert len(names) > 10
    missing = [n for n in names if not torch._C._dispatch_has_kernel_for_dispatch_key(n, key)]
    assert not missing
