"""attention of one query a sequence, as decoding asks for it: every group, head size and length."""

import pytest
import torch
from helpers.attention import DTYPES, assert_equals_oracle, make_inputs

# Around what a block of threads takes at a time, and a split of the keys.
LENGTHS = (1, 2, 31, 33, 64, 65, 129, 1000)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_dim", [8, 24, 64, 128, 256])
@pytest.mark.parametrize("group", [1, 2, 3, 8, 17])
def test_any_group_of_heads_over_a_window_and_padding(dtype, head_dim, group, device):
    generator = torch.Generator().manual_seed(head_dim * 100 + group)
    for length in LENGTHS:
        inputs = make_inputs(device, dtype, 2 * group, 2, head_dim, 1, length)
        scattered = torch.rand(2, length, generator=generator).gt(0.5).to(device)
        pads = torch.tensor([[0], [min(3, length - 1)]], device=device)
        left_padded = torch.arange(length, device=device) >= pads
        for window in (0, 1, 33):
            for mask in (None, left_padded, scattered):  # scattered: a row may see no key
                assert_equals_oracle(inputs, sliding_window=window, mask=mask)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_cache_with_room_behind_the_keys(dtype, device):
    """Keys and values as the cache shows them: [batch, kv_heads, capacity, head_dim] transposed."""
    query = torch.randn(3, 1, 8, 64, device=device).to(dtype)
    cache = torch.randn(2, 3, 2, 100, 64, device=device).to(dtype)
    for length in (1, 33, 97):
        key, value = (x.transpose(1, 2)[:, :length] for x in cache)
        assert_equals_oracle((query, key, value))
