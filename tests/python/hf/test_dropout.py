"""Attention dropout: the seed decides it, also where a checkpointed layer runs twice."""

import pytest
import torch
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.models import random_ids, small_model

import mistral_ext


def gradients(model, ids):
    model.zero_grad()
    torch.manual_seed(7)
    output = model(ids, labels=ids)
    output.loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    return {"loss": output.loss.detach(), **found}


@pytest.mark.parametrize("name", ["gqa", "window"])
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_recomputed_layer_drops_the_same(name, use_reentrant, device):
    ids = random_ids(2, 13).to(device)
    model = mistral_ext.from_hf(small_model(name, device=device, attention_dropout=0.4)).train()
    once = gradients(model, ids)
    assert_ran(model, "module")
    assert once["loss"] != model(ids, labels=ids).loss  # other draws
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    again = gradients(model, ids)
    for key, value in once.items():
        assert_close_to_scale(again[key], value, relative=1e-5)


def test_the_seed_decides(device):
    ids = random_ids(2, 13).to(device)
    model = mistral_ext.from_hf(small_model(device=device, attention_dropout=0.4)).train()
    first, second = gradients(model, ids), gradients(model, ids)
    assert all(torch.equal(first[key], second[key]) for key in first)
