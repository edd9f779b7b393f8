"""What the processes of the data-parallel tests do; imported by each of them."""

from typing import Any

import torch
import torch.distributed as dist
from helpers.models import random_ids, small_model
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import mistral_ext

STEPS = 3
ROWS = random_ids(4, 15)


def train(model: nn.Module, ids: torch.Tensor) -> list[float]:
    """The loss of each step, averaged over the processes."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        loss = loss.detach().clone()
        if dist.is_initialized():
            dist.all_reduce(loss)
            loss /= dist.get_world_size()
        losses.append(loss.item())
    return losses


def result(model: Any, losses: list[float]) -> dict[str, Any]:
    """The losses, the weights after the last step and the path that ran."""
    weights = {}
    for name, parameter in model.named_parameters():
        value = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        weights[name] = value.detach().numpy().copy()
    report = mistral_ext.path_report(model)
    return {
        "losses": losses,
        "weights": weights,
        "path": report.last_forward.path,
        "reason": report.last_forward.reason,
    }


def one_process(name: str) -> dict[str, Any]:
    model = mistral_ext.from_hf(small_model(name)).train()
    return result(model, train(model, ROWS))


def my_rows(rank: int, world: int) -> torch.Tensor:
    return ROWS.chunk(world)[rank]


def ddp(rank: int, world: int, name: str, checkpointing: bool) -> dict[str, Any]:
    model = mistral_ext.from_hf(small_model(name)).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    losses = train(DistributedDataParallel(model), my_rows(rank, world))
    return result(model, losses)


def fsdp(rank: int, world: int, name: str, each_layer: bool) -> dict[str, Any]:
    model = mistral_ext.from_hf(small_model(name)).train()
    mesh = dist.init_device_mesh("cpu", (world,))
    if each_layer:
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert any(isinstance(parameter, DTensor) for parameter in model.parameters())
    return result(model, train(model, my_rows(rank, world)))


def fsdp_generates(rank: int, world: int) -> list[int]:
    from transformers import GenerationConfig

    model = mistral_ext.from_hf(small_model())
    fully_shard(model, mesh=dist.init_device_mesh("cpu", (world,)))
    config = GenerationConfig(max_new_tokens=5, do_sample=False, pad_token_id=0)
    tokens = model.generate(ROWS[:2], generation_config=config, synced_gpus=True)
    assert mistral_ext.path_report(model).generation.path == "python"
    return tokens.flatten().tolist()


def every_case(rank: int, world: int) -> dict[str, Any]:
    """All of the above in one pair of processes: starting them is what takes time."""
    return {
        "ddp window": ddp(rank, world, "window", False),
        "ddp tied": ddp(rank, world, "tied", False),
        "ddp window checkpointed": ddp(rank, world, "window", True),
        "fsdp window": fsdp(rank, world, "window", False),
        "fsdp tied": fsdp(rank, world, "tied", False),
        "fsdp window by layers": fsdp(rank, world, "window", True),
        "fsdp tied by layers": fsdp(rank, world, "tied", True),
        "generate": fsdp_generates(rank, world),
    }


def fails(rank: int, world: int) -> None:
    if rank == 1:
        raise ValueError("as it should")
    dist.barrier()
