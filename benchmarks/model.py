"""Prefill and decoding, ours beside Hugging Face's with sdpa: same weights, dtype and run."""

import gc
from typing import Any

import torch

import mistral_ext
from benchmarks import models
from benchmarks.table import Table
from mistral_ext.cli import measure

DECODE_PROMPT, NEW_TOKENS = 128, 64
REPEATS = 9


def run(quick: bool, seconds: float) -> list[dict[str, Any]]:
    bandwidth = measure.read_bandwidth()
    table = Table(
        f"tokens/s; memory allows: weights once a step at {bandwidth / 1e9:.1f} GB/s",
        model="s",
        dtype="s",
        task="s",
        mistral_ext=".1f",
        hugging_face=".1f",
        ratio=".2f",
        memory_allows=".1f",
    )
    for name in models.chosen(quick):
        for dtype in (torch.float32, torch.bfloat16):
            _measure(table, name, dtype, bandwidth, quick, seconds)
            gc.collect()
    return table.rows


def _measure(
    table: Table, name: str, dtype: torch.dtype, bandwidth: float, quick: bool, seconds: float
) -> None:
    hf_model = models.MODELS[name](dtype)
    contestants = {"mistral_ext": mistral_ext.from_hf(hf_model), "hugging_face": hf_model}
    vocab_size = hf_model.config.vocab_size
    generator = torch.Generator().manual_seed(0)

    def ids(batch: int, length: int) -> torch.Tensor:
        return torch.randint(vocab_size, (batch, length), generator=generator)

    def compare(task: str, tokens: int, one: Any, limit: float | None) -> None:
        runs = {key: lambda m=model: one(m) for key, model in contestants.items()}
        figures = measure.interleaved(runs, REPEATS, seconds)
        rates = {key: tokens / measure.median(times) for key, times in figures.items()}
        table.add(
            model=name,
            dtype=str(dtype).removeprefix("torch."),
            task=task,
            **rates,
            ratio=rates["mistral_ext"] / rates["hugging_face"],
            memory_allows=limit,
            seconds=figures,
            path=str(mistral_ext.path_report(contestants["mistral_ext"])),
        )

    for model in contestants.values():
        measure.decode_seconds(model, ids(8, 64), 2)  # warms up
    for length in (64,) if quick else (512, 2048):
        prompt = ids(1, length)
        compare(
            f"prefill {length}", length, lambda m, p=prompt: measure.prefill_seconds(m, p), None
        )
    steps = 4 if quick else NEW_TOKENS
    for batch in (1, 8):
        prompt = ids(batch, DECODE_PROMPT)
        limit = batch * bandwidth / measure.bytes_per_token(hf_model)
        compare(
            f"decode x{batch}",
            batch,
            lambda m, p=prompt: measure.decode_seconds(m, p, steps),
            limit,
        )
