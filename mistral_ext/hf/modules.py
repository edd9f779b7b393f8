"""Hugging Face's modules with our operators in them, for the module path.

Each is a subclass, so isinstance and whatever looks for the class go on working, and it has the
name of its base: transformers and others also look for modules by name. Where an operator cannot
take the tensors (mixed dtypes, tensor subclasses, function transforms) the base's arithmetic runs.
"""

import sys
from types import ModuleType
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.ministral import modeling_ministral as ministral
from transformers.models.ministral3 import modeling_ministral3 as ministral3
from transformers.models.mistral import modeling_mistral as mistral

from mistral_ext.hf.attention import ATTENTION, OUR_ATTENTIONS
from mistral_ext.hf.parallel import mask_of_own_heads
from mistral_ext.hf.tensors import operators_apply

SILU = (type(ACT2FN["silu"]), nn.SiLU)


class _RMSNorm(nn.Module):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if not operators_apply(hidden_states, self.weight) or _base_changed(self):
            return super().forward(hidden_states)
        return torch.ops.mistral_ext.rms_norm(hidden_states, self.weight, self.variance_epsilon)


class _MLP(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if type(self.act_fn) not in SILU or is_watched(self.act_fn) or _base_changed(self):
            return super().forward(x)
        gate, up = self.gate_proj(x), self.up_proj(x)
        if not operators_apply(gate, up):
            return self.down_proj(self.act_fn(gate) * up)
        return self.down_proj(torch.ops.mistral_ext.silu_mul(gate, up))


class _Attention(nn.Module):
    """Hugging Face's attention module; the function that it calls is ours where that is asked for.

    Its base calls the one that the configuration names, and the configuration stays the model's:
    "sdpa" there is what transformers says of a model nobody asked anything of.
    """

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """hidden_states: [batch, seq, hidden_size]; position_embeddings: cos, sin [batch, seq, d].

        Returns ([batch, seq, hidden_size], weights or None).
        """
        if self.config._attn_implementation not in OUR_ATTENTIONS or _base_changed(self):
            return super().forward(
                hidden_states,
                position_embeddings=position_embeddings,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                **kwargs,
            )
        heads = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            projection(hidden_states).view(heads).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        # Looked up in its module at each call, as its base does: a program may replace it there.
        query, key = self._package.apply_rotary_pos_emb(query, key, *position_embeddings)
        query = self._scaled(query, **kwargs)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        output, weights = ALL_ATTENTION_FUNCTIONS[ATTENTION](
            self,
            query,
            key,
            value,
            mask_of_own_heads(self.q_proj, attention_mask),
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            sliding_window=self._window(),
            **kwargs,
        )
        return self.o_proj(output.flatten(2)), weights

    def _scaled(self, query: torch.Tensor, **_: Any) -> torch.Tensor:
        return query

    def _window(self) -> int | None:
        return self.config.sliding_window


def is_watched(module: nn.Module) -> bool:
    """Something wants the module itself to be called."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


def _base_changed(module: nn.Module) -> bool:
    """Someone has put another forward into Hugging Face's class, which has to run then."""
    if torch.compiler.is_compiling():
        return False
    return module._base.forward is not module._forward_of_base


class MistralRMSNorm(_RMSNorm, mistral.MistralRMSNorm):
    pass


class MinistralRMSNorm(_RMSNorm, ministral.MinistralRMSNorm):
    pass


class Ministral3RMSNorm(_RMSNorm, ministral3.Ministral3RMSNorm):
    pass


class MistralMLP(_MLP, mistral.MistralMLP):
    pass


class MinistralMLP(_MLP, ministral.MinistralMLP):
    pass


class Ministral3MLP(_MLP, ministral3.Ministral3MLP):
    pass


class MistralAttention(_Attention, mistral.MistralAttention):
    pass


class MinistralAttention(_Attention, ministral.MinistralAttention):
    def _window(self) -> int | None:
        return self.sliding_window


class Ministral3Attention(_Attention, ministral3.Ministral3Attention):
    def _scaled(self, query: torch.Tensor, *, position_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        rope = self.config.rope_parameters
        names = ("llama_4_scaling_beta", "original_max_position_embeddings")
        scale = self._package.get_llama_4_attn_scale(position_ids, *map(rope.get, names))
        return query * scale.to(query.dtype)


_OURS: dict[type, type] = {
    ours.__mro__[2]: ours
    for ours in (
        MistralRMSNorm,
        MinistralRMSNorm,
        Ministral3RMSNorm,
        MistralMLP,
        MinistralMLP,
        Ministral3MLP,
        MistralAttention,
        MinistralAttention,
        Ministral3Attention,
    )
}


for _base, _ours in _OURS.items():
    _ours._base, _ours._forward_of_base = _base, staticmethod(_base.forward)
    _ours._package = sys.modules[_base.__module__]


def install_modules(model: nn.Module) -> None:
    """Makes Hugging Face's norms, MLPs and attentions inside `model` ours; parameters stay."""
    for module in model.modules():
        module.__class__ = _OURS.get(type(module), type(module))


class NativeTypes(dict[str, tuple[type, ...]]):
    """For _C.SharedWeights: the classes whose arithmetic the C++ model has, by role.

    It also remembers what code they had when we were imported: a program that replaces a forward
    in a class, or a function in its module, wants that to run.
    """

    def __init__(
        self, package: ModuleType, prefix: str, types: dict[str, tuple[type, ...]]
    ) -> None:
        super().__init__(types)
        theirs = ("Model", "ForCausalLM", "DecoderLayer", "Attention", "MLP", "RMSNorm")
        classes = [getattr(package, f"{prefix}{name}") for name in (*theirs, "RotaryEmbedding")]
        classes += [nn.Linear, nn.Embedding, *SILU]
        places = [(_definer(cls, "forward"), "forward") for cls in classes]
        places += [(package, name) for name in _FUNCTIONS if hasattr(package, name)]
        places.append((nn.Module, "__call__"))
        # The namespaces themselves are looked at, since this happens at each call of a model.
        self._code = [(vars(owner), name, vars(owner)[name], owner) for owner, name in places]

    def replaced_code(self) -> str:
        """What was replaced since, as a reason not to run C++; or ""."""
        for namespace, name, code, owner in self._code:
            if namespace.get(name) is not code:
                return f"{owner.__name__.rpartition('.')[2]}.{name} was replaced"
        return ""


def _definer(cls: type, name: str) -> type:
    return next(each for each in cls.__mro__ if name in vars(each))


# What the forwards of a modeling module call by its global name.
_FUNCTIONS = (
    "apply_rotary_pos_emb",
    "rotate_half",
    "get_llama_4_attn_scale",
    "create_causal_mask",
    "create_sliding_window_causal_mask",
)


def native_types(package: ModuleType, prefix: str) -> NativeTypes:
    """package: transformers' modeling module; prefix: of its class names."""
    norm, mlp, attention = (
        getattr(package, f"{prefix}{name}") for name in ("RMSNorm", "MLP", "Attention")
    )
    types = {
        "model": (getattr(package, f"{prefix}Model"),),
        "layers": (nn.ModuleList,),
        "layer": (getattr(package, f"{prefix}DecoderLayer"),),
        "attention": (_OURS[attention], attention),
        "rotary": (getattr(package, f"{prefix}RotaryEmbedding"),),
        "mlp": (_OURS[mlp], mlp),
        "norm": (_OURS[norm], norm),
        "linear": (nn.Linear,),
        "embedding": (nn.Embedding,),
        "activation": SILU,
        "parameter": (nn.Parameter, torch.Tensor),
    }
    return NativeTypes(package, prefix, types)
