"""A DynamicCache of the caller's: native, and afterwards as Hugging Face's model leaves it."""

import copy
import pickle

import pytest
import torch
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.generation import PLAIN, left_padded
from helpers.models import random_ids, small_model
from transformers import DynamicCache

import mistral_ext

WINDOW = 5  # of the model "window"; "two_layer_types" has 6


@pytest.fixture(params=["gqa", "window", "two_layer_types"])
def pair(request, device):
    hf_model = small_model(request.param, device=device)
    return hf_model, mistral_ext.from_hf(hf_model)


@pytest.fixture
def ids(device):
    return random_ids(3, 40).to(device)


def new_caches(pair):
    """(for Hugging Face's model, for ours)"""
    return [DynamicCache(config=pair[0].config) for _ in pair]


def assert_same_states(ours, theirs, mask=None):
    """mask: [rows, tokens]; what is hidden has other states, which nothing sees."""
    assert type(ours) is type(theirs) is DynamicCache
    assert len(ours) == len(theirs) == 3
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        assert type(mine) is type(other)
        for name in ("keys", "values"):
            a, b = (getattr(layer, name).transpose(1, 2) for layer in (mine, other))
            assert_close_to_scale(a, b, ... if mask is None else mask[:, -b.shape[1] :].bool())
        for name in ("is_initialized", "dtype", "device", "cumulative_length"):
            assert getattr(mine, name, None) == getattr(other, name, None)
        assert mine.get_seq_length() == other.get_seq_length()
        assert mine.get_mask_sizes(2) == other.get_mask_sizes(2)


@torch.no_grad()
def step(pair, caches, tokens, path="native", **call):
    hf_model, model = pair
    theirs = hf_model(tokens, past_key_values=caches[0], **call)
    ours = model(tokens, past_key_values=caches[1], **call)
    assert_ran(model, path)
    assert ours.past_key_values is caches[1]
    assert_close_to_scale(ours.logits, theirs.logits)
    assert_same_states(caches[1], caches[0])


def test_is_filled_over_several_calls(pair, ids):
    caches = new_caches(pair)
    begin = 0
    for length in (3, 1, 1, 4, 1, 9, 1, 1):
        step(pair, caches, ids[:, begin : begin + length])
        begin += length


def test_without_a_config_serves_a_model_without_windows(ids, device):
    hf_model = small_model(device=device)
    pair = hf_model, mistral_ext.from_hf(hf_model)
    caches = [DynamicCache(), DynamicCache()]
    for length in (3, 1, 2):
        step(pair, caches, ids[:, :length])
    hf_model = small_model("window", device=device)
    pair = hf_model, mistral_ext.from_hf(hf_model)
    caches = [DynamicCache(), DynamicCache()]
    for length in (3, 1, 7):
        step(pair, caches, ids[:, :length], path="module")
    reason = mistral_ext.path_report(pair[1], past_key_values=caches[1]).reason
    assert "other windows than the layers" in reason


CHANGES = {
    "nothing": lambda cache: None,
    "reorder_cache": lambda cache: cache.reorder_cache(torch.tensor([2, 0, 0])),
    "repeated and selected": lambda cache: (
        cache.batch_repeat_interleave(2),
        cache.batch_select_indices(torch.tensor([1, 2, 5])),
    ),
    "assigned": lambda cache: [
        setattr(layer, name, getattr(layer, name).flip(0))
        for layer in cache.layers
        for name in ("keys", "values")
    ],
    "written into": lambda cache: [layer.keys.mul_(0.5) for layer in cache.layers],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("length", [3, WINDOW - 1, WINDOW, 12])
def test_goes_on_after_what_the_caller_does_to_it(pair, ids, change, length):
    caches = new_caches(pair)
    step(pair, caches, ids[:, :length])
    for _ in range(2):
        for cache in caches:
            CHANGES[change](cache)
        assert_same_states(caches[1], caches[0])
        step(pair, caches, ids[:, 20:21])
        step(pair, caches, ids[:, 21:24])


@pytest.mark.parametrize("drop", [-1, -2, 2])
def test_goes_on_after_a_rollback(pair, ids, drop):
    caches = new_caches(pair)
    step(pair, caches, ids[:, : WINDOW - 1])
    for cache in caches:
        cache.crop(drop)
    for length in (1, 8, 1):
        step(pair, caches, ids[:, :length])


def test_records_its_past_on_the_module_path_and_comes_back(ids, device):
    hf_model = small_model("window", device=device)
    pair = hf_model, mistral_ext.from_hf(hf_model)
    caches = new_caches(pair)
    step(pair, caches, ids[:, :9])
    for cache in caches:
        cache.activate_past_recording()
    step(pair, caches, ids[:, 9:13], path="module")
    for cache in caches:
        cache.crop(-2)
        for layer in cache.layers:
            layer.record_past = False
    step(pair, caches, ids[:, 11:14])


def test_goes_from_model_to_model_and_from_path_to_path(pair, ids):
    hf_model, _ = pair
    others = [copy.deepcopy(each) for each in pair]
    caches = new_caches(pair)
    for index, path in enumerate(["native", "module", "native", "native", "module"]):
        with mistral_ext.use_path(path):
            step(pair if index % 2 else others, caches, ids[:, index : index + 3], path)
    with torch.no_grad():
        hf_model(ids[:, :2], past_key_values=caches[0])
        hf_model(ids[:, :2], past_key_values=caches[1])  # ours, by Hugging Face's model
    step(pair, caches, ids[:, 30:33])


def test_tensors_kept_from_before_stay_what_they_were(pair, ids):
    _, model = pair
    cache = new_caches(pair)[1]
    kept = []
    for length in (3, 1, 7, 1, 1):
        with torch.no_grad():
            model(ids[:, :length], past_key_values=cache)
        kept += [(t, t.clone(), t._version) for layer in cache.layers for t in (layer.keys,)]
    for tensor, value, version in kept:
        assert torch.equal(tensor, value)
        assert tensor._version == version


@pytest.mark.parametrize("copied", ["deepcopy", "pickle", "copy", "states"])
def test_copies_go_their_own_way(pair, ids, copied):
    copies = {
        "deepcopy": copy.deepcopy,
        "pickle": lambda cache: pickle.loads(pickle.dumps(cache)),
        "copy": copy.copy,
        "states": lambda cache: DynamicCache(ddp_cache_data=list(cache)),
    }
    caches = new_caches(pair)
    step(pair, caches, ids[:, : WINDOW - 1])
    twins = [copies[copied](cache) for cache in caches]
    step(pair, caches, ids[:, 10:13])
    if copied != "copy":  # which shares its layers
        assert twins[1].get_seq_length() == WINDOW - 1
    step(pair, twins, ids[:, 20:28])
    step(pair, caches, ids[:, 13:14])


def test_gradients_go_through_it(pair, ids):
    _, model = pair
    found = []
    for each, cache in zip(pair, new_caches(pair), strict=True):
        each.zero_grad()
        each(ids[:, :4], past_key_values=cache)
        each(ids[:, 4:5], past_key_values=cache)
        each(ids[:, 5:12], past_key_values=cache).logits.square().mean().backward()
        found.append({name: p.grad.clone() for name, p in each.named_parameters()})
    assert_ran(model, "native")
    for name, gradient in found[0].items():
        assert_close_to_scale(found[1][name], gradient)


def test_inference_mode(pair, ids):
    caches = new_caches(pair)
    with torch.inference_mode():
        for length in (3, 1, 6, 1):
            step(pair, caches, ids[:, :length])


GENERATIONS = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 5},
    "beams": {"num_beams": 3, "eos_token_id": 7},
    "chunks": {"prefill_chunk_size": 3},
}


@pytest.mark.parametrize("how", GENERATIONS)
@pytest.mark.parametrize("length", [WINDOW - 1, 9])
def test_generate_fills_it(pair, ids, how, length):
    _, model = pair
    prompt, mask = left_padded(ids[:, :length].clone(), 2, 0, 1)
    caches, outputs = new_caches(pair), []
    for each, cache in zip(pair, caches, strict=True):
        torch.manual_seed(0)
        call = {**PLAIN, **GENERATIONS[how], "attention_mask": mask}
        output = each.generate(prompt, past_key_values=cache, return_dict_in_generate=True, **call)
        assert output.past_key_values is cache
        outputs.append(output.sequences)
    assert torch.equal(*outputs)
    assert str(mistral_ext.path_report(model).generation) == "native"
    seen = caches[0].get_seq_length()
    mask = torch.cat([mask, mask.new_ones(len(mask), seen - length)], 1)
    mask = mask.repeat_interleave(len(caches[0].layers[0].keys) // len(mask), 0)
    assert_same_states(caches[1], caches[0], mask)


@pytest.mark.parametrize("turn", ["generate", "forward", "beams"])
def test_generate_goes_on_with_it(pair, ids, turn):
    """Over turns, with a tensor of an earlier turn kept."""
    _, model = pair
    ended = []
    for each, cache in zip(pair, new_caches(pair), strict=True):
        whole = ids[:, :7]
        if turn == "forward":
            with torch.no_grad():
                each(whole[:, :-1], past_key_values=cache)
        kept = []
        for question in range(3):
            beams = {"num_beams": 2} if turn == "beams" and question == 2 else {}
            if beams:
                cache.batch_repeat_interleave(2)
            whole = each.generate(whole, past_key_values=cache, **{**PLAIN, **beams})
            kept += [(layer.keys, layer.keys.clone()) for layer in cache.layers]
            whole = torch.cat([whole, ids[:, question * 3 : question * 3 + 4]], 1)
        assert all(torch.equal(*states) for states in kept)
        ended.append(whole)
    assert torch.equal(*ended)
    assert str(mistral_ext.path_report(model).generation) == "native"


def test_a_loop_that_is_left_leaves_whole_tokens(pair, ids):
    class Leave(Exception):
        pass

    def leave(input_ids, scores, **kwargs):
        if input_ids.shape[1] == 12:
            raise Leave
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    caches = new_caches(pair)
    for each, cache in zip(pair, caches, strict=True):
        with pytest.raises(Leave):
            each.generate(
                ids[:, :9],
                past_key_values=cache,
                stopping_criteria=[leave],
                **{**PLAIN, "eos_token_id": 2},
            )
    assert_same_states(caches[1], caches[0])
    step(pair, caches, ids[:, 20:22])


def test_assisted_decoding_with_it(ids, device):
    hf_model = small_model(device=device)
    model = mistral_ext.from_hf(hf_model)
    outputs = [
        each.generate(
            ids[:1, :9], past_key_values=DynamicCache(), prompt_lookup_num_tokens=3, **PLAIN
        )
        for each in (hf_model, model)
    ]
    assert torch.equal(*outputs)
    assert_ran(model, "native")


@pytest.mark.parametrize("states", ["of one layer", "of another dtype", "of another length"])
def test_states_that_are_unlike_the_models_are_left_to_hugging_faces_modules(ids, states, device):
    hf_model = small_model(device=device)
    pair = hf_model, mistral_ext.from_hf(hf_model)
    caches = new_caches(pair)
    step(pair, caches, ids[:, :6])
    for cache in caches:
        for layer in cache.layers[: 1 if states == "of one layer" else None]:
            if states == "of another dtype":
                layer.keys, layer.values = layer.keys.double(), layer.values.double()
            elif states == "of another length":
                layer.keys = layer.keys[:, :, :4]
            else:
                layer.keys, layer.values = layer.keys[:, :, :4], layer.values[:, :, :4]
    report = mistral_ext.path_report(pair[1], past_key_values=caches[1])
    assert report.path == "module"
    assert "past_key_values is a DynamicCache" in report.reason


def test_memory_is_given_back_with_it(ids, device):
    from mistral_ext.hf import dynamic_cache

    model = mistral_ext.from_hf(small_model(device=device))
    before = len(dynamic_cache._twins)
    cache = DynamicCache()
    with torch.no_grad():
        model(ids[:, :3], past_key_values=cache)
    assert len(dynamic_cache._twins) == before + 1
    del cache
    assert len(dynamic_cache._twins) == before
