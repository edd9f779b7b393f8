"""Models that run on the module path, and what their training steps call."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mistral_ext
from helpers.models import small_model

# What is below autograd, where a dispatch mode looks.
# The fused loss keeps one of them for the backward.
KEPT = ("gradients", "logits")
OF_LOGITS = "mistral_ext.cross_entropy.default"
VOCABULARY = 99


class Notes(TorchDispatchMode):
    """The operators called, and the most elements of an fp32 result as wide as the vocabulary.

    The head and its gradient are [vocab_size, hidden_size]: it is the last dimension that tells.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[str] = []
        self.widest = 0

    def fused(self) -> int:
        return sum(
            self.operators.count(f"mistral_ext.linear_cross_entropy_{kept}.default")
            for kept in KEPT
        )

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.operators.append(str(func))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.shape[-1:] == (VOCABULARY,):
                self.widest = max(self.widest, leaf.numel() * (leaf.dtype == torch.float32))
        return result


def double_linear(model):
    class DoubleLinear(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model.lm_head.__class__ = DoubleLinear


def biased_head(model):
    model.lm_head.bias = nn.Parameter(torch.linspace(-1, 1, VOCABULARY, device=model.device))


def parametrised_head(model):
    nn.utils.parametrizations.weight_norm(model.lm_head)


def wrapped_head(model):
    model.lm_head = nn.Sequential(model.lm_head)


def replaced_head_forward(model):
    forward = model.lm_head.forward
    model.lm_head.forward = lambda x: 2 * forward(x)


def lora(*modules: str, **settings: Any) -> Callable[[nn.Module], None]:
    def prepare(model):
        peft = pytest.importorskip("peft")
        torch.manual_seed(0)
        config = peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj", *modules], **settings)
        peft.get_peft_model(model, config)
        generator = torch.Generator().manual_seed(1)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zeros, which would hide the gradient of the other factor
                with torch.no_grad():
                    parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))

    return prepare


def hook(where: str, kind: str = "forward") -> Callable[[nn.Module], None]:
    def prepare(model):
        getattr(model.get_submodule(where), f"register_{kind}_hook")(lambda *_: None)

    return prepare


def scaling_hook(model):
    model.lm_head.register_forward_hook(lambda module, args, output: output * 1.5)


def frozen_head(model):
    model.lm_head.weight.requires_grad_(False)
    hook("model.layers.1")(model)


def all_but_the_head_frozen(model):
    model.requires_grad_(False)
    model.lm_head.weight.requires_grad_(True)
    hook("model.layers.1")(model)


def checkpointed(model):
    model._set_gradient_checkpointing(gradient_checkpointing_func=lambda layer, *x: layer(*x))


def nothing(model):
    pass


# What is done to the model, what is asked for in the call, and whether the head can be fused.
CASES: dict[str, tuple[Callable[[Any], None], dict[str, Any], bool]] = {
    "lora": (lora(), {}, True),
    "lora_of_the_head": (lora("lm_head"), {}, False),
    "head_as_a_module_to_save": (lora(modules_to_save=["lm_head"]), {}, False),
    "hook_on_a_layer": (hook("model.layers.1"), {}, True),
    "hook_on_the_backbone": (hook("model"), {}, True),
    "hook_on_the_model": (hook(""), {}, True),
    "hook_on_the_head": (scaling_hook, {}, False),
    "hook_before_the_head": (hook("lm_head", "forward_pre"), {}, False),
    "backward_hook_on_the_head": (hook("lm_head", "full_backward"), {}, False),
    "frozen_head": (frozen_head, {}, True),
    "all_but_the_head_frozen": (all_but_the_head_frozen, {}, True),
    "checkpointing_of_ones_own": (checkpointed, {}, True),
    "output_attentions": (nothing, {"output_attentions": True}, True),
    "hidden_states": (hook("model"), {"output_hidden_states": True}, True),
    "head_of_another_class": (double_linear, {}, False),
    "head_with_a_bias": (biased_head, {}, False),
    "head_with_a_parametrisation": (parametrised_head, {}, False),
    "head_in_a_container": (wrapped_head, {}, False),
    "head_with_another_forward": (replaced_head_forward, {}, False),
}


def prepared(prepare, name, device, attention="mistral_ext", dtype=torch.float32, **changes):
    """(Hugging Face's model, ours), alike, in training mode."""
    found = []
    for make in (lambda model: model, mistral_ext.from_hf):
        model = make(small_model(name, device=device, dtype=dtype, **changes)).train()
        if attention == "eager":
            model.set_attn_implementation("eager")
        prepare(model)
        found.append(model.train())
    return found
