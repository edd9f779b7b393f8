"""The output of a training step, whose logits are computed when somebody reads them."""

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers.modeling_outputs import CausalLMOutputWithPast


class PendingLogits:
    """The language-model head's product, not yet computed: most training steps never read it.

    The logits are those of the forward pass whenever they are read. The head's weight may change
    before that: an optimizer that is about to change it first leaves here what it takes to know
    them; after any other change there is an error.
    """

    _all: ClassVar["weakref.WeakSet[PendingLogits]"] = weakref.WeakSet()
    _lock: ClassVar[threading.Lock] = threading.Lock()  # threads may train models of their own

    def __init__(self, hidden_states: Tensor, weight: Tensor) -> None:
        """hidden_states: [batch, seq, hidden_size]; weight: [vocab_size, hidden_size]."""
        self._hidden_states = hidden_states
        self._weight = weight
        self._state = _state(hidden_states), _state(weight)
        self._sample = _sample(weight)
        # What an optimizer's step leaves: one of the first two, and the third.
        self._copy: Tensor | None = None
        self._logits: Tensor | None = None
        self._sample_at_step: Tensor | None = None
        with self._lock:
            self._all.add(self)

    def compute(self) -> Tensor:
        """[batch, seq, vocab_size], with gradients as if the forward pass had made it."""
        sample = self._sample_at_step
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

    @classmethod
    def keep_weights(cls, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Runs before every step of any optimizer.

        Keeps what is smaller: the logits of all outputs that wait, or one copy of their weight.
        """
        if not cls._all:
            return
        with cls._lock:
            everything = list(cls._all)
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        waiting: dict[int, list[PendingLogits]] = {}
        for pending in everything:
            kept = pending._sample_at_step is not None
            if id(pending._weight) in owned and not kept and pending._is_unchanged():
                waiting.setdefault(id(pending._weight), []).append(pending)
        for outputs in waiting.values():
            weight = outputs[0]._weight
            rows = sum(pending._hidden_states.shape[:-1].numel() for pending in outputs)
            copy = weight.detach().clone() if rows >= weight.shape[1] else None
            for pending in outputs:
                pending._copy = copy
                pending._logits = pending._product(weight) if copy is None else None
                pending._sample_at_step = _sample(weight)


register_optimizer_step_pre_hook(PendingLogits.keep_weights)


def deferred_logits(
    hidden_states: Tensor, weight: Tensor, is_copy: bool = False
) -> "PendingLogits | Tensor":
    """The head's product: pending, or at once where the weight may be gone when it is read.

    FSDP frees the weights that it has gathered once the forward pass of the module around this one
    is over, and nothing about them shows it. So in a process group only what stays may wait:
    DistributedDataParallel's weights, and a copy (is_copy) that was made for this forward pass.
    """
    pending = PendingLogits(hidden_states, weight)
    in_group = distributed.is_available() and distributed.is_initialized()
    if in_group and not is_copy and DistributedDataParallel._get_active_ddp_module() is None:
        return pending.compute()
    return pending


def causal_lm_output(logits: "PendingLogits | Tensor", **entries: Any) -> CausalLMOutputWithPast:
    """The output with these logits. entries: the others."""
    pending = isinstance(logits, PendingLogits)
    return (DeferredLogitsOutput if pending else CausalLMOutputWithPast)(logits=logits, **entries)


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


def _after_logits(name: str) -> Callable[..., Any]:
    """The inherited method `name`, called once the logits are there."""
    inherited = getattr(CausalLMOutputWithPast, name)

    def method(self: "DeferredLogitsOutput", *args: Any, **kwargs: Any) -> Any:
        self._settle()
        return inherited(self, *args, **kwargs)

    method.__name__ = name
    return method


@dataclass(repr=False, eq=False)
class DeferredLogitsOutput(CausalLMOutputWithPast):
    """A CausalLMOutputWithPast that was given PendingLogits for its logits.

    The loss and the other entries can be read as they are. Whatever reads the logits, as attribute,
    by key or index, or with all the others, has them computed first; the object then is a plain
    CausalLMOutputWithPast.
    """

    @property
    def logits(self) -> Tensor:
        self._settle()
        return self.logits

    @logits.setter
    def logits(self, value: Tensor | PendingLogits | None) -> None:
        if isinstance(value, PendingLogits):
            self.__dict__["_pending"] = value
        elif value is None and "_pending" in self.__dict__:
            self._settle()  # by key it stays, as in every ModelOutput
            self.logits = None
        elif value is not None:
            self.__dict__.pop("_pending", None)
            self.__class__ = CausalLMOutputWithPast
            self.__dict__["logits"] = value

    def _settle(self) -> None:
        pending = self.__dict__.get("_pending")
        if pending is not None:
            self["logits"] = pending.compute()
        else:
            self.__class__ = CausalLMOutputWithPast

    def __getitem__(self, key: Any) -> Any:
        # The first entry is the loss, which a trainer takes by name or as output[0].
        if key == 0 or (isinstance(key, str) and key != "logits"):
            key = next(iter(self)) if key == 0 else key
            return dict.__getitem__(self, key)
        self._settle()
        return self[key]

    def get(self, key: str, default: Any = None) -> Any:
        if key not in self:
            return default
        return self[key]

    items = _after_logits("items")
    values = _after_logits("values")
    to_tuple = _after_logits("to_tuple")
    copy = _after_logits("copy")
    __eq__ = _after_logits("__eq__")
    __ne__ = _after_logits("__ne__")
    __repr__ = _after_logits("__repr__")
    __reduce__ = _after_logits("__reduce__")
