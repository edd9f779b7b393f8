"""What the processes of the tests of mistral_shm do; imported by each of them."""

import datetime
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed._functional_collectives import all_gather_tensor, all_reduce
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import mistral_ext

assert mistral_ext.__version__  # importing it is what makes the backend known
OURS = "mistral_shm"
BACKENDS = (OURS, "gloo")


def values(rank: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(rank))


def reduced(group: Any, rank: int, world: int) -> list[Tensor]:
    # Integers, so that any order of the sum gives the same bits.
    tensor = torch.arange(5.0) * (rank + 1)
    dist.all_reduce(tensor, group=group)
    largest = values(rank, 70, 300).t()
    dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
    at_root = values(rank, 7)
    dist.reduce(at_root, 1, dist.ReduceOp.MIN, group=group)
    part = torch.empty(3)
    whole = torch.arange(3.0 * world) * (rank + 1)
    dist.reduce_scatter_tensor(part, whole, group=group)
    part_of_list = torch.empty(3)
    dist.reduce_scatter(part_of_list, list(whole.chunk(world)), group=group)
    return [tensor, largest, at_root if rank == 1 else torch.empty(0), part, part_of_list]


def moved(group: Any, rank: int, world: int) -> list[Tensor]:
    tensor = values(rank, 400_000)
    dist.broadcast(tensor, 1, group=group)
    gathered = [torch.empty(2, 3) for _ in range(world)]
    dist.all_gather(gathered, values(rank, 2, 3), group=group)
    in_one = torch.empty(2 * world, 3)
    dist.all_gather_into_tensor(in_one, values(rank, 2, 3), group=group)
    at_root = [torch.empty(4) for _ in range(world)] if rank == 0 else None
    dist.gather(values(rank, 4), at_root, 0, group=group)
    received = torch.empty(4)
    sent = [values(10 + to, 4) for to in range(world)] if rank == 1 else None
    dist.scatter(received, sent, 1, group=group)
    splits = [1 + (rank + to) % 2 for to in range(world)]
    exchanged = torch.empty(sum(splits), 2)
    dist.all_to_all_single(exchanged, values(rank, sum(splits), 2), splits, splits, group=group)
    dist.barrier(group=group)
    return [tensor, *gathered, in_one, *(at_root or []), received, exchanged]


def objects(group: Any, rank: int, world: int) -> list[Any]:
    found: list[Any] = [None] * world
    dist.all_gather_object(found, {"rank": rank, "name": "r" * rank}, group=group)
    sent = [f"from {rank}", rank]
    dist.broadcast_object_list(sent, 1, group=group)
    return [found, sent]


def functional(group: Any, rank: int, world: int) -> list[Tensor]:
    return [
        all_reduce(torch.full((3,), float(rank)), "sum", group).clone(),
        all_gather_tensor(torch.full((2, 2), float(rank)), 1, group).clone(),
    ]


def trained(group: Any, rank: int, world: int) -> list[Tensor]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    model = DistributedDataParallel(module, process_group=group)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        model(values(100 * step + rank, 6, 8)).square().mean().backward()
        optimizer.step()
    return [parameter.detach() for parameter in module.parameters()]


def as_numbers(found: Any) -> Any:
    if isinstance(found, Tensor):
        return found.numpy().copy()
    return [as_numbers(each) for each in found] if isinstance(found, list) else found


PARTS: tuple[Callable[..., Any], ...] = (reduced, moved, objects, functional, trained)


def beside_gloo(rank: int, world: int) -> dict[str, dict[str, Any]]:
    """What each part gives, by backend; ours is a group beside the default one, of gloo."""
    found: dict[str, dict[str, Any]] = {}
    for backend in BACKENDS:
        group = dist.new_group(backend=backend)
        found[backend] = {part.__name__: as_numbers(part(group, rank, world)) for part in PARTS}
    return found


def as_default(rank: int, world: int, folder: str) -> dict[str, Any]:
    """As torch.distributed's own group, with groups and meshes made of it."""
    dist.init_process_group(
        OURS, init_method=f"file://{folder}/default", rank=rank, world_size=world
    )
    pair = dist.new_group([0, 1])
    total = torch.ones(3)
    if rank < 2:
        dist.all_reduce(total, group=pair)
    mesh = dist.init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("dp", "tp"))
    rows = torch.full((2,), float(rank))
    dist.all_reduce(rows, group=mesh.get_group("tp"))
    matrix = torch.arange(24.0).view(4, 6)
    flat = dist.init_device_mesh("cpu", (world,))
    sharded = distribute_tensor(matrix, flat, [Shard(0)])
    assert isinstance(sharded, DTensor)
    product = (sharded @ distribute_tensor(matrix.t(), flat, [Replicate()])).full_tensor()
    backend = dist.get_backend()
    dist.destroy_process_group()
    return {
        "backend": backend,
        "pair": total.tolist(),
        "tp": rows.tolist(),
        "product": product.tolist(),
    }


def error_where_one_is_killed(rank: int, world: int, folder: str) -> tuple[str, float]:
    """What the others are told, and after how many seconds; one more rank, the last, is killed."""
    child = os.fork() if rank == 0 else -1
    if child == 0:
        rank = world
    dist.init_process_group(
        OURS,
        init_method=f"file://{folder}/killed",
        rank=rank,
        world_size=world + 1,
        timeout=datetime.timedelta(seconds=60),
    )
    dist.all_reduce(torch.ones(3))
    if child == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    start = time.monotonic()
    try:
        while True:
            dist.all_reduce(torch.ones(1000))
    except dist.DistBackendError as error:
        return str(error), time.monotonic() - start
    finally:
        if child > 0:
            os.waitpid(child, 0)
