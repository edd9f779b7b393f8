"""Dtypes and tolerances the operator tests share."""

import torch

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def smallest_step(dtype: torch.dtype) -> float:
    """The spacing of results below the smallest normal number."""
    info = torch.finfo(dtype)
    return info.smallest_normal * info.eps


def assert_rounded(
    actual: torch.Tensor, oracle: torch.Tensor, roundings: float = 1.0, scale: float | None = None
) -> None:
    """The fp64 oracle, each element of it off by so many units of the last place of its dtype.

    Against elements that cancel, `scale` is the size of the terms they were summed from.
    """
    info = torch.finfo(actual.dtype)
    rtol = roundings * info.eps
    atol = smallest_step(actual.dtype) + (0.0 if scale is None else rtol * scale)
    torch.testing.assert_close(actual.double(), oracle, rtol=rtol, atol=atol)


def assert_dense_like(y: torch.Tensor, x: torch.Tensor) -> None:
    """A contiguous tensor of x's shape and dtype."""
    assert y.dtype == x.dtype
    assert y.shape == x.shape
    assert y.is_contiguous()
