"""The output of a training step: who reads its logits gets them, and no one else pays for them."""

import copy
import dataclasses
import pickle

import pytest
import torch
from accelerate.utils import convert_outputs_to_fp32
from helpers.compare import assert_close_to_scale
from helpers.models import random_ids
from helpers.training import assert_equal_steps, gradients, models
from torch.utils import _pytree
from transformers.modeling_outputs import CausalLMOutputWithPast

import mistral_ext
from mistral_ext.hf.outputs import DeferredLogitsOutput


@pytest.fixture
def ids(device):
    return random_ids(2, 9).to(device)


@pytest.fixture
def pair(device):
    return models("gqa", device)


def is_pending(output):
    return type(output) is DeferredLogitsOutput


# Reading the loss and the rest.
QUIET = {
    "loss": lambda output: output.loss,
    "loss_by_name": lambda output: output["loss"],
    "loss_by_index": lambda output: output[0],
    "get": lambda output: output.get("loss"),
    "cache": lambda output: output.past_key_values,
    "cache_by_name": lambda output: output["past_key_values"],
    "keys": lambda output: list(output.keys()) == ["loss", "logits", "past_key_values"],
    "iteration": lambda output: list(output) == ["loss", "logits", "past_key_values"],
    "contains": lambda output: "logits" in output and "attentions" not in output,
    "length": lambda output: len(output) == 3,
    "isinstance": lambda output: isinstance(output, CausalLMOutputWithPast),
    "get_nothing": lambda output: output.get("nothing", True),
}

READINGS = {
    "attribute": lambda output: output.logits,
    "getattr": lambda output: getattr(output, "logits", None),
    "key": lambda output: output["logits"],
    "get": lambda output: output.get("logits"),
    "index": lambda output: output[1],
    "negative_index": lambda output: output[-2],
    "slice": lambda output: output[1:][0],
    "to_tuple": lambda output: output.to_tuple()[1],
    "items": lambda output: dict(output.items())["logits"],
    "values": lambda output: list(output.values())[1],
    "dict": lambda output: dict(output)["logits"],
    "unpacking": lambda output: {**output}["logits"],
    "keywords": lambda output: (lambda logits, **_: logits)(**output),
    "copy": lambda output: copy.copy(output).logits,
    "dict_copy": lambda output: output.copy()["logits"],
    "replace": lambda output: dataclasses.replace(output, loss=None).logits,
    "fields": lambda output: [getattr(output, f.name) for f in dataclasses.fields(output)][1],
    "pytree": lambda output: _pytree.tree_flatten(output)[0][1],
    "tree_map": lambda output: _pytree.tree_map(lambda leaf: leaf, output).logits,
    "convert_outputs_to_fp32": lambda output: convert_outputs_to_fp32(lambda: output)().logits,
    "module_gather": lambda output: type(output)((key, output[key]) for key in output).logits,
}


@pytest.mark.parametrize("how", QUIET)
def test_the_other_entries_do_not_compute_the_logits(how, pair, ids):
    output = pair[1](ids, labels=ids)
    expected = pair[0](ids, labels=ids)
    found = QUIET[how](output)
    assert found is True or type(found) in (torch.Tensor, mistral_ext.MistralCache)
    assert is_pending(output)
    torch.testing.assert_close(output.loss, expected.loss)


@pytest.mark.parametrize("how", READINGS)
def test_every_way_of_reading_gives_the_logits_of_the_forward_pass(how, pair, ids):
    expected = pair[0](ids, labels=ids)
    output = pair[1](ids, labels=ids)
    assert is_pending(output)
    with torch.no_grad():
        logits = READINGS[how](output)
    assert_close_to_scale(logits, expected.logits)
    assert logits.requires_grad
    assert type(output) is CausalLMOutputWithPast
    assert output.logits is output["logits"] is output[1] is output.to_tuple()[1]
    assert list(output) == list(expected)
    assert "logits=tensor" in repr(output)


def test_text_and_pickles_hold_the_logits(pair, ids):
    assert "logits=tensor" in repr(pair[1](ids, labels=ids))
    output = pair[1](ids, labels=ids, use_cache=False)
    # As Hugging Face's output, it is pickled once it has left its graph.
    output.loss = output.loss.detach()
    output.logits = output.logits.detach()
    twin = pickle.loads(pickle.dumps(output))
    assert type(twin) is CausalLMOutputWithPast
    assert torch.equal(twin.logits, output.logits)
    assert list(twin) == ["loss", "logits"]


def test_a_deferred_output_is_pickled_with_its_logits(pair, ids):
    model = pair[1].requires_grad_(False)
    output = model(ids, labels=ids, use_cache=False)
    assert is_pending(output)
    twin = pickle.loads(pickle.dumps(output))
    assert type(twin) is CausalLMOutputWithPast
    assert torch.equal(twin.logits, model(ids).logits)
    assert output != model(ids, use_cache=False)
    assert type(copy.deepcopy(model(ids, labels=ids, use_cache=False))) is CausalLMOutputWithPast


def test_logits_can_be_set(pair, ids):
    for write in (
        lambda output, value: setattr(output, "logits", value),
        lambda output, value: output.__setitem__("logits", value),
    ):
        output = pair[1](ids, labels=ids)
        value = torch.zeros(1)
        write(output, value)
        assert output.logits is output["logits"] is value
        assert list(output) == ["loss", "logits", "past_key_values"]


def test_tuples_hold_the_logits(pair, ids):
    call = {"labels": ids, "return_dict": False, "output_hidden_states": True}
    ours, theirs = pair[1](ids, **call), pair[0](ids, **call)
    assert isinstance(ours, tuple)
    assert len(ours) == len(theirs) == 4
    assert_close_to_scale(ours[1], theirs[1])
    _, logits, *_ = pair[1](ids, labels=ids).to_tuple()
    assert_close_to_scale(logits, theirs[1])


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "enable_grad"])
def test_gradients_flow_through_logits_and_loss(mode, pair, ids):
    found = []
    for model in pair:
        pair[0].zero_grad()
        output = model(ids, labels=ids)
        with getattr(torch, mode)():
            logits = output.logits
        (output.loss + logits.square().mean()).backward()
        found.append(gradients(pair[0]))
    assert_equal_steps(found[1], found[0])


# Fewer rows than the head has columns: the logits are smaller than the head; or as many and more.
@pytest.mark.parametrize("shape", [(2, 9), (2, 16), (4, 16)])
@pytest.mark.parametrize("path", ["native", "module"])
@pytest.mark.parametrize("read", ["before", "after"])
def test_logits_are_those_from_before_the_step(read, path, shape, pair, device):
    hf_model, model = pair
    ids = random_ids(*shape).to(device)
    expected = hf_model(ids).logits.detach()
    optimizer = torch.optim.SGD(model.parameters(), lr=10.0)
    with mistral_ext.use_path(path):
        outputs = [model(ids, labels=ids) for _ in range(2)]
    sum(output.loss for output in outputs).backward()
    if read == "before":
        assert_close_to_scale(outputs[0].logits, expected)
    optimizer.step()
    optimizer.step()
    assert all(
        is_pending(output) == (read == "after" or output is outputs[1]) for output in outputs
    )
    for output in outputs:
        assert_close_to_scale(output.logits, expected)
    assert (model(ids).logits - expected).abs().max() > 1


@pytest.mark.parametrize("when", ["backward", "AdamW", "SGD"])
@pytest.mark.parametrize("rows", [(18,), (18, 18, 18), (63,), (64,), (18, 46), (1, 1)])
def test_the_smaller_of_the_logits_and_one_copy_is_kept(rows, when, pair, device):
    model = pair[1]
    outputs = []
    for count in rows:
        ids = random_ids(1, count).to(device)
        outputs.append(model(ids, labels=ids))
    waiting = [output.__dict__["_pending"] for output in outputs]
    if when == "backward":
        sum(output.loss for output in outputs).backward()
    else:
        getattr(torch.optim, when)(model.parameters(), lr=0.1).step()
    as_logits = sum(rows) < model.config.hidden_size
    assert all((pending._logits is not None) == as_logits for pending in waiting)
    assert len({id(pending._copy) for pending in waiting}) == 1  # all None, or all the same
    assert (waiting[0]._copy is None) == as_logits
    assert all(is_pending(output) for output in outputs)


def test_outputs_of_several_backward_passes_share_a_copy(pair, device):
    model = pair[1]
    ids = random_ids(2, 40).to(device)
    outputs = []
    for step in range(4):
        outputs.append(model(ids, labels=ids))
        outputs[-1].loss.backward()
        if step == 1:
            with torch.no_grad():
                model.lm_head.weight.data.mul_(2)
    copies = [output.__dict__["_pending"]._copy for output in outputs]
    assert copies[0] is copies[1]
    assert copies[2] is copies[3]
    assert_close_to_scale(2 * copies[0], copies[2])


def test_a_step_of_other_parameters_changes_nothing(pair, ids):
    hf_model, model = pair
    expected = hf_model(ids).logits.detach()
    output = model(ids, labels=ids)
    output.loss.backward()
    torch.optim.SGD(model.model.layers.parameters(), lr=10.0).step()
    assert_close_to_scale(output.logits, expected)


def by_hand(model):
    with torch.no_grad():
        model.lm_head.weight.mul_(2)


def through_data(model):
    for parameter in model.parameters():
        parameter.data -= 0.1 * (1 if parameter.grad is None else parameter.grad)


def by_another(model):
    model.lm_head.weight.data = torch.zeros_like(model.lm_head.weight)


def by_lbfgs(model):
    ids = random_ids(2, 9).to(model.device)

    def closure():
        loss = model(ids, labels=ids).loss
        loss.backward()
        return loss

    torch.optim.LBFGS(model.parameters(), max_iter=2).step(closure)


CHANGES = [by_hand, through_data, by_another]


@pytest.mark.parametrize("change", [*CHANGES, by_lbfgs], ids=lambda change: change.__name__)
@pytest.mark.parametrize("rows", [18, 64])  # what is kept is the logits, or a copy of the head
@pytest.mark.parametrize("steps", [False, True])
def test_after_the_backward_pass_the_head_may_change(change, rows, steps, pair, device):
    hf_model, model = pair
    ids = random_ids(1, rows).to(device)
    expected = hf_model(ids).logits.detach()
    output = model(ids, labels=ids)
    output.loss.backward()
    change(model)
    if steps:
        torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert is_pending(output)
    assert_close_to_scale(output.logits, expected)
    assert not torch.allclose(model(ids).logits, expected, atol=1e-2)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_head_changed_before_is_an_error_and_no_wrong_logits(change, pair, ids):
    model = pair[1]
    output = model(ids, labels=ids)
    change(model)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="must be unchanged since the forward"):
            _ = output.logits
        torch.optim.SGD(model.parameters(), lr=0.1).step()


def test_outputs_made_while_an_optimizer_steps_have_their_logits(pair, ids):
    model = pair[1]
    outputs, expected = [], []

    def closure():
        model.zero_grad()
        expected.append(model(ids).logits.detach())
        outputs.append(model(ids, labels=ids))
        outputs[-1].loss.backward()
        return outputs[-1].loss

    torch.optim.LBFGS(model.parameters(), max_iter=3).step(closure)
    assert len(outputs) > 1
    for output, logits in zip(outputs, expected, strict=True):
        assert_close_to_scale(output.logits, logits)


def test_a_head_of_nans_is_no_changed_one(pair, ids):
    model = pair[1]
    model.lm_head.weight.data.fill_(float("nan"))
    assert model(ids, labels=ids).logits.isnan().all()


def test_changed_hidden_states_are_an_error_and_no_wrong_logits(pair, ids):
    output = pair[1](ids, labels=ids, output_hidden_states=True)
    with torch.no_grad():
        output.hidden_states[-1].zero_()
    with pytest.raises(RuntimeError, match="must be unchanged since the forward"):
        _ = output.logits


def test_logits_set_to_none_stay_among_the_entries(pair, ids):
    outputs = [model(ids, labels=ids) for model in pair]
    for output in outputs:
        output.logits = None
    assert outputs[0].logits is outputs[1].logits is None
    assert_close_to_scale(outputs[1]["logits"], outputs[0]["logits"])


@pytest.mark.parametrize("path", ["native", "module"])
def test_grad_mode_inside_of_inference_mode_records_nothing(path, pair, ids):
    with torch.inference_mode(), torch.enable_grad():
        theirs = pair[0](ids, labels=ids)
        with mistral_ext.use_path(path):
            ours = pair[1](ids, labels=ids)
    assert_close_to_scale(ours.logits, theirs.logits)
    torch.testing.assert_close(ours.loss, theirs.loss)


def test_nothing_is_kept_for_outputs_that_are_gone(pair, ids):
    from mistral_ext.hf.pending_logits import PendingLogits

    loss = pair[1](ids, labels=ids).loss
    assert not PendingLogits._all
    loss.backward()
