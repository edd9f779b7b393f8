"""The operators, with types: each calls torch.ops.mistral_ext.<name>.

All take fp32, bf16, fp16 and fp64 on any device, check their arguments (ValueError names the
argument, what it must be and what it was), and have gradients but where it says otherwise, fake
kernels and autocast-free
arithmetic: reductions and angles in fp32 (fp64 for fp64), one rounding at the end.
"""

import torch
from torch import Tensor

_ops = torch.ops.mistral_ext

__all__ = [
    "add_rms_norm",
    "attention",
    "cross_entropy",
    "kv_cache_update_",
    "linear",
    "linear_cross_entropy",
    "rms_norm",
    "rotary_embedding",
    "silu_mul",
]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """cast(x / sqrt(mean(x^2) + eps)) * weight over the last dimension.

    x: [..., hidden]; weight: [hidden], x's dtype and device. Returns x's shape and dtype.
    (Zhang & Sennrich 2019, arXiv 1910.07467; the cast back to x's dtype comes before the product
    with the weight, as in Hugging Face's MistralRMSNorm.)
    """
    return _ops.rms_norm(x, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(rms_norm(x + residual), x + residual) in one pass.

    x, residual: [..., hidden] of one shape and dtype; weight: [hidden].
    """
    return _ops.add_rms_norm(x, residual, weight, eps)


def rotary_embedding(
    query: Tensor,
    key: Tensor,
    positions: Tensor,
    cos_sin: Tensor,
    query_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Rotary position embedding of query and key, half-split layout (Su et al. 2021, 2104.09864).

    query: [batch, seq, heads, head_dim]; key: [batch, seq, kv_heads, head_dim].
    positions: int64 [batch or 1, seq], rows of the table.
    cos_sin: fp32 [rows, head_dim]: head_dim/2 cosines, then head_dim/2 sines.
    query_scale: fp32 [batch or 1, seq], multiplies the rotated query.

    Differentiable in query and key.
    """
    return _ops.rotary_embedding(query, key, positions, cos_sin, query_scale)


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, element by element (Shazeer 2020, arXiv 2002.05202).

    gate, up: one shape and dtype.
    """
    return _ops.silu_mul(gate, up)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    is_causal: bool = True,
    sliding_window: int = 0,
    mask: Tensor | None = None,
    sequence_ids: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """softmax(scale query key^T over the visible keys) value, never holding the scores whole.

    query: [batch, query_len, heads, head_dim]; key, value: [batch, key_len, kv_heads, head_dim],
        with kv_heads dividing heads and query_len <= key_len: the queries are the last of the keys.
    A query at slot s sees the key at slot j where all of these hold:
        is_causal: j <= s
        sliding_window > 0: j > s - sliding_window
        mask [batch or 1, key_len]: bool or integer, nonzero at j; or
        mask [batch or 1, heads or 1, query_len or 1, key_len or 1]: true at (s, j), or, where
            floating, it is added to the scaled scores
        sequence_ids int64 [batch or 1, key_len]: equal at j and s (packed sequences)

    Returns output [batch, query_len, heads, head_dim] and logsumexp fp32 [batch, heads, query_len].
    A row that sees nothing gives 0 and has no gradient. Differentiable in query, key and value, not
    through logsumexp. (Dao et al. 2022, arXiv 2205.14135.)
    """
    return _ops.attention(query, key, value, scale, is_causal, sliding_window, mask, sequence_ids)


def kv_cache_update_(
    key_cache: Tensor, value_cache: Tensor, key: Tensor, value: Tensor, start: int
) -> None:
    """Writes token i of key and value into slot (start + i) mod capacity of the caches, in place.

    key_cache, value_cache: [batch, kv_heads, capacity, head_dim].
    key, value: [batch, length, kv_heads, head_dim], length <= capacity.
    """
    _ops.kv_cache_update_(key_cache, value_cache, key, value, start)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x weight^T, with fp32 accumulation for the 16-bit types.

    x: [..., in_features]; weight: [out_features, in_features]. Returns [..., out_features].
    """
    return _ops.linear(x, weight)


def cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int = -100) -> Tensor:
    """The cross-entropy of softmax(logits) with the labels in nats, summed over the rows.

    logits: [n, vocab_size]; labels: int64 [n], in [0, vocab_size), or ignore_index: such a row adds
        nothing. Another label is an IndexError.

    Returns a scalar in fp32 (fp64 for fp64). Not differentiable: see linear_cross_entropy.
    """
    return _ops.cross_entropy(logits, labels, ignore_index)


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, ignore_index: int = -100
) -> Tensor:
    """cross_entropy(hidden weight^T, labels) in chunks of rows, without the logits of all of many.

    hidden: [n, hidden_size]; weight: [vocab_size, hidden_size]; labels as in cross_entropy.

    Returns a scalar in fp32 (fp64 for fp64). Differentiable in hidden and weight; the gradients are
    computed along with the loss and kept for the backward, or, for few rows, the logits are kept.
    Ignored rows cost nothing.
    """
    return _ops.linear_cross_entropy(hidden, weight, labels, ignore_index)
