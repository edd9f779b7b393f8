"""Makes the backend mistral_shm known to torch.distributed.

    torch.distributed.init_process_group("mistral_shm")    # also "cpu:mistral_shm,cuda:nccl"

Collectives of CPU tensors among the ranks of one host, through shared memory.
"""

from typing import Any

import torch.distributed

NAME = "mistral_shm"


def register() -> None:
    """Does nothing where torch was built without torch.distributed."""
    if torch.distributed.is_available():
        torch.distributed.Backend.register_backend(
            NAME, _create, extended_api=True, devices=["cpu"]
        )


def _create(options: Any, _: Any) -> Any:
    """The backend of one rank, once all ranks of the group are here."""
    from mistral_ext import _C

    return _C.create_shared_memory_backend(
        options.store,
        options.group_rank,
        options.group_size,
        round(options.timeout.total_seconds() * 1000),
        options.group_id,
    )
