"""rotary_embedding against the rotation written out in fp64, and Hugging Face's in fp32."""

import pytest
import torch
from helpers.numerics import DTYPES, assert_dense_like, assert_rounded
from transformers.models.mistral.modeling_mistral import apply_rotary_pos_emb

import mistral_ext  # noqa: F401  registers the operators

rotary_embedding = torch.ops.mistral_ext.rotary_embedding
rotary_embedding_backward = torch.ops.mistral_ext.rotary_embedding_backward

TABLE = 50


def make_table(head_dim: int, device: torch.device) -> torch.Tensor:
    frequencies = 10_000.0 ** -(torch.arange(0, head_dim, 2, device=device) / max(head_dim, 1))
    angles = torch.arange(TABLE, device=device)[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def rotate(
    x: torch.Tensor, positions: torch.Tensor, cos_sin: torch.Tensor, scale: torch.Tensor | None
) -> torch.Tensor:
    """x [batch, seq, heads, head_dim] in fp64, rotated as complex numbers."""
    cos, sin = cos_sin.double()[positions][:, :, None].chunk(2, dim=-1)
    low, high = x.double().chunk(2, dim=-1)
    turned = torch.complex(low, high) * torch.complex(cos, sin)
    y = torch.cat((turned.real, turned.imag), dim=-1)
    return y if scale is None else y * scale.double()[:, :, None, None]


def make_inputs(
    device: torch.device,
    dtype: torch.dtype,
    batch: int = 2,
    seq: int = 5,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 16,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    query = torch.randn(batch, seq, heads, head_dim, dtype=dtype, device=device)
    key = torch.randn(batch, seq, kv_heads, head_dim, dtype=dtype, device=device)
    positions = torch.randint(TABLE, (batch, seq), device=device)
    return query, key, positions, make_table(head_dim, device)


def assert_equals_oracle(query, key, positions, cos_sin, scale=None) -> None:
    rotated = rotary_embedding(query, key, positions, cos_sin, scale)
    pairs = [(rotated[0], query, scale), (rotated[1], key, None)]
    for y, x, factor in pairs:
        assert_dense_like(y, x)
        # One rounding of the result, and those of two products that may cancel.
        assert_rounded(y, rotate(x, positions, cos_sin, factor), 1.0, scale=4.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [2, 6, 30, 32, 64, 66, 128, 256])
def test_equals_the_oracle(dtype, head_dim, device):
    assert_equals_oracle(*make_inputs(device, dtype, head_dim=head_dim))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seq", [0, 1, 300])
def test_any_length(dtype, seq, device):
    assert_equals_oracle(*make_inputs(device, dtype, seq=seq, batch=1))
    assert_equals_oracle(*make_inputs(device, dtype, seq=seq, batch=3))


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_row_of_positions_serves_the_whole_batch(dtype, device):
    query, key, positions, cos_sin = make_inputs(device, dtype, batch=3)
    scale = torch.rand(1, 5, device=device) + 0.5
    assert_equals_oracle(query, key, positions[:1], cos_sin, scale)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scale_multiplies_the_query_alone(dtype, device):
    scale = torch.rand(2, 5, device=device) + 0.5
    assert_equals_oracle(*make_inputs(device, dtype), scale)


def test_equals_hugging_face_in_fp32(device):
    query, key, positions, cos_sin = make_inputs(device, torch.float32, head_dim=64)
    cos, sin = (torch.cat((x, x), dim=-1) for x in cos_sin[positions].chunk(2, dim=-1))
    expected = apply_rotary_pos_emb(query, key, cos, sin, unsqueeze_dim=2)
    rotated = rotary_embedding(query, key, positions, cos_sin)
    torch.testing.assert_close(rotated, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_any_strides(dtype, device):
    _, _, positions, cos_sin = make_inputs(device, dtype)
    fused = torch.randn(2, 5, 6 * 16, dtype=dtype, device=device)  # query and key of one product
    side_by_side = fused.view(2, 5, 6, 16)
    transposed = torch.randn(2, 6, 5, 16, dtype=dtype, device=device).transpose(1, 2)
    strided = torch.randn(2, 5, 6, 32, dtype=dtype, device=device)[..., ::2]
    wide_positions = torch.stack((positions, positions), dim=-1)[..., 0]
    wide_table = torch.stack((cos_sin, cos_sin), dim=-1)[..., 0]
    for both in (side_by_side, transposed, strided):
        query, key = both[:, :, :4], both[:, :, 4:]
        dense = rotary_embedding(query.contiguous(), key.contiguous(), positions, cos_sin)
        rotated = rotary_embedding(query, key, wide_positions, wide_table)
        torch.testing.assert_close(rotated, dense, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_backward_turns_back(dtype, device):
    query, key, positions, cos_sin = make_inputs(device, dtype)
    scale = torch.rand(2, 5, device=device) + 0.5
    back = cos_sin * torch.cat((torch.ones(8), -torch.ones(8))).to(device)
    grads = rotary_embedding_backward(query, key, positions, cos_sin, scale)
    assert_rounded(grads[0], rotate(query, positions, back, scale), 1.0, scale=4.0)
    assert_rounded(grads[1], rotate(key, positions, back, None), 1.0, scale=4.0)


@pytest.mark.parametrize("with_scale", [False, True])
def test_gradients_equal_finite_differences(with_scale, device):
    query, key, positions, cos_sin = make_inputs(device, torch.float64, seq=3, head_dim=6)
    scale = torch.rand(1, 3, device=device) if with_scale else None
    inputs = (query.requires_grad_(), key.requires_grad_())
    assert torch.autograd.gradcheck(
        lambda q, k: rotary_embedding(q, k, positions, cos_sin, scale), inputs
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_registration_is_sound(dtype, device):
    query, key, positions, cos_sin = make_inputs(device, dtype)
    scale = torch.rand(1, 5, device=device)
    torch.library.opcheck(rotary_embedding_backward, (query, key, positions, cos_sin, scale))
    query.requires_grad_()
    torch.library.opcheck(rotary_embedding, (query, key, positions, cos_sin))
    torch.library.opcheck(rotary_embedding, (query, key, positions, cos_sin, scale))


@pytest.mark.parametrize("position", [-1, TABLE, 2**40])
def test_refuses_a_position_outside_the_table_on_cpu(position):
    query, key, positions, cos_sin = make_inputs(torch.device("cpu"), torch.float32)
    positions[1, 3] = position
    message = rf"rotary_embedding: positions must lie in \[0, {TABLE}\), got {position}"
    with pytest.raises(ValueError, match=message):
        rotary_embedding(query, key, positions, cos_sin)


Q, K, P, T = (
    torch.zeros(2, 5, 4, 8),
    torch.zeros(2, 5, 2, 8),
    torch.zeros(2, 5).long(),
    torch.ones(9, 8),
)
BAD = [
    ((Q.long(), K.long(), P, T, None), "query must be float32, .*, got Long"),
    (
        (Q[0], K, P, T, None),
        r"query must have shape \[batch, .*, head_dim\], got \[5, 4, 8\]",
    ),
    ((Q[..., :7], K[..., :7], P, T, None), "query must have an even head_dim"),
    ((Q, K[:, :4], P, T, None), r"key must have shape \[2, 5, kv_heads, 8\], got \[2, 4, 2, 8\]"),
    ((Q, K.half(), P, T, None), "key must have query's dtype Float, got Half"),
    ((Q, K.to("meta"), P, T, None), "key must be on query's device cpu, got meta"),
    ((Q, K, P.int(), T, None), "positions must be Long, got Int"),
    ((Q, K, P[:, :4], T, None), r"positions must have shape \[2 or 1, 5\], got \[2, 4\]"),
    ((Q, K, P[0], T, None), r"positions must have shape \[2 or 1, 5\], got \[5\]"),
    ((Q, K, P.to("meta"), T, None), "positions must be on query's device cpu, got meta"),
    ((Q, K, P, T.double(), None), "cos_sin must be Float, got Double"),
    ((Q, K, P, T[:, :6], None), r"cos_sin must have shape \[table, 8\], got \[9, 6\]"),
    ((Q, K, P, T.to("meta"), None), "cos_sin must be on query's device cpu, got meta"),
    ((Q, K, P, T, P.double()), "query_scale must be Float, got Double"),
    ((Q, K, P, T, T[:2]), r"query_scale must have shape \[2 or 1, 5\], got \[2, 8\]"),
    ((Q, K, P, T[:0], None), r"positions must lie in \[0, 0\), got 0"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_refuses_bad_input_by_name(arguments, message):
    with pytest.raises(ValueError, match=f"^rotary_embedding: {message}"):
        rotary_embedding(*arguments)
    with pytest.raises(ValueError, match=f"^rotary_embedding_backward: {message}"):
        rotary_embedding_backward(*arguments)
