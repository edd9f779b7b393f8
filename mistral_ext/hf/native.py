"""The C++ model beside a Python model, and what stands in the way of running it."""

import functools
import threading
import types
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.module import _has_any_global_hook
from transformers import DynamicCache, PreTrainedModel
from transformers.utils import output_capturing

from mistral_ext import _C
from mistral_ext.hf.attention import OUR_ATTENTIONS
from mistral_ext.hf.cache import MistralCache
from mistral_ext.hf.checkpointing import checkpointed_layers, checkpointing_obstacle
from mistral_ext.hf.dynamic_cache import dynamic_cache_obstacle
from mistral_ext.hf.parallel import PARALLEL_TYPES, context_of, vocab_size
from mistral_ext.hf.path import Choice
from mistral_ext.hf.rotary import RotaryWatch
from mistral_ext.hf.tensors import autocast_dtype, is_plain, transform

# Arguments of forward beyond the named ones that change nothing in the model: the loss's, what
# becomes an output, and leftovers that Hugging Face's modules ignore too.
HARMLESS_ARGUMENTS = frozenset(
    {
        "cache_position",
        "end_positions",
        "ignore_index",
        "num_items_in_batch",
        "output_attentions",
        "output_hidden_states",
        "shift_labels",
        "start_positions",
        "tokenizer",  # which generate hands down where a stopping criterion needs it
    }
)


class NativeModel:
    """A C++ model that shares the weights of one Python model, made when first needed.

    The Python model is a causal language model or a backbone. It holds this object, which is no
    part of it: deepcopy and pickle leave it behind.
    """

    def __init__(self, owner: torch.nn.Module) -> None:
        self.owner = weakref.ref(owner)
        self.windows: tuple[int, ...] = ()  # the keys each layer's queries see; 0 is all
        self.vocab_size = 0
        self.last_forward: Choice | None = None
        self.last_generation: Choice | None = None
        self._weights: _C.SharedWeights | None = None
        self._rotary: RotaryWatch | None = None
        self._key: tuple[Any, ...] | None = None
        self._refusal = ""
        self._lock = threading.Lock()
        # What refresh found for this thread's call: another thread may refresh before it is used.
        self._found = threading.local()

    @property
    def model(self) -> "_C.MistralForCausalLM | None":
        """The C++ model with the weights of the last refresh. None where Python has to run."""
        return None if self._weights is None else self._weights.model

    def __reduce__(self) -> tuple[Any, ...]:
        return _nothing, ()

    def refresh(self) -> str:
        """Shares the weights as they are now; returns what needs Python modules, or "".

        The configuration is compared and every module looked at each time, down to the identity
        of its weights and of its forward, its hooks, and the attributes that its forward reads. Not
        looked at: what modules have and their class's forward does not read, and code that was
        replaced before mistral_ext was imported.
        """
        owner = self.owner()
        key = _key(owner)
        self._found.__dict__.pop("call", None)
        with self._lock:
            if key != self._key:
                self._build(owner, key)
            if self._refusal:
                return self._refusal
            try:
                return self._share(owner)
            except ValueError:
                pass  # a shape changed, as resize_token_embeddings does: once more from the start
            self._build(owner, key)
            if self._refusal:
                return self._refusal
            try:
                return self._share(owner)
            except ValueError as error:
                return str(error)

    @contextmanager
    def running(self) -> Iterator["_C.MistralForCausalLM"]:
        """The C++ model of this thread's last refresh, which must have found no obstacle.

        The Python model knows afterwards how far a dynamic rope has grown.
        """
        model, rotary = self._found.__dict__.pop("call")
        try:
            yield model
        finally:
            rotary.publish(_rotary_module(self.owner()), model)

    def _share(self, owner: torch.nn.Module) -> str:
        obstacle = self._weights.refresh(owner)
        obstacle = obstacle or self._rotary.follow(_rotary_module(owner), self.model)
        if not obstacle:
            self._found.call = self.model, self._rotary
        return obstacle

    def check_windows(self, cache: MistralCache | DynamicCache | None) -> None:
        """Raises ValueError where the cache keeps other windows than the model's layers have."""
        if type(cache) is MistralCache and cache.windows != self.windows:
            raise ValueError(
                f"past_key_values must keep the windows {self.windows} of this model's layers,"
                f" got {cache.windows}"
            )

    def _build(self, owner: torch.nn.Module, key: tuple[Any, ...]) -> None:
        self._key = key
        self._weights = None
        backbone = backbone_of(owner)
        if "_made_from" not in backbone.__dict__:
            kind = type(backbone)
            self._refusal = f"model is a {kind.__module__}.{kind.__qualname__}"
            return
        try:
            fields = _fields(owner.config, backbone)
            config = _C.MistralConfig.from_dict(fields)
            self.windows = tuple(config.layer_windows)
            self.vocab_size = config.vocab_size
        except (AttributeError, ValueError) as error:
            self._refusal = str(error)
            return
        self._refusal = ""
        context = context_of(owner)
        types = owner._native_types if context.size == 1 else owner._native_types | PARALLEL_TYPES
        roles = {
            **types,
            "ignored_hooks": ignored_hooks(),
            "model" if owner is backbone else "causal_lm": (type(owner),),
        }
        self._weights = _C.SharedWeights(config, roles, context)
        self._rotary = RotaryWatch(config, fields)


def _rotary_module(owner: torch.nn.Module) -> torch.nn.Module:
    return backbone_of(owner)._modules["rotary_emb"]


def _nothing() -> None:
    return None


def backbone_of(model: torch.nn.Module) -> torch.nn.Module:
    """What stands below the model's head; the model itself where it is a backbone."""
    return model._modules.get(model.base_model_prefix, model)


def native_model(owner: torch.nn.Module) -> NativeModel:
    """The NativeModel of this very object: a shallow copy of a model gets its own."""
    native = owner.__dict__.get("_native")
    if native is None or native.owner() is not owner:
        native = owner.__dict__["_native"] = NativeModel(owner)
    return native


def _inner_code(function: Any, name: str = "") -> types.CodeType | None:
    """The code of the function that is defined inside `function` under a name that starts so."""
    codes = (c for c in function.__code__.co_consts if isinstance(c, types.CodeType))
    return next((code for code in codes if code.co_name.startswith(name)), None)


@functools.cache
def capturing_hook() -> types.CodeType | None:
    """The code of the hooks that transformers leaves on modules to record their outputs.

    They do nothing unless a call asks Hugging Face's model for them.
    """
    return _inner_code(output_capturing.install_output_capuring_hook)


@functools.cache
def embedding_hook() -> types.CodeType | None:
    """The code of the hook that enable_input_require_grads sets on the embedding.

    gradient_checkpointing_enable calls that. The C++ model does what the hook does.
    """
    return _inner_code(PreTrainedModel.enable_input_require_grads, "make_inputs_require_grads")


@functools.cache
def ignored_hooks() -> tuple[types.CodeType, ...]:
    """The codes of the hooks that need not run on the native path."""
    return tuple(code for code in (capturing_hook(), embedding_hook()) if code is not None)


def embeddings_require_grad(owner: torch.nn.Module) -> bool:
    """Whether enable_input_require_grads is in force."""
    hooks = backbone_of(owner).embed_tokens._forward_hooks.values()
    code = embedding_hook()
    return code is not None and any(getattr(hook, "__code__", None) is code for hook in hooks)


def training_arguments(owner: torch.nn.Module) -> dict[str, Any]:
    """What the C++ model's forward is told of how the Python model is trained."""
    return {
        "checkpointed_layers": checkpointed_layers(backbone_of(owner)),
        "embeddings_require_grad": embeddings_require_grad(owner),
    }


def _key(owner: torch.nn.Module) -> tuple[Any, ...]:
    """What Hugging Face's forward reads from the configuration as it runs; and which backbone."""
    config, backbone = owner.config, backbone_of(owner)
    layer_types = getattr(config, "layer_types", None)
    rope = config.rope_parameters or {}
    embedding = backbone._modules.get("embed_tokens")
    return (
        backbone.__dict__.get("_made_from"),
        backbone.__dict__.get("_ranks"),
        config.sliding_window,
        config.num_hidden_layers,
        None if layer_types is None else tuple(layer_types),
        rope.get("llama_4_scaling_beta"),
        rope.get("original_max_position_embeddings"),
        getattr(embedding, "padding_idx", None),
    )


def _fields(config: Any, backbone: torch.nn.Module) -> dict[str, Any]:
    """The configuration for C++: what modules took from it when they were made, they keep."""
    embedding = backbone.embed_tokens
    fields = {**backbone._made_from, "vocab_size": vocab_size(backbone)}
    live = config.to_dict()
    for name in ("sliding_window", "num_hidden_layers", "layer_types"):
        if name in live:
            fields[name] = live[name]
    if config.model_type == "ministral3":
        rope = dict(fields["rope_parameters"])
        for name in ("llama_4_scaling_beta", "original_max_position_embeddings"):
            rope[name] = config.rope_parameters.get(name)
        fields["rope_parameters"] = rope
    fields["pad_token_id"] = embedding.padding_idx
    fields["rms_norm_eps"] = getattr(backbone.norm, "variance_epsilon", config.rms_norm_eps)
    return fields


def model_obstacle(owner: torch.nn.Module, native: NativeModel) -> str:
    """What keeps the C++ model from running this model, whatever a call's arguments; or ""."""
    config, model = owner.config, backbone_of(owner)
    if config._attn_implementation not in OUR_ATTENTIONS:
        return f"attn_implementation {config._attn_implementation!r} is asked for"
    if not getattr(config, "is_causal", True):
        return "config.is_causal is False"
    if torch.jit.is_tracing():
        return "torch.jit traces the model"
    if torch._C._len_torch_dispatch_stack() > 0:
        return "a torch dispatch mode is active"
    if _has_any_global_hook():
        return "a global module hook is registered"
    obstacle = transform() or owner._native_types.replaced_code() or native.refresh()
    if not obstacle and autocast_dtype(model.embed_tokens.weight.device) is not None:
        return "autocast is enabled"
    return obstacle


def call_obstacle(
    owner: torch.nn.Module,
    *,
    input_ids: torch.Tensor | None = None,
    attention_mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    past_key_values: Any = None,
    inputs_embeds: torch.Tensor | None = None,
    logits_to_keep: int | torch.Tensor = 0,
    labels: torch.Tensor | None = None,
    use_cache: bool | None = None,
    **kwargs: Any,
) -> str:
    """What in one call's arguments the C++ model cannot take; or ""."""
    for name, value in (
        ("input_ids", input_ids),
        ("attention_mask", attention_mask),
        ("position_ids", position_ids),
        ("inputs_embeds", inputs_embeds),
    ):
        if not is_plain(value):
            return f"{name} is a {type(value).__name__}"
    if attention_mask is not None and attention_mask.requires_grad and torch.is_grad_enabled():
        return "attention_mask requires a gradient"
    if position_ids is not None and position_ids.is_floating_point():
        return "position_ids are no integers"
    if type(past_key_values) is DynamicCache:
        obstacle = dynamic_cache_obstacle(
            past_key_values,
            native_model(owner).windows,
            backbone_of(owner).embed_tokens.weight.dtype,
        )
        if obstacle:
            return obstacle
    elif past_key_values is not None and type(past_key_values) is not MistralCache:
        return f"past_key_values is a {type(past_key_values).__name__}"
    if _goes_beyond_tokens(attention_mask, input_ids, inputs_embeds, past_key_values):
        return "attention_mask is larger than the tokens"
    if isinstance(logits_to_keep, torch.Tensor):
        if logits_to_keep.dim() != 1 or not is_plain(logits_to_keep):
            return "logits_to_keep is no plain tensor of one dimension"
    elif not isinstance(logits_to_keep, int):
        return f"logits_to_keep is a {type(logits_to_keep).__name__}"
    elif logits_to_keep < 0:
        return "logits_to_keep is negative"
    config = owner.config
    if kwargs.get("output_attentions", config.output_attentions):
        return "output_attentions is asked for"
    if not isinstance(output_hidden_states(config, kwargs), bool):
        return "output_hidden_states names layers"
    if kwargs.get("is_causal", True) is not True:
        return "is_causal is given"
    return _unknown_argument(kwargs) or checkpointing_obstacle(
        backbone_of(owner),
        past_key_values,
        config.use_cache if use_cache is None else use_cache,
    )


def _goes_beyond_tokens(
    mask: torch.Tensor | None,
    input_ids: torch.Tensor | None,
    inputs_embeds: torch.Tensor | None,
    cache: Any,
) -> bool:
    """Whether a mask [rows, n] is for more rows or later tokens, which Hugging Face never reads."""
    tokens = input_ids if inputs_embeds is None else inputs_embeds
    if mask is None or mask.dim() != 2 or tokens is None or tokens.dim() < 2:
        return False
    past = 0 if cache is None else cache.get_seq_length()
    return mask.shape[0] > tokens.shape[0] or mask.shape[1] > past + tokens.shape[1]


def _unknown_argument(kwargs: dict[str, Any]) -> str:
    unknown: Iterable[str] = (
        name
        for name, value in kwargs.items()
        if value is not None and name not in HARMLESS_ARGUMENTS and name != "is_causal"
    )
    return next((f"the argument {name} is given" for name in unknown), "")


def output_hidden_states(config: Any, kwargs: dict[str, Any]) -> Any:
    """What the call, else the configuration says."""
    asked = kwargs.get("output_hidden_states", config.output_hidden_states)
    return bool(asked) if asked in (None, 0, 1) else asked
