"""Every kind of configuration gives Hugging Face's logits in fp32, however the text comes in."""

import functools

import pytest
import torch
from helpers.models import CONFIGS, random_ids, small_model
from helpers.runs import chunk_lengths, largest_difference, logits_of, make_batch

import mistral_ext

pytestmark = pytest.mark.usefixtures("one_thread")

# What the project promises. Sums of some hundred products in another order stay ten times below.
TOLERANCE = 1e-4

# Longer than every window and than max_position_embeddings of "dynamic".
LENGTH = 18

CASES = [
    (padding, mode)
    for padding in ("none", "left", "right", "packed")
    for mode in ("one_pass", "chunked", "token_by_token")
    if padding != "packed" or mode == "one_pass"  # a cache holds one sequence a row
]


@functools.cache
def pair(name: str, device: torch.device):
    """(Hugging Face's model, ours); both see the same calls, as "dynamic" remembers them."""
    hf_model = small_model(name, device=device)
    return hf_model, mistral_ext.from_hf(hf_model)


@pytest.mark.parametrize(("padding", "mode"), CASES)
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_equal_hugging_faces(name, padding, mode, device):
    hf_model, model = pair(name, device)
    batch = make_batch(random_ids(2, LENGTH).to(device), padding)
    lengths = chunk_lengths(LENGTH, mode)
    theirs = logits_of(hf_model, batch, lengths)[batch.is_token]
    with mistral_ext.use_path("native"):
        ours = logits_of(model, batch, lengths)[batch.is_token]
    assert largest_difference(ours, theirs) <= TOLERANCE


WINDOW = 8


@pytest.mark.parametrize("mode", ["one_pass", "chunked", "token_by_token"])
@pytest.mark.parametrize("padding", ["none", "left"])
@pytest.mark.parametrize("length", [WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW])
@pytest.mark.parametrize("name", ["window", "two_layer_types"])
def test_windows_begin_and_end_where_hugging_faces_do(name, length, padding, mode, device):
    hf_model = small_model(name, device=device, sliding_window=WINDOW)
    model = mistral_ext.from_hf(hf_model)
    batch = make_batch(random_ids(2, length).to(device), padding)
    lengths = [n for n in chunk_lengths(length, mode) if n > 0]
    theirs = logits_of(hf_model, batch, lengths)[batch.is_token]
    with mistral_ext.use_path("native"):
        ours = logits_of(model, batch, lengths)[batch.is_token]
    assert largest_difference(ours, theirs) <= TOLERANCE


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_equal_hugging_faces(name, device):
    hf_model = small_model(name, device=device)
    model = mistral_ext.from_hf(hf_model)
    batch = make_batch(random_ids(2, LENGTH).to(device), "right")
    inputs = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "labels": batch.input_ids.masked_fill(~batch.is_token, -100),
        "use_cache": False,
    }
    hf_model(**inputs).loss.backward()
    theirs = {key: parameter.grad for key, parameter in hf_model.named_parameters()}
    hf_model.zero_grad(set_to_none=True)  # the parameters are the same objects
    with mistral_ext.use_path("native"):
        model(**inputs).loss.backward()
    for key, parameter in model.named_parameters():
        assert largest_difference(parameter.grad, theirs[key]) <= 1e-5, key
