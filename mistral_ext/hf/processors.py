"""Hugging Face's logits processors in the terms of the C++ loop."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.generation import (
    EpsilonLogitsWarper,
    EtaLogitsWarper,
    ExponentialDecayLengthPenalty,
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    InfNanRemoveLogitsProcessor,
    LogitNormalization,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopHLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)


@dataclass(frozen=True)
class Call:
    """What a processor's settings are compared with."""

    eos_token_ids: frozenset[int]
    prompt_length: int
    max_length: int
    vocab_size: int
    min_tokens_to_keep: int  # what the C++ loop's warpers leave at least

    def knows(self, token_ids: Any) -> bool:
        return all(0 <= token < self.vocab_size for token in token_ids)


# A reader gives the arguments of _C.GenerationConfig that a processor stands for, or None where it
# has settings that the C++ loop lacks; among them such as are an error once it runs.
Arguments = dict[str, Any] | None


def _ids(tokens: torch.Tensor) -> list[int] | None:
    """None where they are no integers: an empty list is of floats, in torch."""
    if tokens.numel() == 0:
        return []
    return None if tokens.is_floating_point() else tokens.flatten().tolist()


def _has_the_ends(processor: Any, call: Call) -> bool:
    ids = _ids(processor.eos_token_id)
    return ids is not None and set(ids) == call.eos_token_ids


def _sequence_bias(processor: SequenceBiasLogitsProcessor, call: Call) -> Arguments:
    biases = processor.sequence_bias
    if not all(ids and call.knows(ids) for ids in biases):
        return None
    return {"sequence_bias": [(list(ids), float(bias)) for ids, bias in biases.items()]}


def _repetition_penalty(processor: RepetitionPenaltyLogitsProcessor, call: Call) -> Arguments:
    if processor.prompt_ignore_length:
        return None
    return {"repetition_penalty": processor.penalty}


def _no_repeat_ngram_size(processor: NoRepeatNGramLogitsProcessor, call: Call) -> Arguments:
    return {"no_repeat_ngram_size": processor.ngram_size}


def _bad_words_ids(processor: NoBadWordsLogitsProcessor, call: Call) -> Arguments:
    words = [list(ids) for ids in processor.sequence_bias]
    ends = ([end] for end in call.eos_token_ids)
    # The C++ loop leaves out the ends by itself.
    if not all(word and call.knows(word) for word in words) or any(end in words for end in ends):
        return None
    return {"bad_words_ids": words}


def _min_length(processor: MinLengthLogitsProcessor, call: Call) -> Arguments:
    if not _has_the_ends(processor, call):
        return None
    return {"min_length": processor.min_length}


def _min_new_tokens(processor: MinNewTokensLengthLogitsProcessor, call: Call) -> Arguments:
    if not _has_the_ends(processor, call):
        return None
    # The same bound in columns of the sequences.
    return {"min_length": processor.prompt_length_to_skip + processor.min_new_tokens}


def _forced_bos(processor: ForcedBOSTokenLogitsProcessor, call: Call) -> Arguments:
    token = processor.bos_token_id
    if type(token) is not int or not call.knows([token]):
        return None
    return {"forced_bos_token_id": token}


def _forced_eos(processor: ForcedEOSTokenLogitsProcessor, call: Call) -> Arguments:
    tokens = _ids(processor.eos_token_id)
    if tokens is None or not call.knows(tokens) or processor.max_length != call.max_length:
        return None
    return {"forced_eos_token_ids": tokens}


def _remove_invalid_values(processor: InfNanRemoveLogitsProcessor, call: Call) -> Arguments:
    return {"remove_invalid_values": True}


def _exponential_decay(processor: ExponentialDecayLengthPenalty, call: Call) -> Arguments:
    start, factor = processor.regulation_start, processor.regulation_factor
    if type(start) is not int or type(factor) is not float:
        return None
    if not _has_the_ends(processor, call) or not call.knows(call.eos_token_ids):
        return None
    return {"exponential_decay_length_penalty": (start - call.prompt_length, factor)}


def _suppress_tokens(processor: SuppressTokensLogitsProcessor, call: Call) -> Arguments:
    tokens = _ids(processor.suppress_tokens)
    return None if tokens is None else {"suppress_tokens": tokens}


def _suppress_at_begin(processor: SuppressTokensAtBeginLogitsProcessor, call: Call) -> Arguments:
    tokens = _ids(processor.begin_suppress_tokens)
    if tokens is None or type(processor.begin_index) is not int:
        return None
    return {"begin_suppress_tokens": tokens, "begin_index": processor.begin_index}


def _temperature(processor: TemperatureLogitsWarper, call: Call) -> Arguments:
    return {"temperature": processor.temperature}


def _warper(name: str, attribute: str = "") -> Callable[[Any, Call], Arguments]:
    """The reader of a warper that has one number."""

    def read(processor: Any, call: Call) -> Arguments:
        at_least = getattr(processor, "min_tokens_to_keep", call.min_tokens_to_keep)
        if at_least != call.min_tokens_to_keep or processor.filter_value != -float("inf"):
            return None
        value = getattr(processor, attribute or name)
        return None if name == "top_p" and value == 0.0 else {name: value}

    return read


def _eta_cutoff(processor: EtaLogitsWarper, call: Call) -> Arguments:
    arguments = _warper("eta_cutoff", "epsilon")(processor, call)
    return arguments and {"eta_cutoff": arguments["eta_cutoff"].item()}


def _renormalize_logits(processor: LogitNormalization, call: Call) -> Arguments:
    return {"renormalize_logits": True}


# In the order in which the C++ loop applies them, which is the order that generate lists them in.
# Known by exact type: a subclass may do anything.
READERS: dict[type, Callable[[Any, Call], Arguments]] = {
    SequenceBiasLogitsProcessor: _sequence_bias,
    RepetitionPenaltyLogitsProcessor: _repetition_penalty,
    NoRepeatNGramLogitsProcessor: _no_repeat_ngram_size,
    NoBadWordsLogitsProcessor: _bad_words_ids,
    MinLengthLogitsProcessor: _min_length,
    MinNewTokensLengthLogitsProcessor: _min_new_tokens,
    ForcedBOSTokenLogitsProcessor: _forced_bos,
    ForcedEOSTokenLogitsProcessor: _forced_eos,
    InfNanRemoveLogitsProcessor: _remove_invalid_values,
    ExponentialDecayLengthPenalty: _exponential_decay,
    SuppressTokensLogitsProcessor: _suppress_tokens,
    SuppressTokensAtBeginLogitsProcessor: _suppress_at_begin,
    TemperatureLogitsWarper: _temperature,
    TopHLogitsWarper: _warper("top_h"),
    TopKLogitsWarper: _warper("top_k"),
    TopPLogitsWarper: _warper("top_p"),
    MinPLogitsWarper: _warper("min_p"),
    TypicalLogitsWarper: _warper("typical_p", "mass"),
    EpsilonLogitsWarper: _warper("epsilon_cutoff", "epsilon"),
    EtaLogitsWarper: _eta_cutoff,
    LogitNormalization: _renormalize_logits,
}

ORDER = {kind: place for place, kind in enumerate(READERS)}

# Those that change the scores greedy decoding returns, too: the C++ loop applies them where it
# samples alone.
WARPERS = frozenset(
    kind
    for kind in READERS
    if ORDER[TemperatureLogitsWarper] <= ORDER[kind] <= ORDER[EtaLogitsWarper]
)


def read_processors(
    processors: LogitsProcessorList, do_sample: bool, call: Call
) -> tuple[dict[str, Any], str]:
    """The arguments of _C.GenerationConfig for the processors, and the obstacle or ""."""
    arguments: dict[str, Any] = {}
    last = -1
    for processor in processors:
        kind = type(processor)
        name = f"the logits processor {kind.__name__}"
        if ORDER.get(kind, -1) <= last:
            return arguments, f"{name} is not one of the C++ loop's"
        if kind in WARPERS and not do_sample:
            return arguments, f"{name} is given without do_sample"
        last = ORDER[kind]
        found = READERS[kind](processor, call)
        if found is None:
            return arguments, f"{name} has settings that C++ lacks"
        if "min_length" in found:
            found["min_length"] = max(found["min_length"], arguments.get("min_length", 0))
        arguments |= found
    return arguments, ""
