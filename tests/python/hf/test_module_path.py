"""The module path: Hugging Face's modules, our operators, Hugging Face's answers."""

import copy
import pickle

import pytest
import torch
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.models import random_ids, small_model
from transformers import AttentionInterface

import mistral_ext
from mistral_ext.hf.attention import attention_forward


@pytest.fixture
def ids(device):
    return random_ids(2, 17).to(device)


def gradients_of(model, ids, **call):
    model.zero_grad()
    output = model(ids, labels=ids, **call)
    output.loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    return {"loss": output.loss.detach(), **found}


def test_modules_are_instances_of_hugging_faces_and_have_their_names(device):
    hf_model = small_model(device=device)
    model = mistral_ext.from_hf(hf_model)
    for theirs, ours in zip(hf_model.modules(), model.modules(), strict=True):
        assert isinstance(ours, type(theirs))
        assert type(ours).__name__ == type(theirs).__name__
    names = {type(module).__module__ for module in model.modules()}
    assert "mistral_ext.hf.modules" in names


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["gqa", "window"])
def test_autocast_gives_hugging_faces_results(name, dtype, device):
    hf_model = small_model(name, device=device)
    model = mistral_ext.from_hf(hf_model)
    squares = {"ours": 0.0, "theirs": 0.0}
    # One input's errors in 16 bits are chance, by a third and more; over several the two agree.
    for seed in range(6):
        ids = random_ids(2, 17, seed=seed).to(device)
        exact = gradients_of(hf_model, ids)
        with torch.autocast(device.type, dtype=dtype):
            found = {"theirs": gradients_of(hf_model, ids), "ours": gradients_of(model, ids)}
            assert model(ids).logits.dtype == hf_model(ids).logits.dtype
        assert_ran(model, "module")
        for whose, gradients in found.items():
            errors = [
                (gradients[key] - value).norm() / value.norm() for key, value in exact.items()
            ]
            squares[whose] += torch.stack(errors).square().mean().item()
    assert squares["ours"] ** 0.5 <= 1.1 * squares["theirs"] ** 0.5
    model(ids)
    assert_ran(model, "native")


def test_attention_dropout_runs_in_training_alone(ids, device):
    hf_model = small_model(device=device, attention_dropout=0.5)
    model = mistral_ext.from_hf(hf_model)
    assert_close_to_scale(model(ids).logits, hf_model(ids).logits)
    assert_ran(model, "native")
    model.train()
    first, second = model(ids).logits, model(ids).logits
    assert_ran(model, "module")
    assert "attention_dropout" in mistral_ext.path_report(model).reason
    assert not torch.allclose(first, second)
    model.eval()
    model.model.layers[1].self_attn.train()
    assert "attention_dropout" in mistral_ext.path_report(model).reason


@pytest.mark.parametrize("name", ["gqa", "window", "two_layer_types", "query_scale"])
@pytest.mark.parametrize("side", ["none", "left", "right"])
def test_the_default_attention_is_our_operator_under_transformers_masks(name, side, ids, device):
    hf_model = small_model(name, device=device)
    model = mistral_ext.from_hf(hf_model)
    model.set_attn_implementation("sdpa")
    mask = torch.ones_like(ids)
    if side != "none":
        mask[0, slice(0, 4) if side == "left" else slice(13, 17)] = 0
    with mistral_ext.use_path("module"), torch.profiler.profile() as profile:
        ours = model(ids, attention_mask=mask)
        ours.loss = (ours.logits * mask[..., None]).square().mean()
        ours.loss.backward()
    operators = {event.name for event in profile.events()}
    assert "mistral_ext::attention" in operators
    assert "aten::scaled_dot_product_attention" not in operators
    gradients = {key: p.grad.clone() for key, p in model.named_parameters()}
    hf_model.zero_grad()
    theirs = hf_model(ids, attention_mask=mask)
    (theirs.logits * mask[..., None]).square().mean().backward()
    assert_close_to_scale(ours.logits, theirs.logits, mask.bool())
    for key, parameter in hf_model.named_parameters():
        assert_close_to_scale(gradients[key], parameter.grad, relative=1e-5)
    with mistral_ext.use_path("module"):  # in chunks too
        cache, parts = None, []
        for begin, end in ((0, 9), (9, 10), (10, 17)):
            seen = mask[:, :end]
            output = model(ids[:, begin:end], attention_mask=seen, past_key_values=cache)
            cache = output.past_key_values
            parts.append(output.logits)
    assert_close_to_scale(torch.cat(parts, 1), theirs.logits, mask.bool())


@pytest.mark.parametrize("name", ["gqa", "two_layer_types", "query_scale"])
@pytest.mark.parametrize("attention", ["sdpa", "mistral_ext", "eager"])
def test_attention_modules_hold_the_models_own_configuration(name, attention, device):
    hf_model = small_model(name, device=device)
    model = mistral_ext.from_hf(hf_model)
    model.set_attn_implementation(attention)
    ids = random_ids(2, 9).to(device)
    for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        for layer in each.model.layers:
            assert layer.self_attn.config is each.config
        assert type(each.config) is type(hf_model.config)
        assert each.config._attn_implementation == attention
        with mistral_ext.use_path("module"):
            assert_close_to_scale(each(ids).logits, hf_model(ids).logits)


@pytest.mark.parametrize("name", ["gqa", "two_layer_types", "query_scale"])
def test_our_attention_function_runs_where_transformers_default_is_named(name, device, monkeypatch):
    model = mistral_ext.from_hf(small_model(name, device=device))
    ids = random_ids(2, 9).to(device)
    seen = []

    def watched(module, *args, **kwargs):
        seen.append((module.layer_idx, kwargs["sliding_window"]))
        return attention_forward(module, *args, **kwargs)

    monkeypatch.setitem(AttentionInterface._global_mapping, "mistral_ext", watched)
    model.set_attn_implementation("sdpa")
    with mistral_ext.use_path("module"):
        model(ids)
        layers = model.model.layers
        windows = [getattr(layer.self_attn, "sliding_window", None) for layer in layers]
        assert seen == list(enumerate(windows))
        model.set_attn_implementation("eager")
        model(ids)
    assert len(seen) == len(layers)


def test_an_activation_that_c_plus_plus_lacks_runs(ids, device):
    hf_model = small_model(device=device, hidden_act="gelu")
    model = mistral_ext.from_hf(hf_model)
    assert_close_to_scale(model(ids).logits, hf_model(ids).logits)
    assert "is a GELUActivation" in mistral_ext.path_report(model).reason


def test_a_rope_type_that_c_plus_plus_lacks_runs(ids, device):
    rope = {
        "rope_type": "longrope",
        "rope_theta": 100.0,
        "factor": 2.0,
        "short_factor": [1.0] * 8,
        "long_factor": [2.0] * 8,
        "original_max_position_embeddings": 32,
    }
    hf_model = small_model(device=device, rope_parameters=rope)
    model = mistral_ext.from_hf(hf_model)
    assert_close_to_scale(model(ids).logits, hf_model(ids).logits)
    assert "rope_type" in mistral_ext.path_report(model).reason


def test_bidirectional_attention_is_hugging_faces(ids, device):
    hf_model = small_model(device=device)
    model = mistral_ext.from_hf(hf_model)
    for mask in (None, torch.ones_like(ids).index_fill(1, torch.tensor([0], device=device), 0)):
        ours = model(ids, attention_mask=mask, is_causal=False, use_cache=False).logits
        theirs = hf_model(ids, attention_mask=mask, is_causal=False, use_cache=False).logits
        assert_close_to_scale(ours, theirs)
    assert_ran(model, "module")


def test_function_transforms_see_plain_torch(ids, device):
    hf_model = small_model(device=device)
    model = mistral_ext.from_hf(hf_model)
    parameters = {k: p.detach() for k, p in model.named_parameters()}

    def loss(values):
        return torch.func.functional_call(model, values, (ids,), {"labels": ids}).loss

    ours = torch.func.grad(loss)(parameters)
    assert_ran(model, "module")
    theirs = gradients_of(hf_model, ids)
    for key, value in ours.items():
        assert_close_to_scale(value, theirs[key], relative=1e-5)


@pytest.mark.parametrize("name", ["window", "query_scale"])
def test_compiles_without_a_graph_break(name, ids, device):
    hf_model = small_model(name, device=device)
    model = mistral_ext.from_hf(hf_model)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    ours = compiled(ids, attention_mask=mask, use_cache=False).logits
    assert_close_to_scale(ours, hf_model(ids, attention_mask=mask).logits, mask.bool())
    ours = compiled(ids, labels=ids, use_cache=False)
    ours.loss.backward()
    ours = {key: p.grad.clone() for key, p in model.named_parameters()}
    theirs = gradients_of(hf_model, ids)
    for key, value in ours.items():
        assert_close_to_scale(value, theirs[key], relative=1e-5)


def test_exports_with_our_operators_in_the_graph(ids, device):
    hf_model = small_model(device=device)
    model = mistral_ext.from_hf(hf_model)
    with torch.no_grad():
        program = torch.export.export(model, (ids,), {"use_cache": False}, strict=False)
    operators = {str(node.target) for node in program.graph.nodes}
    assert {"mistral_ext.attention.default", "mistral_ext.rms_norm.default"} <= operators
    assert_close_to_scale(program.module()(ids, use_cache=False).logits, hf_model(ids).logits)


class LogitsOf(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model(ids, use_cache=False, return_dict=False)[0]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_traces_with_torch_jit(ids, device):
    hf_model = small_model(device=device)
    module = LogitsOf(mistral_ext.from_hf(hf_model))
    with torch.no_grad():
        traced = torch.jit.trace(module, ids, check_trace=False)
        assert_ran(module.model, "module")
        other = random_ids(2, 17, seed=5).to(device)
        assert_close_to_scale(traced(other), hf_model(other).logits)
