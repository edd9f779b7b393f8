"""Training steps, ours beside Hugging Face's with sdpa: time and memory.

Both have the same weights, and take turns in one process for the time. The peak memory of each is
that of a process of its own: `python -m benchmarks.training CASE MODEL DTYPE CONTESTANT BATCH
LENGTH` prints it as a JSON object.
"""

import copy
import gc
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import transformers
from torch import nn

import mistral_ext
from benchmarks import memory, models
from benchmarks.table import Table
from mistral_ext.cli import measure

BATCH, LENGTH = 2, 512
REPEATS = 9
CONTESTANTS = ("mistral_ext", "hugging_face")
BOTH_DTYPES = ("float32", "bfloat16")
LEARNING_RATE = 1e-5


def run(quick: bool, seconds: float, cases: Sequence[str] = ()) -> list[dict[str, Any]]:
    shape = (2, 32) if quick else (BATCH, LENGTH)
    print(*(f"{name}: {case.__doc__}" for name, (case, _) in CASES.items()), sep="\n")
    table = Table(
        f"seconds for a step of {shape[0]} x {shape[1]} tokens; MiB at the peak beyond the weights",
        case="s",
        model="s",
        dtype="s",
        mistral_ext=".3f",
        hugging_face=".3f",
        ratio=".2f",
        mistral_ext_MiB=".0f",
        hugging_face_MiB=".0f",
    )
    name = "tiny" if quick else "SmolLM2-135M"
    for case in cases or CASES:
        for dtype in CASES[case][1][: 1 if quick else None]:
            figures = _seconds(case, name, dtype, shape, seconds)
            found = {
                key: memory.in_a_process("benchmarks.training", case, name, dtype, key, *shape)
                for key in CONTESTANTS
            }
            medians = {key: measure.median(times) for key, times in figures.items()}
            table.add(
                case=case,
                model=name,
                dtype=dtype,
                **medians,
                ratio=medians["hugging_face"] / medians["mistral_ext"],
                **{
                    f"{key}_MiB": (bytes["peak"] - bytes["before"]) / 2**20
                    for key, bytes in found.items()
                },
                seconds=figures,
                bytes=found,
            )
            gc.collect()
    return table.rows


Step = Callable[[], object]


def _backward(model: nn.Module, ids: torch.Tensor) -> Step:
    """forward and backward; the output is gone once its loss is taken."""

    def step() -> None:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()

    return step


def _checkpointing(model: nn.Module, ids: torch.Tensor) -> Step:
    """the same with gradient checkpointing."""
    model.gradient_checkpointing_enable()
    return _backward(model, ids)


def _loop(optimizer: type[torch.optim.Optimizer], model: nn.Module, ids: torch.Tensor) -> Step:
    stepper = optimizer([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)
    outputs = None

    def step() -> None:
        nonlocal outputs  # alive until the next step has its own, as in a loop
        outputs = model(input_ids=ids, labels=ids, use_cache=False)
        outputs.loss.backward()
        stepper.step()
        stepper.zero_grad()

    return step


def _adamw(model: nn.Module, ids: torch.Tensor) -> Step:
    """a loop's step, its output alive all the while: forward, backward, AdamW, zero_grad."""
    return _loop(torch.optim.AdamW, model, ids)


def _sgd(model: nn.Module, ids: torch.Tensor) -> Step:
    """the same with SGD."""
    return _loop(torch.optim.SGD, model, ids)


def _prepared_by_accelerate(model: nn.Module) -> nn.Module:
    from accelerate import Accelerator

    return Accelerator(mixed_precision="bf16", cpu=True).prepare_model(model)


def _trainer_bf16(model: nn.Module, ids: torch.Tensor) -> Step:
    """backward, of a model that Trainer(bf16=True) has prepared."""
    return _backward(_prepared_by_accelerate(model), ids)


def _autocast(model: nn.Module, ids: torch.Tensor) -> Step:
    """backward, with forward under torch.autocast in bf16."""

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()

    return step


def _lora(model: nn.Module, ids: torch.Tensor) -> Step:
    """backward, the weights frozen under LoRA (PEFT) of the attention's products."""
    import peft

    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    peft.get_peft_model(model, peft.LoraConfig(r=8, target_modules=targets))
    return _backward(model, ids)


# What makes a step of a model and ids, and the dtypes of the weights.
CASES: dict[str, tuple[Callable[[nn.Module, torch.Tensor], Step], Sequence[str]]] = {
    "backward": (_backward, BOTH_DTYPES),
    "checkpointing": (_checkpointing, BOTH_DTYPES),
    "adamw": (_adamw, BOTH_DTYPES),
    "sgd": (_sgd, BOTH_DTYPES),
    "autocast": (_autocast, ("float32",)),
    "trainer_bf16": (_trainer_bf16, ("float32",)),
    "lora": (_lora, BOTH_DTYPES),
}


def _seconds(
    case: str, name: str, dtype: str, shape: tuple[int, int], seconds: float
) -> dict[str, list[float]]:
    hf_model = models.MODELS[name](getattr(torch, dtype))
    # Steps change weights and modules: what each trains is its own.
    contestants = {"mistral_ext": mistral_ext.from_hf(copy.deepcopy(hf_model))}
    contestants["hugging_face"] = hf_model
    ids = _ids(hf_model, shape)
    steps = {key: CASES[case][0](model.train(), ids) for key, model in contestants.items()}

    def one(key: str) -> float:
        figure = measure.seconds(steps[key])
        contestants[key].zero_grad()
        return figure

    runs = {key: partial(one, key) for key in contestants}
    for once in runs.values():
        once()  # warms up
    return measure.interleaved(runs, REPEATS, seconds)


def _ids(model: transformers.PreTrainedModel, shape: tuple[int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(model.config.vocab_size, shape, generator=generator)


def _measure(
    case: str, name: str, dtype: str, contestant: str, shape: tuple[int, int]
) -> dict[str, int]:
    """The peak of two steps: in the second a loop's first output is still alive."""
    model = models.MODELS[name](getattr(torch, dtype))
    if contestant == "mistral_ext":
        model = mistral_ext.from_hf(model)
    step = CASES[case][0](model.train(), _ids(model, shape))

    def work() -> None:
        step()
        if case in ("adamw", "sgd"):
            step()

    return memory.peak_of(model, work)


if __name__ == "__main__":
    case, name, dtype, contestant, batch, length = sys.argv[1:]
    print(json.dumps(_measure(case, name, dtype, contestant, (int(batch), int(length)))))
