"""attention under masks of keys, of scores and of packed sequences."""

import pytest
import torch
from helpers.attention import DTYPES, assert_equals_oracle, make_inputs, visible_keys

import mistral_ext  # noqa: F401  registers the operators

attention = torch.ops.mistral_ext.attention

MASK_DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# Decoding, a chunk, a prompt of several blocks of keys.
QUERY_LENGTHS = [1, 5, 150]
KEY_LEN = 150


def hide_half(shape, device):
    return torch.rand(shape, device=device) > 0.5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("query_len", QUERY_LENGTHS)
@pytest.mark.parametrize("window", [0, 70])
def test_left_and_right_padding(dtype, query_len, window, device):
    mask = torch.ones(4, KEY_LEN, dtype=torch.bool, device=device)
    mask[0, :70] = False  # more than a block of keys
    mask[1, -3:] = False
    mask[2, :64] = False
    inputs = make_inputs(device, dtype, 6, 2, 64, query_len, KEY_LEN, batch=4)
    assert_equals_oracle(inputs, mask=mask, sliding_window=window)


@pytest.mark.parametrize("mask_dtype", [torch.bool, torch.int64, torch.int32, torch.uint8])
@pytest.mark.parametrize("query_len", QUERY_LENGTHS)
def test_any_pattern_of_keys(mask_dtype, query_len, device):
    inputs = make_inputs(device, torch.float32, 6, 2, 64, query_len, KEY_LEN)
    mask = hide_half((2, KEY_LEN), device).to(mask_dtype) * (1 if mask_dtype == torch.bool else 3)
    assert_equals_oracle(inputs, mask=mask.to(mask_dtype))


@pytest.mark.parametrize("query_len", QUERY_LENGTHS)
def test_key_mask_of_one_row_serves_the_batch_and_may_be_strided(query_len, device):
    inputs = make_inputs(device, torch.float32, 6, 2, 64, query_len, KEY_LEN)
    assert_equals_oracle(inputs, mask=hide_half((1, KEY_LEN), device))
    assert_equals_oracle(inputs, mask=hide_half((KEY_LEN, 4), device)[:, ::2].T)


# [batch, heads, query_len, key_len] with 1 where the mask is shared.
SHARED = ["bhqk", "1hqk", "b1qk", "11qk", "bh1k", "b11k", "bhq1", "1111"]


def shared_shape(letters, query_len):
    sizes = {"b": 2, "h": 6, "q": query_len, "k": KEY_LEN, "1": 1}
    return [sizes[letter] for letter in letters]


@pytest.mark.parametrize("query_len", QUERY_LENGTHS)
@pytest.mark.parametrize("letters", SHARED)
def test_boolean_mask_of_scores(query_len, letters, device):
    inputs = make_inputs(device, torch.float32, 6, 2, 64, query_len, KEY_LEN)
    mask = hide_half(shared_shape(letters, query_len), device)
    assert_equals_oracle(inputs, mask=mask)
    assert_equals_oracle(inputs, mask=mask, is_causal=False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mask_dtype", MASK_DTYPES)
@pytest.mark.parametrize("query_len", QUERY_LENGTHS)
def test_additive_mask_with_infinity_and_the_lowest_value(dtype, mask_dtype, query_len, device):
    inputs = make_inputs(device, dtype, 6, 2, 64, query_len, KEY_LEN)
    mask = torch.randn(2, 1, query_len, KEY_LEN, device=device).to(mask_dtype)
    mask[hide_half(mask.shape, device)] = -torch.inf
    mask[hide_half(mask.shape, device)] = torch.finfo(mask_dtype).min
    assert_equals_oracle(inputs, mask=mask)


@pytest.mark.parametrize("query_len", QUERY_LENGTHS)
@pytest.mark.parametrize("letters", SHARED)
def test_additive_mask_shared_between_dimensions(query_len, letters, device):
    inputs = make_inputs(device, torch.float32, 6, 2, 64, query_len, KEY_LEN)
    mask = torch.randn(shared_shape(letters, query_len), device=device)
    assert_equals_oracle(inputs, mask=mask)


@pytest.mark.parametrize("query_len", QUERY_LENGTHS)
def test_mask_of_scores_may_be_strided(query_len, device):
    inputs = make_inputs(device, torch.float32, 6, 2, 64, query_len, KEY_LEN)
    mask = torch.randn(KEY_LEN, 2 * query_len, 1, 2, device=device).permute(3, 2, 1, 0)[:, :, ::2]
    assert_equals_oracle(inputs, mask=mask)
    assert_equals_oracle(inputs, mask=mask > 0)


def test_great_but_finite_bias_hides_nothing(device):
    query, key, value = make_inputs(device, torch.float32, 4, 2, 32, 3, 70)
    mask = torch.full((1, 1, 1, 70), -3e38, device=device)
    output, _ = attention(query, key, value, 0.2, is_causal=False, mask=mask)
    # Beside -3e38 the scores are nothing: all keys weigh the same.
    mean = value.mean(1, keepdim=True).repeat_interleave(2, dim=2).expand_as(output)
    torch.testing.assert_close(output, mean)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("query_len", QUERY_LENGTHS)
@pytest.mark.parametrize("lengths", [[1, 149], [50, 50, 50], [64, 64, 22], [3] * 50])
def test_packed_sequences_see_their_own_tokens(dtype, query_len, lengths, device):
    ids = torch.repeat_interleave(
        torch.arange(len(lengths), device=device), torch.tensor(lengths, device=device)
    )[None]
    inputs = make_inputs(device, dtype, 6, 2, 64, query_len, KEY_LEN)
    assert_equals_oracle(inputs, sequence_ids=ids)
    assert_equals_oracle(inputs, sequence_ids=ids, is_causal=False, sliding_window=40)


def test_sequence_ids_need_no_order_and_may_be_strided(device):
    inputs = make_inputs(device, torch.float32, 6, 2, 64, KEY_LEN, KEY_LEN)
    ids = torch.randint(-2, 2, (KEY_LEN, 2), device=device).T
    assert_equals_oracle(inputs, sequence_ids=ids)


@pytest.mark.parametrize("query_len", QUERY_LENGTHS)
def test_all_restrictions_together(query_len, device):
    inputs = make_inputs(device, torch.float32, 6, 2, 64, query_len, KEY_LEN)
    assert_equals_oracle(
        inputs,
        sliding_window=65,
        mask=hide_half((2, 6, query_len, KEY_LEN), device),
        sequence_ids=torch.arange(KEY_LEN, device=device)[None] // 40,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("query_len", [1, 5, 150, 700])
@pytest.mark.parametrize("kind", ["keys", "boolean", "infinity", "lowest"])
def test_row_with_no_visible_key_gives_zero(dtype, query_len, kind, device):
    query, key, value = make_inputs(device, dtype, 6, 2, 64, query_len, query_len + 600)
    key_len = key.shape[1]
    if kind == "keys":
        mask = torch.ones(2, key_len, dtype=torch.int64, device=device)
        mask[1] = 0
    else:
        mask = torch.ones(2, 1, query_len, key_len, dtype=torch.bool, device=device)
        mask[1] = False
        if kind != "boolean":
            lowest = torch.finfo(dtype).min if kind == "lowest" else -torch.inf
            mask = torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill(~mask, lowest)
    output, logsumexp = attention(query, key, value, 0.125, mask=mask)
    assert (output[1] == 0).all()
    assert (logsumexp[1] == -torch.inf).all()
    assert (output[0] != 0).any()
    assert torch.isfinite(logsumexp[0]).all()


def test_left_padded_rows_of_the_prompt_itself_give_zero(device):
    inputs = make_inputs(device, torch.float32, 6, 2, 64, 100, 100)
    mask = torch.ones(2, 100, dtype=torch.int64, device=device)
    mask[0, :30] = 0
    assert not visible_keys(*inputs[:2], mask=mask)[0, 0, :30].any()
    output, _ = attention(*inputs, 0.125, mask=mask)
    assert (output[0, :30] == 0).all()
    assert_equals_oracle(inputs, mask=mask)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("query_len", [1, 40])
def test_a_hidden_key_counts_for_nothing_even_where_it_is_infinite(dtype, query_len, device):
    query, key, value = make_inputs(device, dtype, 4, 2, 16, query_len, 70)
    mask = torch.ones(1, 1, query_len, 70, dtype=torch.bool, device=device)
    mask[..., 3] = False
    expected, _ = torch.ops.mistral_ext.attention(query, key, value, 0.25, True, 0, mask)
    key[:, 3] = torch.inf
    output, _ = torch.ops.mistral_ext.attention(query, key, value, 0.25, True, 0, mask)
    assert torch.equal(output, expected)
