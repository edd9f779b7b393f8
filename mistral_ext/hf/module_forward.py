"""Hugging Face's forward of a causal language model, with our loss where it is the same.

The backbone is the module that stands there, by its own forward. What differs is the head: where it
is a plain linear module and a gradient is wanted, head and loss are one operator, which never makes
the logits whole.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from transformers import Ministral3ForCausalLM, MinistralForCausalLM, MistralForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from mistral_ext.hf.loss import Targets, targets
from mistral_ext.hf.modules import is_watched
from mistral_ext.hf.outputs import causal_lm_output
from mistral_ext.hf.pending_logits import deferred_logits
from mistral_ext.hf.tensors import (
    autocast_dtype,
    is_plain,
    operators_apply,
    records_gradients,
    transform,
)

# What is done here in another way: a program that replaces one of them wants it to run.
_FORWARDS = {
    cls.forward for cls in (MistralForCausalLM, MinistralForCausalLM, Ministral3ForCausalLM)
}
_LINEAR_FORWARD = nn.Linear.forward


def module_forward(
    causal_lm: nn.Module,
    inherited: Callable[..., CausalLMOutputWithPast],
    inputs: dict[str, Any],
    labels: Tensor | None,
    use_cache: bool | None,
    kwargs: dict[str, Any],
) -> CausalLMOutputWithPast:
    """What `inherited`, Hugging Face's forward of causal_lm, returns for these arguments.

    inputs: its tensors, cache and logits_to_keep by name; kwargs: its further arguments.
    """
    wanted = _known_targets(causal_lm, inherited, inputs, labels, kwargs)
    if wanted is None:
        return inherited(**inputs, labels=labels, use_cache=use_cache, **kwargs, return_dict=True)
    inputs = {name: value for name, value in inputs.items() if name != "logits_to_keep"}
    output = causal_lm.model(**inputs, use_cache=use_cache, **kwargs)
    hidden_states = output.last_hidden_state
    operands = None
    if records_gradients():
        operands = _operands(hidden_states, causal_lm.lm_head.weight, wanted)
    if operands is not None:
        loss = wanted.of_hidden_states(*operands)
        is_copy = operands[1] is not causal_lm.lm_head.weight
        logits = deferred_logits(loss, *operands, is_copy=is_copy)
    else:
        logits = causal_lm.lm_head(hidden_states)
        if not records_gradients() and _fits(logits, causal_lm.config.vocab_size, wanted):
            loss = wanted.of_logits(logits)
        else:
            size = causal_lm.config.vocab_size
            loss = causal_lm.loss_function(logits=logits, labels=labels, vocab_size=size, **kwargs)
    return causal_lm_output(
        loss=loss,
        logits=logits,
        past_key_values=output.past_key_values,
        hidden_states=output.hidden_states,
        attentions=output.attentions,
    )


def _known_targets(
    causal_lm: nn.Module,
    inherited: Callable[..., Any],
    inputs: dict[str, Any],
    labels: Tensor | None,
    kwargs: dict[str, Any],
) -> Targets | None:
    """None where Hugging Face's forward itself has to run."""
    if labels is None or getattr(inherited, "__func__", None) not in _FORWARDS:
        return None
    if transform() or torch.jit.is_tracing():
        return None
    if records_gradients() and not _is_plain_head(causal_lm.lm_head):
        return None
    tokens = inputs["input_ids"] if inputs["inputs_embeds"] is None else inputs["inputs_embeds"]
    return targets(causal_lm, tokens, inputs["logits_to_keep"], labels, **kwargs)


def _is_plain_head(head: nn.Module) -> bool:
    """Calling it does nothing but multiply by its weight."""
    return (
        type(head) is nn.Linear
        and nn.Linear.forward is _LINEAR_FORWARD
        and head.bias is None
        and not is_watched(head)
        and not _has_any_global_hook()
    )


def _operands(
    hidden_states: Tensor, weight: Tensor, wanted: Targets
) -> tuple[Tensor, Tensor] | None:
    """What the linear module would multiply: cast as autocast does it. None if no operator can."""
    dtype = autocast_dtype(weight.device)
    if dtype is not None:
        hidden_states, weight = (
            tensor if tensor.dtype == torch.float64 else tensor.to(dtype)
            for tensor in (hidden_states, weight)
        )
    fits = hidden_states.shape[:-1].numel() == wanted.labels.numel()
    return (hidden_states, weight) if fits and operators_apply(hidden_states, weight) else None


def _fits(logits: Any, vocab_size: int, wanted: Targets) -> bool:
    return (
        isinstance(logits, Tensor)
        and is_plain(logits)
        and logits.device == wanted.labels.device
        and logits.shape[-1] == vocab_size
        and logits.shape[:-1].numel() == wanted.labels.numel()
    )
