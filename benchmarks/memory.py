"""Peak memory of a prefill and some decoding steps, each contestant in a process of its own.

`python -m benchmarks.memory MODEL DTYPE CONTESTANT LENGTH` is such a process: it prints a JSON
object.
"""

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import mistral_ext
from benchmarks import models
from benchmarks.table import Table
from mistral_ext.cli import measure

NEW_TOKENS = 8


def run(quick: bool, seconds: float) -> list[dict[str, Any]]:
    table = Table(
        "MiB at the peak, beyond the weights; the last column is the weights",
        model="s",
        dtype="s",
        prompt="d",
        mistral_ext=".0f",
        hugging_face=".0f",
        weights=".0f",
    )
    for name in models.chosen(quick):
        for dtype in ("float32", "bfloat16"):
            for length in (64,) if quick else (512, 2048):
                found = {
                    key: in_a_process("benchmarks.memory", name, dtype, key, length)
                    for key in ("mistral_ext", "hugging_face")
                }
                weights = found["mistral_ext"]["weights"]
                table.add(
                    model=name,
                    dtype=dtype,
                    prompt=length,
                    **{key: (f["peak"] - f["before"]) / 2**20 for key, f in found.items()},
                    weights=weights / 2**20,
                    bytes=found,
                )
    return table.rows


def in_a_process(module: str, *arguments: Any) -> dict[str, int]:
    """The JSON object that `python -m module arguments` prints last."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    output = subprocess.run(
        command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, check=True
    ).stdout
    return json.loads(output.splitlines()[-1])


def peak_of(model: torch.nn.Module, work: Callable[[], object]) -> dict[str, int]:
    """Bytes: of the parameters, resident before `work`, and the most during it."""
    weights = sum(parameter.nbytes for parameter in model.parameters())
    for parameter in model.parameters():
        parameter.sum()  # a mapped file enters memory when it is first read
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    work()
    return {"weights": weights, "before": before, "peak": resident("VmHWM")}


def resident(field: str) -> int:
    """VmRSS or VmHWM, its peak, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def _measure(name: str, dtype: str, contestant: str, length: int) -> dict[str, int]:
    model = models.MODELS[name](getattr(torch, dtype))
    ids = torch.randint(model.config.vocab_size, (1, length))

    def work() -> None:
        runner = mistral_ext.from_hf(model) if contestant == "mistral_ext" else model
        measure.decode_seconds(runner, ids, NEW_TOKENS)

    return peak_of(model, work)


if __name__ == "__main__":
    name, dtype, contestant, length = sys.argv[1:]
    print(json.dumps(_measure(name, dtype, contestant, int(length))))
