"""One training step without the optimizer's, ours beside Hugging Face's with sdpa: time and memory.

Both have the same weights, and take turns in one process for the time. The peak memory of each is
that of a process of its own: `python -m benchmarks.training MODEL DTYPE CONTESTANT CHECKPOINTING`
prints it as a JSON object.
"""

import gc
import json
import sys
from typing import Any

import torch
import transformers

import mistral_ext
from benchmarks import memory, models
from benchmarks.table import Table
from mistral_ext.cli import measure

BATCH, LENGTH = 2, 512
REPEATS = 9
CONTESTANTS = ("mistral_ext", "hugging_face")


def run(quick: bool, seconds: float) -> list[dict[str, Any]]:
    batch, length = (2, 32) if quick else (BATCH, LENGTH)
    table = Table(
        f"seconds for forward and backward of {batch} x {length} tokens; MiB at the peak beyond the"
        " weights",
        model="s",
        dtype="s",
        checkpointing="s",
        mistral_ext=".3f",
        hugging_face=".3f",
        ratio=".2f",
        mistral_ext_MiB=".0f",
        hugging_face_MiB=".0f",
    )
    name = "tiny" if quick else "SmolLM2-135M"
    for dtype in ("float32", "bfloat16"):
        for checkpointing in (False, True):
            figures = _seconds(name, dtype, checkpointing, (batch, length), seconds)
            found = {
                key: memory.in_a_process(
                    "benchmarks.training", name, dtype, key, int(checkpointing), batch, length
                )
                for key in CONTESTANTS
            }
            medians = {key: measure.median(times) for key, times in figures.items()}
            table.add(
                model=name,
                dtype=dtype,
                checkpointing="yes" if checkpointing else "no",
                **medians,
                ratio=medians["hugging_face"] / medians["mistral_ext"],
                **{
                    f"{key}_MiB": (bytes["peak"] - bytes["before"]) / 2**20
                    for key, bytes in found.items()
                },
                seconds=figures,
                bytes=found,
            )
            gc.collect()
    return table.rows


def _seconds(
    name: str, dtype: str, checkpointing: bool, shape: tuple[int, int], seconds: float
) -> dict[str, list[float]]:
    hf_model = models.MODELS[name](getattr(torch, dtype))
    contestants = {"mistral_ext": mistral_ext.from_hf(hf_model), "hugging_face": hf_model}
    for model in contestants.values():
        _prepare(model, checkpointing)
    ids = _ids(hf_model, shape)

    def one(model: transformers.PreTrainedModel) -> float:
        figure = measure.seconds(lambda: _step(model, ids))
        model.zero_grad()
        return figure

    runs = {key: lambda m=model: one(m) for key, model in contestants.items()}
    for once in runs.values():
        once()  # warms up
    return measure.interleaved(runs, REPEATS, seconds)


def _prepare(model: transformers.PreTrainedModel, checkpointing: bool) -> None:
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable()


def _ids(model: transformers.PreTrainedModel, shape: tuple[int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(model.config.vocab_size, shape, generator=generator)


def _step(model: transformers.PreTrainedModel, ids: torch.Tensor) -> None:
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()


def _measure(
    name: str, dtype: str, contestant: str, checkpointing: bool, shape: tuple[int, int]
) -> dict[str, int]:
    model = models.MODELS[name](getattr(torch, dtype))
    if contestant == "mistral_ext":
        model = mistral_ext.from_hf(model)
    _prepare(model, checkpointing)
    ids = _ids(model, shape)
    return memory.peak_of(model, lambda: _step(model, ids))


if __name__ == "__main__":
    name, dtype, contestant, *numbers = sys.argv[1:]
    checkpointing, batch, length = map(int, numbers)
    print(json.dumps(_measure(name, dtype, contestant, bool(checkpointing), (batch, length))))
