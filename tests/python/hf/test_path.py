"""What takes the module path, what the report says about it, and the way back."""

import copy

import pytest
import torch
import transformers
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.models import random_ids, small_config, small_model
from torch import nn
from transformers.models.mistral import modeling_mistral

import mistral_ext


@pytest.mark.parametrize("where", ["", "model.layers.1", "model.layers.0.mlp.act_fn", "lm_head"])
@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward"])
def test_a_hook_runs_on_the_module_path_and_its_removal_leads_back(model, ids, where, kind):
    calls = []
    if where == "" and kind == "full_backward":
        pytest.skip("torch calls none on a module whose output is no tensor or tuple")
    register = getattr(model.get_submodule(where), f"register_{kind}_hook")
    handle = register(lambda *_: calls.append(kind))
    assert "has a hook" in mistral_ext.path_report(model).reason
    model(ids, labels=ids).loss.backward()
    assert_ran(model, "module")
    assert calls
    handle.remove()
    model(ids)
    assert_ran(model, "native")


def test_a_global_hook_runs(model, ids):
    calls = []
    handle = nn.modules.module.register_module_forward_hook(lambda *_: calls.append(1))
    try:
        model(ids)
    finally:
        handle.remove()
    assert len(calls) > 3
    assert_ran(model, "module")
    model(ids)
    assert_ran(model, "native")


class DoubleLinear(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def test_a_replaced_module_runs(model, hf_model, ids):
    before = model(ids).logits
    linear = DoubleLinear(64, 99, bias=False, device=ids.device)
    linear.weight = model.lm_head.weight
    model.lm_head = linear
    assert torch.allclose(model(ids).logits, 2 * before, atol=1e-4)
    assert_ran(model, "module")
    assert "lm_head is a DoubleLinear" in mistral_ext.path_report(model).reason


@pytest.mark.parametrize(
    ("where", "replacement", "reason"),
    [
        ("model.rotary_emb", lambda old: nn.Identity(), "rotary_emb is a Identity"),
        ("model.layers.1.mlp.act_fn", lambda old: nn.GELU(), "act_fn is a GELU"),
        ("model.norm", lambda old: nn.LayerNorm(64), "norm is a LayerNorm"),
        ("model.layers.2", lambda old: nn.Identity(), "a decoder layer is a Identity"),
    ],
)
def test_a_module_of_another_class_is_named(model, where, replacement, reason):
    parent, _, name = where.rpartition(".")
    setattr(model.get_submodule(parent), name, replacement(model.get_submodule(where)))
    assert reason in mistral_ext.path_report(model).reason


def change_bias(model):
    model.lm_head.bias = nn.Parameter(torch.zeros(99, device=model.device))


def change_dtype_of_one(model):
    model.model.layers[0].mlp.up_proj.double()


def change_forward(model):
    model.model.layers[0].forward = model.model.layers[0].forward


def change_scaling(model):
    model.model.layers[1].self_attn.scaling = 1.0


def change_epsilon(model):
    model.model.layers[1].input_layernorm.variance_epsilon = 0.1


def change_layers(model):
    del model.model.layers[1]


def change_parametrisation(model):
    nn.utils.parametrizations.weight_norm(model.lm_head)


def change_is_causal(model):
    model.config.is_causal = False


def change_is_causal_of_a_layer(model):
    model.model.layers[1].self_attn.is_causal = False


def change_checkpointing(model):
    model.gradient_checkpointing_enable({"context_fn": torch.utils.checkpoint.noop_context_fn})
    model.train()


def change_checkpointing_function(model):
    model._set_gradient_checkpointing(gradient_checkpointing_func=lambda f, *args: f(*args))
    model.train()


def change_checkpointing_of_a_layer(model):
    model.train().model.layers[1].gradient_checkpointing = True  # and use_cache is True


CHANGES = {
    change_bias: "lm_head has a bias",
    change_dtype_of_one: "up_proj.weight has another dtype",
    change_forward: "the forward of a decoder layer was replaced",
    change_scaling: "scaling",
    change_epsilon: "variance_epsilon",
    change_layers: "layers has 2 entries, the configuration 3",
    change_parametrisation: "lm_head is a ParametrizedLinear",
    change_is_causal: "config.is_causal",
    change_is_causal_of_a_layer: "is_causal of self_attn is not True",
    change_checkpointing: "gradient checkpointing has a function of its own",
    change_checkpointing_function: "gradient checkpointing has a function of its own",
    change_checkpointing_of_a_layer: "gradient checkpointing is active in layers alone",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__[7:])
def test_what_only_modules_do_is_found(model, change):
    assert mistral_ext.path_report(model).path == "native"
    change(model)
    assert CHANGES[change] in mistral_ext.path_report(model).reason


def test_a_layer_that_is_not_causal_sees_what_follows(model, hf_model, ids):
    hf_model.set_attn_implementation("sdpa")
    for each in (model, hf_model):
        for layer in each.model.layers:
            layer.self_attn.is_causal = False
    assert_close_to_scale(model(ids).logits, hf_model(ids).logits)


def test_a_layer_with_a_window_in_reach_is_causal_whatever_it_says(ids, device):
    hf_model = small_model("window", device=device)
    model = mistral_ext.from_hf(hf_model)
    hf_model.set_attn_implementation("sdpa")
    for each in (model, hf_model):
        for layer in each.model.layers:
            layer.self_attn.is_causal = False
    long = ids.repeat(1, 4)
    assert long.shape[1] > hf_model.config.sliding_window
    assert_close_to_scale(model(long).logits, hf_model(long).logits)


def halved(function):
    def forward(*args, **kwargs):
        output = function(*args, **kwargs)
        return (output[0] * 0.5, *output[1:]) if isinstance(output, tuple) else output * 0.5

    return forward


@pytest.mark.parametrize(
    "name",
    ["MistralAttention", "MistralMLP", "MistralRMSNorm", "MistralDecoderLayer", "Linear"],
)
def test_a_forward_put_into_a_class_runs(name, model, hf_model, ids, monkeypatch):
    cls = nn.Linear if name == "Linear" else getattr(modeling_mistral, name)
    before = model(ids).logits
    with monkeypatch.context() as patch:
        patch.setattr(cls, "forward", halved(cls.forward))
        ours = model(ids).logits
        assert f"{name}.forward was replaced" in mistral_ext.path_report(model).reason
        assert_close_to_scale(ours, hf_model(ids).logits)
        assert not torch.allclose(ours, before, atol=1e-2)
    model(ids)
    assert_ran(model, "native")


def test_a_function_put_into_the_modeling_module_runs(model, hf_model, ids, monkeypatch):
    original = modeling_mistral.apply_rotary_pos_emb

    def backwards(q, k, cos, sin, *args, **kwargs):
        return original(q, k, cos, -sin, *args, **kwargs)

    monkeypatch.setattr(modeling_mistral, "apply_rotary_pos_emb", backwards)
    assert_close_to_scale(model(ids).logits, hf_model(ids).logits)
    reason = mistral_ext.path_report(model).reason
    assert reason == "modeling_mistral.apply_rotary_pos_emb was replaced"


@pytest.mark.parametrize(
    "call",
    [
        {"logits_to_keep": [0, 2]},
        {"logits_to_keep": slice(1, 3)},
        {"position_ids": torch.arange(9.0)[None] + 0.5},
    ],
    ids=str,
)
def test_what_only_python_can_index_by_runs_there(call, model, hf_model, ids):
    call = {n: v.to(ids.device) if isinstance(v, torch.Tensor) else v for n, v in call.items()}
    assert_close_to_scale(model(ids, **call).logits, hf_model(ids, **call).logits)


@pytest.mark.parametrize("forced", ["auto", "module"])
def test_a_mask_that_is_learned_gets_its_gradient(forced, model, hf_model, ids):
    gradients = []
    for each in (model, hf_model):
        hidden = torch.ones(9, 9, device=ids.device).triu(1).bool()
        mask = torch.zeros(1, 4, 9, 9, device=ids.device).masked_fill(hidden, -1e9)
        mask.requires_grad_()
        with mistral_ext.use_path(forced):
            each(ids, attention_mask=mask, labels=ids).loss.backward()
            with torch.no_grad():
                each(ids, attention_mask=mask)
        gradients.append(mask.grad)
    assert_close_to_scale(*gradients)
    assert_ran(model, "native" if forced == "auto" else "module")  # without gradients


def test_lets_go_of_weights_once_modules_run(model, ids, device):
    model(ids)
    weight = model.lm_head.weight
    model.lm_head = DoubleLinear(64, 99, bias=False, device=device)
    references = weight._use_count()
    model(ids)
    assert_ran(model, "module")
    assert weight._use_count() < references


@pytest.mark.parametrize("implementation", ["eager", "flex_attention"])
def test_another_attention_is_hugging_faces(model, implementation):
    model.set_attn_implementation(implementation)
    report = mistral_ext.path_report(model)
    assert report.path == "module"
    assert f"attn_implementation '{implementation}'" in report.reason
    for ours in ("mistral_ext", "sdpa"):
        model.set_attn_implementation(ours)
        assert mistral_ext.path_report(model).path == "native"


def test_attention_is_ours_unless_another_one_is_asked_for(tmp_path):
    config = small_config()
    config._attn_implementation = None
    small_model().save_pretrained(tmp_path)
    ours = mistral_ext.MistralForCausalLM
    made = [ours(copy.deepcopy(config)), ours.from_pretrained(tmp_path)]
    made.append(ours._from_config(copy.deepcopy(config)))
    transformers.MistralForCausalLM(config)
    made.append(ours(config))  # which Hugging Face's class has used and written to
    made.append(ours.from_pretrained(tmp_path, attn_implementation="sdpa"))
    for model in made:
        assert model.config._attn_implementation == "sdpa"  # as transformers' class says
        assert mistral_ext.path_report(model).path == "native"
        model(random_ids(1, 3))
        assert_ran(model, "native")
    asked = ours.from_pretrained(tmp_path, attn_implementation="eager")
    assert asked.config._attn_implementation == "eager"
    with pytest.raises(ValueError, match="nonsense"):
        ours.from_pretrained(tmp_path, attn_implementation="nonsense")


@pytest.mark.parametrize("first", [mistral_ext, transformers], ids=lambda place: place.__name__)
def test_a_configuration_may_be_used_by_both_classes_in_turn(first, device):
    config = small_config()
    config._attn_implementation = None
    made = {first: first.MistralForCausalLM(config)}
    second = transformers if first is mistral_ext else mistral_ext
    made[second] = second.MistralForCausalLM(config)
    assert mistral_ext.path_report(made[mistral_ext]).path == "native"
    assert made[transformers].config._attn_implementation == "sdpa"


def test_arguments_of_one_call_are_found(model, ids):
    cases = {
        "output_attentions": True,
        "past_key_values": transformers.StaticCache(config=model.config, max_cache_len=12),
        "attention_mask": {"full_attention": None},
        "is_causal": False,
        "cu_seq_lens_q": torch.tensor([0, 9]),
        "output_hidden_states": [0, 1],
        "logits_to_keep": torch.tensor(3),
        "position_ids": torch.arange(9.0)[None],
    }
    for name, value in cases.items():
        report = mistral_ext.path_report(model, **{name: value})
        assert report.path == "module"
        assert name in report.reason
    for keep in ([0, 1], slice(0, 2)):
        assert "logits_to_keep is a" in mistral_ext.path_report(model, logits_to_keep=keep).reason
    harmless = {"cache_position": torch.arange(9), "num_items_in_batch": 3, "use_cache": True}
    assert mistral_ext.path_report(model, input_ids=ids, unknown=None, **harmless).path == "native"


@pytest.mark.parametrize("cache", ["DynamicCache", "StaticCache"])
def test_a_cache_of_transformers_own_is_filled_and_returned(model, hf_model, ids, cache):
    def make():
        keywords = {"max_cache_len": 12} if cache == "StaticCache" else {}
        return getattr(transformers, cache)(config=hf_model.config, **keywords)

    ours, theirs = make(), make()
    with torch.no_grad():
        for begin, end in ((0, 5), (5, 6), (6, 9)):
            output = model(ids[:, begin:end], past_key_values=ours)
            expected = hf_model(ids[:, begin:end], past_key_values=theirs)
            assert_close_to_scale(output.logits, expected.logits)
            assert output.past_key_values is ours
    assert_ran(model, "native" if cache == "DynamicCache" else "module")
    assert_close_to_scale(ours.layers[1].keys, theirs.layers[1].keys)


def test_attention_weights_are_hugging_faces(model, hf_model, ids):
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    call = {"attention_mask": mask, "output_attentions": True, "output_hidden_states": True}
    ours, theirs = model(ids, **call), hf_model(ids, **call)
    assert_ran(model, "module")
    visible = mask.bool()
    assert_close_to_scale(ours.logits, theirs.logits, visible)
    assert len(ours.attentions) == 3
    for mine, reference in zip(ours.attentions, theirs.attentions, strict=True):
        assert_close_to_scale(mine.transpose(1, 2), reference.transpose(1, 2), visible)
    model(ids, output_hidden_states=True)
    assert_ran(model, "native")  # the hooks that recorded them do not stay in the way


def test_the_report_reads_well(model, ids):
    assert str(mistral_ext.path_report(model)) == "next forward: native"
    model(ids, output_attentions=True)
    assert str(mistral_ext.path_report(model)) == (
        "next forward: native\nlast forward: module: output_attentions is asked for"
    )
    with pytest.raises(TypeError, match="path_report: model must be a mistral_ext model"):
        mistral_ext.path_report(nn.Linear(1, 1))
