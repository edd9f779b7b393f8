"""How fast a model runs, and how fast memory lets it."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from transformers import GenerationConfig, PreTrainedModel

# Well beyond any cache.
_BUFFER_BYTES = 1 << 29


def read_bandwidth(repeats: int = 5) -> float:
    """Bytes per second at which all threads together read memory; the best of several runs."""
    buffer = torch.ones(_BUFFER_BYTES // 8, dtype=torch.float64)
    return _BUFFER_BYTES / min(_seconds(buffer.sum) for _ in range(repeats))


def bytes_per_token(model: PreTrainedModel) -> int:
    """Bytes of weights that decoding one token reads: all but the rows of an untied embedding."""
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    total = sum(parameter.nbytes for parameter in model.parameters())
    return total if head is embedding else total - embedding.nbytes


def prefill_seconds(model: PreTrainedModel, input_ids: torch.Tensor) -> float:
    """One pass over input_ids [batch, seq] as generate makes it: with a cache, last logits only."""
    with torch.no_grad():
        return _seconds(
            lambda: model(input_ids=input_ids, use_cache=True, logits_to_keep=1), input_ids.device
        )


def decode_seconds(model: PreTrainedModel, input_ids: torch.Tensor, new_tokens: int) -> float:
    """What generate takes for each of new_tokens greedy tokens after the first.

    The prompt's own time is taken off by another call that makes one token.
    """
    first, all_of_them = (
        _seconds(lambda count=count: _generate(model, input_ids, count), input_ids.device)
        for count in (1, new_tokens + 1)
    )
    return (all_of_them - first) / new_tokens


def _generate(model: PreTrainedModel, input_ids: torch.Tensor, count: int) -> torch.Tensor:
    """Exactly `count` tokens: an end-of-sequence token ends nothing."""
    own = model.generation_config
    model.generation_config = GenerationConfig(
        max_new_tokens=count, do_sample=False, pad_token_id=0
    )
    try:
        return model.generate(input_ids, attention_mask=torch.ones_like(input_ids))
    finally:
        model.generation_config = own


def interleaved(
    contestants: Mapping[str, Callable[[], float]], repeats: int
) -> dict[str, list[float]]:
    """Each contestant's figures, taken in turns after one round that does not count.

    Every other round goes backwards, so that none of them always runs after the same other.
    """
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    for run in contestants.values():
        run()
    for turn in range(repeats):
        names = list(contestants)
        for name in names if turn % 2 == 0 else reversed(names):
            figures[name].append(contestants[name]())
    return figures


def median(figures: list[float]) -> float:
    return statistics.median(figures)


def _seconds(call: Callable[[], object], device: torch.device | None = None) -> float:
    synchronize(device)
    started = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
