"""attention: a window beside full attention, prefill and one decoding step, ours and sdpa."""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

import mistral_ext  # noqa: F401  registers the operators
from benchmarks.table import Table
from mistral_ext.cli import measure

HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128
REPEATS = 15


def run(quick: bool, seconds: float) -> list[dict[str, Any]]:
    keys, window = (256, 32) if quick else (8192, 1024)
    table = Table(
        f"attention: ms; {HEADS} heads, {KV_HEADS} for keys, head_dim {HEAD_DIM}",
        dtype="s",
        queries="d",
        keys="d",
        window="d",
        mistral_ext=".2f",
        sdpa=".2f",
        ratio=".2f",
        of_full=".3f",
    )
    for dtype in (torch.float32, torch.bfloat16):
        for queries in (keys, 1):
            _compare(table, dtype, queries, keys, window, seconds)
    return table.rows


def _compare(
    table: Table, dtype: torch.dtype, queries: int, keys: int, window: int, seconds: float
) -> None:
    query = torch.randn(1, queries, HEADS, HEAD_DIM, dtype=dtype)
    key, value = (torch.randn(1, keys, KV_HEADS, HEAD_DIM, dtype=dtype) for _ in range(2))
    slot = torch.arange(keys)
    visible = {0: None}
    visible[window] = (slot <= slot[-queries:, None]) & (slot > slot[-queries:, None] - window)

    def ours(sliding_window: int) -> None:
        torch.ops.mistral_ext.attention(
            query, key, value, HEAD_DIM**-0.5, True, sliding_window, None, None
        )

    def sdpa(sliding_window: int) -> None:
        mask = visible[sliding_window]
        scaled_dot_product_attention(
            *(x.transpose(1, 2) for x in (query, key, value)),
            attn_mask=mask,
            is_causal=mask is None and queries > 1,
            enable_gqa=True,
        )

    runs = {
        (name, size): lambda call=call, size=size: measure.seconds(lambda: call(size))
        for size in (0, window)
        for name, call in (("mistral_ext", ours), ("sdpa", sdpa))
    }
    with torch.no_grad():
        for warm_up in runs.values():
            warm_up()
        figures = measure.interleaved(runs, REPEATS, seconds)
    times = {run: 1e3 * measure.median(taken) for run, taken in figures.items()}
    for size in (0, window):
        mine, theirs = times["mistral_ext", size], times["sdpa", size]
        table.add(
            dtype=str(dtype).removeprefix("torch."),
            queries=queries,
            keys=keys,
            window=size,
            mistral_ext=mine,
            sdpa=theirs,
            ratio=theirs / mine,
            of_full=mine / times["mistral_ext", 0],
        )
