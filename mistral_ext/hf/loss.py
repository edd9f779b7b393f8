"""Hugging Face's loss of a causal language model, by our operators.

The labels are shifted and the sum divided as transformers.loss.loss_utils.ForCausalLMLoss does it;
the arithmetic over the vocabulary is the operators', which hold no second copy of the logits, and
in training none at all.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.loss import loss_utils
from transformers.loss.loss_utils import ForCausalLMLoss

from mistral_ext import _C
from mistral_ext.hf.parallel import context_of
from mistral_ext.hf.tensors import is_plain

# What Hugging Face's loss is made of: a program that replaces one of them wants it to run.
_FIXED_CROSS_ENTROPY, _CROSS_ENTROPY = loss_utils.fixed_cross_entropy, functional.cross_entropy


@dataclass(frozen=True)
class Targets:
    """What each position is to predict, and what the sum over them is divided by."""

    labels: Tensor  # int64 [batch * seq], shifted
    ignore_index: int
    num_items: Tensor | int | float | None  # None: the labels that are not ignored

    def loss(self, total: Tensor) -> Tensor:
        """The loss, in fp32, of the sum over the positions."""
        if self.num_items is None:
            return total.float() / (self.labels != self.ignore_index).sum()
        items = self.num_items
        return total.float() / (items.to(total.device) if torch.is_tensor(items) else items)

    def of_hidden_states(
        self, hidden_states: Tensor, weight: Tensor, ranks: _C.ParallelContext | None = None
    ) -> Tensor:
        """The loss for hidden_states [batch, seq, hidden_size] and the head's weight.

        ranks: those over which the weight is spread.
        """
        if ranks is not None and ranks.size > 1:
            return self.loss(
                _C.vocab_parallel_cross_entropy(
                    hidden_states.flatten(0, -2), weight, self.labels, self.ignore_index, ranks
                )
            )
        return self.loss(
            torch.ops.mistral_ext.linear_cross_entropy(
                hidden_states.flatten(0, -2), weight, self.labels, self.ignore_index
            )
        )

    def of_logits(self, logits: Tensor) -> Tensor:
        """The loss for logits [batch, seq, vocab_size] on the labels' device, without gradients."""
        return self.loss(
            torch.ops.mistral_ext.cross_entropy(
                logits.flatten(0, -2), self.labels, self.ignore_index
            )
        )


def targets(
    causal_lm: torch.nn.Module,
    tokens: Tensor | None,
    logits_to_keep: Any,
    labels: Tensor | None,
    *,
    shift_labels: Tensor | None = None,
    ignore_index: int = -100,
    num_items_in_batch: Tensor | int | None = None,
    **_: Any,
) -> Targets | None:
    """The targets of this call; None without labels, and where only Hugging Face says what they do.

    tokens: [batch, seq] or [batch, seq, hidden_size]. The other arguments are forward's and those
    of its loss. What Hugging Face would refuse is left to it.
    """
    if labels is None or tokens is None or not _keeps_all(logits_to_keep):
        return None
    weight = getattr(causal_lm.lm_head, "weight", None)
    given = labels if shift_labels is None else shift_labels
    if (
        causal_lm.loss_function is not ForCausalLMLoss
        or loss_utils.fixed_cross_entropy is not _FIXED_CROSS_ENTROPY
        or functional.cross_entropy is not _CROSS_ENTROPY
        or weight is None
        or weight.shape[0] * context_of(causal_lm).size != causal_lm.config.vocab_size
        or not is_plain(weight, labels, given)
        or given.dtype != torch.int64
        or given.numel() != tokens.shape[:2].numel()
        or not isinstance(ignore_index, int)
    ):
        return None
    if shift_labels is None:
        # Position i predicts label i + 1, the last one nothing.
        shift_labels = functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]
    return Targets(shift_labels.reshape(-1).to(weight.device), ignore_index, num_items_in_batch)


def _keeps_all(logits_to_keep: Any) -> bool:
    return isinstance(logits_to_keep, int) and logits_to_keep == 0
