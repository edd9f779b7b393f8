"""generate around the edges of a sliding window, where a ring cache could go wrong."""

import pytest
import torch
from helpers.generation import generate_both, left_padded
from helpers.models import random_ids, small_model

import mistral_ext

WINDOW = 5
LENGTHS = [1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 4 * WINDOW]
FAMILIES = ["window", "two_layer_types", "window_mqa_tied_head_dim"]


@pytest.fixture(params=FAMILIES)
def hf_model(request, device):
    return small_model(request.param, device=device, sliding_window=WINDOW)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("sample", [False, True])
def test_prompts_of_any_length_go_on_across_the_window(hf_model, length, sample, device):
    ids = random_ids(2, length).to(device)
    run = generate_both(hf_model, ids, do_sample=sample, max_new_tokens=3 * WINDOW)
    assert torch.equal(run.ours, run.theirs)
    assert run.report.generation.path == "native"


@pytest.mark.parametrize("padding", [1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW])
def test_padding_leaves_the_window_as_the_text_grows(hf_model, padding, device):
    ids, mask = left_padded(random_ids(3, 2 * WINDOW + 2).to(device), padding, 0, padding // 2)
    run = generate_both(hf_model, ids, attention_mask=mask, max_new_tokens=3 * WINDOW)
    assert torch.equal(run.ours, run.theirs)
    assert run.report.generation.path == "native"


@pytest.mark.parametrize("chunk", [1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW + 1])
def test_prompts_fed_in_chunks_give_the_tokens_of_one_pass(hf_model, chunk, device):
    ids, mask = left_padded(random_ids(2, 4 * WINDOW).to(device), 7, 0)
    model = mistral_ext.from_hf(hf_model)
    call = {"attention_mask": mask, "max_new_tokens": 9, "do_sample": False, "pad_token_id": 0}
    chunked = model.generate(ids, prefill_chunk_size=chunk, **call)
    assert mistral_ext.path_report(model).generation.path == "native"
    assert torch.equal(chunked, hf_model.generate(ids, **call))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("draft", ["a model", "the model itself", "prompt lookup"])
def test_assisted_decoding_rolls_back_across_the_window(hf_model, length, draft, device):
    ids = random_ids(1, length).to(device)
    model = mistral_ext.from_hf(hf_model)
    plain = {"max_new_tokens": 3 * WINDOW, "do_sample": False, "pad_token_id": 0}
    plain["eos_token_id"] = None
    call = {"prompt_lookup_num_tokens": 4, "max_matching_ngram_size": 1}
    if draft != "prompt lookup":
        other = small_model("window", seed=4, sliding_window=WINDOW, device=device)
        drafter = hf_model if draft == "the model itself" else other
        call = {"assistant_model": mistral_ext.from_hf(drafter)}
    ours = model.generate(ids, **plain, **call)
    assert torch.equal(ours, hf_model.generate(ids, **plain))
    report = mistral_ext.path_report(model)
    assert "assisted decoding" in report.generation.reason
    assert report.last_forward.path == "native"


@pytest.mark.parametrize(
    ("length", "dropped"),
    [(WINDOW - 1, 1), (WINDOW, 2), (WINDOW + 1, 1), (WINDOW + 1, WINDOW), (3 * WINDOW, WINDOW)],
)
def test_a_cache_that_recorded_its_past_goes_on_after_a_rollback(hf_model, length, dropped, device):
    model = mistral_ext.from_hf(hf_model)
    ids = random_ids(2, length + 6).to(device)
    with torch.no_grad():
        cache = model.create_cache()
        cache.activate_past_recording()
        model(ids[:, :length], past_key_values=cache)
        cache.crop(-dropped)
        ours = model(ids[:, length - dropped :], past_key_values=cache).logits
        theirs = hf_model(ids, use_cache=False).logits[:, length - dropped :]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_rollback_into_what_was_overwritten_is_an_error_and_changes_nothing(hf_model, device):
    model = mistral_ext.from_hf(hf_model)
    ids = random_ids(2, 3 * WINDOW).to(device)
    with torch.no_grad():
        cache = model(ids).past_key_values
        with pytest.raises(RuntimeError, match=r"sliding window of 5 .* record the past before"):
            cache.crop(-2)
        ours = model(ids[:, :1], past_key_values=cache).logits
        whole = torch.cat([ids, ids[:, :1]], 1)
        theirs = hf_model(whole, use_cache=False).logits[:, -1:]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
