"""No way of changing a model's weights goes unseen, and none leaves the native path."""

import threading

import pytest
import torch
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.models import random_ids, small_model
from torch import nn

import mistral_ext
from mistral_ext.hf.native import model_obstacle, native_model


def change_to_dtype(model):
    model.to(torch.float64)


def change_half(model):
    model.bfloat16()


def change_data_swap(model):
    weight = model.model.layers[1].mlp.up_proj.weight
    weight.data = torch.randn_like(weight)


def change_in_place(model):
    with torch.no_grad():
        model.model.layers[0].self_attn.k_proj.weight.copy_(
            torch.randn_like(model.model.layers[0].self_attn.k_proj.weight)
        )


def change_load_state_dict(model):
    model.load_state_dict(small_model(seed=1).state_dict())


def change_load_state_dict_assign(model):
    state = small_model(seed=2, device=model.device).state_dict()
    model.load_state_dict(state, assign=True)


def change_tie(model):
    model.lm_head.weight = model.model.embed_tokens.weight


def change_tie_and_untie(model):
    change_tie(model)
    model(input_ids=torch.tensor([[5, 6]], device=model.device))
    model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight))


def change_resize_longer(model):
    model.resize_token_embeddings(120)


def change_resize_shorter(model):
    model.resize_token_embeddings(98)


def change_submodule(model):
    old = model.model.layers[2].mlp.down_proj
    model.model.layers[2].mlp.down_proj = nn.Linear(
        old.in_features, old.out_features, bias=False, device=old.weight.device
    )


def change_layers_order(model):
    layers = model.model.layers
    model.model.layers = nn.ModuleList([layers[1], layers[0], layers[2]])
    for index, layer in enumerate(model.model.layers):
        layer.self_attn.layer_idx = index


def change_optimizer_step(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    ids = random_ids(2, 9).to(model.device)
    model(ids, labels=ids).loss.backward()
    optimizer.step()


def change_setattr(model):
    norm = model.model.layers[1].post_attention_layernorm
    norm.weight = nn.Parameter(torch.rand_like(norm.weight))


def change_requires_grad(model):
    model.requires_grad_(False)


def change_storage(model):
    weight = model.model.layers[0].self_attn.o_proj.weight
    with torch.no_grad():
        weight.set_(torch.randn_like(weight))


CHANGES = {name[7:]: f for name, f in list(globals().items()) if name.startswith("change_")}
UNCHANGED = {"requires_grad"}


@pytest.mark.parametrize("change", CHANGES)
def test_the_next_call_sees(change, device):
    model = mistral_ext.from_hf(small_model(device=device))
    ids = random_ids(2, 11).to(device)
    before = model(ids).logits
    CHANGES[change](model)
    after = model(ids)
    assert_ran(model, "native")
    with mistral_ext.use_path("module"):
        by_modules = model(ids)
    # bfloat16() rounds the rotary frequencies too, and Hugging Face's modules then use those.
    relative = 0.2 if after.logits.dtype == torch.bfloat16 else 1e-4
    assert_close_to_scale(after.logits, by_modules.logits, relative=relative)
    if change not in UNCHANGED and change != "to_dtype":
        assert after.logits.shape != before.shape or not torch.equal(after.logits, before)
    assert after.logits.dtype == model.dtype


def test_frozen_parameters_get_no_gradient(device):
    model = mistral_ext.from_hf(small_model(device=device)).requires_grad_(False)
    assert not model(random_ids(1, 5).to(device)).logits.requires_grad
    weight = model.model.layers[1].self_attn.v_proj.weight.requires_grad_()
    ids = random_ids(1, 5).to(device)
    model(ids, labels=ids).loss.backward()
    assert_ran(model, "native")
    assert weight.grad is not None
    assert all(p.grad is None for p in model.parameters() if p is not weight)


def test_functional_call_runs_with_the_weights_it_is_given(device):
    model = mistral_ext.from_hf(small_model(device=device))
    other = small_model(seed=3, device=device)
    ids = random_ids(1, 7).to(device)
    ours = torch.func.functional_call(model, dict(other.named_parameters()), (ids,)).logits
    assert_ran(model, "native")
    assert_close_to_scale(ours, other(ids).logits)
    assert_close_to_scale(model(ids).logits, small_model(device=device)(ids).logits)


@pytest.mark.parametrize(
    ("field", "value"), [("sliding_window", 4), ("sliding_window", None), ("num_hidden_layers", 2)]
)
def test_the_next_call_sees_a_changed_configuration(field, value, device):
    hf_model = small_model("window", device=device)
    model = mistral_ext.from_hf(hf_model)
    ids = random_ids(2, 11).to(device)
    before = model(ids, use_cache=False).logits
    for each in (hf_model, model):
        setattr(each.config, field, value)
    after = model(ids, use_cache=False).logits
    assert not torch.equal(after, before)
    assert_close_to_scale(after, hf_model(ids, use_cache=False).logits)


def test_what_modules_took_from_the_configuration_they_keep(device):
    hf_model = small_model(device=device)
    model = mistral_ext.from_hf(hf_model)
    ids = random_ids(2, 11).to(device)
    model.config.rms_norm_eps = 1.0
    model.config.rope_parameters["rope_theta"] = 7.0
    model.config.sliding_window = 1000  # makes the C++ model anew
    assert_close_to_scale(model(ids).logits, hf_model(ids).logits)
    assert_ran(model, "native")


class ReplacesWeights:
    """A streamer that changes the model while it generates."""

    def __init__(self, model):
        self.model = model

    def put(self, tokens):
        handle = self.model.lm_head.register_forward_hook(lambda *_: None)
        mistral_ext.path_report(self.model)
        handle.remove()
        self.model.lm_head.weight = nn.Parameter(self.model.lm_head.weight.detach().clone())
        mistral_ext.path_report(self.model)

    def end(self):
        pass


def test_a_generation_ends_with_the_weights_it_began_with(device):
    model = mistral_ext.from_hf(small_model(device=device))
    ids = random_ids(1, 5).to(device)
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(ids, **options)
    assert torch.equal(model.generate(ids, streamer=ReplacesWeights(model), **options), expected)
    assert mistral_ext.path_report(model).generation.path == "native"


def test_a_call_keeps_the_model_that_another_thread_finds_an_obstacle_to(device):
    model = mistral_ext.from_hf(small_model(device=device))
    native = native_model(model)
    assert not model_obstacle(model, native)
    model.lm_head.register_forward_hook(lambda *_: None)
    other = threading.Thread(target=mistral_ext.path_report, args=(model,))
    other.start()
    other.join()
    with native.running() as cpp_model:
        assert cpp_model is not None
    assert native.model is None


def test_weights_that_are_lazily_negated(device):
    hf_model = small_model(device=device)
    ids = random_ids(1, 3).to(device)
    expected = hf_model(ids).logits
    for layer in hf_model.model.layers:
        projection = layer.self_attn.q_proj
        projection.weight = nn.Parameter(torch._neg_view(-projection.weight.detach()))
    with torch.no_grad():
        assert_close_to_scale(mistral_ext.from_hf(hf_model)(ids).logits, expected)


@pytest.mark.parametrize("flag", ["scale_grad_by_freq", "sparse"])
def test_an_embedding_with_another_gradient_runs_in_python(flag, device):
    model = mistral_ext.from_hf(small_model(device=device))
    setattr(model.model.embed_tokens, flag, True)
    model(random_ids(1, 5).to(device))
    assert_ran(model, "module")


def test_an_embedding_with_a_greatest_norm_runs_in_python(device):
    hf_model = small_model(device=device)
    model = mistral_ext.from_hf(hf_model)
    ids = random_ids(1, 5).to(device)
    for each in (hf_model, model):
        each.model.embed_tokens.max_norm = 0.5
    with torch.no_grad():
        assert_close_to_scale(model(ids).logits, hf_model(ids).logits)
    assert_ran(model, "module")
