"""In bf16 and fp16 we are as close to the exact logits as Hugging Face is.

The oracle is Hugging Face's model in fp32, with the weights that the others have: rounded.
"""

import functools

import pytest
import torch
from helpers.models import CONFIGS, in_dtype, random_ids, small_model
from helpers.runs import chunk_lengths, logits_of, make_batch, rms_error

import mistral_ext

pytestmark = pytest.mark.usefixtures("one_thread")

# What the project promises: RMS errors over the logits of unpadded positions.
FACTOR = 1.1

# Enough tokens that the two errors, which are random, can be compared to some percent.
BATCH, LENGTH = 4, 48


@functools.cache
def contestants(name: str, dtype: torch.dtype, device: torch.device):
    """(the oracle, Hugging Face's model in dtype, ours)"""
    hf_model = small_model(name, dtype, device)
    oracle = in_dtype(small_model(name, dtype), torch.float32).to(device)
    return oracle, hf_model, mistral_ext.from_hf(hf_model)


@pytest.mark.parametrize("padding", ["none", "left"])
@pytest.mark.parametrize("mode", ["one_pass", "chunked"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CONFIGS)
def test_error_is_at_most_hugging_faces(name, dtype, mode, padding, device):
    oracle, hf_model, model = contestants(name, dtype, device)
    batch = make_batch(random_ids(BATCH, LENGTH).to(device), padding)
    lengths = chunk_lengths(LENGTH, mode)
    exact = logits_of(oracle, batch, lengths)[batch.is_token]
    theirs = rms_error(logits_of(hf_model, batch, lengths)[batch.is_token], exact)
    with mistral_ext.use_path("native"):
        ours = rms_error(logits_of(model, batch, lengths)[batch.is_token], exact)
    assert ours <= FACTOR * theirs
