"""MistralCache stands wherever transformers takes a DynamicCache, and gives the same answers."""

import copy
import inspect
import io
import pickle

import pytest
import torch
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.models import random_ids, small_model
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

import mistral_ext
from mistral_ext.hf.cache import MistralCacheLayer

WINDOW = 5


@pytest.fixture(params=["native", "module"])
def path(request):
    with mistral_ext.use_path(request.param):
        yield request.param


@pytest.fixture(params=["gqa", "window", "two_layer_types"])
def pair(request, device):
    hf_model = small_model(request.param, device=device)
    return hf_model, mistral_ext.from_hf(hf_model)


@pytest.fixture
def ids(device):
    return random_ids(3, 17).to(device)


@torch.no_grad()
def filled(pair, ids):
    """(our cache, Hugging Face's), after the same tokens."""
    hf_model, model = pair
    return model(ids).past_key_values, hf_model(ids).past_key_values


@torch.no_grad()
def assert_same_continuation(pair, caches, ids):
    hf_model, model = pair
    ours, theirs = caches
    assert ours.get_seq_length() == theirs.get_seq_length()
    for length in (1, 2, 1):
        mine = model(ids[:, :length], past_key_values=ours).logits
        reference = hf_model(ids[:, :length], past_key_values=theirs).logits
        assert_close_to_scale(mine, reference)


def test_is_a_dynamic_cache_for_who_asks(pair, ids):
    _, model = pair
    for cache in (model(ids).past_key_values, model.create_cache()):
        assert type(cache) is mistral_ext.MistralCache
        assert isinstance(cache, DynamicCache)
        assert not cache.is_compileable
    output = model.generate(ids, max_new_tokens=2, return_dict_in_generate=True)
    assert isinstance(output.past_key_values, DynamicCache)


@pytest.mark.parametrize("length", [1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 17])
def test_shows_the_states_that_transformers_own_cache_holds(pair, path, length, ids):
    ours, theirs = filled(pair, ids[:, :length])
    assert isinstance(ours, Cache)
    assert len(ours) == len(theirs) == 3
    assert ours.is_initialized
    assert ours.is_sliding == theirs.is_sliding
    assert not ours.is_compileable
    assert ours.batch_size == 3
    for index, (mine, reference) in enumerate(zip(ours.layers, theirs.layers, strict=True)):
        assert_close_to_scale(mine.keys, reference.keys)
        assert_close_to_scale(mine.values, reference.values)
        assert mine.get_seq_length() == reference.get_seq_length() == length
        assert ours.get_max_length(index) == theirs.get_max_length(index)
        for queries in (1, 3):
            assert ours.get_mask_sizes(queries, index) == theirs.get_mask_sizes(queries, index)
    for mine, reference in zip(ours, theirs, strict=True):
        assert (mine[2] is None) == (reference[2] is None)
    assert_same_continuation(pair, (ours, theirs), ids)


def test_rows_are_reordered_selected_and_repeated(pair, path, ids):
    caches = filled(pair, ids)
    order = torch.tensor([2, 0, 0], device=ids.device)
    for cache in caches:
        cache.reorder_cache(order)
    assert_same_continuation(pair, caches, ids)
    for cache in caches:
        cache.batch_repeat_interleave(2)
    assert_same_continuation(pair, caches, ids.repeat_interleave(2, 0))
    for cache in caches:
        cache.batch_select_indices(torch.tensor([5, -1], device=ids.device))
    assert_same_continuation(pair, caches, ids[:2])
    for cache in caches:
        cache.batch_select_indices(torch.tensor([False, True], device=ids.device))
    assert_same_continuation(pair, caches, ids[:1])


@pytest.mark.parametrize("tokens", [-1, -3, 0, 2])
def test_crops_as_transformers_does_before_a_window_is_full(pair, path, tokens, ids):
    caches = filled(pair, ids[:, : WINDOW - 1])
    for cache in caches:
        cache.crop(tokens)
    assert_same_continuation(pair, caches, ids)


@pytest.mark.parametrize("tokens", [-1, -3, 0])
def test_rolls_back_beyond_the_window_where_the_past_was_recorded(pair, path, tokens, ids):
    hf_model, model = pair
    caches = filled(pair, ids[:, :12])
    with torch.no_grad():
        for each, cache in zip((model, hf_model), caches, strict=True):
            cache.activate_past_recording()
            each(ids[:, 12:16], past_key_values=cache)
            cache.crop(tokens)
            for layer in cache.layers:
                layer.record_past = False
    assert_same_continuation(pair, caches, ids)


def methods(kind):
    """The public methods of a class and its constructor, with their signatures."""
    functions = inspect.getmembers(kind, inspect.isfunction)
    return {
        name: inspect.signature(function).parameters
        for name, function in functions
        if not name.startswith("_") or (name == "__init__" and issubclass(kind, Cache))
    }


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (mistral_ext.MistralCache, Cache),
        (mistral_ext.MistralCache, DynamicCache),
        (MistralCacheLayer, CacheLayerMixin),
        (MistralCacheLayer, DynamicLayer),
        (MistralCacheLayer, DynamicSlidingWindowLayer),
    ],
)
def test_methods_take_the_arguments_that_transformers_own_take(ours, theirs):
    mine = methods(ours)
    for name, parameters in methods(theirs).items():
        if name == "__init__" and theirs is Cache:
            continue  # a DynamicCache takes others
        shared = list(mine[name].values())[: len(parameters)]
        described = [(each.name, each.kind, each.default) for each in parameters.values()]
        assert [(each.name, each.kind, each.default) for each in shared] == described, name
        assert all(
            each.default is not inspect.Parameter.empty or each.kind.name.startswith("VAR")
            for each in list(mine[name].values())[len(parameters) :]
        ), name


def test_layers_show_what_transformers_own_show(pair, ids):
    for mine, theirs in zip(*(cache.layers for cache in filled(pair, ids)), strict=True):
        for name in vars(theirs):
            assert name.startswith("_") or hasattr(mine, name), name
        for name in ("is_initialized", "is_sliding", "dtype", "device", "is_croppable"):
            assert getattr(mine, name) == getattr(theirs, name), name


def test_methods_are_called_by_name(pair, path, ids):
    caches = filled(pair, ids[:, : WINDOW - 1])
    states = torch.ones(3, 2, 1, 16, device=ids.device)
    for cache in caches:
        for index, layer in enumerate(cache.layers):
            with pytest.warns(FutureWarning, match="max_length"):
                layer.crop(max_length=3)
            layer.crop(tokens_to_remove=-1)
            assert layer.get_mask_sizes(query_length=2) == (4, 0)
            layer.reorder_cache(beam_idx=torch.tensor([1, 0, 2], device=ids.device))
            layer.batch_repeat_interleave(repeats=2)
            layer.batch_select_indices(indices=torch.tensor([0, 2, 4], device=ids.device))
            cache.update(key_states=states, value_states=states, layer_idx=index)
            assert cache.get_mask_sizes(query_length=1, layer_idx=index) == (4, 0)
            assert cache.get_seq_length(layer_idx=index) == 3
            assert cache.get_query_offset(layer_idx=index) == 3
        cache.reorder_cache(beam_idx=torch.tensor([2, 0, 1], device=ids.device))
        cache.batch_repeat_interleave(repeats=2)
        cache.batch_select_indices(indices=torch.tensor([0, 2, 4], device=ids.device))
        cache.crop(tokens_to_remove=-1)
    assert_same_continuation(pair, caches, ids)


def test_is_not_offloaded(ids, device):
    config = small_model(device=device).config
    with pytest.raises(ValueError, match="MistralCache: offloading must be False, got True"):
        mistral_ext.MistralCache(config=config, offloading=True)


def test_refuses_to_roll_back_into_what_a_window_has_dropped(ids, device):
    model = mistral_ext.from_hf(small_model("two_layer_types", device=device))
    cache = model(ids).past_key_values
    with pytest.raises(RuntimeError, match="sliding window"):
        cache.crop(-2)
    assert [layer.get_seq_length() for layer in cache.layers] == [17, 17, 17]


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, copy.copy, lambda cache: pickle.loads(pickle.dumps(cache))],
    ids=["deepcopy", "copy", "pickle"],
)
def test_copies_go_their_own_way(pair, path, copied, ids):
    ours, theirs = filled(pair, ids)
    twin = copied(ours)
    with torch.no_grad():
        pair[1](ids[:, :3], past_key_values=twin)
    assert twin.get_seq_length() == 20
    assert_same_continuation(pair, (ours, theirs), ids)


def test_is_saved_and_loaded_by_torch(pair, ids):
    ours, theirs = filled(pair, ids)
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert_same_continuation(pair, (loaded, theirs), ids)


def test_states_can_be_assigned_layer_by_layer(pair, path, ids):
    caches = filled(pair, ids[:, : WINDOW - 1])
    for cache in caches:
        for layer in cache.layers:
            layer.keys = layer.keys.flip(0)
            layer.values = layer.values.flip(0)
    assert_same_continuation(pair, caches, ids)


def test_what_was_assigned_is_not_written_into(ids, device):
    model = mistral_ext.from_hf(small_model(device=device))
    cache = model(ids).past_key_values
    keys = cache.layers[0].keys.detach().clone()
    values = cache.layers[0].values.detach().clone()
    before = keys.clone()
    cache.layers[0].keys, cache.layers[0].values = keys, values
    with torch.no_grad():
        cache.crop(-2)
        model(ids[:, :2], past_key_values=cache)
    assert torch.equal(keys, before)


def test_half_an_assignment_is_refused_when_used(ids, device):
    model = mistral_ext.from_hf(small_model(device=device))
    cache = model(ids).past_key_values
    cache.layers[1].keys = cache.layers[1].keys[:, :, :3]
    with pytest.raises(ValueError, match=r"keys and values must have one shape, got .*\[3, 2, 3,"):
        model(ids[:, :1], past_key_values=cache)


def test_serves_again_after_a_reset(pair, path, ids):
    cache, _ = filled(pair, ids)
    cache.reset()
    assert cache.get_seq_length() == 0
    assert_same_continuation(pair, (cache, DynamicCache(config=pair[0].config)), ids)


def test_is_made_from_the_states_of_another_cache(pair, path, ids):
    _, theirs = filled(pair, ids[:, : WINDOW - 1])
    ours = mistral_ext.MistralCache(theirs)
    assert_same_continuation(pair, (ours, theirs), ids)


def test_both_paths_go_on_with_one_cache(pair, ids):
    hf_model, model = pair
    ours, theirs = filled(pair, ids)
    with torch.no_grad():
        for step, path in enumerate(["module", "native", "native", "module", "module", "native"]):
            with mistral_ext.use_path(path):
                logits = model(ids[:, step : step + 1], past_key_values=ours).logits
            assert_ran(model, path)
            expected = hf_model(ids[:, step : step + 1], past_key_values=theirs).logits
            assert_close_to_scale(logits, expected)


def test_memory_stays_within_the_window(ids, device):
    model = mistral_ext.from_hf(small_model("window", device=device))
    with torch.no_grad():
        cache = model(ids).past_key_values
        for step in range(17):
            model(ids[:, step : step + 1], past_key_values=cache)
    slots = 3 * 3 * 2 * 16 * 4 * 2  # layers, rows, heads, head_dim, bytes, keys and values
    assert cache.nbytes == WINDOW * slots


@pytest.mark.parametrize("argument", ["windows", "layers", "batch", "heads", "dtype"])
def test_a_cache_that_does_not_fit_the_model_is_refused(argument, ids, device):
    model = mistral_ext.from_hf(small_model(device=device))
    other = {
        "windows": lambda: small_model("window", device=device),
        "layers": lambda: small_model(num_hidden_layers=2, device=device),
        "batch": lambda: small_model(device=device),
        "heads": lambda: small_model("mqa", device=device),
        "dtype": lambda: small_model(dtype=torch.bfloat16, device=device),
    }[argument]()
    rows = 2 if argument == "batch" else 3
    cache = mistral_ext.from_hf(other)(ids[:rows]).past_key_values
    with pytest.raises(ValueError, match=r"past_key_values|cache"):
        model(ids, past_key_values=cache)
    assert cache.get_seq_length() == 17
