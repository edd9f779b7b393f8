"""generate's loop in C++, under Hugging Face's generate."""

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache
from transformers.generation import (
    EosTokenCriteria,
    GenerateDecoderOnlyOutput,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteriaList,
)

from mistral_ext import _C
from mistral_ext.hf.cache import MistralCache
from mistral_ext.hf.dynamic_cache import lent
from mistral_ext.hf.processors import Call, read_processors

# The methods of a model that Hugging Face's loop calls at each step: one that a subclass overrides
# must be called.
SAMPLING_STEPS = (
    "prepare_inputs_for_generation",
    "_has_unfinished_sequences",
    "_prefill",
    "_update_model_kwargs_for_generation",
)

# What the loop feeds the model, or may leave; any other argument of forward needs Hugging Face's
# loop.
MODEL_ARGUMENTS = frozenset(
    {
        "attention_mask",
        "cache_position",
        "inputs_embeds",
        "logits_to_keep",
        "past_key_values",
        "position_ids",
        "tokenizer",  # the stopping criteria have what they need of it
        "use_cache",
    }
)


@dataclass
class LoopPlan:
    """One call of generate in the terms of the C++ loop; or why it is not for that loop."""

    obstacle: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)  # of _C.GenerationConfig
    criteria: list[Any] = field(default_factory=list)  # what Python decides after each step
    lengths: list[MaxLengthCriteria] = field(default_factory=list)

    def stop(self, sequences: torch.Tensor) -> torch.Tensor | None:
        """Which of the sequences, int64 [rows, length], the criteria end: bool [rows]."""
        if not self.criteria:
            return None
        sequences = sequences.contiguous()  # they are columns of something longer
        rows = torch.zeros(len(sequences), dtype=torch.bool, device=sequences.device)
        for criterion in self.criteria:
            rows = rows | criterion(sequences, None)
        # Hugging Face's loop takes integers, too, and looks at their last bit.
        return rows if rows.dtype == torch.bool else (rows & 1).bool()

    def overlength(self, length: int) -> None:
        """Gives Hugging Face's warning about sequences that are longer than the model's limit."""
        for criterion in self.lengths:
            criterion(torch.empty(1, length, dtype=torch.long), None)


def plan_loop(
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: Any,
    synced_gpus: bool,
    model_kwargs: dict[str, Any],
    vocab_size: int,
) -> LoopPlan:
    """What `_sample` is asked for, for C++. Processors and criteria are known by exact type."""
    plan = plan_settings(
        input_ids,
        logits_processor,
        stopping_criteria,
        generation_config,
        synced_gpus,
        model_kwargs,
        vocab_size,
        min_tokens_to_keep=1,
    )
    if plan.criteria and not plan.arguments.get("eos_token_ids") and len(input_ids) > 1:
        # Hugging Face's loop then goes on filling a row that a criterion stopped.
        plan.obstacle = plan.obstacle or "rows are stopped one by one without eos_token_id"
    if "max_length" in plan.arguments:
        # Hugging Face's loop looks at the length after a token, so there is always one.
        longest = max(plan.arguments["max_length"], input_ids.shape[1] + 1)
        if longest != plan.arguments["max_length"]:
            plan.arguments.pop("forced_eos_token_ids", None)  # its place is behind us
        plan.arguments["max_length"] = longest
    plan.obstacle = plan.obstacle or _mask_obstacle(input_ids, model_kwargs)
    return plan


def _mask_obstacle(input_ids: torch.Tensor, model_kwargs: dict[str, Any]) -> str:
    """Hugging Face's loop takes masks that go on behind the prompt, and cuts them."""
    mask = model_kwargs.get("attention_mask")
    if mask is None or model_kwargs.get("inputs_embeds") is not None:
        return ""
    tokens = model_kwargs["past_key_values"].get_seq_length() + input_ids.shape[1]
    return "attention_mask is longer than the tokens" if mask.shape[1] > tokens else ""


def plan_settings(
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: Any,
    synced_gpus: bool,
    model_kwargs: dict[str, Any],
    vocab_size: int,
    min_tokens_to_keep: int,
) -> LoopPlan:
    """What sampling and beam search have in common.

    min_tokens_to_keep: what the C++ loop's warpers leave at least.
    """
    chunk = generation_config.prefill_chunk_size
    if chunk is not None and chunk < 1:
        raise ValueError(f"generate: prefill_chunk_size must be positive, got {chunk}")
    obstacle = _obstacle(generation_config, synced_gpus, model_kwargs)
    if obstacle:
        return LoopPlan(obstacle)
    plan = LoopPlan()
    _read_criteria(plan, stopping_criteria)
    call = Call(
        eos_token_ids=frozenset(plan.arguments.get("eos_token_ids", ())),
        prompt_length=input_ids.shape[1],
        max_length=plan.arguments.get("max_length", 0),
        vocab_size=vocab_size,
        min_tokens_to_keep=min_tokens_to_keep,
    )
    processors, obstacle = read_processors(logits_processor, generation_config.do_sample, call)
    plan.arguments |= processors
    plan.obstacle = plan.obstacle or obstacle
    if plan.criteria and generation_config.output_scores:
        plan.obstacle = "a stopping criterion may read the scores"
    pad = generation_config._pad_token_tensor
    plan.arguments |= {
        "do_sample": generation_config.do_sample,
        "pad_token_id": None if pad is None else int(pad),
        "prefill_chunk_size": chunk or 0,
        "output_scores": _returned(generation_config, "output_scores"),
        "output_logits": _returned(generation_config, "output_logits"),
    }
    return plan


def _returned(generation_config: Any, name: str) -> bool:
    return bool(generation_config.return_dict_in_generate and getattr(generation_config, name))


def _obstacle(generation_config: Any, synced_gpus: bool, model_kwargs: dict[str, Any]) -> str:
    if synced_gpus:
        return "synced_gpus is asked for"
    if generation_config.is_assistant:
        return "the model drafts for another"
    for name in ("output_attentions", "output_hidden_states"):
        if _returned(generation_config, name):
            return f"{name} is asked for"
    if not model_kwargs.get("use_cache"):
        return "use_cache is off"
    cache = model_kwargs.get("past_key_values")
    if type(cache) not in (MistralCache, DynamicCache):
        return f"past_key_values is a {type(cache).__name__}"
    for name, value in model_kwargs.items():
        if value is not None and name not in MODEL_ARGUMENTS:
            return f"the argument {name} is given"
    mask = model_kwargs.get("attention_mask")
    if mask is not None and mask.dim() != 2:
        return "attention_mask has not 2 dimensions"
    positions = model_kwargs.get("position_ids")
    if positions is not None and positions.is_floating_point():
        return "position_ids are no integers"
    if generation_config.prefill_chunk_size and model_kwargs.get("inputs_embeds") is not None:
        return "prefill_chunk_size and inputs_embeds are both given"
    return ""


def _read_criteria(plan: LoopPlan, criteria: StoppingCriteriaList) -> None:
    ends: set[int] = set()
    for criterion in criteria:
        if type(criterion) is MaxLengthCriteria:
            plan.lengths.append(criterion)
        elif type(criterion) is EosTokenCriteria:
            ends.update(int(token) for token in criterion.eos_token_id)
        else:
            plan.criteria.append(criterion)
    if not plan.lengths:
        plan.obstacle = plan.obstacle or "no greatest length is given"
        return
    plan.arguments["max_length"] = min(criterion.max_length for criterion in plan.lengths)
    plan.arguments["eos_token_ids"] = sorted(ends)


def run_loop(
    model: "_C.MistralForCausalLM",
    plan: LoopPlan,
    input_ids: torch.Tensor,
    generation_config: Any,
    streamer: Any,
    model_kwargs: dict[str, Any],
) -> GenerateDecoderOnlyOutput | torch.Tensor:
    """Runs the plan; returns what `_sample` does. The cache then lacks only the last token."""

    def on_step(tokens: torch.Tensor, sequences: torch.Tensor) -> torch.Tensor | None:
        if streamer is not None:
            streamer.put(tokens.cpu())
        return plan.stop(sequences)

    cache = model_kwargs["past_key_values"]
    with lent(cache, model.config.layer_windows) as kv:
        output = _C.generate(
            model,
            input_ids=input_ids,
            inputs_embeds=model_kwargs.get("inputs_embeds"),
            attention_mask=model_kwargs.get("attention_mask"),
            position_ids=model_kwargs.get("position_ids"),
            cache=kv,
            on_step=on_step if plan.criteria or streamer is not None else None,
            on_overlength=plan.overlength,
            config=_C.GenerationConfig(**plan.arguments),
        )
    if streamer is not None:
        streamer.end()
    if not generation_config.return_dict_in_generate:
        return output.sequences
    return GenerateDecoderOnlyOutput(
        sequences=output.sequences,
        scores=tuple(output.scores) if generation_config.output_scores else None,
        logits=tuple(output.logits) if generation_config.output_logits else None,
        past_key_values=cache,
    )
