"""The logits of a training step, computed when somebody reads them."""

import threading
import weakref
from typing import Any, ClassVar

import torch
from torch import Tensor, distributed
from torch.autograd import Variable
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import register_optimizer_step_pre_hook


class PendingLogits:
    """The language-model head's product, not yet computed: most training steps never read it.

    The logits are those of the forward pass whenever they are read. The head's weight may change
    before that: after the backward pass, and before an optimizer's step, outputs that are still
    there are left what it takes to know them. After a change at any other time there is an error.
    """

    _all: ClassVar["weakref.WeakSet[PendingLogits]"] = weakref.WeakSet()
    _lock: ClassVar[threading.Lock] = threading.Lock()  # threads may train models of their own

    def __init__(self, hidden_states: Tensor, weight: Tensor) -> None:
        """hidden_states: [batch, seq, hidden_size]; weight: [vocab_size, hidden_size]."""
        self._hidden_states = hidden_states
        self._weight = weight
        self._state = _state(hidden_states), _state(weight)
        self._sample = _sample(weight)
        # What keep leaves: one of the first two, and the third.
        self._copy: Tensor | None = None
        self._logits: Tensor | None = None
        self._kept_sample: Tensor | None = None
        with self._lock:
            self._all.add(self)

    def compute(self) -> Tensor:
        """[batch, seq, vocab_size], with gradients as if the forward pass had made it."""
        sample = self._kept_sample
        if sample is None and self._is_unchanged():
            sample = _sample(self._weight)
        hidden_changed = self._logits is None and _state(self._hidden_states) != self._state[0]
        if sample is None or hidden_changed or not _equal(sample, self._sample):
            raise RuntimeError(
                "logits: lm_head.weight and the last hidden state must be unchanged since the"
                " forward pass, got a modified one: read the output's logits before it is changed"
            )
        if self._logits is not None:
            return self._logits
        return self._product(self._weight if self._copy is None else self._copy)

    def _product(self, weight: Tensor) -> Tensor:
        # As in the forward pass, wherever they are read; the operator itself minds no autocast.
        with torch.inference_mode(False), torch.enable_grad():
            return torch.ops.mistral_ext.linear(self._hidden_states, weight)

    def _is_unchanged(self) -> bool:
        return self._state == (_state(self._hidden_states), _state(self._weight))

    def keep_after_backward(self, loss: Tensor) -> None:
        """Has keep run at the end of loss's backward pass, if somebody still has the output."""
        this = weakref.ref(self)

        def keep() -> None:
            pending = this()
            if pending is not None:
                PendingLogits.keep({id(pending._weight)})

        def at_start(_: Any) -> None:
            # At the end the pass has let go of what it held: memory is at its most before that.
            Variable._execution_engine.queue_callback(keep)

        loss.grad_fn.register_prehook(at_start)

    @classmethod
    def keep_before_step(cls, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Runs before every step of any optimizer."""
        if cls._all:
            cls.keep({id(p) for group in optimizer.param_groups for p in group["params"]})

    @classmethod
    def keep(cls, weights: set[int]) -> None:
        """Keeps the logits of all outputs of a weight that wait, or one copy of it if smaller.

        weights: their id().
        """
        with cls._lock:
            everything = [pending for pending in cls._all if id(pending._weight) in weights]
        waiting: dict[int, list[PendingLogits]] = {}
        for pending in everything:
            if pending._kept_sample is None and pending._is_unchanged():
                waiting.setdefault(id(pending._weight), []).append(pending)
        for outputs in waiting.values():
            weight = outputs[0]._weight
            sample = _sample(weight)
            rows = sum(pending._hidden_states.shape[:-1].numel() for pending in outputs)
            copy = None
            if rows >= weight.shape[1]:
                copy = _copy_among(everything, weight, sample)
            for pending in outputs:
                pending._copy = copy
                pending._logits = pending._product(weight) if copy is None else None
                pending._kept_sample = sample


register_optimizer_step_pre_hook(PendingLogits.keep_before_step)


def _copy_among(everything: list[PendingLogits], weight: Tensor, sample: Tensor) -> Tensor:
    """A copy of the weight as it is; one that an output has already where there is one."""
    for other in everything:
        is_same = other._weight is weight and other._state[1] == _state(weight)
        if is_same and other._copy is not None and _equal(other._kept_sample, sample):
            return other._copy
    return weight.detach().clone()


def deferred_logits(
    loss: Tensor, hidden_states: Tensor, weight: Tensor, is_copy: bool = False
) -> PendingLogits | Tensor:
    """The head's product: pending, or at once where the weight may be gone when it is read.

    FSDP frees the weights that it has gathered once the forward pass of the module around this one
    is over, and nothing about them shows it. So in a process group only what stays may wait:
    DistributedDataParallel's weights, and a copy (is_copy) that was made for this forward pass.
    """
    pending = PendingLogits(hidden_states, weight)
    in_group = distributed.is_available() and distributed.is_initialized()
    if in_group and not is_copy and DistributedDataParallel._get_active_ddp_module() is None:
        return pending.compute()
    if loss.requires_grad and not is_copy:
        pending.keep_after_backward(loss)
    return pending


def _state(tensor: Tensor) -> tuple[int, int]:
    """Differs once the values may differ, unless they were written through `.data`."""
    return tensor._version, tensor.data_ptr()


def _sample(weight: Tensor) -> Tensor:
    """The bytes of some values now: an update through `weight.data`, as of old steps, shows there.

    One from each of many rows and columns; comparing them waits for the device, this does not.
    """
    with torch.inference_mode(False), torch.no_grad():
        return weight.detach().diagonal().clone().view(torch.uint8)


def _equal(sample: Tensor, other: Tensor) -> bool:
    return sample.is_meta or torch.equal(sample, other)
