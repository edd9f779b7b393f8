"""transformers.Trainer over several processes, as torchrun would start them."""

import os
import tempfile
from pathlib import Path

import torch
from helpers.models import random_ids, small_model
from helpers.trainer import losses_of, trainer_of

import mistral_ext

LENGTHS = [15, 6, 11, 13, 4, 9, 7, 14]
IDS = random_ids(len(LENGTHS), max(LENGTHS))
ROWS_A_STEP = 4
assert len(set(IDS[:, 0].tolist())) == len(LENGTHS)  # so that a row is known by its first token


def ragged(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """A batch of rows, padded to the longest; no loss at padding."""
    first = [int(item["input_ids"][0]) for item in items]
    lengths = torch.tensor([LENGTHS[IDS[:, 0].tolist().index(token)] for token in first])
    ids = torch.stack([item["input_ids"] for item in items])[:, : lengths.max()]
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    # The first token is nobody's target: Trainer counts the labels before they are shifted.
    labels = ids.masked_fill(mask == 0, -100).index_fill(1, torch.tensor([0]), -100)
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}


def trained(ours: bool, world: int, accumulation: int) -> list[float]:
    """The losses of Trainer's steps; each is of the same rows, whatever the other arguments."""
    if world > 1:
        # accelerate asks for these, and joins the group that is there.
        os.environ.update(MASTER_ADDR="localhost", MASTER_PORT="0", LOCAL_WORLD_SIZE=str(world))
    model = small_model("window")
    model = mistral_ext.from_hf(model) if ours else model
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(
            model,
            IDS,
            Path(folder),
            keywords={"data_collator": ragged},
            max_steps=4,
            per_device_train_batch_size=ROWS_A_STEP // world // accumulation,
            gradient_accumulation_steps=accumulation,
        )
        assert trainer.args.world_size == world
        trainer.train()
    return losses_of(trainer)
