"""attention's values against scores, an explicit visibility matrix and a softmax in fp64."""

import pytest
import torch
from helpers.attention import (
    DTYPES,
    assert_equals_oracle,
    attention_oracle,
    make_inputs,
)

import mistral_ext  # noqa: F401  registers the operators

attention = torch.ops.mistral_ext.attention

HEADS = [(6, 2), (3, 3), (8, 1)]
# Around the edges of blocks of 64 keys, of units of rows, and of the split along the keys.
LENGTHS = [1, 2, 63, 64, 65, 127, 129, 300]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
@pytest.mark.parametrize("length", LENGTHS)
def test_prompt_equals_the_oracle(dtype, heads, kv_heads, length, device):
    assert_equals_oracle(make_inputs(device, dtype, heads, kv_heads, 64, length, length))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
@pytest.mark.parametrize("query_len", [1, 2, 7, 40])
@pytest.mark.parametrize("key_len", [63, 64, 65, 300, 1300])
def test_queries_fewer_than_keys_stand_at_the_last_slots(
    dtype, heads, kv_heads, query_len, key_len, device
):
    assert_equals_oracle(make_inputs(device, dtype, heads, kv_heads, 64, query_len, key_len))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [1, 7, 16, 33, 80, 96, 128, 256])
@pytest.mark.parametrize("query_len", [1, 3, 70])
def test_any_head_dim(dtype, head_dim, query_len, device):
    assert_equals_oracle(make_inputs(device, dtype, 6, 2, head_dim, query_len, 70))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [1, 2, 63, 64, 65, 129, 130, 131, 500])
@pytest.mark.parametrize("query_len", [1, 5, 130])
def test_window_keeps_its_own_slot_and_those_just_before(dtype, window, query_len, device):
    inputs = make_inputs(device, dtype, 6, 2, 64, query_len, 130)
    assert_equals_oracle(inputs, sliding_window=window)


@pytest.mark.parametrize("window", [0, 20])
@pytest.mark.parametrize("query_len", [2, 70])
def test_without_causality_later_keys_are_visible(window, query_len, device):
    inputs = make_inputs(device, torch.float32, 6, 2, 64, query_len, 70)
    assert_equals_oracle(inputs, is_causal=False, sliding_window=window)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("query_len", [1, 6, 70])
def test_reads_any_strides(dtype, query_len, device):
    query = torch.randn(6, 32, 2, query_len, device=device).to(dtype).permute(2, 3, 0, 1)
    cache = torch.randn(2, 2, 2, 100, 64, device=device).to(
        dtype
    )  # key or value, batch, head, slot
    key, value = (x[:, :, 3:73, ::2].transpose(1, 2) for x in cache)
    assert not (query.is_contiguous())
    assert not (key.is_contiguous())
    assert_equals_oracle((query, key, value))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("query_len", [1, 70])
def test_reads_a_cache_where_it_lies(dtype, query_len, device):
    cache = torch.randn(2, 2, 2, 100, 64, device=device).to(dtype)
    key, value = (x[:, :, :70].transpose(1, 2) for x in cache)
    query = torch.randn(2, query_len, 6, 64, device=device).to(dtype)
    assert_equals_oracle((query, key, value))


@pytest.mark.parametrize("scale", [0.0, -0.3, 0.5])
@pytest.mark.parametrize("query_len", [1, 70])
def test_any_scale(scale, query_len, device):
    inputs = make_inputs(device, torch.float32, 4, 2, 32, query_len, 70)
    assert_equals_oracle(inputs, scale=scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("query_len", [1, 70])
def test_scores_far_apart_neither_overflow_nor_vanish(dtype, query_len, device):
    query, key, value = make_inputs(device, dtype, 4, 2, 64, query_len, 200)
    # Scores of some thousands: exp of them overflows, exp of minus them underflows.
    output, logsumexp = attention(query * 30, key * 30, value, 1.0)
    expected, _ = attention_oracle(query * 30, key * 30, value, 1.0)
    # A score of 1e5 is known to 1e-2 in fp32, so only rows with a clear winner are compared.
    winner = (output.double() - expected).abs().amax(-1)
    assert torch.isfinite(output).all()
    assert torch.isfinite(logsumexp).all()
    assert (winner < 5e-2).double().mean() > 0.95


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("batch", "query_len", "key_len", "heads", "head_dim"),
    [(0, 3, 5, 4, 8), (2, 0, 5, 4, 8), (2, 0, 0, 4, 8), (2, 3, 5, 0, 8), (2, 3, 5, 4, 0)],
)
def test_empty_inputs_give_empty_outputs(dtype, batch, query_len, key_len, heads, head_dim, device):
    query, key, value = make_inputs(device, dtype, heads, 2, head_dim, query_len, key_len, batch)
    output, logsumexp = attention(query, key, value, 1.0)
    assert output.shape == query.shape
    assert logsumexp.shape == (batch, heads, query_len)


@pytest.mark.parametrize("query_len", [1, 70])
def test_nan_in_a_query_is_seen_in_its_row_alone(query_len, device):
    query, key, value = make_inputs(device, torch.float32, 4, 2, 64, query_len, 70)
    query[0, 0, 1, 5] = torch.nan
    output, _ = attention(query, key, value, 0.125)
    assert output[0, 0, 1].isnan().all()
    assert output.isnan().sum() == 64


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("query_len", [1, 400])
def test_result_does_not_depend_on_the_number_of_threads(dtype, query_len, device):
    inputs = make_inputs(device, dtype, 8, 2, 64, query_len, 1600)
    threads = torch.get_num_threads()
    one, several = [], []
    try:
        for count, results in ((1, one), (3, several)):
            torch.set_num_threads(count)
            results.extend(attention(*inputs, 0.125))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(one, several, strict=True))
