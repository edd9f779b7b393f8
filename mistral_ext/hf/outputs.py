"""The output of a training step, whose logits are computed when somebody reads them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.modeling_outputs import CausalLMOutputWithPast

from mistral_ext.hf.pending_logits import PendingLogits


def causal_lm_output(logits: "PendingLogits | Tensor", **entries: Any) -> CausalLMOutputWithPast:
    """The output with these logits. entries: the others."""
    pending = isinstance(logits, PendingLogits)
    return (DeferredLogitsOutput if pending else CausalLMOutputWithPast)(logits=logits, **entries)


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
