"""forward of our classes against Hugging Face's, eager attention, fp32, on both paths."""

import pytest
import torch
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.models import random_ids, small_model

import mistral_ext

FAMILIES = ["gqa", "window", "two_layer_types", "query_scale", "tied"]


@pytest.fixture(params=["native", "module"])
def path(request):
    with mistral_ext.use_path(request.param):
        yield request.param


@pytest.fixture(params=FAMILIES)
def pair(request, device):
    """(Hugging Face's model, ours around the same parameters)"""
    hf_model = small_model(request.param, device=device)
    return hf_model, mistral_ext.from_hf(hf_model)


@pytest.fixture
def ids(device):
    return random_ids(2, 17).to(device)


def padded(ids: torch.Tensor, side: str) -> torch.Tensor:
    attention_mask = torch.ones_like(ids)
    attention_mask[0, slice(0, 6) if side == "left" else slice(11, 17)] = 0
    return attention_mask


@pytest.mark.parametrize("use_cache", [False, True])
def test_logits_equal_hugging_faces(pair, path, use_cache, ids):
    hf_model, model = pair
    ours, theirs = model(ids, use_cache=use_cache), hf_model(ids, use_cache=use_cache)
    assert_close_to_scale(ours.logits, theirs.logits)
    assert (ours.past_key_values is not None) == use_cache
    assert_ran(model, path)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_give_the_same_logits_at_every_token(pair, path, side, ids):
    hf_model, model = pair
    mask = padded(ids, side)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    for inputs in ({}, {"position_ids": positions}):
        ours = model(ids, attention_mask=mask, **inputs).logits
        theirs = hf_model(ids, attention_mask=mask, **inputs).logits
        assert_close_to_scale(ours, theirs, mask.bool())
    assert_ran(model, path)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("side", [None, "left"])
def test_chunks_with_a_cache_give_the_logits_of_one_pass(pair, path, side, grad, ids):
    hf_model, model = pair
    mask = torch.ones_like(ids) if side is None else padded(ids, side)
    cache, logits, begin = None, [], 0
    with torch.set_grad_enabled(grad):
        for length in (8, 1, 1, 4, 1, 2):
            end = begin + length
            output = model(ids[:, begin:end], attention_mask=mask[:, :end], past_key_values=cache)
            cache = output.past_key_values
            logits.append(output.logits)
            begin = end
    theirs = hf_model(ids, attention_mask=mask, use_cache=False).logits
    assert_close_to_scale(torch.cat(logits, 1), theirs, mask.bool())
    assert cache.get_seq_length() == 17
    assert_ran(model, path)


def test_packed_sequences_do_not_see_each_other(pair, path, ids):
    hf_model, model = pair
    positions = torch.cat([torch.arange(9), torch.arange(8)])[None].to(ids.device)
    for use_cache in (False, True):  # with a cache Hugging Face does not look for packing
        call = {"position_ids": positions, "use_cache": use_cache}
        assert_close_to_scale(model(ids, **call).logits, hf_model(ids, **call).logits)
    assert_ran(model, path)


@pytest.mark.parametrize("kind", ["bool", "additive"])
def test_a_mask_of_four_dimensions_is_all_that_is_visible(path, kind, ids, device):
    hf_model = small_model("window", device=device)
    model = mistral_ext.from_hf(hf_model)
    visible = torch.rand(2, 1, 17, 17, device=device) < 0.5
    visible |= torch.eye(17, dtype=torch.bool, device=device)
    added = torch.zeros_like(visible, dtype=torch.float32).masked_fill(
        ~visible, torch.finfo(torch.float32).min
    )
    ours = model(ids, attention_mask=visible if kind == "bool" else added).logits
    assert_close_to_scale(ours, hf_model(ids, attention_mask=added).logits)
    assert_ran(model, path)


def test_embeddings_may_be_given_in_place_of_ids(pair, path, ids):
    hf_model, model = pair
    embeds = hf_model.model.embed_tokens(ids).detach()
    ours = model(inputs_embeds=embeds).logits
    assert_close_to_scale(ours, hf_model(inputs_embeds=embeds).logits)
    assert_ran(model, path)


@pytest.mark.parametrize("kept", [0, 1, 5, 17, 40, [3, 0, 11], [-1], "bool"])
def test_logits_are_those_that_are_kept(path, kept, ids, device):
    hf_model = small_model(device=device)
    model = mistral_ext.from_hf(hf_model)
    if kept == "bool":
        kept = torch.arange(17, device=device) % 3 == 0
    elif isinstance(kept, list):
        kept = torch.tensor(kept, device=device)
    ours = model(ids, logits_to_keep=kept).logits
    assert_close_to_scale(ours, hf_model(ids, logits_to_keep=kept).logits)
    assert_ran(model, path)


def test_hidden_states_are_the_embeddings_and_every_layers_output(pair, path, ids):
    hf_model, model = pair
    ours = model(ids, output_hidden_states=True)
    theirs = hf_model(ids, output_hidden_states=True)
    assert len(ours.hidden_states) == len(theirs.hidden_states) == 4
    for mine, reference in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        assert_close_to_scale(mine, reference)
    assert ours.attentions is None
    assert_ran(model, path)
    model.config.output_hidden_states = True
    assert len(model(ids).hidden_states) == 4


@pytest.mark.parametrize("items", [None, 7])
def test_loss_and_gradients_equal_hugging_faces(pair, path, items, ids):
    hf_model, model = pair
    mask = padded(ids, "right")
    labels = ids.masked_fill(mask == 0, -100)
    labels[1, :5] = -100
    call = {"labels": labels, "attention_mask": mask}
    if items is not None:
        call["num_items_in_batch"] = items
    gradients = []
    for each in (hf_model, model):
        hf_model.zero_grad()
        output = each(ids, **call)
        output.loss.backward()
        gradients.append({n: p.grad.clone() for n, p in hf_model.named_parameters()})
        gradients[-1]["loss"] = output.loss.detach()
    for name, theirs in gradients[0].items():
        assert_close_to_scale(gradients[1][name], theirs, relative=1e-5)
    assert_ran(model, path)


def test_gradients_reach_embeddings_that_are_given(pair, path, ids):
    hf_model, model = pair
    gradients = []
    for each in (hf_model, model):
        embeds = hf_model.model.embed_tokens(ids).detach().requires_grad_()
        each(inputs_embeds=embeds, labels=ids).loss.backward()
        gradients.append(embeds.grad)
    assert_close_to_scale(gradients[1], gradients[0], relative=1e-5)


def test_gradients_pass_through_the_cache(pair, path, ids):
    hf_model, model = pair
    gradients = []
    for each in (hf_model, model):
        hf_model.zero_grad()
        cache = each(ids[:, :9]).past_key_values
        each(ids[:, 9:], past_key_values=cache, labels=ids[:, 9:]).loss.backward()
        gradients.append({n: p.grad.clone() for n, p in hf_model.named_parameters()})
    for name, theirs in gradients[0].items():
        assert_close_to_scale(gradients[1][name], theirs, relative=1e-5)


def test_a_tuple_is_returned_where_one_is_asked_for(path, ids, device):
    hf_model = small_model(device=device)
    model = mistral_ext.from_hf(hf_model)
    call = {"labels": ids, "output_hidden_states": True, "return_dict": False}
    ours, theirs = model(ids, **call), hf_model(ids, **call)
    assert isinstance(ours, tuple)
    assert [type(item).__name__ for item in ours] == [
        type(item).__name__.replace("DynamicCache", "MistralCache") for item in theirs
    ]
    assert_ran(model, path)


@pytest.mark.parametrize("first", ["no_grad", "inference_mode", "enable_grad"])
@pytest.mark.parametrize("second", ["no_grad", "inference_mode", "enable_grad"])
@pytest.mark.parametrize("name", ["gqa", "window"])
def test_a_cache_made_in_one_gradient_mode_serves_in_another(
    name, first, second, path, ids, device
):
    hf_model = small_model(name, device=device)
    model = mistral_ext.from_hf(hf_model)
    theirs = hf_model(ids, use_cache=False).logits
    with getattr(torch, first)():
        cache = model(ids[:, :7]).past_key_values
    begin = 7
    for mode in (second, second, first, second):
        with getattr(torch, mode)():
            logits = model(ids[:, begin : begin + 2], past_key_values=cache).logits
        assert_close_to_scale(logits, theirs[:, begin : begin + 2])
        begin += 2


def test_16_bit_logits_are_as_near_to_fp32_as_hugging_faces(path, ids, device):
    for dtype in (torch.bfloat16, torch.float16):
        exact = small_model(device=device)(ids).logits
        hf_model = small_model(dtype=dtype, device=device)
        model = mistral_ext.from_hf(hf_model)
        ours, theirs = (
            (each(ids).logits.float() - exact).square().mean().sqrt() for each in (model, hf_model)
        )
        # The contract's 1.1, and what so few numbers leave to chance.
        assert ours <= 1.25 * theirs
        assert model(ids).logits.dtype == dtype


def test_decode_appends_to_a_cache_made_for_the_model(path, ids, device):
    hf_model = small_model("window", device=device)
    model = mistral_ext.from_hf(hf_model)
    theirs = hf_model(ids).logits
    cache = model.create_cache(batch_size=2, max_length=17)
    size = cache.nbytes
    assert size > 0
    assert_close_to_scale(model.decode(ids[:, :12], cache), theirs[:, 11])
    for position in range(12, 17):
        logits = model.decode(ids[:, position : position + 1], cache)
        assert_close_to_scale(logits, theirs[:, position])
        assert not logits.requires_grad
    assert path == "module" or cache.nbytes == size  # nothing was allocated on the way


def test_warns_once_where_the_sequence_is_longer_than_the_model_was_made_for(ids, device, caplog):
    model = mistral_ext.from_hf(small_model(device=device, max_position_embeddings=13))
    for _ in range(2):
        model(ids[:, :13])
    assert not caplog.records
    for _ in range(2):
        cache = model(ids[:, :12]).past_key_values
        model(ids[:, 12:14], past_key_values=cache)
    assert len(caplog.records) == 1
    assert "max_position_embeddings = 13" in caplog.text
