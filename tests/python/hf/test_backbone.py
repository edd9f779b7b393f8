"""The models without a head against Hugging Face's, alone and inside a causal language model."""

import pytest
import torch
import transformers
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.models import random_ids, small_config, small_model
from torch import nn
from transformers.utils import output_capturing

import mistral_ext
from mistral_ext.hf.backbone import NativeBackbone

FAMILIES = ["gqa", "window", "two_layer_types", "query_scale"]


@pytest.fixture(params=["native", "module"])
def path(request):
    with mistral_ext.use_path(request.param):
        yield request.param


@pytest.fixture(params=FAMILIES)
def pair(request, device):
    """(Hugging Face's backbone, ours around the same parameters)"""
    hf_model = small_model(request.param, device=device, kind="Model")
    return hf_model, mistral_ext.from_hf(hf_model)


@pytest.fixture
def ids(device):
    return random_ids(2, 17).to(device)


def left_padded(ids):
    mask = torch.ones_like(ids)
    mask[0, :6] = 0
    return mask


def gradients_of(model, parameters, ids, mask):
    for parameter in parameters.values():
        parameter.grad = None
    hidden_states = model(ids, attention_mask=mask).last_hidden_state
    hidden_states[mask.bool()].square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in parameters.items()}


@pytest.mark.parametrize("use_cache", [False, True])
def test_hidden_states_equal_hugging_faces(pair, path, use_cache, ids):
    hf_model, model = pair
    call = {"use_cache": use_cache, "output_hidden_states": True}
    ours, theirs = model(ids, **call), hf_model(ids, **call)
    assert_close_to_scale(ours.last_hidden_state, theirs.last_hidden_state)
    assert len(ours.hidden_states) == len(theirs.hidden_states) == 4
    for mine, reference in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        assert_close_to_scale(mine, reference)
    assert (ours.past_key_values is not None) == use_cache
    assert type(ours) is type(theirs)
    assert_ran(model, path)


def test_padded_rows_and_embeddings_give_the_same(pair, path, ids):
    hf_model, model = pair
    mask = left_padded(ids)
    embeds = hf_model.embed_tokens(ids).detach()
    for tokens in ({"input_ids": ids}, {"inputs_embeds": embeds}):
        ours = model(**tokens, attention_mask=mask).last_hidden_state
        theirs = hf_model(**tokens, attention_mask=mask).last_hidden_state
        assert_close_to_scale(ours, theirs, mask.bool())
    assert_ran(model, path)


def test_chunks_with_a_cache_give_what_one_pass_does(pair, path, ids):
    hf_model, model = pair
    cache, parts = None, []
    with torch.no_grad():
        for begin, end in ((0, 8), (8, 9), (9, 15), (15, 17)):
            output = model(ids[:, begin:end], past_key_values=cache)
            cache = output.past_key_values
            parts.append(output.last_hidden_state)
    theirs = hf_model(ids, use_cache=False).last_hidden_state
    assert_close_to_scale(torch.cat(parts, 1), theirs)
    assert cache.get_seq_length() == 17
    assert_ran(model, path)


def test_gradients_equal_hugging_faces(pair, path, ids):
    hf_model, model = pair
    parameters = dict(hf_model.named_parameters())
    mask = left_padded(ids)
    theirs = gradients_of(hf_model, parameters, ids, mask)
    ours = gradients_of(model, parameters, ids, mask)
    for name, gradient in theirs.items():
        assert_close_to_scale(ours[name], gradient, relative=1e-5)
    assert_ran(model, path)


def test_a_tuple_is_returned_where_one_is_asked_for(pair, path, ids):
    hf_model, model = pair
    ours = model(ids, return_dict=False, output_hidden_states=True)
    theirs = hf_model(ids, return_dict=False, output_hidden_states=True)
    assert [type(item).__name__ for item in ours] == [
        type(item).__name__.replace("DynamicCache", "MistralCache") for item in theirs
    ]
    assert_ran(model, path)
    model.config.return_dict = False
    assert isinstance(model(ids), tuple)


def test_attention_weights_are_recorded_by_a_class_that_was_never_constructed(
    pair, ids, monkeypatch
):
    hf_model, made = pair
    kind = str(type(made))
    monkeypatch.delitem(output_capturing._CAN_RECORD_REGISTRY, kind)
    model = mistral_ext.from_hf(hf_model)
    ours, theirs = model(ids, output_attentions=True), hf_model(ids, output_attentions=True)
    assert_ran(model, "module")
    for mine, reference in zip(ours.attentions, theirs.attentions, strict=True):
        assert_close_to_scale(mine, reference)


def change_in_place(model):
    with torch.no_grad():
        model.layers[0].self_attn.k_proj.weight.neg_()


def change_data(model):
    weight = model.embed_tokens.weight
    weight.data = torch.randn_like(weight)


def change_module(model):
    old = model.layers[2].mlp.down_proj
    model.layers[2].mlp.down_proj = nn.Linear(
        old.in_features, old.out_features, bias=False, device=old.weight.device
    )


def change_vocabulary(model):
    model.resize_token_embeddings(120)


def change_state(model):
    state = small_model(kind="Model", seed=1, device=model.device).state_dict()
    model.load_state_dict(state, assign=True)


def change_window(model):
    model.config.sliding_window = 4


CHANGES = [
    change_in_place,
    change_data,
    change_module,
    change_vocabulary,
    change_state,
    change_window,
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__[7:])
def test_the_next_call_sees(change, ids, device):
    model = mistral_ext.from_hf(small_model(device=device, kind="Model"))
    before = model(ids, use_cache=False).last_hidden_state
    change(model)
    if change is change_vocabulary:
        ids = ids.clone()
        ids[0, 3] = 115
    after = model(ids, use_cache=False).last_hidden_state
    assert_ran(model, "native")
    with mistral_ext.use_path("module"):
        assert_close_to_scale(after, model(ids, use_cache=False).last_hidden_state)
    assert not torch.equal(before, after)


def test_what_needs_python_modules_is_found_and_its_removal_leads_back(ids, device):
    model = mistral_ext.from_hf(small_model(device=device, kind="Model"))
    calls = []
    for where in ("", "layers.1", "norm"):
        handle = model.get_submodule(where).register_forward_hook(lambda *_: calls.append(1))
        assert "has a hook" in mistral_ext.path_report(model).reason
        model(ids)
        assert_ran(model, "module")
        assert calls.pop()
        handle.remove()
    assert mistral_ext.path_report(model).path == "native"
    model.set_attn_implementation("eager")
    assert "attn_implementation 'eager'" in mistral_ext.path_report(model).reason


def test_the_backbone_of_a_causal_language_model_runs_natively(pair, ids, device):
    hf_model = small_model("window", device=device)
    model = mistral_ext.from_hf(hf_model)
    assert isinstance(model.model, NativeBackbone)
    model(ids)
    assert mistral_ext.path_report(model.model).last_forward is None  # C++ ran it all
    ours = model.model(ids).last_hidden_state
    assert_ran(model.model, "native")
    assert_close_to_scale(ours, hf_model.model(ids).last_hidden_state)


def test_a_head_that_needs_python_leaves_the_backbone_to_cpp(ids, device):
    hf_model = small_model(device=device)
    model = mistral_ext.from_hf(hf_model)
    model.lm_head.register_forward_hook(lambda module, args, output: 2 * output)
    assert_close_to_scale(model(ids).logits, 2 * hf_model(ids).logits)
    assert_ran(model, "module")
    assert_ran(model.model, "native")


def test_the_module_path_of_a_causal_language_model_reaches_every_module(ids, device):
    model = mistral_ext.from_hf(small_model(device=device))
    called = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    model(ids)
    assert_ran(model, "module")
    assert_ran(model.model, "module")
    # A list is not called; nor is what one operator does at once.
    skipped = {"model.layers"}
    assert {name for name, _ in model.named_modules()} - set(called) == skipped


def test_another_backbone_put_in_place_is_seen(ids, device):
    hf_model, other = small_model(device=device), small_model(device=device, seed=4)
    model = mistral_ext.from_hf(hf_model)
    model(ids)
    model.model = hf_model.model = other.model
    assert "model is a transformers.models.mistral" in mistral_ext.path_report(model).reason
    assert_close_to_scale(model(ids).logits, hf_model(ids).logits)
    rope = {"rope_type": "default", "rope_theta": 7.0}
    other = small_model(device=device, seed=4, rope_parameters=rope)
    model.model, hf_model.model = mistral_ext.from_hf(other).model, other.model
    assert_close_to_scale(model(ids).logits, hf_model(ids).logits)
    assert_ran(model, "native")


def test_loads_and_saves_as_hugging_faces_does(tmp_path, device):
    hf_model = small_model("two_layer_types", device=device)
    ids = random_ids(2, 9).to(device)
    expected = hf_model.model(ids).last_hidden_state
    hf_model.save_pretrained(tmp_path / "with_head")
    model = mistral_ext.MinistralModel.from_pretrained(tmp_path / "with_head").to(device)
    assert_close_to_scale(model(ids).last_hidden_state, expected)
    assert_ran(model, "native")
    model.save_pretrained(tmp_path / "without")
    hf_model.model.save_pretrained(tmp_path / "theirs")
    ours, theirs = tmp_path / "without", tmp_path / "theirs"
    assert (ours / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()
    assert (ours / "config.json").read_text() == (theirs / "config.json").read_text()
    with mistral_ext.patch():
        again = transformers.AutoModel.from_pretrained(ours).to(device)
    assert type(again) is mistral_ext.MinistralModel
    assert_close_to_scale(again(ids).last_hidden_state, expected)


def test_a_new_model_asks_for_our_attention():
    config = small_config()
    config._attn_implementation = None
    model = mistral_ext.MistralModel(config)
    assert mistral_ext.path_report(model).path == "native"
    assert not model.can_generate()
