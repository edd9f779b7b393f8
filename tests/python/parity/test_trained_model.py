"""A trained model: 512 tokens of text, and 256 greedy tokens."""

import gc

import pytest
import torch
from helpers import smollm2
from helpers.models import in_dtype
from helpers.runs import largest_difference, rms_error

import mistral_ext


def logits(model, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids, use_cache=False).logits


@pytest.fixture
def ids(device):
    return smollm2.text_ids(512).to(device)


@pytest.fixture
def hf_model(device):
    yield smollm2.hf_model().to(device)
    gc.collect()  # half a gigabyte


def test_logits_of_a_text_equal_hugging_faces(hf_model, ids):
    with mistral_ext.use_path("native"):
        ours = logits(mistral_ext.from_hf(hf_model), ids)
    assert largest_difference(ours, logits(hf_model, ids)) <= 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_error_in_half_precision_is_at_most_hugging_faces(dtype, hf_model, ids):
    # The first token's state is huge (all later ones attend to it) and one rounding of it decides
    # much of the error that follows: of a single text either model's may be the larger by a fifth.
    # Eight texts average that.
    ids = ids.reshape(8, 64)
    oracle = in_dtype(in_dtype(hf_model, dtype), torch.float32)
    exact = logits(oracle, ids)
    hf_model = in_dtype(oracle, dtype)
    theirs = rms_error(logits(hf_model, ids), exact)
    with mistral_ext.use_path("native"):
        ours = rms_error(logits(mistral_ext.from_hf(hf_model), ids), exact)
    assert ours <= 1.1 * theirs


def test_greedy_tokens_equal_hugging_faces(hf_model, device):
    model = mistral_ext.from_hf(hf_model)
    prompt = smollm2.tokenizer()("Once upon a time", return_tensors="pt").to(device)
    # A loop of its own would hide a difference: this text goes on for longer.
    options = {"max_new_tokens": 256, "min_new_tokens": None, "do_sample": False}
    theirs = hf_model.generate(**prompt, **options)
    with mistral_ext.use_path("native"):
        ours = model.generate(**prompt, **options)
    assert mistral_ext.path_report(model).generation.path == "native"
    assert ours.tolist() == theirs.tolist()
    assert ours.shape[1] - prompt.input_ids.shape[1] == 256
