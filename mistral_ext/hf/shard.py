"""shard_ and gather: a live model spread over ranks, and its whole weights again."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from mistral_ext import _C
from mistral_ext._ranks import as_context
from mistral_ext.hf.backbone import NativeModule
from mistral_ext.hf.convert import from_hf
from mistral_ext.hf.parallel import (
    context_of,
    cpp_config,
    gather_weights,
    install_parallel_modules,
    sharded_weights,
)

Model = TypeVar("Model", bound=nn.Module)


def shard_(
    model: nn.Module,
    group: "torch.distributed.ProcessGroup | torch.distributed.DeviceMesh | None" = None,
) -> NativeModule:
    """Keeps this rank's part of every weight and frees the rest; returns the model.

    model: one of ours, which is changed in place; or Hugging Face's, which becomes ours first
        (`from_hf`) and shares its parameters with what is returned, so that it can no longer run.
    group: the ranks, each of which calls this with the same model; a DeviceMesh of one dimension;
        None for the default group. One rank holds everything, and nothing changes.

    Parameters stay the objects they are, of this rank's shape, and so do their gradients; make an
    optimizer afterwards, since its state would keep its old shape. Caches made before hold other
    heads than the model then has: make new ones. From now on the ranks have to do the same calls
    with the same inputs in the same order, and get the same results; what a call compares first is
    said in docs/parallel.md.

    Raises ValueError, with the model unchanged, where the number of ranks does not divide what has
    to be divided (the message says which numbers do), for a group without a backend for the model's
    device, for a model that is sharded already, and where the ranks' configurations differ;
    TypeError for another model.
    """
    if not isinstance(model, NativeModule):
        model = from_hf(model)
    context = as_context(group, "shard_")
    if context_of(model).size > 1:
        raise ValueError(
            "shard_: model must be whole, got one that is spread over"
            f" {context_of(model).size} ranks"
        )
    if context.size == 1:
        return model
    config = cpp_config(model)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, module in sharded_weights(model):
        if type(module) not in (nn.Linear, nn.Embedding):
            raise ValueError(
                f"shard_: {name} must be a plain linear or embedding module, got a"
                f" {type(module).__name__}: shard the model before its modules are replaced"
            )
    _C.check_rank_count(config, context.size)
    device = next(iter(parameters.values())).device
    context.check_device(device)
    _C.check_agreement("the configuration", model.config.to_json_string(), device, context)
    _C.check_agreement("the weights", _fingerprint(parameters), device, context)
    done: set[int] = set()
    for name, _ in sharded_weights(model):
        parameter = parameters[f"{name}.weight"]
        if id(parameter) in done:
            continue
        done.add(id(parameter))
        shard = _C.parameter_shard(f"{name}.weight", config, context)
        if parameter.grad is not None:
            gradient, parameter.grad = parameter.grad, None
            parameter.data = _part(parameter.data, shard)
            parameter.grad = _part(gradient, shard)
        else:
            parameter.data = _part(parameter.data, shard)
    install_parallel_modules(model, context)
    return model


def gather(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a sharded model with whole tensors, on every rank and on its device.

    A collective: every rank calls it. Of a model that is not sharded, its state dict. Raises
    TypeError where the model is not one of ours.
    """
    if not isinstance(model, NativeModule):
        raise TypeError(f"gather: model must be a mistral_ext model, got {type(model).__name__}")
    return gather_weights(model)


@torch.no_grad()
def clip_grad_norm_(model: nn.Module, max_norm: float, eps: float = 1e-6) -> Tensor:
    """torch.nn.utils.clip_grad_norm_ for a sharded model: by the norm of the whole gradient.

    A collective: every rank calls it. Returns that norm, fp32, before clipping. torch's own
    function sees the parts of one rank, and would scale what all ranks share by another factor on
    each.
    """
    context = context_of(model)
    replicas = {f"{name}.weight": module._shard.replicas for name, module in sharded_weights(model)}
    shared, split = 0.0, 0.0
    gradients = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    for name, gradient in gradients:
        square = gradient.float().square().sum()
        if name in replicas:
            split = split + square / replicas[name]
        else:
            shared = shared + square
    device = next(model.parameters()).device
    total = torch.as_tensor(split, dtype=torch.float32, device=device).reshape(1)
    norm = (_C.all_reduce(total, context)[0] + shared).sqrt()
    factor = (max_norm / (norm + eps)).clamp(max=1.0)
    for _, gradient in gradients:
        gradient.mul_(factor.to(gradient.dtype))
    return norm


def _part(whole: Tensor, shard: _C.ShardSpec) -> Tensor:
    length = whole.shape[shard.dim] // shard.count
    return whole.narrow(shard.dim, shard.index * length, length).clone(
        memory_format=torch.contiguous_format
    )


def _fingerprint(parameters: dict[str, nn.Parameter]) -> str:
    """Names, shapes, dtypes and some values of each."""
    lines = []
    for name, parameter in parameters.items():
        values = parameter.detach().reshape(-1)
        places = torch.linspace(0, values.numel() - 1, 8, dtype=torch.float64).long()
        some = values[places.to(values.device)].double().tolist()
        lines.append(f"{name} {tuple(parameter.shape)} {parameter.dtype} {some}")
    return "\n".join(lines)
