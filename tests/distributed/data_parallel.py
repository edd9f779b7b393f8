"""What the processes of the data-parallel tests do; imported by each of them."""

import contextlib
from typing import Any

import torch
import torch.distributed as dist
from batches import ROWS, everything, share, targets
from cases import CASES, Case
from helpers.models import in_dtype, small_model
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from with_trainer import trained

import mistral_ext

STEPS = 3


def made(case: Case, ours: bool) -> tuple[nn.Module, nn.Module]:
    """(the model as it is trained, the model inside it) before it is spread over processes."""
    model = small_model(case.model)
    if case.bf16 == "model":
        model = in_dtype(model, torch.bfloat16)
    if ours:
        model = mistral_ext.from_hf(model)
    else:
        model.set_attn_implementation("sdpa")
    model.train()
    if case.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if not case.lora:
        return model, model
    torch.manual_seed(5)
    # Neither factor zero, so that each has a gradient.
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return get_peft_model(model, config), model


def policy(case: Case) -> MixedPrecisionPolicy:
    if not case.bf16.startswith("policy"):
        return MixedPrecisionPolicy()
    reduces = torch.float32 if case.bf16.endswith("fp32") else None
    return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=reduces)


def spread(case: Case, model: nn.Module, inner: nn.Module, world: int) -> nn.Module:
    if case.wrap == "ddp":
        return DistributedDataParallel(model)
    settings = {"mesh": dist.init_device_mesh("cpu", (world,)), "mp_policy": policy(case)}
    if case.wrap == "fsdp by layers":
        for layer in inner.model.layers:
            fully_shard(layer, **settings)
    fully_shard(model, **settings)
    assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    return model


def synchronised(model: nn.Module, last: bool) -> contextlib.AbstractContextManager:
    """Whether the gradients of this micro-batch are reduced over the processes."""
    if isinstance(model, DistributedDataParallel):
        return contextlib.nullcontext() if last else model.no_sync()
    if dist.is_initialized():
        model.set_requires_gradient_sync(last)
    return contextlib.nullcontext()


def part_of_loss(
    case: Case, model: nn.Module, batch: dict[str, Tensor], total: int
) -> tuple[Tensor, Any]:
    """What this batch adds to the mean over `total` labels; and the model's output."""
    if case.mean == "num_items":
        output = model(**batch, use_cache=False, num_items_in_batch=torch.tensor(total))
        loss = output.loss
    else:
        output = model(**batch, use_cache=False)
        loss = output.loss * (targets(batch) / total)
    if case.logits == "used":
        loss = loss + 0.01 * (targets(batch) / total) * output.logits.square().mean()
    return loss, output


def train(case: Case, model: nn.Module, batches: list[dict[str, Tensor]]) -> dict[str, Any]:
    """The loss of each step over all processes; the first step's gradients and logits."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    total = torch.tensor(sum(targets(batch) for batch in batches))
    if world > 1:
        dist.all_reduce(total)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=0.05, momentum=0.9)
    found: dict[str, Any] = {"losses": [], "logits": []}
    for step in range(STEPS):
        optimizer.zero_grad()
        sum_of_parts = torch.zeros(())
        outputs = []
        for number, batch in enumerate(batches, 1):
            with synchronised(model, number == len(batches)):
                loss, output = part_of_loss(case, model, batch, int(total))
                if case.logits == "before":
                    assert output.logits.shape[:2] == batch["input_ids"].shape
                (loss * world).backward()  # gradients are averaged over the processes
            if case.logits in ("after", "used"):
                assert output.logits is output["logits"]
            sum_of_parts += loss.detach().float()
            outputs.append(output)
        if step == 0:
            found["gradients"] = {name: numbers(p.grad) for name, p in trained.items()}
        optimizer.step()
        if case.logits and step == 0:
            found["logits"] = [numbers(output.logits) for output in outputs]
        if world > 1:
            dist.all_reduce(sum_of_parts)
        found["losses"].append(sum_of_parts.item())
    found["weights"] = {name: numbers(p) for name, p in trained.items()}
    return found


def numbers(tensor: Tensor) -> Any:
    whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return whole.detach().float().numpy().copy()


def run(case: Case, ours: bool, rank: int, world: int) -> dict[str, Any]:
    model, inner = made(case, ours)
    found = train(case, spread(case, model, inner, world), share(case.rows, rank, case.parts))
    found = {**found, **{key: by_own_names(found[key]) for key in ("gradients", "weights")}}
    if ours:
        forward = mistral_ext.path_report(inner).last_forward
        found.update(path=forward.path, reason=forward.reason)
    return found


def by_own_names(values: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("module."): value for name, value in values.items()}


def one_process(case: Case) -> dict[str, Any]:
    """Hugging Face's class over all rows at once, in fp32."""
    model, _ = made(Case("", case.model, case.rows, lora=case.lora), ours=False)
    # The share's weight in the mean is 1 here, so either way of taking it is the mean.
    return train(Case("", rows=case.rows, logits=case.logits), model, everything(case.rows))


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
    found: dict[str, Any] = {"generate": fsdp_generates(rank, world)}
    for parts in (1, 2):
        found[f"trainer {parts}"] = [trained(ours, world, parts) for ours in (True, False)]
    for name, case in CASES.items():
        found[name] = {
            "ours": run(case, True, rank, world),
            "theirs": run(case, False, rank, world),
        }
    return found


def fails(rank: int, world: int) -> None:
    if rank == 1:
        raise ValueError("as it should")
    dist.barrier()
