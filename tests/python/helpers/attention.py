"""Attention written out in fp64 (scores, an explicit visibility matrix, softmax), and inputs."""

import torch

import mistral_ext  # noqa: F401  registers the operators


def visible_keys(
    query: torch.Tensor,
    key: torch.Tensor,
    is_causal: bool = True,
    sliding_window: int = 0,
    mask: torch.Tensor | None = None,
    sequence_ids: torch.Tensor | None = None,
) -> torch.Tensor:
    """Which key each query may see, bool [batch, heads, query_len, key_len]."""
    batch, query_len, heads, _ = query.shape
    key_len = key.shape[1]
    slot = torch.arange(key_len - query_len, key_len, device=query.device)[:, None]
    key_slot = torch.arange(key_len, device=query.device)[None, :]
    visible = torch.ones(batch, heads, query_len, key_len, dtype=torch.bool, device=query.device)
    if is_causal:
        visible &= key_slot <= slot
    if sliding_window > 0:
        visible &= key_slot > slot - sliding_window
    if sequence_ids is not None:
        ids = sequence_ids[:, key_len - query_len :]
        visible &= (ids[:, :, None] == sequence_ids[:, None, :])[:, None]
    if mask is not None and mask.dim() == 2:
        visible &= (mask != 0)[:, None, None, :]
    elif mask is not None and mask.dtype == torch.bool:
        visible &= mask
    elif mask is not None:
        visible &= mask > torch.finfo(mask.dtype).min
    return visible


def attention_oracle(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    is_causal: bool = True,
    sliding_window: int = 0,
    mask: torch.Tensor | None = None,
    sequence_ids: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(output [batch, query_len, heads, head_dim], logsumexp [batch, heads, query_len]), fp64."""
    group = query.shape[2] // key.shape[2]
    visible = visible_keys(query, key, is_causal, sliding_window, mask, sequence_ids)
    q = query.double().transpose(1, 2)
    k = key.double().transpose(1, 2).repeat_interleave(group, dim=1)
    v = value.double().transpose(1, 2).repeat_interleave(group, dim=1)
    scores = q @ k.transpose(2, 3) * scale
    if mask is not None and mask.dim() == 4 and mask.is_floating_point():
        scores = scores + mask.double()
    scores = scores.masked_fill(~visible, -torch.inf)
    # Softmax of a row of -inf is nan; its weights are 0, and so is their gradient.
    some = visible.any(-1, keepdim=True)
    weights = scores.masked_fill(~some, 0).softmax(-1).masked_fill(~visible, 0)
    return (weights @ v).transpose(1, 2), scores.logsumexp(-1)


# The output is a mean of values of about 1: its rounding, and for bf16 and fp16 that of the weights
# (the product with the values may take them in the input's dtype). fp32 sums some hundred products.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 5e-6,
    torch.bfloat16: 1.6e-2,
    torch.float16: 2e-3,
}
# The logsumexp is kept in fp32 whatever the input's dtype; scores are sums of head_dim products.
LOGSUMEXP_TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 5e-6,
    torch.bfloat16: 5e-6,
    torch.float16: 5e-6,
}


def make_inputs(device, dtype, heads, kv_heads, head_dim, query_len, key_len, batch=2):
    query = torch.randn(batch, query_len, heads, head_dim, device=device).to(dtype)
    key = torch.randn(batch, key_len, kv_heads, head_dim, device=device).to(dtype)
    value = torch.randn(batch, key_len, kv_heads, head_dim, device=device).to(dtype)
    return query, key, value


def assert_equals_oracle(inputs, scale=None, **arguments):
    query = inputs[0]
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    output, logsumexp = torch.ops.mistral_ext.attention(*inputs, scale, **arguments)
    expected, expected_logsumexp = attention_oracle(*inputs, scale, **arguments)
    assert output.dtype == query.dtype
    assert output.is_contiguous()
    tolerance = TOLERANCE[query.dtype]
    torch.testing.assert_close(output.double(), expected, rtol=tolerance, atol=tolerance)
    tolerance = LOGSUMEXP_TOLERANCE[query.dtype]
    torch.testing.assert_close(
        logsumexp.double(), expected_logsumexp, rtol=tolerance, atol=tolerance
    )


DTYPES = list(TOLERANCE)
