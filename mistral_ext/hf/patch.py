"""Lets transformers hand out our classes under its own names, for programs that name neither."""

import gc
import sys
from types import ModuleType, TracebackType

from mistral_ext.hf.convert import OURS


class _Patched:
    """What patch() returns: leaving it as a context manager puts back what was before."""

    def __init__(self, before: dict[type, type]) -> None:
        self._before = before

    def __enter__(self) -> None:
        _set(OURS)  # again, where it has been left before

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _set(self._before)


def patch() -> _Patched:
    """From now on transformers gives our classes for model_type mistral, ministral, ministral3.

    It sets the names of the classes that we have (MistralForCausalLM, MistralModel,
    MistralForSequenceClassification, MistralForTokenClassification, MistralForQuestionAnswering,
    and Ministral's and Ministral3's) in `transformers` and in `transformers.models.<model_type>`,
    which the Auto classes and pipelines read; nothing else changes. Classes that were imported
    before stay what they were, as do the modules
    `transformers.models.<model_type>.modeling_<model_type>`.

    Also as `with mistral_ext.patch(): ...`.
    """
    before = {theirs: getattr(_package(theirs), theirs.__name__) for theirs in OURS}
    _set(OURS)
    return _Patched(before)


def unpatch() -> None:
    """Undoes patch(); models made meanwhile stay ours. Does nothing where nothing is patched."""
    _set({theirs: theirs for theirs in OURS})


def _set(classes: dict[type, type]) -> None:
    top = _transformers()
    for theirs, ours in classes.items():
        for place in (*top, _package(theirs)):
            setattr(place, theirs.__name__, ours)


def _package(theirs: type) -> ModuleType:
    """transformers.models.<model_type>, where the Auto classes and pipelines look."""
    return sys.modules[theirs.__module__.rpartition(".")[0]]


def _transformers() -> list[ModuleType]:
    """Every module object `transformers`.

    While it loads, transformers puts another one in its own place; a program holds the one that was
    there when it imported transformers, and nothing but the garbage collector still knows that one.
    """
    current = sys.modules["transformers"]
    return [
        module
        for module in gc.get_objects()
        if type(module) is type(current) and module.__name__ == current.__name__
    ]
