"""Gradient checkpointing on the native path against Hugging Face's model without it."""

import pytest
import torch
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.models import random_ids, small_model
from helpers.training import assert_equal_steps, calls, models, step

import mistral_ext
from mistral_ext.hf import backbone
from mistral_ext.hf.native import native_model

CALLS = list(calls(torch.device("cpu")))


@pytest.fixture
def ids(device):
    return random_ids(2, 17).to(device)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("name", ["gqa", "two_layer_types", "query_scale", "tied"])
def test_gives_the_same_gradients(name, use_reentrant, device):
    hf_model, model = models(name, device)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    for call in CALLS:
        arguments = calls(device)[call]
        assert_equal_steps(step(model, **arguments), step(hf_model, **arguments))
        assert_ran(model, "native")


def saved_bytes(model, ids):
    """What the graph of one step keeps for the backward, parameters aside."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(ids, labels=ids)
    kept = sum(found.values())
    output.loss.backward()
    return kept


def test_keeps_one_tensor_a_layer(ids, device):
    kept = []
    for layers in (2, 6):
        model = models("gqa", device, num_hidden_layers=layers)[1]
        model.gradient_checkpointing_enable()
        kept.append(saved_bytes(model, ids))
        assert_ran(model, "native")
    hidden_states = ids.numel() * 64 * 4
    assert kept[1] - kept[0] == 4 * hidden_states


def test_runs_in_training_alone_and_can_be_switched_off(ids, device):
    _, model = models("gqa", device)
    plain = saved_bytes(model, ids)
    model.gradient_checkpointing_enable()
    assert saved_bytes(model, ids) < plain / 2
    assert saved_bytes(model.eval(), ids) == plain
    model.train().gradient_checkpointing_disable()
    assert saved_bytes(model, ids) == plain
    assert_ran(model, "native")


def test_single_layers_may_be_checkpointed(ids, device):
    hf_model, model = models("window", device)
    model.gradient_checkpointing_enable(every_n_layers=2)
    assert [layer.gradient_checkpointing for layer in model.model.layers] == [True, False, True]
    arguments = {"input_ids": ids, "labels": ids}
    assert_equal_steps(step(model, **arguments), step(hf_model, **arguments))
    model.model.layers[0].eval()
    model.model.layers[1].gradient_checkpointing = True
    assert_equal_steps(step(model, **arguments), step(hf_model, **arguments))
    assert_ran(model, "native")


def test_hidden_states_are_the_same(ids, device):
    hf_model, model = models("gqa", device)
    model.gradient_checkpointing_enable(every_n_layers=2)
    output = model(ids, output_hidden_states=True)
    expected = hf_model(ids, output_hidden_states=True, use_cache=False)
    for ours, theirs in zip(output.hidden_states, expected.hidden_states, strict=True):
        assert_close_to_scale(ours, theirs)
    assert_ran(model, "native")


def test_caching_is_off_and_a_warning_says_so(ids, device, caplog):
    _, model = models("gqa", device)
    model.gradient_checkpointing_enable()
    backbone.logger.warning_once.cache_clear()
    assert model(ids, use_cache=True).past_key_values is None
    assert_ran(model, "native")
    assert "use_cache" in caplog.text


def test_gradients_asked_for_by_name_are_returned(ids, device):
    hf_model, model = models("gqa", device)
    exact = step(hf_model, input_ids=ids, labels=ids)
    hf_model.zero_grad()
    model.gradient_checkpointing_enable()
    names = ["model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight"]
    wanted = [model.get_parameter(name) for name in names]
    found = torch.autograd.grad(model(ids, labels=ids).loss, wanted)
    assert_equal_steps(dict(zip(names, found, strict=True)), {name: exact[name] for name in names})
    assert all(parameter.grad is None for parameter in model.parameters())


def test_hooks_of_parameters_and_tensors_run(ids, device):
    _, model = models("gqa", device)
    model.gradient_checkpointing_enable()
    calls_of = []
    parameter = model.model.layers[0].mlp.down_proj.weight
    parameter.register_hook(lambda gradient: calls_of.append("tensor"))
    parameter.register_post_accumulate_grad_hook(lambda _: calls_of.append("accumulated"))
    model(ids, labels=ids).loss.backward()
    assert calls_of == ["tensor", "accumulated"]


def test_weights_that_the_model_gets_before_the_backward_do_not_enter_it(ids, device):
    hf_model, model = models("gqa", device)
    exact = step(hf_model, input_ids=ids, labels=ids)
    hf_model.zero_grad()
    model.gradient_checkpointing_enable()
    loss = model(ids, labels=ids).loss
    old = model.model.layers[0].mlp.up_proj.weight
    model.model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(torch.zeros_like(old))
    with torch.no_grad():
        model(ids)
    loss.backward()
    assert_equal_steps({"grad": old.grad}, {"grad": exact["model.layers.0.mlp.up_proj.weight"]})


def test_a_weight_changed_before_the_backward_is_found(ids, device):
    _, model = models("gqa", device)
    model.gradient_checkpointing_enable()
    loss = model(ids, labels=ids).loss
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_second_derivative_is_refused(ids, device):
    _, model = models("gqa", device)
    model.gradient_checkpointing_enable()
    with pytest.raises(RuntimeError, match="create_graph must be False"):
        model(ids, labels=ids).loss.backward(create_graph=True)


@pytest.mark.parametrize("kind", ["function", "context"])
def test_a_function_of_ones_own_runs_on_the_module_path(kind, ids, device):
    hf_model, model = models("gqa", device)
    if kind == "context":
        own = torch.utils.checkpoint.noop_context_fn
        model.gradient_checkpointing_enable({"context_fn": own, "use_reentrant": False})
    else:
        model._set_gradient_checkpointing(
            gradient_checkpointing_func=lambda function, *args: function(*args)
        )
    arguments = {"input_ids": ids, "labels": ids}
    assert_equal_steps(step(model, **arguments), step(hf_model, **arguments))
    assert_ran(model, "module")


def test_a_cache_that_is_given_takes_the_module_path(ids, device):
    _, model = models("gqa", device)
    model.gradient_checkpointing_enable()
    model(ids, past_key_values=model.create_cache())
    assert_ran(model, "module")


def test_a_model_with_checkpointing_on_is_converted(ids, device):
    hf_model = small_model("gqa", device=device).train()
    exact = step(hf_model, input_ids=ids, labels=ids)
    hf_model.gradient_checkpointing_enable()
    model = mistral_ext.from_hf(hf_model)
    assert_equal_steps(step(model, input_ids=ids, labels=ids), exact)
    assert_ran(model, "native")
    assert model.is_gradient_checkpointing
    model.disable_input_require_grads()
    assert not model.model.embed_tokens._forward_hooks
    assert hf_model.model.embed_tokens._forward_hooks


def test_the_cpp_model_refuses_layers_that_do_not_fit(ids, device):
    model = models("gqa", device)[1]
    model(ids)
    forward = native_model(model).model.forward
    with pytest.raises(ValueError, match="must have num_hidden_layers = 3 entries, got 1"):
        forward(input_ids=ids, checkpointed_layers=[True])
    cache = model.create_cache().settled()
    with pytest.raises(ValueError, match="checkpointed layer must have no past_key_values"):
        forward(input_ids=ids, cache=cache, checkpointed_layers=[False, True, False])
