"""One call of generate by Hugging Face's class and by ours, around the same parameters."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import transformers
from transformers import LogitsProcessor, LogitsProcessorList, PreTrainedModel

import mistral_ext

# Exactly so many greedy tokens, whatever they are.
PLAIN = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}


class ChangeNothing(LogitsProcessor):
    """One that the C++ loop does not know: with it generate runs Hugging Face's loop."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores


PYTHON_LOOP = {"logits_processor": LogitsProcessorList([ChangeNothing()])}


class Outputs(NamedTuple):
    ours: Any
    theirs: Any
    report: mistral_ext.PathReport  # of our model, after the call


def generate_both(
    hf_model: PreTrainedModel,
    ids: torch.Tensor | None,
    make: Callable[[PreTrainedModel], dict[str, Any]] | None = None,
    **call: Any,
) -> Outputs:
    """Both models' output for generate(ids, **PLAIN, **call), from the same seed.

    make: arguments that are made anew for each model, since they hold a state or the model itself.
    """
    model = mistral_ext.from_hf(hf_model)
    outputs = []
    for each in (model, hf_model):
        torch.manual_seed(0)
        arguments = {**PLAIN, **call, **(make(each) if make else {})}
        outputs.append(each.generate(ids, **arguments))
    return Outputs(*outputs, mistral_ext.path_report(model))


def left_padded(ids: torch.Tensor, *padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, attention mask), both int64 [batch, seq], with so much padding in each row."""
    places = torch.arange(ids.shape[1], device=ids.device)
    mask = places >= torch.tensor(padding, device=ids.device)[:, None]
    return ids.masked_fill(~mask, 0), mask.long()


@contextmanager
def messages() -> Iterator[set[str]]:
    """Fills a set with every warning given and every line that transformers logs meanwhile."""
    found: set[str] = set()

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.add(record.getMessage())

    transformers.utils.logging.warning_once.cache_clear()
    logger, handler = logging.getLogger("transformers"), Keep(logging.WARNING)
    ours = logging.getLogger("mistral_ext")
    for each in (logger, ours):
        each.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield found
        found.update(str(warning.message) for warning in caught)
    finally:
        for each in (logger, ours):
            each.removeHandler(handler)
