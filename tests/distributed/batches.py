"""The rows that the data-parallel tests train on, whole, by process and by micro-batch."""

import torch
from helpers.models import random_ids

ROWS = random_ids(6, 15)
# The second process of the last two has fewer rows, shorter ones, and fewer labels in them.
LENGTHS = {"equal": [15, 15, 15, 15], "ragged": [15, 6, 11, 13, 4, 9]}
SHARES = {"equal": [[0, 1], [2, 3]], "ragged": [[0, 1, 2, 3], [4, 5]]}


def batch_of(kind: str, rows: list[int]) -> dict[str, torch.Tensor]:
    """The rows, padded to the longest of them; no loss at padding and at a few other places."""
    lengths = torch.tensor([LENGTHS[kind][row] for row in rows])
    ids = ROWS[rows, : lengths.max()]
    if kind == "equal":
        return {"input_ids": ids, "labels": ids}
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    labels = ids.masked_fill(mask == 0, -100)
    if 0 in rows:
        labels[rows.index(0), 2:7] = -100
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}


def everything(kind: str) -> list[dict[str, torch.Tensor]]:
    """One batch of all rows."""
    return [batch_of(kind, [row for share in SHARES[kind] for row in share])]


def share(kind: str, rank: int, parts: int) -> list[dict[str, torch.Tensor]]:
    """The batches, `parts` of them, of one process."""
    rows = torch.tensor(SHARES[kind][rank]).chunk(parts)
    return [batch_of(kind, part.tolist()) for part in rows]


def targets(batch: dict[str, torch.Tensor]) -> int:
    """How many positions have a label: the first of a row is nobody's target."""
    return int((batch["labels"][:, 1:] != -100).sum())
