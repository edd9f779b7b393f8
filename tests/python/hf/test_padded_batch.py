"""Batches padded on the left. Without gradients products leave the padding out: the same results.

Passes that record gradients leave nothing out, so they are the oracle.
"""

import pytest
import torch
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.models import random_ids, small_model

import mistral_ext

FAMILIES = ["gqa", "window", "two_layer_types", "query_scale", "tied"]
PAD = 7
SEQ = 17


@pytest.fixture(params=FAMILIES)
def model(request, device):
    return mistral_ext.from_hf(small_model(request.param, device=device))


def left_padded(device, *lengths):
    ids = random_ids(len(lengths), SEQ)
    mask = torch.arange(SEQ) >= SEQ - torch.tensor(lengths)[:, None]
    return ids.masked_fill(~mask, PAD).to(device), mask.long().to(device)


def positions_of(mask):
    return (mask.cumsum(1) - 1).clamp(min=0)


def both(model, *inputs, **options):
    """(with the padding left out, with all of it)"""
    with torch.no_grad():
        packed = model(*inputs, **options)
    assert_ran(model, "native")
    return packed, model(*inputs, **options)


LENGTHS = [(5, SEQ), (1, 2, SEQ - 1), (3,), (4, 0, 9)]


@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("has_positions", [False, True])
@pytest.mark.parametrize("use_cache", [False, True])
def test_every_place_has_the_logits_it_has_with_all_padding(
    model, lengths, has_positions, use_cache, device
):
    ids, mask = left_padded(device, *lengths)
    inputs = {"attention_mask": mask, "use_cache": use_cache}
    if has_positions:
        inputs["position_ids"] = positions_of(mask)
    packed, whole = both(model, ids, **inputs)
    assert_close_to_scale(packed.logits, whole.logits)


def test_rows_have_the_logits_they_have_alone(model, device):
    ids, mask = left_padded(device, 5, SEQ, 1)
    with torch.no_grad():
        logits = model(ids, attention_mask=mask, position_ids=positions_of(mask)).logits
        for row, length in enumerate([5, SEQ, 1]):
            alone = model(ids[row : row + 1, SEQ - length :]).logits
            assert_close_to_scale(logits[row, SEQ - length :], alone[0])


def test_the_cache_goes_on_as_after_all_padding(model, device):
    ids, mask = left_padded(device, 5, SEQ, 1)
    packed, whole = both(
        model, ids, attention_mask=mask, position_ids=positions_of(mask), use_cache=True
    )
    more = random_ids(3, 4, seed=1).to(device)
    mask = torch.cat([mask, torch.ones_like(more)], 1)
    inputs = {"attention_mask": mask, "position_ids": positions_of(mask)[:, SEQ:]}
    with torch.no_grad():
        ours, theirs = (
            model(more, past_key_values=outputs.past_key_values, **inputs)
            for outputs in (packed, whole)
        )
    assert_close_to_scale(ours.logits, theirs.logits)


def test_chunks_of_padding_alone_and_of_both_give_the_logits_of_one_pass(model, device):
    ids, mask = left_padded(device, 5, SEQ, 1)
    positions = positions_of(mask)
    with torch.no_grad():
        whole = model(ids, attention_mask=mask, position_ids=positions).logits
        cache, parts = None, []
        for begin, end in ((0, 8), (8, 14), (14, SEQ)):
            output = model(
                ids[:, begin:end],
                attention_mask=mask[:, :end],
                position_ids=positions[:, begin:end],
                past_key_values=cache,
                use_cache=True,
            )
            cache = output.past_key_values
            parts.append(output.logits)
    assert_close_to_scale(torch.cat(parts, 1), whole)


def test_padding_of_different_tokens_is_not_left_out(model, device):
    ids, mask = left_padded(device, 5, SEQ)
    ids[0, 3] = PAD + 1
    packed, whole = both(model, ids, attention_mask=mask)
    assert_close_to_scale(packed.logits, whole.logits)


@pytest.mark.parametrize("hole", [(0, 14), (1, SEQ - 1)])
def test_padding_behind_tokens_is_not_left_out(model, hole, device):
    ids, mask = left_padded(device, 5, SEQ)
    ids[hole], mask[hole] = PAD, 0
    packed, whole = both(model, ids, attention_mask=mask)
    assert_close_to_scale(packed.logits, whole.logits)


def test_a_token_out_of_the_vocabulary_is_named_and_leaves_the_cache_empty(model, device):
    ids, mask = left_padded(device, 5, SEQ)
    cache = mistral_ext.MistralCache(config=model.config)
    for place in ((0, 0), (1, 3)):
        wrong = ids.clone()
        wrong[place] = 1000
        with torch.no_grad(), pytest.raises(ValueError, match="input_ids must be in"):
            model(wrong, attention_mask=mask, past_key_values=cache)
        assert cache.get_seq_length() == 0
