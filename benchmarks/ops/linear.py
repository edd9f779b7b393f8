"""linear beside torch's, and what reading the weight once takes."""

from typing import Any

import torch

import mistral_ext  # noqa: F401  registers the operators
from benchmarks.table import Table
from mistral_ext.cli import measure

# (in_features, out_features) of SmolLM2's and of the 1.1B shape's MLP and head.
SHAPES = [(576, 1536), (576, 49152), (2048, 5632), (5632, 2048), (2048, 32000)]
ROWS = [1, 2, 4, 8, 16, 64, 512]
REPEATS = 15

# Weights take turns, so that none is still in a cache when it is read again.
BYTES_IN_TURN = 256 << 20


def run(quick: bool, seconds: float) -> list[dict[str, Any]]:
    bandwidth = measure.read_bandwidth()
    table = Table(
        f"linear: us; memory allows: the weight once at {bandwidth / 1e9:.1f} GB/s",
        dtype="s",
        rows="d",
        into="d",
        out="d",
        mistral_ext=".1f",
        torch=".1f",
        ratio=".2f",
        memory_allows=".1f",
    )
    shapes, row_counts = ([(256, 512)], [1, 8]) if quick else (SHAPES, ROWS)
    for dtype in (torch.float32, torch.bfloat16):
        for into, out in shapes:
            weights = _weights(into, out, dtype, 1 << 20 if quick else BYTES_IN_TURN)
            for rows in row_counts:
                _compare(table, rows, weights, bandwidth, seconds / 10)
    return table.rows


def _weights(into: int, out: int, dtype: torch.dtype, total: int) -> list[torch.Tensor]:
    count = max(2, total // (into * out * dtype.itemsize))
    first = torch.randn(out, into, dtype=dtype)
    return [first.clone() for _ in range(count)]


def _compare(
    table: Table, rows: int, weights: list[torch.Tensor], bandwidth: float, seconds: float
) -> None:
    out, into = weights[0].shape
    dtype = weights[0].dtype
    x = torch.randn(rows, into, dtype=dtype)
    operators = {
        "mistral_ext": torch.ops.mistral_ext.linear,
        "torch": torch.nn.functional.linear,
    }
    turns = weights if rows < 64 else weights[:2]

    def time_of(operator: Any) -> float:
        def call() -> None:
            for weight in turns:
                operator(x, weight)

        return measure.seconds(call) / len(turns)

    runs = {name: lambda op=op: time_of(op) for name, op in operators.items()}
    with torch.no_grad():
        for warm_up in runs.values():
            warm_up()
        figures = measure.interleaved(runs, REPEATS, seconds)
    times = {name: 1e6 * measure.median(taken) for name, taken in figures.items()}
    table.add(
        dtype=str(dtype).removeprefix("torch."),
        rows=rows,
        into=into,
        out=out,
        **times,
        ratio=times["torch"] / times["mistral_ext"],
        memory_allows=1e6 * weights[0].nbytes / bandwidth,
    )
