"""What a program put in the place of generate's steps runs: PEFT's virtual tokens, its own."""

import functools

import pytest
import torch
from helpers.generation import PLAIN
from helpers.models import random_ids, small_model

import mistral_ext

peft = pytest.importorskip("peft")

VIRTUAL_TOKENS = {
    "prompt": functools.partial(peft.PromptTuningConfig, num_virtual_tokens=4),
    "prefix": functools.partial(peft.PrefixTuningConfig, num_virtual_tokens=4),
    "p-tuning": functools.partial(
        peft.PromptEncoderConfig, num_virtual_tokens=4, encoder_hidden_size=16
    ),
}


@pytest.mark.filterwarnings("ignore:Position ids are not supported")
@pytest.mark.parametrize("kind", VIRTUAL_TOKENS)
def test_virtual_tokens_of_peft_steer_generation(kind, device):
    hf_model = small_model(device=device)
    model = mistral_ext.from_hf(hf_model)
    ids = random_ids(2, 5).to(device)
    call = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **PLAIN}
    plain = model.generate(**call)
    outputs = []
    for each in (model, hf_model):
        torch.manual_seed(0)
        settings = VIRTUAL_TOKENS[kind](task_type="CAUSAL_LM")
        outputs.append(peft.get_peft_model(each, settings).eval().generate(**call))
    assert torch.equal(*outputs)
    assert not torch.equal(outputs[0], plain)
    report = mistral_ext.path_report(model)
    assert "overridden" in report.generation.reason
    # PEFT has put back what it replaced.
    assert torch.equal(model.generate(**call), plain)
    assert mistral_ext.path_report(model).generation.path == "native"


def shift_tokens(original):
    def prepare_inputs_for_generation(*args, **kwargs):
        inputs = original(*args, **kwargs)
        return {**inputs, "input_ids": (inputs["input_ids"] + 1) % 99}

    return prepare_inputs_for_generation


def scale_positions(original):
    def update(*args, **kwargs):
        kwargs = original(*args, **kwargs)
        return {**kwargs, "position_ids": kwargs["position_ids"] * 3}

    return update


def negate_logits(original):
    def call(*args, **kwargs):
        output = original(*args, **kwargs)
        output.logits = -output.logits
        return output

    return call


STEPS = {
    "prepare_inputs_for_generation": shift_tokens,
    "_update_model_kwargs_for_generation": scale_positions,
    "_prefill": negate_logits,
    "forward": negate_logits,
    "__call__": negate_logits,
}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_is_replaced_on_the_model_itself_runs(step, device):
    hf_model = small_model(device=device)
    model = mistral_ext.from_hf(hf_model)
    ids = random_ids(2, 5).to(device)
    plain = model.generate(ids, **PLAIN)
    outputs = []
    for each in (model, hf_model):
        changed = STEPS[step](getattr(each, step))
        # generate reads which arguments a step takes.
        setattr(each, step, functools.wraps(getattr(each, step))(changed))
        outputs.append(each.generate(ids, **PLAIN))
    assert torch.equal(*outputs)
    assert not torch.equal(outputs[0], plain)
    assert mistral_ext.path_report(model).generation.path == "python"


def test_a_step_that_a_subclass_overrides_runs(device):
    class Opposite(mistral_ext.MistralForCausalLM):
        def _prefill(self, *args, **kwargs):
            return negate_logits(super()._prefill)(*args, **kwargs)

    hf_model = small_model(device=device)
    model = mistral_ext.from_hf(hf_model)
    plain = model.generate(random_ids(2, 5).to(device), **PLAIN)
    model.__class__ = Opposite
    assert not torch.equal(model.generate(random_ids(2, 5).to(device), **PLAIN), plain)
    assert mistral_ext.path_report(model).generation.path == "python"
