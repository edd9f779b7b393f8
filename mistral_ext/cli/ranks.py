"""The command under torchrun: `torchrun --nproc-per-node 2 -m mistral_ext generate ...`."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist


@contextmanager
def joined(device: torch.device) -> Iterator["dist.ProcessGroup | None"]:
    """The group of the processes that torchrun started; None where it did not, or started one.

    device: what the model runs on. On the CPU, processes of one host talk through shared memory.
    Only the first of them writes to standard output and standard error.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield None
        return
    dist.init_process_group(_backend(device))
    if dist.get_rank() != 0:
        # Kept open: they end with the process.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        sys.stderr, messages = open(os.devnull, "w"), sys.stderr  # noqa: SIM115
    try:
        yield dist.group.WORLD
    except BaseException:
        if dist.get_rank() != 0:
            sys.stderr = messages
        raise
    finally:
        dist.destroy_process_group()


def _backend(device: torch.device) -> str:
    if device.type == "cuda":
        return "nccl"
    world = os.environ["WORLD_SIZE"]
    return "mistral_shm" if os.environ.get("LOCAL_WORLD_SIZE") == world else "gloo"


def local_device(device: torch.device) -> torch.device:
    """The accelerator of this process's own, where `device` names none by its number."""
    if device.type == "cpu" or device.index is not None:
        return device
    return torch.device(device.type, int(os.environ.get("LOCAL_RANK", "0")))
