"""Tensor parallelism: the weights of one model spread over the ranks of a process group.

Attention is split by heads, the MLP by intermediate features, embedding and head by vocabulary, as
Megatron-LM does it (Shoeybi et al. 2019, arXiv 1909.08053). Every rank runs the same program on the
same inputs and gets the same outputs.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from mistral_ext import _C

WHOLE = _C.ShardSpec()
_ONE_RANK = _C.ParallelContext()


class _Parallel(nn.Module):
    """A module whose weight is one rank's part.

    It is no nn.Linear, so that what wraps or replaces linear modules (PEFT, quantisation) refuses
    it and does not compute with a part as if it were the whole.
    """

    _context: _C.ParallelContext
    _shard: _C.ShardSpec


class ColumnParallelLinear(_Parallel):
    """weight: [out_features / ranks, in_features]; x [..., in_features] -> this rank's outputs."""

    def forward(self, x: Tensor) -> Tensor:
        weight = _C.sum_gradients_of_replicas(self.weight, self._shard, self._context)
        return functional.linear(_C.copy_to_ranks(x, self._context), weight)


class RowParallelLinear(_Parallel):
    """weight: [out_features, in_features / ranks]; this rank's inputs -> [..., out_features]."""

    def forward(self, x: Tensor) -> Tensor:
        return _C.all_reduce(functional.linear(x, self.weight), self._context)


class ParallelHead(ColumnParallelLinear):
    """A ColumnParallelLinear whose outputs every rank gets."""

    def forward(self, x: Tensor) -> Tensor:
        return _C.all_gather_last(super().forward(x), self._context)


class VocabParallelEmbedding(_Parallel):
    """weight: [num_embeddings / ranks, embedding_dim]; ids [...] -> [..., embedding_dim]."""

    def forward(self, input_ids: Tensor) -> Tensor:
        padding_idx = -1 if self.padding_idx is None else self.padding_idx
        return _C.vocab_parallel_embedding(input_ids, self.weight, padding_idx, self._context)


def mask_of_own_heads(q_proj: nn.Module, mask: Tensor | None) -> Tensor | None:
    """The part of a mask [batch, heads, seq, keys] that is of this rank's heads."""
    context = getattr(q_proj, "_context", _ONE_RANK)
    if context.size == 1 or mask is None or mask.dim() != 4 or mask.shape[1] == 1:
        return mask
    heads = mask.shape[1] // context.size
    return mask.narrow(1, context.rank * heads, heads)


_CLASSES = {
    "embed_tokens": VocabParallelEmbedding,
    "q_proj": ColumnParallelLinear,
    "k_proj": ColumnParallelLinear,
    "v_proj": ColumnParallelLinear,
    "gate_proj": ColumnParallelLinear,
    "up_proj": ColumnParallelLinear,
    "o_proj": RowParallelLinear,
    "down_proj": RowParallelLinear,
    "lm_head": ParallelHead,
}

# For _C.SharedWeights, by role: what C++ also has the arithmetic of, in a model with ranks.
PARALLEL_TYPES = {
    "linear": (ColumnParallelLinear, RowParallelLinear, ParallelHead),
    "embedding": (VocabParallelEmbedding,),
}


def context_of(model: nn.Module) -> _C.ParallelContext:
    """The ranks over which a model's weights are spread; of any other model, one rank."""
    backbone = model._modules.get(getattr(model, "base_model_prefix", ""), model)
    return backbone.__dict__.get("_ranks", _ONE_RANK)


def sharded_weights(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules whose weight is split over ranks, with their names."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in _CLASSES
    ]


def install_parallel_modules(model: nn.Module, context: _C.ParallelContext) -> None:
    """Makes modules that hold a part of their weight ones that know it; with one rank, nothing."""
    if context.size == 1:
        return
    backbone = model._modules.get(model.base_model_prefix, model)
    backbone.__dict__["_ranks"] = context
    config = cpp_config(model)
    for name, module in sharded_weights(model):
        module.__class__ = _CLASSES[name.rpartition(".")[2]]
        module._context = context
        module._shard = _C.parameter_shard(f"{name}.weight", config, context)


def cpp_config(model: nn.Module) -> _C.MistralConfig:
    fields = model.config.to_dict()
    fields["vocab_size"] = vocab_size(model)
    return _C.MistralConfig.from_dict(fields)


def vocab_size(model: nn.Module) -> int:
    """Rows of the whole embedding."""
    backbone = model._modules.get(model.base_model_prefix, model)
    return backbone.embed_tokens.weight.shape[0] * context_of(model).size


def local_key_value_heads(model: nn.Module) -> int:
    """How many this rank has."""
    heads = model.config.num_key_value_heads
    return max(heads // context_of(model).size, 1)


def gather_weights(model: nn.Module) -> dict[str, Tensor]:
    """model's state dict with whole tensors; a collective of its ranks."""
    context = context_of(model)
    shards = {f"{name}.weight": module._shard for name, module in sharded_weights(model)}
    whole: dict[str, Tensor] = {}
    done: dict[int, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in done:
            part = tensor.detach()
            done[id(tensor)] = _C.gather_shards(part, shards.get(name, WHOLE), context)
        whole[name] = done[id(tensor)]
    return whole


@contextmanager
def on_first_rank(model: nn.Module) -> Iterator[bool]:
    """Whether this rank is the one that writes; where it fails, all ranks do."""
    context = context_of(model)
    if context.size == 1:
        yield True
        return
    device = next(model.parameters()).device
    try:
        yield context.rank == 0
    except BaseException:
        _C.any_rank(True, device, context)
        raise
    if _C.any_rank(False, device, context):
        raise RuntimeError("save: another rank must have written the model, got an error there")


def share_generator(device: torch.device, context: _C.ParallelContext) -> None:
    """The default generator of the device goes on from rank 0's state on every rank."""
    if context.size == 1:
        return
    if device.type == "cpu":
        state = torch.get_rng_state()
        _C.broadcast(state, context)
        torch.set_rng_state(state)
        return
    module = torch.get_device_module(device)
    state = module.get_rng_state(device).to(device)
    _C.broadcast(state, context)
    module.set_rng_state(state.cpu(), device)
