"""Training on the native path: loss and gradients against Hugging Face's, fp32, eager attention."""

import copy

import pytest
import torch
from helpers.compare import assert_ran
from helpers.models import in_dtype, random_ids, small_model
from helpers.training import (
    assert_equal_steps,
    calls,
    gradients,
    labels_of,
    models,
    relative_errors,
    rms,
    step,
)

import mistral_ext

FAMILIES = ["gqa", "window", "two_layer_types", "query_scale", "tied"]
CALLS = list(calls(torch.device("cpu")))


@pytest.fixture
def ids(device):
    return random_ids(2, 17).to(device)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", FAMILIES)
def test_loss_and_gradients_equal_hugging_faces(name, call, device):
    hf_model, model = models(name, device)
    arguments = calls(device)[call]
    exact = step(hf_model, **arguments)
    assert_equal_steps(step(model, **arguments), exact)
    assert_ran(model, "native")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["gqa", "window", "tied"])
def test_16_bit_gradients_are_as_near_to_fp32_as_hugging_faces(name, dtype, device):
    exact_model = in_dtype(in_dtype(small_model(name, device=device), dtype), torch.float32)
    hf_model, model = models(name, device, dtype=dtype)
    found = {"ours": [], "theirs": []}
    # One input's errors are chance; what counts is their mean over inputs and parameters.
    for seed in range(8):
        for call in ("plain", "right_padding"):
            arguments = calls(device, seed)[call]
            exact = step(exact_model, **arguments)
            for whose, each in (("ours", model), ("theirs", hf_model)):
                found[whose] += relative_errors(step(each, **arguments), exact).values()
    assert_ran(model, "native")
    assert rms(found["ours"]) <= 1.1 * rms(found["theirs"])


def test_the_loss_is_fp32_and_the_logits_are_the_models(device, ids):
    for dtype in (torch.float64, torch.bfloat16):
        hf_model, model = models("gqa", device, dtype=dtype)
        ours, theirs = (each(ids, labels=ids) for each in (model, hf_model))
        assert ours.loss.dtype == theirs.loss.dtype == torch.float32
        assert ours.logits.dtype == theirs.logits.dtype == dtype


FROZEN = {
    "embedding": lambda name: "embed_tokens" in name,
    "all_but_the_head": lambda name: "lm_head" not in name,
    "the_head": lambda name: "lm_head" in name,
    "lower_layers": lambda name: "embed_tokens" in name or "layers.0." in name,
    "norms": lambda name: "norm" in name,
    "all_but_one": lambda name: "layers.1.self_attn.q_proj" not in name,
}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("frozen", FROZEN)
def test_frozen_parameters_have_no_gradient_and_the_others_keep_theirs(
    frozen, checkpointing, ids, device
):
    hf_model, model = models("gqa", device)
    if checkpointing:
        model.gradient_checkpointing_enable()
    for name, parameter in hf_model.named_parameters():
        parameter.requires_grad_(not FROZEN[frozen](name))
    exact = step(hf_model, input_ids=ids, labels=ids)
    found = step(model, input_ids=ids, labels=ids)
    assert_equal_steps(found, exact)
    assert_ran(model, "native")
    assert not any(FROZEN[frozen](name) for name in found if name != "loss")


def test_a_frozen_tied_head_is_a_frozen_embedding(ids, device):
    hf_model, model = models("tied", device)
    hf_model.model.embed_tokens.weight.requires_grad_(False)
    assert_equal_steps(
        step(model, input_ids=ids, labels=ids), step(hf_model, input_ids=ids, labels=ids)
    )


def test_steps_accumulate(device):
    hf_model, model = models("tied", device)
    found = []
    for each in (hf_model, model):
        hf_model.zero_grad()
        for seed, call in enumerate(("plain", "right_padding", "num_items")):
            each(**calls(device, seed)[call]).loss.backward()
        found.append(gradients(hf_model))
    assert_equal_steps(found[1], found[0])


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_several_steps_of_an_optimizer_are_hugging_faces(optimizer, device):
    losses = []
    for convert in (lambda model: model, mistral_ext.from_hf):
        model = convert(small_model("tied", device=device).train())
        stepper = optimizer(model.parameters(), lr=1e-2)
        losses.append([])
        for seed in range(5):
            stepper.zero_grad()
            loss = model(**calls(device, seed)["right_padding"]).loss
            loss.backward()
            stepper.step()
            losses[-1].append(loss.item())
    # AdamW divides by the gradients' size, which lets small ones' last bits matter.
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert losses[0][-1] != pytest.approx(losses[0][0], rel=1e-2)


def test_without_a_label_that_counts_the_loss_is_nan_and_gradients_are_zero(ids, device):
    labels = torch.full_like(ids, -100)
    for each in models("gqa", device):
        loss = each(ids, labels=labels).loss
        loss.backward()
        assert loss.isnan()
        assert not any(gradient.any() for gradient in gradients(each).values())
        each.zero_grad()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_gradients_the_loss_is_hugging_faces(dtype, device):
    hf_model, model = models("gqa", device, dtype=dtype)
    for call in CALLS:
        arguments = calls(device)[call]
        with torch.no_grad():
            ours, theirs = model(**arguments), hf_model(**arguments)
        assert type(ours) is type(theirs)
        assert ours.loss.dtype == torch.float32
        # bf16 logits differ by a rounding here and there, and the loss is a mean over few of them.
        tolerance = 1e-5 if dtype == torch.float32 else 1e-2
        torch.testing.assert_close(ours.loss, theirs.loss, rtol=tolerance, atol=0)
    assert_ran(model, "native")


@pytest.mark.parametrize("grad", [True, False])
def test_labels_beside_kept_logits_are_hugging_faces(grad, ids, device):
    hf_model, model = models("gqa", device)
    with torch.set_grad_enabled(grad):
        for call in (
            {"labels": ids[:, -5:], "logits_to_keep": 5},
            {"labels": ids[:, :3], "logits_to_keep": torch.tensor([3, 0, 1], device=device)},
        ):
            torch.testing.assert_close(model(ids, **call).loss, hf_model(ids, **call).loss)
        for each in (hf_model, model):
            with pytest.raises(ValueError, match="batch_size"):
                each(ids, labels=ids, logits_to_keep=5)


def test_a_loss_function_of_ones_own_gets_the_logits(ids, device):
    hf_model, model = models("gqa", device)

    def own_loss(logits, labels, vocab_size, **kwargs):
        return logits.square().mean() + vocab_size + kwargs["num_items_in_batch"]

    model.loss_function = own_loss
    output = model(ids, labels=ids, num_items_in_batch=3)
    torch.testing.assert_close(output.loss, hf_model(ids).logits.square().mean() + 99 + 3)
    assert output.loss.requires_grad
    assert_ran(model, "native")


@pytest.mark.parametrize("grad", [True, False])
def test_labels_that_do_not_fit_are_refused(grad, ids, device):
    hf_model, model = models("gqa", device)
    with torch.set_grad_enabled(grad):
        for label in (99, -1):
            message = rf"labels must be in \[0, 99\) or ignore_index, got {label}"
            labels = ids.clone().fill_(label)
            with pytest.raises(IndexError, match=message):
                model(ids, labels=labels)
            if device.type == "cpu":  # elsewhere an assertion on the device, which ends its use
                with pytest.raises(IndexError):
                    hf_model(ids, labels=labels)
        with pytest.raises(ValueError, match="batch_size"):
            model(ids, labels=ids[:, :5])
        with pytest.raises(RuntimeError, match=r"Long|not implemented for 'Int'"):
            model(ids, labels=ids.int())


def test_embeddings_that_are_given_get_gradients(ids, device):
    found = []
    for each in models("window", device):
        embeds = each.model.embed_tokens(ids).detach().requires_grad_()
        each(inputs_embeds=embeds, labels=labels_of(ids)).loss.backward()
        found.append({"embeds": embeds.grad})
    assert_equal_steps(found[1], found[0])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_hidden_state_gets_its_whole_gradient(checkpointing, ids, device):
    found = []
    for each in models("window", device):
        if checkpointing:
            each.train().gradient_checkpointing_enable({"use_reentrant": False})
        output = each(ids, labels=labels_of(ids), output_hidden_states=True, use_cache=False)
        gradients_of_states = torch.autograd.grad(output.loss, output.hidden_states)
        found.append({f"state {i}": each for i, each in enumerate(gradients_of_states)})
    assert_equal_steps(found[1], found[0])


def test_enable_input_require_grads_is_honoured(ids, device):
    hf_model = small_model("gqa", device=device).requires_grad_(False)
    hf_model.enable_input_require_grads()
    model = mistral_ext.from_hf(hf_model)
    found = []
    for each in (hf_model, model):
        output = each(ids, labels=ids, output_hidden_states=True)
        output.hidden_states[0].retain_grad()
        output.loss.backward()
        found.append({"embeds": output.hidden_states[0].grad})
    assert_equal_steps(found[1], found[0])
    assert_ran(model, "native")
    model.disable_input_require_grads()
    assert not model(ids, labels=ids).loss.requires_grad


@pytest.mark.parametrize("place", ["transformers.loss.loss_utils.fixed_cross_entropy", "own"])
def test_a_replaced_part_of_the_loss_runs(place, ids, device, monkeypatch):
    _, model = models("gqa", device)
    target = "torch.nn.functional.cross_entropy" if place == "own" else place
    monkeypatch.setattr(target, lambda logits, *_, **__: logits.sum() * 0 + 7)
    assert model(ids, labels=ids).loss == 7


def test_an_attentions_configuration_can_be_written_and_copied(device):
    _, model = models("gqa", device)
    config = model.model.layers[0].self_attn.config
    config.attention_dropout = 0.25
    assert model.config.attention_dropout == 0.25
    assert type(copy.deepcopy(config)) is type(model.config)
