"""all_reduce among two ranks of one host: through shared memory, and over gloo."""

import json
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import mistral_ext  # noqa: F401  makes mistral_shm known
from benchmarks.table import Table

RANKS = 2
BACKENDS = {"mistral_ext": "mistral_shm", "gloo": "gloo"}
# One row of SmolLM2's, of the 1.1B shape's and of Mistral 7B's hidden states; then 1 and 16 MiB.
FLOATS = [576, 2048, 4096, 1 << 18, 1 << 22]
ROUNDS = 25


def run(quick: bool, seconds: float) -> list[dict[str, Any]]:
    table = Table(
        f"all_reduce among {RANKS} ranks: us a call from Python, and GB/s of the tensor's bytes",
        dtype="s",
        bytes="d",
        mistral_ext=".1f",
        gloo=".1f",
        ratio=".2f",
        mistral_ext_rate=".2f",
        gloo_rate=".2f",
    )
    sizes = [576, 1 << 18] if quick else FLOATS
    # A round's calls: as many as take about this long.
    in_a_round = seconds / ROUNDS / len(sizes) / 4 if seconds else 0.0
    for dtype, floats, times in _in_processes(sizes, in_a_round, 2 if quick else ROUNDS):
        size = floats * getattr(torch, dtype).itemsize
        medians = {name: 1e6 * statistics.median(taken) for name, taken in times.items()}
        table.add(
            dtype=dtype,
            bytes=size,
            **medians,
            ratio=medians["gloo"] / medians["mistral_ext"],
            mistral_ext_rate=size / medians["mistral_ext"] / 1e3,
            gloo_rate=size / medians["gloo"] / 1e3,
            load=os.getloadavg()[0],
            all={name: [1e6 * each for each in taken] for name, taken in times.items()},
        )
    return table.rows


def _in_processes(sizes: list[int], in_a_round: float, rounds: int) -> list[Any]:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=_measure, args=(Path(folder), rank, sizes, in_a_round, rounds))
            for rank in range(RANKS)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        codes = [process.exitcode for process in processes]
        if any(codes):
            raise RuntimeError(f"all_reduce: the ranks must end well, got exit codes {codes}")
        return json.loads((Path(folder) / "found").read_text())


def _measure(folder: Path, rank: int, sizes: list[int], in_a_round: float, rounds: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=RANKS
    )
    groups = {name: dist.new_group(backend=backend) for name, backend in BACKENDS.items()}
    rows = []
    for dtype in ("float32", "bfloat16"):
        for floats in sizes:
            tensor = torch.ones(floats, dtype=getattr(torch, dtype))
            times: dict[str, list[float]] = {name: [] for name in groups}
            calls = {name: _calls(tensor, group, in_a_round) for name, group in groups.items()}
            for _ in range(rounds):
                for name, group in groups.items():
                    times[name].append(_seconds(tensor, group, calls[name]))
            rows.append((dtype, floats, times))
    dist.barrier()
    dist.destroy_process_group()
    if rank == 0:
        (folder / "found").write_text(json.dumps(rows))


def _calls(tensor: torch.Tensor, group: Any, in_a_round: float) -> int:
    """How many calls take so long: the same on each rank."""
    _seconds(tensor, group, 3)
    wanted = torch.tensor(in_a_round / _seconds(tensor, group, 10))
    dist.all_reduce(wanted, dist.ReduceOp.MIN)
    return max(3, min(5000, int(wanted)))


def _seconds(tensor: torch.Tensor, group: Any, calls: int) -> float:
    """Of one call, in the mean."""
    tensor.fill_(0)  # so that sums of sums stay finite
    dist.barrier(group=group)
    start = time.perf_counter()
    for _ in range(calls):
        dist.all_reduce(tensor, group=group)
    return (time.perf_counter() - start) / calls
