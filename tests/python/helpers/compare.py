"""What the tests of the Hugging Face classes compare, and which path they look for."""

import torch

import mistral_ext

# fp32 sums of some hundred products in another order.
RELATIVE = 1e-4


def assert_close_to_scale(
    ours: torch.Tensor, theirs: torch.Tensor, where=..., relative: float = RELATIVE
) -> None:
    """The greatest difference is within `relative` of the greatest value."""
    assert ours.shape == theirs.shape
    scale = theirs[where].abs().max()
    error = (ours - theirs)[where].abs().max()
    assert error <= relative * scale, f"error {error:.3g} on a scale of {scale:.3g}"


def assert_ran(model: torch.nn.Module, path: str) -> None:
    """The last call of forward took this path."""
    assert mistral_ext.path_report(model).last_forward.path == path, mistral_ext.path_report(model)
