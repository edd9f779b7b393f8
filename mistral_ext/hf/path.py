"""Which code runs a model: the native path (C++) or the module path (Hugging Face's Python).

The module path is Hugging Face's own modules with our operators in them. It runs wherever Python
has to be between the operators: hooks, replaced modules (PEFT, quantisation), attention weights as
an output, tracing. Both give the same results.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

PATHS = ("auto", "native", "module")
ENVIRONMENT_VARIABLE = "MISTRAL_EXT_PATH"

_override: ContextVar[str | None] = ContextVar("mistral_ext_path", default=None)


def _checked(path: str, source: str) -> str:
    if path not in PATHS:
        raise ValueError(f"{source} must be one of {', '.join(PATHS)}, got {path!r}")
    return path


@contextmanager
def use_path(path: str) -> Iterator[None]:
    """Forces a path in this thread (or asyncio task): "native", "module", or "auto" for neither.

    With "native", a call that needs Python modules raises RuntimeError that says why; and so does
    generate for what its loop in C++ lacks, such as assisted decoding. With "module", Hugging
    Face's loop runs over Hugging Face's modules. While torch.compile or torch.export trace, the
    module path is taken whatever is forced: the tracer has to see operators. The environment
    variable MISTRAL_EXT_PATH does the same for a process.
    """
    token = _override.set(_checked(path, "use_path: path"))
    try:
        yield
    finally:
        _override.reset(token)


def forced_path() -> str:
    """What use_path, else the environment variable asks for; "auto" where neither does."""
    override = _override.get()
    if override is not None:
        return override
    from_environment = os.environ.get(ENVIRONMENT_VARIABLE)
    return _checked(from_environment, ENVIRONMENT_VARIABLE) if from_environment else "auto"


@dataclass(frozen=True)
class Choice:
    """What ran, or would run, and why it was not the other.

    path: "native" or "module" for a forward pass; "native" or "python" for generate's loop.
    reason: what needed Python; empty for "native".
    """

    path: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.reason else self.path


@dataclass(frozen=True)
class PathReport:
    """Which path the next call of a model takes, and what the last ones took.

    path, reason: of a call of forward with the arguments given to path_report.
    last_forward: what the last call of forward took; None before the first.
    generation: which loop the last call of generate ran; None before the first.
    """

    path: str
    reason: str = ""
    last_forward: Choice | None = None
    generation: Choice | None = None

    def __str__(self) -> str:
        lines = [f"next forward: {Choice(self.path, self.reason)}"]
        if self.last_forward is not None:
            lines.append(f"last forward: {self.last_forward}")
        if self.generation is not None:
            lines.append(f"last generation: {self.generation}")
        return "\n".join(lines)


def choose(obstacle: str) -> Choice:
    """Applies what is forced: obstacle says what needs Python modules, or is empty.

    Raises RuntimeError where the native path is forced and there is an obstacle.
    """
    return _choose(obstacle, Choice("module", "the module path is forced"), "module")


def choose_loop(obstacle: str) -> Choice:
    """The same for the loop of generate: obstacle says what the C++ loop lacks."""
    return _choose(obstacle, Choice("python", obstacle or "it is forced"), "python")


def _choose(obstacle: str, forced_module: Choice, otherwise: str) -> Choice:
    forced = forced_path()
    if forced == "module":
        return forced_module
    if not obstacle:
        return Choice("native")
    if forced == "native":
        raise RuntimeError(f"mistral_ext: the native path is forced, but {obstacle}")
    return Choice(otherwise, obstacle)
