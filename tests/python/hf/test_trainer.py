"""transformers.Trainer over our class: Hugging Face's curve from the same seed."""

import pytest
import torch
from helpers.models import random_ids, small_model
from helpers.trainer import losses_of, train, trainer_of

import mistral_ext

VARIANTS = {
    "plain": ({}, "native"),
    "accumulation": ({"gradient_accumulation_steps": 2}, "native"),
    "bf16": ({"bf16": True}, "module"),
    "weight decay and warm-up": ({"weight_decay": 0.1, "warmup_steps": 2}, "native"),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["window", "tied"])
def test_gives_hugging_faces_curve(name, variant, tmp_path, device):
    arguments, path = VARIANTS[variant]
    ids = random_ids(8, 24).to(device)
    theirs, _ = train(small_model(name, device=device), ids, tmp_path / "theirs", **arguments)
    model = mistral_ext.from_hf(small_model(name, device=device))
    ours, paths = train(model, ids, tmp_path / "ours", **arguments)
    # Adam's first steps have the size of the learning rate whatever the gradient's: where it is
    # all rounding, two orders of summation may step in opposite directions. In bf16, whose own
    # rounding is 2^-9, the two see other gradients throughout.
    torch.testing.assert_close(ours, theirs, rtol=2e-2 if variant == "bf16" else 1e-3, atol=0)
    assert paths == {path}
    assert ours[-1] < ours[0]


@pytest.mark.parametrize("name", ["gqa", "window"])
def test_checkpointed_layers_give_the_same_curve(name, tmp_path, device):
    ids = random_ids(8, 24).to(device)
    curves = []
    for checkpointing in (False, True):
        model = mistral_ext.from_hf(small_model(name, device=device))
        losses, _ = train(model, ids, tmp_path, gradient_checkpointing=checkpointing)
        curves.append(losses)
    torch.testing.assert_close(*curves, rtol=1e-4, atol=0)


def test_saves_and_resumes(tmp_path, device):
    ids = random_ids(8, 24).to(device)
    model = mistral_ext.from_hf(small_model(device=device))
    whole, _ = train(model, ids, tmp_path, save_strategy="steps", save_steps=3)
    again = mistral_ext.MistralForCausalLM.from_pretrained(tmp_path / "checkpoint-3").to(device)
    trainer = trainer_of(again, ids, tmp_path)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    torch.testing.assert_close(losses_of(trainer), whole, rtol=1e-4, atol=0)
