"""Hooks see and change what they see and change in Hugging Face's class."""

import pytest
import torch
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.models import random_ids, small_model

import mistral_ext

PLACES = [
    "model",
    "model.embed_tokens",
    "model.layers.1",
    "model.layers.1.self_attn",
    "model.layers.1.self_attn.k_proj",
    "model.layers.1.mlp",
    "model.layers.1.mlp.act_fn",
    "model.layers.1.input_layernorm",
    "model.norm",
    "lm_head",
]


@pytest.fixture
def pair(device):
    hf_model = small_model("window", device=device)
    hf_model.set_attn_implementation("sdpa")  # which returns no attention weights either
    return hf_model, mistral_ext.from_hf(hf_model)


@pytest.fixture
def ids(device):
    return random_ids(2, 11).to(device)


def tensors_of(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors_of(item)]
    return []


@pytest.mark.parametrize("place", PLACES)
def test_a_forward_hook_sees_the_same_inputs_and_outputs(pair, ids, place):
    seen = []
    for model in pair:

        def note(module, args, kwargs, output, seen=seen):
            seen.append([*tensors_of(args), *tensors_of(output)])

        handle = model.get_submodule(place).register_forward_hook(note, with_kwargs=True)
        model(ids, use_cache=False)
        handle.remove()
    theirs, ours = seen
    assert len(ours) == len(theirs) > 0
    for mine, reference in zip(ours, theirs, strict=True):
        assert_close_to_scale(mine.float(), reference.float())
    assert_ran(pair[1], "module")
    pair[1](ids)
    assert_ran(pair[1], "native")


@pytest.mark.parametrize("place", PLACES[1:])
def test_what_a_hook_changes_takes_effect(pair, ids, place):
    def scale(module, args, output):
        if isinstance(output, tuple):
            return (output[0] * 1.5, *output[1:])
        return output * 1.5

    logits = []
    for model in pair:
        before = model(ids).logits
        handle = model.get_submodule(place).register_forward_hook(scale)
        logits.append(model(ids).logits)
        handle.remove()
        assert not torch.allclose(logits[-1], before)
    assert_close_to_scale(logits[1], logits[0])


@pytest.mark.parametrize("place", ["model.layers.1", "model.layers.1.mlp", "lm_head"])
def test_what_a_hook_before_forward_changes_takes_effect(pair, ids, place):
    def scale(module, args):
        return (args[0] * 0.5 + 1.0, *args[1:])

    logits = []
    for model in pair:
        handle = model.get_submodule(place).register_forward_pre_hook(scale)
        logits.append(model(ids).logits)
        handle.remove()
    assert_close_to_scale(logits[1], logits[0])


def test_a_hook_before_the_models_own_forward_changes_its_arguments(pair, ids):
    def shorten(module, args, kwargs):
        return (args[0][:, :5],), kwargs

    logits = []
    for model in pair:
        handle = model.register_forward_pre_hook(shorten, with_kwargs=True)
        logits.append(model(ids).logits)
        handle.remove()
    assert logits[0].shape[1] == 5
    assert_close_to_scale(logits[1], logits[0])


def test_hooks_of_tensors_get_gradients_on_the_native_path(pair, ids):
    found = []
    for model in pair:
        weight = model.model.layers[0].self_attn.q_proj.weight
        handle = weight.register_hook(lambda grad: found.append(grad.clone()))
        model(ids, labels=ids).loss.backward()
        handle.remove()
    assert_ran(pair[1], "native")
    assert_close_to_scale(found[1], found[0], relative=1e-5)


def test_a_gradient_is_known_once_it_is_accumulated(pair, ids):
    """As optimizers that step inside backward use it."""
    calls = []
    weight = pair[1].model.layers[0].self_attn.q_proj.weight
    handle = weight.register_post_accumulate_grad_hook(lambda p: calls.append(p.grad.norm()))
    pair[1](ids, labels=ids).loss.backward()
    handle.remove()
    assert len(calls) == 1
    assert_ran(pair[1], "native")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_modes_of_autograd(pair, ids, mode):
    with mode():
        ours, theirs = pair[1](ids).logits, pair[0](ids).logits
    assert_close_to_scale(ours, theirs)
    assert ours.requires_grad == theirs.requires_grad
    assert ours.is_inference() == theirs.is_inference()
    assert_ran(pair[1], "native")


@pytest.mark.parametrize("place", ["model.layers.1", "model.layers.1.self_attn"])
def test_a_hook_before_forward_sees_and_changes_the_same_keywords(pair, ids, place):
    seen = []

    def scale(module, args, kwargs):
        seen.append((len(args), sorted(kwargs)))
        if args:
            return (args[0] * 0.5 + 1.0, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] * 0.5 + 1.0}

    logits = []
    for model in pair:
        handle = model.get_submodule(place).register_forward_pre_hook(scale, with_kwargs=True)
        logits.append(model(ids).logits)
        handle.remove()
    assert_close_to_scale(logits[1], logits[0])
    assert seen[0] == seen[1]
