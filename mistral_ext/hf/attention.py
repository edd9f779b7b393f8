"""Attention for Hugging Face's modules: `attn_implementation="mistral_ext"`.

Registered in transformers' attention and mask interfaces when this module is imported. Our classes
use it on the module path, with transformers' masks under the name "sdpa", unless another
implementation is asked for.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, causal_mask_function, sdpa_mask
from transformers.models.mistral.modeling_mistral import eager_attention_forward

from mistral_ext.hf.tensors import autocast_dtype, operators_apply

ATTENTION = "mistral_ext"

# The implementations that are ours in our classes. "sdpa" is what transformers chooses where nobody
# asks, and what programs name who want any fused attention: it is no wish for torch's own.
OUR_ATTENTIONS = (ATTENTION, "sdpa")


def attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """transformers' attention interface over our operator.

    query: [batch, heads, seq, head_dim]; key, value: [batch, kv_heads, keys, head_dim].
    attention_mask: what attention_mask() below or transformers made, or the caller's own 4D mask:
        bool, or added to the scores; it then says alone what is visible.

    Returns ([batch, seq, heads, head_dim], None), or with output_attentions the weights
    [batch, heads, seq, keys] too. Those, and dropout, are Hugging Face's arithmetic.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    window = sliding_window or 0
    # A window within reach is a mask in transformers, which is causal whatever the module says.
    is_causal = is_causal or 0 < window <= key.shape[2]
    weights = kwargs.get("output_attentions")
    if attention_mask is None and is_causal and _has_masks_for_sdpa(module):
        if weights and 1 < query.shape[2] < key.shape[2]:  # they are asked for of every key
            seq, keys = query.shape[2], key.shape[2]
            attention_mask = _visible(seq, seq, window, query.device)
            attention_mask = torch.nn.functional.pad(attention_mask, (0, keys - seq))
        else:
            key, value = _aligned_at_the_first(query.shape[2], key, value)
    dtype = autocast_dtype(query.device)
    if dtype is not None and query.dtype != torch.float64:
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    applies = operators_apply(query, key, value) and kwargs.get("position_bias") is None
    # Our operator gives the mask no gradient.
    if attention_mask is not None and attention_mask.requires_grad and torch.is_grad_enabled():
        applies = False
    if weights or dropout > 0.0 or not applies:
        if attention_mask is None and is_causal:
            attention_mask = _visible(query.shape[2], key.shape[2], window, query.device)
        if weights:
            return eager_attention_forward(
                module,
                query,
                key,
                value,
                _added_to_scores(attention_mask, query.dtype),
                scaling=scaling,
                dropout=dropout,
            )
        return sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            is_causal=is_causal,
            **kwargs,
        )
    causal = attention_mask is None and is_causal
    output, _ = torch.ops.mistral_ext.attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        scaling,
        causal,
        window if causal else 0,
        attention_mask,
    )
    return output, None


def attention_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    allow_is_causal_skip: bool = True,
    **kwargs: Any,
) -> torch.Tensor | None:
    """transformers' mask interface: a bool mask [batch, 1, q_length, kv_length], or None.

    None says that the operator's own causal rule and window are all there is: the queries are the
    last of the keys, and no key is padding.
    """
    aligned = (
        allow_is_causal_skip
        and not isinstance(q_offset, torch.Tensor)
        and q_offset + q_length == kv_offset + kv_length
    )
    if aligned and not _pads(attention_mask, kv_offset, kv_length):
        return None
    return sdpa_mask(
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        mask_function=mask_function,
        attention_mask=attention_mask,
        allow_is_causal_skip=False,
        **kwargs,
    )


def _pads(attention_mask: torch.Tensor | None, first: int, length: int) -> bool:
    if attention_mask is None:
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return True  # its values are not known
    seen = attention_mask[:, first : first + length]
    return seen.shape[1] < length or not bool(seen.all())


def _has_masks_for_sdpa(module: torch.nn.Module) -> bool:
    config = getattr(module, "config", None)
    return getattr(config, "_attn_implementation", ATTENTION) == "sdpa"


def _aligned_at_the_first(
    seq: int, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The keys and values that the absence of a mask made for "sdpa" leaves to a causal rule.

    torch then aligns the first query with the first key; transformers relies on it for the first
    tokens in a static cache, behind which its empty places stand. One query sees every key.
    """
    return (key, value) if seq == 1 else (key[:, :, :seq], value[:, :, :seq])


def _visible(seq: int, keys: int, window: int, device: torch.device) -> torch.Tensor:
    """bool [1, 1, seq, keys]: the causal rule and the window; queries are the last of the keys."""
    slot = torch.arange(keys, device=device)
    query = slot[keys - seq :, None]
    visible = slot <= query
    if window:
        visible &= slot > query - window
    return visible[None, None]


def _added_to_scores(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(
        ~mask, torch.finfo(dtype).min
    )


AttentionInterface.register(ATTENTION, attention_forward)
AttentionMaskInterface.register(ATTENTION, attention_mask)
