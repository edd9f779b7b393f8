"""Runs a function in several processes that form a group."""

import datetime
import multiprocessing
import os
import queue
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT = 300.0  # seconds, for a machine that is busy; a hang is an error, never a wait


def run_processes(
    worker: Callable[..., Any], world: int, *arguments: Any, backend: str = "gloo"
) -> list[Any]:
    """[worker(rank, world, *arguments) of each rank]; torch.distributed is set up around it.

    backend: of torch.distributed; with "" the worker sets it up.

    worker: a function of a module that can be imported; it returns what can be pickled, tensors as
        numbers or bytes.

    Raises RuntimeError with the traceback of the first process that failed, or where they are not
    done in time; none outlives the call.
    """
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        # A file in place of a port: nothing to find free, nothing that another could take.
        store = str(Path(folder) / "store")
        processes = [
            context.Process(
                target=_work,
                args=(results, worker, rank, world, store, backend, arguments),
                daemon=True,
            )
            for rank in range(world)
        ]
        for process in processes:
            process.start()
        try:
            return _collect(results, processes)
        finally:
            for process in processes:
                process.kill()
                process.join()


def _collect(results: Any, processes: list[Any]) -> list[Any]:
    found: dict[int, Any] = {}
    deadline = time.monotonic() + TIMEOUT
    while len(found) < len(processes):
        try:
            rank, result, error = results.get(timeout=0.5)
        except queue.Empty:
            missing = [r for r in range(len(processes)) if r not in found]
            dead = [r for r in missing if processes[r].exitcode not in (None, 0)]
            if dead:
                code = processes[dead[0]].exitcode
                raise RuntimeError(f"process {dead[0]} ended with code {code}") from None
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes {missing} took over {TIMEOUT:.0f} s") from None
            continue
        if error:
            raise RuntimeError(f"process {rank} failed:\n{error}")
        found[rank] = result
    return [found[rank] for rank in range(len(processes))]


def _work(
    results: Any,
    worker: Callable[..., Any],
    rank: int,
    world: int,
    store: str,
    backend: str,
    arguments: tuple[Any, ...],
) -> None:
    try:
        os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
        torch.set_num_threads(1)
        if backend:
            dist.init_process_group(
                backend,
                init_method=f"file://{store}",
                rank=rank,
                world_size=world,
                timeout=datetime.timedelta(seconds=TIMEOUT / 2),
            )
        results.put((rank, worker(rank, world, *arguments), ""))
        if backend:
            dist.barrier()
            dist.destroy_process_group()
    except BaseException:
        results.put((rank, None, traceback.format_exc()))
