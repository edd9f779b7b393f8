"""Whether tensors are ones that our operators take as they are."""

import torch
from torch.autograd import forward_ad

_PLAIN = (torch.Tensor, torch.nn.Parameter)


def is_plain(*tensors: torch.Tensor | None) -> bool:
    """Every tensor is torch's own type (no DTensor, no quantised or fake tensor) or None."""
    return all(tensor is None or type(tensor) in _PLAIN for tensor in tensors)


def records_gradients() -> bool:
    """Whether autograd records: inference mode excludes it, whatever is enabled inside."""
    return torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def transform() -> str:
    """The function transform that is active (functorch, forward-mode autograd), or "".

    Our operators have no rules for them.
    """
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "a torch.func transform is active"
    if forward_ad._current_level >= 0:
        return "forward-mode autograd is active"
    return ""


def operators_apply(*tensors: torch.Tensor | None) -> bool:
    """Our operators can take these tensors: plain, and one dtype and device."""
    if torch.compiler.is_compiling():
        return len({tensor.dtype for tensor in tensors if tensor is not None}) == 1
    if not is_plain(*tensors) or transform():
        return False
    first = tensors[0]
    return all(
        tensor is None or (tensor.dtype == first.dtype and tensor.device == first.device)
        for tensor in tensors
    )


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """What autocast computes in on this device; None where it is off."""
    kind = device.type
    # A tracer cannot look the first up; it only meets devices that have autocast.
    if not torch.compiler.is_compiling() and not torch.amp.is_autocast_available(kind):
        return None
    if not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def kept_positions(indices: torch.Tensor, length: int) -> torch.Tensor:
    """What indexing a dimension of this length by the tensor means: int64 [kept], from 0."""
    if indices.dtype == torch.bool:
        return indices.nonzero().squeeze(1)
    positions = torch.where(indices < 0, indices + length, indices).long()
    # Elsewhere, looking at the values would wait for the device.
    if positions.device.type == "cpu" and ((positions < 0) | (positions >= length)).any():
        raise IndexError(
            f"logits_to_keep must hold positions in [-{length}, {length}), got {indices.tolist()}"
        )
    return positions
