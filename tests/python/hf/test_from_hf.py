"""from_hf: our class around the parameters of a live Hugging Face model."""

import copy

import pytest
import torch
import transformers
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.models import CONFIGS, random_ids, small_model
from torch import nn

import mistral_ext


@pytest.mark.parametrize("name", CONFIGS)
def test_holds_the_very_parameters_and_buffers(name, device):
    hf_model = small_model(name, device=device)
    model = mistral_ext.from_hf(hf_model)
    assert type(model).__name__ == type(hf_model).__name__
    assert isinstance(model, type(hf_model))
    assert isinstance(model, transformers.GenerationMixin)
    ours = dict(model.named_parameters(remove_duplicate=False))
    for key, parameter in hf_model.named_parameters(remove_duplicate=False):
        assert ours.pop(key) is parameter
    assert not ours
    for key, buffer in hf_model.named_buffers():
        assert model.get_buffer(key) is buffer
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == (
        hf_model.lm_head.weight is hf_model.model.embed_tokens.weight
    )


def test_keeps_dtype_training_mode_requires_grad_and_generation_config(device):
    hf_model = small_model(dtype=torch.bfloat16, device=device).train()
    hf_model.model.layers[1].eval()
    hf_model.model.embed_tokens.weight.requires_grad_(False)
    hf_model.generation_config.top_k = 7
    model = mistral_ext.from_hf(hf_model)
    assert model.dtype == torch.bfloat16
    assert model.device.type == device.type
    assert [m.training for m in model.modules()] == [m.training for m in hf_model.modules()]
    assert not model.model.embed_tokens.weight.requires_grad
    assert model.generation_config.top_k == 7


def test_leaves_the_given_model_as_it_was(device):
    hf_model = small_model(device=device)
    before = {name: type(module) for name, module in hf_model.named_modules()}
    logits = hf_model(random_ids(1, 5).to(device)).logits
    model = mistral_ext.from_hf(hf_model)
    model.config.sliding_window = 3
    model.generation_config.top_k = 3
    model.model.layers[0].mlp.up_proj = nn.Linear(64, 96, bias=False, device=device)
    model.register_forward_hook(lambda *_: None)
    model(random_ids(1, 5).to(device), output_attentions=True)
    model.train()
    assert {name: type(module) for name, module in hf_model.named_modules()} == before
    assert hf_model.config.sliding_window is None
    assert hf_model.config._attn_implementation == "eager"
    assert hf_model.generation_config.top_k != 3
    assert not hf_model.training
    assert all(not module._forward_hooks for module in hf_model.modules())
    assert torch.equal(hf_model(random_ids(1, 5).to(device)).logits, logits)


def test_changes_of_the_shared_parameters_are_seen_by_both(device):
    hf_model = small_model(device=device)
    model = mistral_ext.from_hf(hf_model)
    ids = random_ids(1, 5).to(device)
    with torch.no_grad():
        hf_model.lm_head.weight.mul_(2)
    assert_close_to_scale(model(ids).logits, hf_model(ids).logits)
    model.double()
    assert hf_model.dtype == torch.float64
    assert_close_to_scale(model(ids).logits, hf_model(ids).logits)


def test_takes_no_memory_for_weights():
    hf_model = small_model(hidden_size=512, intermediate_size=1024, vocab_size=2000)
    size = sum(parameter.nbytes for parameter in hf_model.parameters())
    storages = {p.untyped_storage().data_ptr() for p in hf_model.parameters()}
    with torch.profiler.profile(profile_memory=True) as profile:
        model = mistral_ext.from_hf(hf_model)
        mistral_ext.path_report(model)
    taken = sum(max(event.cpu_memory_usage, 0) for event in profile.events())
    assert taken <= 0.05 * size
    assert {p.untyped_storage().data_ptr() for p in model.parameters()} == storages


def test_takes_a_model_of_ours_too(device):
    model = mistral_ext.from_hf(small_model(device=device))
    again = mistral_ext.from_hf(model)
    assert again is not model
    assert type(again) is type(model)
    ids = random_ids(1, 5).to(device)
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert_ran(again, "native")


def test_takes_a_model_whose_hidden_states_were_recorded_and_forgets_the_hooks(device):
    hf_model = small_model(device=device)
    ids = random_ids(1, 5).to(device)
    hf_model(ids, output_hidden_states=True, output_attentions=True)
    model = mistral_ext.from_hf(hf_model)
    assert all(not module._forward_hooks for module in model.modules())
    assert len(model(ids, output_attentions=True).attentions) == 3
    assert_ran(model, "module")
    assert len(hf_model(ids, output_attentions=True).attentions) == 3


def test_runs_on_the_meta_device_as_hugging_faces_does():
    config = small_model().config
    with torch.device("meta"):
        hf_model = transformers.MistralForCausalLM(config)
    model = mistral_ext.from_hf(hf_model)
    assert model(torch.ones(1, 4, dtype=torch.long, device="meta")).logits.shape == (1, 4, 99)
    assert "meta" in mistral_ext.path_report(model).reason
    model.to_empty(device="cpu")
    model.init_weights()  # the rotary frequencies, which no state dict has, are empty as well
    model.load_state_dict(small_model().state_dict())
    assert mistral_ext.path_report(model).path == "native"


@pytest.mark.parametrize("wrong", [None, "folder", nn.Linear(2, 2), "llama", "subclass"], ids=str)
def test_refuses_other_objects_by_name(wrong):
    if wrong == "llama":
        wrong = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=9,
                hidden_size=8,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=2,
            )
        )
    elif wrong == "subclass":
        wrong = type("Mine", (transformers.MistralForCausalLM,), {})(small_model().config)
    with pytest.raises(TypeError, match=r"from_hf: hf_model must be a .* got .*"):
        mistral_ext.from_hf(wrong)


def test_refuses_replaced_modules_by_name():
    hf_model = small_model()
    hf_model.model.layers[1].mlp.up_proj = nn.Sequential(hf_model.model.layers[1].mlp.up_proj)
    with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.up_proj must be .*Sequential"):
        mistral_ext.from_hf(hf_model)


@pytest.mark.parametrize("kind", ["forward", "pre", "backward", "replaced"])
def test_refuses_to_lose_hooks(kind):
    hf_model = small_model()
    layer = hf_model.model.layers[2]
    if kind == "forward":
        layer.register_forward_hook(lambda *_: None)
    elif kind == "pre":
        layer.register_forward_pre_hook(lambda *_: None)
    elif kind == "backward":
        layer.register_full_backward_hook(lambda *_: None)
    else:
        layer.forward = layer.forward
    with pytest.raises(ValueError, match=r"model\.layers\.2 must have no hook"):
        mistral_ext.from_hf(hf_model)


def test_refuses_a_model_that_peft_wrapped_and_says_what_to_do():
    peft = pytest.importorskip("peft")
    wrapped = peft.get_peft_model(
        copy.deepcopy(small_model()), peft.LoraConfig(target_modules=["q_proj"])
    )
    with pytest.raises(TypeError, match=r"PeftModel.*before PEFT wraps it"):
        mistral_ext.from_hf(wrapped)
    with pytest.raises(ValueError, match="q_proj must be one of transformers' own modules"):
        mistral_ext.from_hf(wrapped.base_model.model)
