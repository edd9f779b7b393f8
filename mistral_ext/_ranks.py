"""The ranks of a process group, for what spreads weights over them."""

from typing import Any

import torch

from mistral_ext import _C


def as_context(group: Any, function: str) -> "_C.ParallelContext":
    """The ranks of a ProcessGroup, of a DeviceMesh of one dimension, or of the default group.

    group: None for the last. Raises ValueError, naming `function`, for anything else.
    """
    distributed = torch.distributed
    if not distributed.is_available() or not distributed.is_initialized():
        raise ValueError(
            f"{function}: group must be a process group, got {group!r} before"
            " torch.distributed.init_process_group"
        )
    if group is None:
        group = distributed.group.WORLD
    if isinstance(group, distributed.DeviceMesh):
        if group.ndim != 1:
            raise ValueError(
                f"{function}: group must be a mesh of one dimension, got {group.ndim}: name one of"
                " them, mesh['tp']"
            )
        group = group.get_group()
    if not isinstance(group, distributed.ProcessGroup):
        raise ValueError(
            f"{function}: group must be a ProcessGroup or a DeviceMesh that this rank is part of,"
            f" got {type(group).__name__}"
        )
    return _C.ParallelContext(group.group_name)
