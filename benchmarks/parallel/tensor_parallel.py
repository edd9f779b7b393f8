"""A model on two ranks of one thread each, and on one process of two threads."""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import mistral_ext
from benchmarks import models
from benchmarks.table import Table

RANKS = 2
PROMPT, TOKENS, BATCHES = 512, 16, (1, 8)


def run(quick: bool, seconds: float) -> list[dict[str, Any]]:
    table = Table(
        f"tokens/s of {RANKS} ranks of one thread (mistral_shm) and of one process of {RANKS}",
        model="s",
        dtype="s",
        task="s",
        ranks=".1f",
        one_process=".1f",
        ratio=".2f",
    )
    name = "tiny" if quick else "1.1B"
    threads = torch.get_num_threads()
    torch.set_num_threads(RANKS)
    try:
        for dtype in ("float32", "bfloat16"):
            _compare(table, name, dtype, seconds / 2)
    finally:
        torch.set_num_threads(threads)
    return table.rows


def _compare(table: Table, name: str, dtype: str, seconds: float) -> None:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        models.MODELS[name](getattr(torch, dtype)).save_pretrained(folder)
        pipes = [context.Pipe() for _ in range(RANKS)]
        processes = [
            context.Process(target=_rank, args=(folder, rank, pipes[rank][1]), daemon=True)
            for rank in range(RANKS)
        ]
        for process in processes:
            process.start()
        try:
            ends = [ours for ours, _ in pipes]
            model = mistral_ext.MistralForCausalLM.from_pretrained(folder, dtype="auto")
            for task, count, work in _tasks(model.config.vocab_size):
                times = _in_turns(
                    {
                        "ranks": lambda task=task: _ask(ends, task),
                        "one_process": lambda work=work: work(model),
                    },
                    seconds / 3,
                )
                rates = {key: count / statistics.median(taken) for key, taken in times.items()}
                table.add(
                    model=name,
                    dtype=dtype,
                    task=task,
                    **rates,
                    ratio=rates["ranks"] / rates["one_process"],
                    seconds=times,
                )
        finally:
            for process in processes:
                process.kill()
                process.join()


def _in_turns(
    contestants: dict[str, Callable[[], float]], seconds: float
) -> dict[str, list[float]]:
    """Warm, then at least three times each, and as often as there is time for."""
    for measure in contestants.values():
        measure()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    end = time.monotonic() + seconds
    while len(times["ranks"]) < 3 or time.monotonic() < end:
        for name, measure in contestants.items():
            times[name].append(measure())
    return times


Task = tuple[str, int, Callable[[Any], float]]


def _tasks(vocab_size: int) -> list[Task]:
    """(name, tokens, what takes a model and returns the seconds that count)"""
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(3, vocab_size, (1, PROMPT), generator=generator)
    tasks: list[Task] = [(f"prefill {PROMPT}", PROMPT, lambda model: _prefill(model, prompt))]
    for batch in BATCHES:
        rows = torch.randint(3, vocab_size, (batch, 16), generator=generator)
        tasks.append(
            (f"decode x{batch}", batch * TOKENS, lambda model, rows=rows: _decode(model, rows))
        )
    return tasks


def _prefill(model: Any, prompt: torch.Tensor) -> float:
    start = time.perf_counter()
    with torch.no_grad():
        model(prompt, logits_to_keep=1, use_cache=False)
    return time.perf_counter() - start


def _decode(model: Any, rows: torch.Tensor) -> float:
    """Of the tokens behind the first."""
    taken = []
    for tokens in (1, 1 + TOKENS):
        start = time.perf_counter()
        model.generate(
            rows, max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        taken.append(time.perf_counter() - start)
    return taken[1] - taken[0]


def _ask(ends: list[Connection], task: str) -> float:
    for end in ends:
        end.send(task)
    return max(end.recv() for end in ends)


def _rank(folder: str, rank: int, end: Connection) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "mistral_shm", init_method=f"file://{Path(folder)}/store", rank=rank, world_size=RANKS
    )
    model = mistral_ext.MistralForCausalLM.from_pretrained(folder, tp_group=dist.group.WORLD)
    work = {name: run for name, _, run in _tasks(model.config.vocab_size)}
    while True:
        end.send(work[end.recv()](model))
