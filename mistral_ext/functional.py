"""The model as functions of a nested structure of tensors, as JAX programs write it.

    params = convert_mistral_lm_params(hf_model)
    params = shard_mistral_lm_params(params)
    logits = forward_mistral_lm(params, input_ids, qk_mask)

`params` is made of dictionaries and lists, nested as Hugging Face names its parameters:

    {"config": ParamsConfig,
     "model": {"embed_tokens": {"weight": [vocab_size, hidden_size]},
               "layers": [{"self_attn": {"q_proj": {"weight": ...}, "k_proj": ..., ...},
                           "mlp": {"gate_proj": ..., "up_proj": ..., "down_proj": ...},
                           "input_layernorm": ..., "post_attention_layernorm": ...}, ...],
               "norm": {"weight": [hidden_size]}},
     "lm_head": {"weight": [vocab_size, hidden_size]}}

A model whose head is its embedding has no "lm_head", and no other may lack it. Every leaf that
torch.utils._pytree finds is a tensor, so `tree_map(lambda w: w.bfloat16(), params)` gives
parameters again.
"""

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree

from mistral_ext import _C
from mistral_ext._ranks import as_context

if TYPE_CHECKING:
    from mistral_ext.hf import MistralCache

Params = dict[str, Any]

_HEAD = "lm_head.weight"
_EMBEDDING = "model.embed_tokens.weight"


class ParamsConfig:
    """The Hugging Face configuration in `params`, and over which ranks these are spread.

    Read-only. To pytrees it is part of the structure and has no leaves. Two are equal where their
    contents are. It also carries the C++ model that runs its params, which no copy shares.
    """

    def __init__(self, text: str, group_name: str = "") -> None:
        """text: the configuration as JSON; group_name: of the process group, "" for one rank."""
        self._text = text
        self._group_name = group_name
        self._runner: _Runner | None = None

    def to_dict(self) -> dict[str, Any]:
        """The dictionary of a config.json."""
        return json.loads(self._text)

    @property
    def ranks(self) -> "_C.ParallelContext":
        """The ranks over which the params are spread."""
        return _C.ParallelContext(self._group_name) if self._group_name else _C.ParallelContext()

    def sharded(self, ranks: "_C.ParallelContext") -> "ParamsConfig":
        """The same configuration, for params spread over these ranks."""
        return ParamsConfig(self._text, ranks.name)

    def runner(self) -> "_Runner":
        if self._runner is None:
            self._runner = _Runner(self.to_dict(), self.ranks)
        return self._runner

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ParamsConfig) and self._state() == other._state()

    def __hash__(self) -> int:
        return hash(self._state())

    def __repr__(self) -> str:
        return f"ParamsConfig({', '.join(map(repr, filter(None, self._state())))})"

    def __reduce__(self) -> tuple[Any, ...]:
        return ParamsConfig, self._state()

    def _state(self) -> tuple[str, str]:
        return self._text, self._group_name


# A new object each time: params made by tree_map must not hold the C++ model, and through it the
# tensors, of those they were made from.
_pytree.register_pytree_node(
    ParamsConfig,
    lambda config: ([], config._state()),
    lambda _, state: ParamsConfig(*state),
    serialized_type_name="mistral_ext.functional.ParamsConfig",
    flatten_with_keys_fn=lambda config: ([], config._state()),
)
torch.serialization.add_safe_globals([ParamsConfig])


class _Runner:
    """Makes C++ models of the tensors of params, as they are at each call; keeps the last."""

    def __init__(self, config: dict[str, Any], ranks: "_C.ParallelContext") -> None:
        self.config = _C.MistralConfig.from_dict(config)
        self.ranks = ranks
        self._last: tuple[dict[str, torch.Tensor], _C.MistralForCausalLM] | None = None

    def with_weights(self, weights: dict[str, torch.Tensor]) -> "_C.MistralForCausalLM":
        if _HEAD not in weights and _EMBEDDING in weights:
            _check_tied(self.config.tie_word_embeddings)
            weights[_HEAD] = weights[_EMBEDDING]
        # The C++ model holds the tensors themselves, so what is changed in one is seen anyway. For
        # others it is another model, since the last may be running in another thread.
        last = self._last
        if last is not None and _same_objects(weights, last[0]):
            return last[1]
        model = _C.MistralForCausalLM(self.config, self.ranks)
        model.load_parameters(weights)
        self._last = weights, model
        return model


def _check_tied(tied: bool) -> None:
    if not tied:
        raise ValueError(
            f"params: {_HEAD} must be given, since the model's head was not its embedding; got none"
        )


def _same_objects(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return len(a) == len(b) and all(b.get(name) is tensor for name, tensor in a.items())


def _named_tensors(node: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    kind = type(node)
    if kind is torch.Tensor or kind is torch.nn.Parameter:
        yield name, node
    elif kind is dict:
        prefix = f"{name}." if name else ""
        for key, value in node.items():
            if type(value) is not ParamsConfig:
                yield from _named_tensors(value, f"{prefix}{key}")
    elif kind is list or kind is tuple:
        for index, value in enumerate(node):
            yield from _named_tensors(value, f"{name}.{index}")
    else:
        raise ValueError(f"params: {name} must be a tensor, dict or list, got {kind.__name__}")


def _config_of(params: Params, function: str) -> ParamsConfig:
    config = params.get("config") if isinstance(params, dict) else None
    if not isinstance(config, ParamsConfig):
        given = type(params).__name__ if config is None else type(config).__name__
        raise ValueError(
            f"{function}: params must be what convert_mistral_lm_params returns, with a"
            f' ParamsConfig under "config", got {given}'
        )
    return config


def convert_mistral_lm_params(hf_model: torch.nn.Module) -> Params:
    """The parameters of a live Hugging Face causal language model, as nested dictionaries.

    hf_model: of model_type mistral, ministral or ministral3, any dtype and device.

    The tensors share the model's storage, so nothing is copied and what is later written into the
    model's parameters is seen here too. They require no gradient: call requires_grad_() on those
    to differentiate by. Raises ValueError where the model is another one, or has parameters that
    this architecture has not (adapters, biases, quantised weights).
    """
    function = "convert_mistral_lm_params"
    config = getattr(hf_model, "config", None)
    if not hasattr(config, "to_json_string") or not hasattr(hf_model, "get_output_embeddings"):
        raise ValueError(
            f"{function}: hf_model must be a Hugging Face model object, got"
            f" {type(hf_model).__name__}"
        )
    head = hf_model.get_output_embeddings()
    if head is None:
        raise ValueError(
            f"{function}: hf_model must have a language-model head, got {type(hf_model).__name__}"
        )
    tied = head.weight is hf_model.get_input_embeddings().weight
    fields = json.loads(config.to_json_string(use_diff=False)) | {"tie_word_embeddings": tied}
    params_config = ParamsConfig(json.dumps(fields))
    weights = {name: tensor.detach() for name, tensor in hf_model.state_dict().items()}
    on_meta = next((name for name, tensor in weights.items() if tensor.is_meta), None)
    if on_meta is not None:
        raise ValueError(f"{function}: {on_meta} must have storage, got one on the meta device")
    if tied:
        weights.pop(_HEAD, None)
    params_config.runner().with_weights(dict(weights))  # refuses what does not fit
    params: Params = {"config": params_config}
    for name, tensor in weights.items():
        _put(params, name.split("."), tensor)
    return params


def _put(node: Params, path: list[str], tensor: torch.Tensor) -> None:
    """Sets node[path[0]][path[1]]... ; what stands under "layers" is a list."""
    for key, following in pairwise(path):
        child: Any = [] if following.isdigit() else {}
        if isinstance(node, list):
            if int(key) == len(node):
                node.append(child)
            node = node[int(key)]
        else:
            node = node.setdefault(key, child)
    node[path[-1]] = tensor


def shard_mistral_lm_params(
    params: Params,
    group: "torch.distributed.ProcessGroup | torch.distributed.DeviceMesh | None" = None,
) -> Params:
    """The part of params that this rank of `group` holds: with one rank, all of them.

    group: a process group, or a DeviceMesh of one dimension; None is the default group, or no group
        where torch.distributed was not initialised.

    Every rank calls this with the same params. The parts have memory of their own, so that what is
    not this rank's is freed with `params`. forward_mistral_lm then is a collective: all ranks call
    it with the same tokens, and all get the logits. convert_back_mistral_lm_params gathers the
    whole. Raises ValueError where the number of ranks does not divide the heads, the intermediate
    size or the vocabulary (the message says which numbers do), for params that are sharded already,
    and where the ranks' configurations differ.
    """
    function = "shard_mistral_lm_params"
    config = _config_of(params, function)
    if group is None and not torch.distributed.is_initialized():
        return params
    ranks = as_context(group, function)
    if config.ranks.size > 1:
        raise ValueError(
            f"{function}: params must be whole, got ones that are spread over"
            f" {config.ranks.size} ranks"
        )
    if ranks.size == 1:
        return params
    cpp_config = config.runner().config
    weights = dict(_named_tensors(params))
    _C.check_rank_count(cpp_config, ranks.size)
    device = weights[_EMBEDDING].device
    ranks.check_device(device)
    _C.check_agreement("the configuration", config._text, device, ranks)
    sharded: Params = {"config": config.sharded(ranks)}
    for name, tensor in weights.items():
        shard = _C.parameter_shard(name, cpp_config, ranks)
        length = tensor.shape[shard.dim] // shard.count
        part = tensor.detach().narrow(shard.dim, shard.index * length, length)
        _put(sharded, name.split("."), part.clone(memory_format=torch.contiguous_format))
    return sharded


def create_mistral_lm_cache(params: Params) -> "_C.KVCache":
    """An empty cache for forward_mistral_lm, which appends to it in place.

    Its batch size, dtype and device become those of the first tokens that enter. A layer with a
    sliding window W keeps its last W keys and no more.
    """
    runner = _config_of(params, "create_mistral_lm_cache").runner()
    return _C.KVCache(runner.config.layer_windows)


def forward_mistral_lm(
    params: Params,
    input_ids: torch.Tensor,
    qk_mask: torch.Tensor | None = None,
    *,
    attention_mask: torch.Tensor | None = None,
    position_ids: torch.Tensor | None = None,
    cache: "_C.KVCache | MistralCache | None" = None,
    logits_to_keep: int | torch.Tensor = 0,
) -> torch.Tensor:
    """Logits [batch, seq, vocab_size] in the dtype of params, differentiable by its tensors.

    params: what convert_mistral_lm_params returns; its tensors are read as they are now.
    input_ids: int64 or int32 [batch, seq].
    qk_mask: bool [batch, 1, 1, seq, keys], true where a query sees a key, the causal rule included;
        keys is seq, plus the tokens in the cache. The second and third dimension may also be
        num_key_value_heads and the query heads of each. A layer's sliding window holds besides.
        None: every token sees itself and those before it.
    attention_mask: [batch, keys], nonzero where there is a token and not padding; instead of
        qk_mask, and cheaper, since the causal rule then needs no matrix.
    position_ids: int64 [batch or 1, seq]. None: the tokens in the cache, plus 0, 1, 2, ...; also
        with a mask, where a row that is padded on the left starts after 0. Attention depends on
        differences of positions alone. Without mask and cache, a row whose positions do not rise
        by one is several packed sequences, which do not see each other.
    cache: from create_mistral_lm_cache, or a MistralCache for a model of the same windows; the new
        tokens are appended to it.
    logits_to_keep: the last so many positions, 0 for all, or int64 indices [kept].

    A query that sees no key gets 0 from attention, never NaN. Raises ValueError where an argument
    does not fit the others.
    """
    runner = _config_of(params, "forward_mistral_lm").runner()
    model = runner.with_weights(dict(_named_tensors(params)))
    mask = None if qk_mask is None else _merge_heads(qk_mask, model.config)
    if hasattr(cache, "settled"):  # a MistralCache, which shows the C++ cache to transformers
        cache = cache.settled()
    if cache is not None and not isinstance(cache, _C.KVCache):
        raise ValueError(
            "forward_mistral_lm: cache must come from create_mistral_lm_cache, got"
            f" {type(cache).__name__}"
        )
    logits, _, _ = model.forward(
        input_ids=input_ids,
        attention_mask=attention_mask,
        qk_mask=mask,
        position_ids=position_ids,
        cache=cache,
        logits_to_keep=logits_to_keep,
    )
    return logits


def _merge_heads(qk_mask: torch.Tensor, config: "_C.MistralConfig") -> torch.Tensor:
    """[batch, kv_heads|1, group|1, seq, keys] -> [batch, heads|1, seq, keys]"""
    kv_heads = config.num_key_value_heads
    group = config.num_attention_heads // kv_heads
    shape = list(qk_mask.shape)
    fits = len(shape) == 5 and shape[1] in (1, kv_heads) and shape[2] in (1, group)
    if not fits or qk_mask.dtype != torch.bool:
        raise ValueError(
            f"forward_mistral_lm: qk_mask must be bool [batch, 1 or {kv_heads}, 1 or {group}, seq,"
            f" keys], got {qk_mask.dtype} {shape}"
        )
    if shape[1] == shape[2] == 1:
        return qk_mask[:, 0]
    return qk_mask.expand(-1, kv_heads, group, -1, -1).flatten(1, 2)


def convert_back_mistral_lm_params(params: Params) -> dict[str, torch.Tensor]:
    """The state dict that Hugging Face's model of these params has, sharing their storage.

    A head that is the embedding appears under both its names, as Hugging Face writes it. Sharded
    params are gathered: every rank calls this and gets whole tensors.
    """
    config = _config_of(params, "convert_back_mistral_lm_params")
    state = {name: tensor.detach() for name, tensor in _named_tensors(params)}
    if config.ranks.size > 1:
        cpp_config, ranks = config.runner().config, config.ranks
        for name, part in state.items():
            shard = _C.parameter_shard(name, cpp_config, ranks)
            state[name] = _C.gather_shards(part, shard, ranks)
    if _HEAD not in state:
        _check_tied(config.to_dict().get("tie_word_embeddings", False))
        state[_HEAD] = state[_EMBEDDING]
    return state
