"""What cannot work is refused with the argument's name, what it must be and what it was."""

import pytest
import torch
from helpers.models import random_ids, small_model

import mistral_ext

IDS = random_ids(2, 6)

CASES = {
    "no input": ({}, "exactly one of input_ids and inputs_embeds must be given, got neither"),
    "two inputs": (
        {"input_ids": IDS, "inputs_embeds": torch.zeros(2, 6, 64)},
        "exactly one of input_ids and inputs_embeds must be given, got both",
    ),
    "one dimension": ({"input_ids": IDS[0]}, "input_ids must have 2 dimensions, got 1"),
    "float ids": ({"input_ids": IDS.float()}, "input_ids must be int64 or int32, got Float"),
    "id too high": (
        {"input_ids": IDS.clone().fill_(99)},
        r"input_ids must be in \[0, 99\), got 99",
    ),
    "id negative": (
        {"input_ids": IDS.clone().fill_(-1)},
        r"input_ids must be in \[0, 99\), got -1",
    ),
    "no rows": ({"input_ids": IDS[:0]}, "input_ids must have at least one row and one token"),
    "no tokens": ({"input_ids": IDS[:, :0]}, "input_ids must have at least one row and one token"),
    "mask too short": (
        {"input_ids": IDS, "attention_mask": torch.ones(2, 5)},
        r"attention_mask must have shape \[2, 6\]",
    ),
    "mask of three dimensions": (
        {"input_ids": IDS, "attention_mask": torch.ones(2, 6, 6)},
        "attention_mask must have 2 or 4 dimensions, got 3",
    ),
    "mask of other keys": (
        {"input_ids": IDS, "attention_mask": torch.ones(2, 1, 6, 7, dtype=torch.bool)},
        r"attention_mask of 4 dimensions must have 6 keys \(or 1\), got \[2, 1, 6, 7\]",
    ),
    "embeddings too narrow": (
        {"inputs_embeds": torch.zeros(2, 6, 63)},
        r"inputs_embeds must have shape \[batch, seq, 64\]",
    ),
    "embeddings of another dtype": (
        {"inputs_embeds": torch.zeros(2, 6, 64, dtype=torch.bfloat16)},
        "must have",
    ),
    "positions too many": (
        {"input_ids": IDS, "position_ids": torch.arange(7)[None]},
        r"position_ids must have shape \[2 or 1, 6\]",
    ),
}


def on(device, call):
    return {name: value.to(device) for name, value in call.items()}


@pytest.mark.parametrize("case", CASES)
def test_forward_refuses(case, device):
    call, message = CASES[case]
    model = mistral_ext.from_hf(small_model(device=device))
    cache = model.create_cache()
    with torch.no_grad(), pytest.raises(ValueError, match=message):
        model(**on(device, call), past_key_values=cache)
    assert cache.get_seq_length() == 0  # nothing half done


def test_forward_refuses_a_mask_that_leaves_out_the_cache(device):
    model = mistral_ext.from_hf(small_model(device=device))
    ids = IDS.to(device)
    cache = model(ids).past_key_values
    with pytest.raises(ValueError, match=r"shape \[2, 8\] \(batch, 6 cached and 2 new tokens\)"):
        model(ids[:, :2], attention_mask=torch.ones_like(ids[:, :2]), past_key_values=cache)


@pytest.mark.parametrize("argument", ["batch_size", "max_length"])
@pytest.mark.parametrize("value", [0, -1])
def test_create_cache_refuses(argument, value):
    model = mistral_ext.from_hf(small_model())
    with pytest.raises(ValueError, match=f"{argument} must be positive, got {value}"):
        model.create_cache(**{argument: value})


def test_a_cache_needs_to_know_how_far_layers_see():
    with pytest.raises(ValueError, match="config or windows must be given"):
        mistral_ext.MistralCache()
