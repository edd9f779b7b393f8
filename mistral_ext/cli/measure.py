"""How fast a model runs, and how fast memory lets it."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

# Well beyond any cache.
_BUFFER_BYTES = 1 << 29


def read_bandwidth(repeats: int = 5) -> float:
    """Bytes per second at which all threads together read memory; the best of several runs."""
    buffer = torch.ones(_BUFFER_BYTES // 8, dtype=torch.float64)
    return _BUFFER_BYTES / min(seconds(buffer.sum) for _ in range(repeats))


def bytes_per_token(model: PreTrainedModel) -> int:
    """Bytes of weights that decoding one token reads: all but the rows of an untied embedding."""
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    total = sum(parameter.nbytes for parameter in model.parameters())
    return total if head is embedding else total - embedding.nbytes


def prefill_seconds(model: PreTrainedModel, input_ids: torch.Tensor) -> float:
    """One pass over input_ids [batch, seq] as generate makes it: with a cache, last logits only."""
    with torch.no_grad():
        return seconds(
            lambda: model(input_ids=input_ids, use_cache=True, logits_to_keep=1), input_ids.device
        )


def decode_seconds(model: PreTrainedModel, input_ids: torch.Tensor, new_tokens: int) -> float:
    """What generate takes for each of new_tokens greedy tokens after the first."""
    clock = _TokenClock()
    own = model.generation_config
    # Exactly so many tokens: an end-of-sequence token ends nothing.
    model.generation_config = GenerationConfig(max_new_tokens=new_tokens + 1, pad_token_id=0)
    try:
        model.generate(input_ids, attention_mask=torch.ones_like(input_ids), streamer=clock)
    finally:
        model.generation_config = own
    _prompt, first, *_, last = clock.times
    return (last - first) / new_tokens


class _TokenClock(BaseStreamer):
    """A streamer that notes when the prompt and each token came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def interleaved(
    contestants: Mapping[Any, Callable[[], float]], repeats: int, seconds: float = math.inf
) -> dict[Any, list[float]]:
    """Each contestant's figures, taken in turns: two of each, and more within `seconds`.

    Every other round goes backwards, so that none of them always runs after the same other. Nothing
    warms up: let each run once before.
    """
    figures: dict[Any, list[float]] = {name: [] for name in contestants}
    started = time.perf_counter()
    for turn in range(repeats):
        if turn >= 2 and time.perf_counter() - started > seconds:
            break
        names = list(contestants)
        for name in names if turn % 2 == 0 else reversed(names):
            figures[name].append(contestants[name]())
    return figures


def median(figures: list[float]) -> float:
    return statistics.median(figures)


def seconds(call: Callable[[], object], device: torch.device | None = None) -> float:
    synchronize(device)
    started = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
