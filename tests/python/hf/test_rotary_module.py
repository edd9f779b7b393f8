"""The rotary module's own frequencies are the ones that count, whichever path runs."""

import copy

import pytest
import torch
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.generation import PLAIN, PYTHON_LOOP
from helpers.models import random_ids, small_model

import mistral_ext


def replace(model):
    config = copy.deepcopy(model.config)
    config.rope_parameters["rope_theta"] = 5.0
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to(model.device)


def write_in_place(model):
    model.model.rotary_emb.inv_freq.mul_(0.25)


def write_data(model):
    rotary = model.model.rotary_emb
    rotary.inv_freq.data = rotary.inv_freq * 0.25


def set_buffer(model):
    model.model.rotary_emb.inv_freq = model.model.rotary_emb.inv_freq * 0.25


def set_scaling(model):
    model.model.rotary_emb.attention_scaling = 3.0


CHANGES = (replace, write_in_place, write_data, set_buffer, set_scaling)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", ["gqa", "yarn"])
def test_a_changed_rotary_module_runs(name, change, device):
    hf_model, ours = small_model(name, device=device), small_model(name, device=device)
    model = mistral_ext.from_hf(ours)
    ids = random_ids(2, 11).to(device)
    before = model(ids).logits
    assert_ran(model, "native")
    for each in (hf_model, model):
        change(each)
    after = model(ids).logits
    assert_close_to_scale(after, hf_model(ids).logits)
    assert not torch.allclose(after, before, atol=1e-2)
    assert mistral_ext.path_report(model).last_forward.reason.startswith("rotary_emb has ")


def test_a_configuration_that_was_edited_before_from_hf_changes_no_angle(device):
    hf_model = small_model(device=device)
    hf_model.config.rope_parameters["rope_theta"] = 7.0
    model = mistral_ext.from_hf(hf_model)
    ids = random_ids(2, 11).to(device)
    assert_close_to_scale(model(ids).logits, hf_model(ids).logits)
    assert "rotary_emb has other frequencies" in mistral_ext.path_report(model).reason


@pytest.mark.parametrize("name", ["gqa", "linear", "dynamic", "yarn", "llama3", "query_scale"])
@pytest.mark.parametrize("cast", ["half", "bfloat16", "double", "float"])
def test_a_cast_of_the_model_stays_on_the_native_path(name, cast, device):
    model = getattr(mistral_ext.from_hf(small_model(name, device=device)), cast)()
    assert mistral_ext.path_report(model).path == "native", mistral_ext.path_report(model)
    assert mistral_ext.path_report(model.float()).path == "native"


def grow(model, how, device):
    """Runs a sequence of some 35 tokens, of which the configuration's rope holds 12."""
    if how == "forward":
        model(random_ids(1, 35).to(device))
        return
    call = {} if how == "C++ loop" else PYTHON_LOOP
    model.generate(random_ids(1, 9).to(device), **{**PLAIN, "max_new_tokens": 26}, **call)


@pytest.mark.parametrize("how", ["forward", "C++ loop", "Python loop"])
@pytest.mark.parametrize("then", ["same", "copy", "module path", "C++ model made anew"])
def test_a_dynamic_rope_remembers_what_hugging_faces_does(how, then, device):
    hf_model = small_model("dynamic", device=device)
    model = mistral_ext.from_hf(hf_model)
    for each in (model, hf_model):
        grow(each, how, device)
    assert_ran(model, "native") if how != "C++ loop" else None
    reached = [int(each.model.rotary_emb.max_seq_len_cached) for each in (model, hf_model)]
    assert reached[0] == reached[1] > 12
    if then == "copy":
        hf_model, model = copy.deepcopy(hf_model), copy.deepcopy(model)
    elif then == "C++ model made anew":
        model.__dict__.pop("_native")
    with mistral_ext.use_path("module" if then == "module path" else "native"):
        for length in (20, 40, 5, 20, 13):  # 5 sets it back
            ids = random_ids(1, length, seed=length).to(device)
            assert_close_to_scale(model(ids).logits, hf_model(ids).logits)
    assert_close_to_scale(model.model.rotary_emb.inv_freq, hf_model.model.rotary_emb.inv_freq)


def test_a_dynamic_rope_may_change_paths_at_each_call(device):
    hf_model = small_model("dynamic", device=device)
    model = mistral_ext.from_hf(hf_model)
    for step, length in enumerate((40, 20, 45, 30, 5, 14, 13)):
        ids = random_ids(1, length, seed=length).to(device)
        with mistral_ext.use_path("module" if step % 2 else "native"), torch.inference_mode():
            assert_close_to_scale(model(ids).logits, hf_model(ids).logits)


def test_an_edited_configuration_of_a_dynamic_rope_takes_the_module_path(device):
    hf_model = small_model("dynamic", device=device)
    model = mistral_ext.from_hf(hf_model)
    ids = random_ids(1, 30).to(device)
    for each in (hf_model, model):
        each.config.rope_parameters["factor"] = 8.0
    assert_close_to_scale(model(ids).logits, hf_model(ids).logits)
    assert "dynamic rope" in mistral_ext.path_report(model).last_forward.reason
