"""A live Hugging Face model as one of ours, around the same parameters."""

import copy
from typing import Any

from torch import nn

from mistral_ext.hf import backbone, heads, modeling
from mistral_ext.hf.attention import ATTENTION
from mistral_ext.hf.backbone import NativeModule
from mistral_ext.hf.native import embeddings_require_grad, ignored_hooks

# Each of our classes by Hugging Face's of the same name, the second of its bases.
OURS: dict[type[nn.Module], type[NativeModule]] = {
    ours.__bases__[1]: ours
    for ours in (
        backbone.MistralModel,
        backbone.MinistralModel,
        backbone.Ministral3Model,
        modeling.MistralForCausalLM,
        modeling.MinistralForCausalLM,
        modeling.Ministral3ForCausalLM,
        heads.MistralForSequenceClassification,
        heads.MinistralForSequenceClassification,
        heads.Ministral3ForSequenceClassification,
        heads.MistralForTokenClassification,
        heads.MinistralForTokenClassification,
        heads.Ministral3ForTokenClassification,
        heads.MistralForQuestionAnswering,
        heads.MinistralForQuestionAnswering,
        heads.Ministral3ForQuestionAnswering,
    )
}


def from_hf(hf_model: nn.Module) -> NativeModule:
    """Our model around the parameters of a live transformers model: nothing is copied.

    hf_model: a transformers MistralForCausalLM, MistralModel, MistralForSequenceClassification,
        MistralForTokenClassification or MistralForQuestionAnswering, or Ministral's or Ministral3's
        class of that kind, of any dtype and device, tied or not, in training or not.

    The result holds the same Parameter objects, so what is done to them through either model is
    seen by both; replacing a parameter or a module in one of them is not. Buffers, training mode
    and what gradient checkpointing is set to are kept. config and generation_config are copies, and
    the copy asks for our attention, whatever hf_model's did.

    Raises TypeError for another class, and ValueError where modules were replaced (PEFT,
    quantisation) or carry hooks, which would be lost: convert the model before that is done to it.
    """
    kind = type(hf_model)
    ours = kind if kind in OURS.values() else OURS.get(kind)
    if ours is None:
        raise TypeError(
            "from_hf: hf_model must be a transformers model of Mistral, Ministral or Ministral3"
            " (MistralForCausalLM, MistralModel, MistralForSequenceClassification, ...), got"
            f" {kind.__module__}.{kind.__qualname__}{_hint(hf_model)}"
        )
    known = {cls for classes in ours._native_types.values() for cls in classes}
    for name, module in hf_model.named_modules():
        # Any activation will do: one that C++ lacks takes the module path.
        fits = module is hf_model or type(module) in known or name.endswith("mlp.act_fn")
        _check_module(name, module, fits)
    config = copy.deepcopy(hf_model.config)
    config._attn_implementation = ATTENTION
    model = _twin(hf_model, hf_model.config, config)
    model.__class__ = ours
    if getattr(hf_model, "generation_config", None) is not None:
        model.generation_config = copy.deepcopy(hf_model.generation_config)
    model._take_over()
    if embeddings_require_grad(hf_model):
        model.enable_input_require_grads()
    return model


def _hint(hf_model: Any) -> str:
    if isinstance(getattr(hf_model, "base_model", None), nn.Module) and hasattr(
        hf_model, "peft_config"
    ):
        return ": convert the base model before PEFT wraps it, or merge_and_unload() first"
    return ""


def _check_module(name: str, module: nn.Module, fits: bool) -> None:
    name = name or "hf_model"
    if not fits:
        raise ValueError(
            f"from_hf: {name} must be one of transformers' own modules, got a"
            f" {type(module).__module__}.{type(module).__qualname__}: convert the model before its"
            " modules are replaced"
        )
    hooks = [
        *module._forward_hooks.values(),
        *module._forward_pre_hooks.values(),
        *module._backward_hooks.values(),
        *module._backward_pre_hooks.values(),
    ]
    hooked = any(getattr(hook, "__code__", None) not in ignored_hooks() for hook in hooks)
    if hooked or "forward" in module.__dict__:
        raise ValueError(
            f"from_hf: {name} must have no hook and its own forward, since they would be lost:"
            " convert the model first and register them after that"
        )


def _twin(module: nn.Module, old_config: Any, new_config: Any) -> nn.Module:
    """A module of the same class and attributes, and with the same tensors, of its own children."""
    twin = module.__class__.__new__(module.__class__)
    for name, value in module.__dict__.items():
        # The dictionaries of parameters, buffers, children and hooks: the entries are shared.
        twin.__dict__[name] = value.copy() if isinstance(value, dict | set) else value
    for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        twin.__dict__[hooks].clear()
    for name in ("_output_capturing_hooks_installed", "_native"):
        twin.__dict__.pop(name, None)
    if module.__dict__.get("config") is old_config:
        twin.__dict__["config"] = new_config
    for name, child in module._modules.items():
        twin._modules[name] = None if child is None else _twin(child, old_config, new_config)
    return twin
