"""Training steps of small models, compared gradient by gradient."""

from collections.abc import Iterable
from typing import Any

import torch

from helpers.models import random_ids, small_model

# fp32 sums of some hundred products in another order.
RELATIVE = 1e-5


def step(model: torch.nn.Module, **call: Any) -> dict[str, torch.Tensor]:
    """The loss and the gradient of every parameter that has one; what was there before goes."""
    model.zero_grad()
    loss = model(**call).loss
    loss.backward()
    return {"loss": loss.detach(), **gradients(model)}


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def relative_errors(
    found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]
) -> dict[str, float]:
    """Of each tensor, the error's norm by the norm."""
    assert found.keys() == exact.keys()
    return {
        key: ((found[key].float() - value).norm() / value.norm()).item()
        for key, value in exact.items()
    }


def assert_equal_steps(found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> None:
    for key, error in relative_errors(found, exact).items():
        assert error <= RELATIVE, f"{key} is off by {error:.3g}"


def labels_of(ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """The ids, with no loss where there is padding and at some other places."""
    labels = ids.clone()
    labels[0, 2:5] = -100
    return labels if mask is None else labels.masked_fill(mask == 0, -100)


def calls(device: torch.device, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Arguments of forward for one training step in all the ways in which batches differ."""
    ids = random_ids(2, 17, seed=seed).to(device)
    mask = torch.ones_like(ids)
    mask[0, 11:] = 0
    left = mask.flip(1)
    packed = torch.cat([torch.arange(9), torch.arange(8)]).to(device).expand(2, 17)
    shifted = torch.full_like(ids, -100)
    shifted[:, :-1] = ids[:, 1:]
    return {
        "plain": {"input_ids": ids, "labels": ids},
        "ignored": {"input_ids": ids, "labels": labels_of(ids)},
        "right_padding": {
            "input_ids": ids,
            "attention_mask": mask,
            "labels": labels_of(ids, mask),
        },
        "left_padding": {
            "input_ids": ids,
            "attention_mask": left,
            "position_ids": (left.cumsum(1) - 1).clamp(min=0),
            # Padding predicts nothing: it sees no token, and what it attends to is the model's own.
            "labels": labels_of(ids, left * left.roll(1, 1)),
        },
        "packed": {
            "input_ids": ids,
            "position_ids": packed,
            "use_cache": False,
            "labels": ids.masked_fill(packed == 0, -100),
        },
        "num_items": {"input_ids": ids, "labels": labels_of(ids), "num_items_in_batch": 57},
        "num_items_tensor": {
            "input_ids": ids,
            "labels": ids,
            "num_items_in_batch": torch.tensor(57),
        },
        "shift_labels": {"input_ids": ids, "labels": ids, "shift_labels": shifted},
        "ignore_index": {
            "input_ids": ids,
            "labels": ids.masked_fill(ids > 50, 7),
            "ignore_index": 7,
        },
    }


def rms(values: Iterable[float]) -> float:
    found = torch.tensor(list(values), dtype=torch.float64)
    return found.square().mean().sqrt().item()


def models(name: str, device: torch.device, **keywords: Any):
    """(Hugging Face's model, ours around the same parameters), in training mode."""
    import mistral_ext

    hf_model = small_model(name, device=device, **keywords).train()
    return hf_model, mistral_ext.from_hf(hf_model)
