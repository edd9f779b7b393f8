"""transformers.Trainer with settings that give the same curve each time."""

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

import mistral_ext


class Rows(Dataset):
    """Rows of ids [rows, seq], each its own labels."""

    def __init__(self, ids: torch.Tensor) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[row], "labels": self.ids[row]}


class NotePath(TrainerCallback):
    """The path of the last forward of each step."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model
        self.paths: set[str] = set()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.paths.add(mistral_ext.path_report(self.model).last_forward.path)


def trainer_of(
    model: torch.nn.Module, ids: torch.Tensor, folder: Path, *, keywords: Any = None, **changes: Any
) -> Trainer:
    """A Trainer that logs every step. keywords: the Trainer's; changes: TrainingArguments's."""
    settings = TrainingArguments(
        **{
            "output_dir": str(folder),
            "max_steps": 6,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            "seed": 3,
            "use_cpu": ids.device.type == "cpu",
            **changes,
        }
    )
    return Trainer(model=model, args=settings, train_dataset=Rows(ids.cpu()), **(keywords or {}))


def losses_of(trainer: Trainer) -> list[float]:
    """One a step."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def train(
    model: torch.nn.Module, ids: torch.Tensor, folder: Path, **changes: Any
) -> tuple[list[float], set[str]]:
    """The losses logged, one a step, and the paths taken."""
    trainer = trainer_of(model, ids, folder, **changes)
    notes = NotePath(model)
    if isinstance(model, mistral_ext.MistralForCausalLM):
        trainer.add_callback(notes)
    trainer.train()
    return losses_of(trainer), notes.paths
