"""LoRA through PEFT over our class: its modules run, and the C++ path returns once merged."""

import copy

import pytest
import torch
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.generation import PLAIN
from helpers.models import random_ids, small_model

import mistral_ext

peft = pytest.importorskip("peft")

STEPS = 4


@pytest.fixture
def ids(device):
    return random_ids(2, 13).to(device)


def adapted(model, **settings):
    torch.manual_seed(0)
    config = peft.LoraConfig(
        r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"], **settings
    )
    return peft.get_peft_model(model, config)


def train(model, ids):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    losses = []
    for _ in range(STEPS):
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.fixture(params=["gqa", "window"])
def trained(request, ids, device):
    """(Hugging Face's model with a trained adapter, ours trained the same way)"""
    models = {"theirs": adapted(small_model(request.param, device=device))}
    models["ours"] = adapted(mistral_ext.from_hf(small_model(request.param, device=device)))
    losses = {name: train(model, ids) for name, model in models.items()}
    # Adam steps by the learning rate where a gradient is all rounding, in either direction.
    torch.testing.assert_close(losses["ours"], losses["theirs"], rtol=1e-3, atol=0)
    assert losses["ours"][-1] < losses["ours"][0]
    return models["theirs"], models["ours"]


def inner(model):
    return model.get_base_model()


def test_trains_on_the_module_path_and_leaves_the_base_alone(trained, ids, device):
    _, ours = trained
    assert_ran(inner(ours), "module")
    assert "q_proj is a" in mistral_ext.path_report(inner(ours)).reason
    frozen = [p for n, p in ours.named_parameters() if "lora" not in n]
    assert all(p.grad is None and not p.requires_grad for p in frozen)


def test_is_saved_and_loaded_by_either_class(trained, ids, tmp_path, device):
    theirs, ours = trained
    ours.save_pretrained(tmp_path / "ours")
    expected = ours(ids).logits
    name = "window" if inner(theirs).config.sliding_window else "gqa"
    for base in (small_model(name, device=device), None):
        base = base or mistral_ext.from_hf(small_model(name, device=device))
        loaded = peft.PeftModel.from_pretrained(base, tmp_path / "ours").to(device)
        assert_close_to_scale(loaded(ids).logits, expected)


def test_merging_leads_back_to_c_plus_plus(trained, ids):
    _, ours = trained
    expected = ours(ids).logits
    ours.merge_adapter()
    assert_close_to_scale(ours(ids).logits, expected)
    assert_ran(inner(ours), "module")  # the adapter's modules are still there
    ours.unmerge_adapter()
    assert_close_to_scale(ours(ids).logits, expected)
    merged = ours.merge_and_unload()
    assert type(merged) is mistral_ext.MistralForCausalLM
    assert_close_to_scale(merged(ids).logits, expected)
    assert_ran(merged, "native")


def test_a_disabled_adapter_gives_the_base_model(trained, ids, device):
    theirs, ours = trained
    name = "window" if inner(theirs).config.sliding_window else "gqa"
    expected = small_model(name, device=device)(ids).logits
    assert not torch.allclose(ours(ids).logits, expected, atol=1e-2)
    with ours.disable_adapter():
        assert_close_to_scale(ours(ids).logits, expected)
    unloaded = copy.deepcopy(ours).unload()
    assert_close_to_scale(unloaded(ids).logits, expected)
    assert_ran(unloaded, "native")


def test_generates_with_the_adapter(trained, ids):
    theirs, ours = trained
    with torch.no_grad():
        for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.copy_(reference)
    assert torch.equal(ours.generate(ids, **PLAIN), theirs.generate(ids, **PLAIN))
    report = mistral_ext.path_report(inner(ours))
    assert report.generation.path == "python"
    assert report.last_forward.path == "module"


METHODS = {
    "prompt tuning": lambda: peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "prefix tuning": lambda: peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
    "prompt encoder": lambda: peft.PromptEncoderConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, encoder_hidden_size=16
    ),
    "IA3": lambda: peft.IA3Config(
        target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
    "DoRA": lambda: peft.LoraConfig(target_modules=["q_proj"], use_dora=True),
    "LoRA of all layers": lambda: peft.LoraConfig(
        task_type="CAUSAL_LM", target_modules="all-linear"
    ),
    "LoRA of embeddings": lambda: peft.LoraConfig(target_modules=["embed_tokens", "lm_head"]),
    "LoRA of a parameter": lambda: peft.LoraConfig(
        target_modules=[], target_parameters=["model.layers.0.mlp.up_proj.weight"]
    ),
    "a whole module": lambda: peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["norm"]),
    "trainable tokens": lambda: peft.TrainableTokensConfig(
        token_indices=[3, 4], target_modules=["embed_tokens"]
    ),
    "LLaMA-Adapter": lambda: peft.AdaptionPromptConfig(
        task_type="CAUSAL_LM", adapter_len=4, adapter_layers=2
    ),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["gqa", "window"])
def test_other_methods_train_and_generate_as_with_hugging_faces_class(name, method, ids, device):
    losses, tokens = [], []
    for make in (lambda model: model, mistral_ext.from_hf):
        base = make(small_model(name, device=device))
        torch.manual_seed(0)
        model = peft.get_peft_model(base, METHODS[method]()).to(device)
        call = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **PLAIN}
        tokens.append([model.eval().generate(**call, num_beams=beams) for beams in (1, 2)])
        losses.append(train(model.train(), ids))
    torch.testing.assert_close(*losses, rtol=1e-3, atol=0)  # Adam, as above
    for theirs, ours in zip(*tokens, strict=True):
        assert torch.equal(ours, theirs)


def test_dropout_of_the_adapter_follows_the_seed(ids, device):
    losses = []
    for make in (lambda model: model, mistral_ext.from_hf):
        model = adapted(make(small_model(device=device)), lora_dropout=0.3).train()
        torch.manual_seed(1)
        losses.append(train(model, ids))
    torch.testing.assert_close(*losses, rtol=1e-3, atol=0)


def test_trains_with_checkpointed_layers(ids, device):
    losses = []
    for checkpointing in (False, True):
        model = adapted(mistral_ext.from_hf(small_model(device=device))).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        losses.append(train(model, ids))
    torch.testing.assert_close(*losses, rtol=1e-4, atol=0)
