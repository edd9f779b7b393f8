"""One text through a model in the ways that must all give the same logits."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedModel


class Batch(NamedTuple):
    """Arguments of forward, and which of its positions hold a token."""

    input_ids: torch.Tensor  # int64 [batch, seq]
    attention_mask: torch.Tensor | None  # int64 [batch, seq]
    position_ids: torch.Tensor | None  # int64 [batch, seq]
    is_token: torch.Tensor  # bool [batch, seq]


def make_batch(input_ids: torch.Tensor, padding: str) -> Batch:
    """padding: none, left or right (half of the first row, one token of the second), or packed."""
    everything = torch.ones_like(input_ids)
    if padding == "none":
        return Batch(input_ids, None, None, everything.bool())
    length = input_ids.shape[1]
    if padding == "packed":
        lengths = (length // 2, 2, length - length // 2 - 2)
        positions = torch.cat([torch.arange(n) for n in lengths]).to(input_ids.device)
        return Batch(input_ids, None, positions.expand_as(input_ids), everything.bool())
    mask = everything.clone()
    for row, count in ((0, length // 2), (1, 1)):
        mask[row, slice(0, count) if padding == "left" else slice(length - count, length)] = 0
    # Positions as generate() makes them.
    positions = (mask.cumsum(1) - 1).clamp_min(0) if padding == "left" else None
    return Batch(input_ids, mask, positions, mask.bool())


def chunk_lengths(length: int, mode: str) -> list[int]:
    """How many tokens enter at a time: one_pass, chunked or token_by_token."""
    if mode == "one_pass":
        return [length]
    if mode == "token_by_token":
        return [1] * length
    lengths = [length // 2 - 1, 1, 1, 3]
    return [*lengths, length - sum(lengths)]


def logits_of(model: PreTrainedModel, batch: Batch, lengths: Sequence[int]) -> torch.Tensor:
    """[batch, seq, vocab_size], from one pass without a cache or from several with one."""
    mask, positions = batch.attention_mask, batch.position_ids
    if len(lengths) == 1:
        with torch.no_grad():
            return model(
                batch.input_ids, attention_mask=mask, position_ids=positions, use_cache=False
            ).logits
    cache, end, logits = None, 0, []
    for count in lengths:
        begin, end = end, end + count
        with torch.no_grad():
            outputs = model(
                batch.input_ids[:, begin:end],
                attention_mask=None if mask is None else mask[:, :end],
                position_ids=None if positions is None else positions[:, begin:end],
                past_key_values=cache,
                use_cache=True,
            )
        cache = outputs.past_key_values
        logits.append(outputs.logits)
    return torch.cat(logits, 1)


def largest_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Relative to the scale of the logits."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def rms_error(logits: torch.Tensor, exact: torch.Tensor) -> float:
    return (logits.float() - exact).square().mean().sqrt().item()
