"""Beam search in C++, under Hugging Face's generate."""

from typing import Any

import torch
from transformers.generation import (
    GenerateBeamDecoderOnlyOutput,
    LogitsProcessorList,
    StoppingCriteriaList,
)

from mistral_ext import _C
from mistral_ext.hf.dynamic_cache import lent
from mistral_ext.hf.generation import SAMPLING_STEPS, LoopPlan, plan_settings

BEAM_STEPS = (
    *SAMPLING_STEPS,
    "_beam_search_has_unfinished_sequences",
    "_check_early_stop_heuristic",
    "_flatten_beam_dim",
    "_gather_beams",
    "_get_running_beams_for_next_iteration",
    "_get_top_k_continuations",
    "_reorder_cache",
    "_unflatten_beam_dim",
    "_update_finished_beams",
)

# What has a row a beam, all beams of a prompt alike.
ROWS = ("attention_mask", "inputs_embeds", "position_ids")


def plan_beam_search(
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: Any,
    synced_gpus: bool,
    model_kwargs: dict[str, Any],
    vocab_size: int,
) -> LoopPlan:
    """What `_beam_search` is asked for, for C++."""
    eos = generation_config._eos_token_tensor
    ends = [] if eos is None else [int(token) for token in eos]
    plan = plan_settings(
        input_ids,
        logits_processor,
        stopping_criteria,
        generation_config,
        synced_gpus,
        model_kwargs,
        vocab_size,
        min_tokens_to_keep=max(2, len(ends) + 1),
    )
    if plan.obstacle:
        return plan
    plan.obstacle = _obstacle(input_ids, generation_config, model_kwargs)
    if plan.arguments["max_length"] != generation_config.max_length:
        plan.obstacle = "a stopping criterion sets another max_length"
    if sorted(set(ends)) != plan.arguments["eos_token_ids"]:
        plan.obstacle = "a stopping criterion names other ends than eos_token_id"
    plan.arguments |= {
        # Not sorted, and with what is named twice: their number says how far a step looks.
        "eos_token_ids": ends,
        # Hugging Face fills with the first end where the padding is token 0, and with -1 where
        # there are no ends.
        "pad_token_id": plan.arguments["pad_token_id"] or ends[0] if ends else None,
    }
    return plan


def _obstacle(input_ids: torch.Tensor, config: Any, model_kwargs: dict[str, Any]) -> str:
    if config.low_memory:
        return "low_memory is asked for"
    if type(config.length_penalty) not in (int, float):
        return f"length_penalty is a {type(config.length_penalty).__name__}"
    if len(input_ids) % config.num_beams:
        return "input_ids have not num_beams rows a prompt"
    if not _rows_are_alike(input_ids, config.num_beams):
        return "the beams of a prompt begin differently"
    for name in ROWS:
        rows = model_kwargs.get(name)
        if rows is None:
            continue
        if len(rows) != len(input_ids):
            return f"{name} has not a row for each beam"
        if not _rows_are_alike(rows, config.num_beams):
            return f"{name} differs between the beams of a prompt"
    return ""


def _rows_are_alike(rows: torch.Tensor, num_beams: int) -> bool:
    groups = rows.unflatten(0, (-1, num_beams))
    return torch.equal(groups, groups[:, :1].expand_as(groups))


def run_beam_search(
    model: "_C.MistralForCausalLM",
    plan: LoopPlan,
    input_ids: torch.Tensor,
    generation_config: Any,
    model_kwargs: dict[str, Any],
) -> GenerateBeamDecoderOnlyOutput | torch.Tensor:
    """Runs the plan; returns what `_beam_search` does."""
    num_beams = generation_config.num_beams
    stopping = generation_config.early_stopping
    cache = model_kwargs["past_key_values"]
    rows = {name: model_kwargs.get(name) for name in ROWS}
    with lent(cache, model.config.layer_windows, rows_move=True) as kv:
        output = _C.beam_search(
            model,
            input_ids=input_ids[::num_beams],
            **{name: None if all_ is None else all_[::num_beams] for name, all_ in rows.items()},
            cache=kv,
            on_step=(lambda tokens, sequences: plan.stop(sequences)) if plan.criteria else None,
            on_overlength=plan.overlength,
            config=_C.GenerationConfig(**plan.arguments),
            beams=_C.BeamSearchConfig(
                num_beams=num_beams,
                num_return_sequences=generation_config.num_return_sequences,
                length_penalty=generation_config.length_penalty,
                early_stopping="never" if stopping == "never" else stopping is True,
            ),
        )
    if not generation_config.return_dict_in_generate:
        return output.sequences
    with_scores = generation_config.output_scores
    return GenerateBeamDecoderOnlyOutput(
        sequences=output.sequences,
        sequences_scores=output.sequences_scores if with_scores else None,
        scores=tuple(output.scores) if with_scores else None,
        logits=tuple(output.logits) if generation_config.output_logits else None,
        beam_indices=output.beam_indices,
        past_key_values=cache,
    )
