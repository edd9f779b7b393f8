"""The table of docs/paths.md: what runs where, found by running it.

`make paths` writes the file; tests/python/hf/test_paths_table.py fails where it is out of date.
"""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

import mistral_ext
from helpers import generate_scenarios  # noqa: F401  adds its own
from helpers.scenarios import SCENARIOS
from mistral_ext.hf import Choice

FILE = Path(__file__).parents[3] / "docs" / "paths.md"

HEAD = """# What runs where

Written by `make paths`, which runs every line of it; a test fails where the file is out of date.
The models are small ones with random weights: nothing here depends on size or weights.

`forward` takes the *native* path, one call into the C++ model, or the *module* path, Hugging Face's
modules with our operators in them. `generate` runs the loop in C++ (*native*), which makes no call
of forward, or Hugging Face's (*python*), which calls forward for each step. `path_report(model)`
says the same of a model of yours; `use_path` and `MISTRAL_EXT_PATH` force one.
"""


def table() -> str:
    """The text of docs/paths.md."""
    lines = [HEAD]
    for group, scenarios in SCENARIOS.items():
        loops = group == "generate"
        lines.append(f"## {group.capitalize()}\n")
        lines.append("| what | loop | forward | why |" if loops else "| what | forward | why |")
        lines.append("| --- | --- | --- | --- |" if loops else "| --- | --- | --- |")
        for title, run in scenarios.items():
            lines.append(_line(title, loops, run))
        lines.append("")
    return "\n".join(lines)


def _line(title: str, loops: bool, run: Callable[[], Any]) -> str:
    torch.manual_seed(0)
    with _quiet():
        found = run()
        model, forward = found if isinstance(found, tuple) else (found, None)
        report = mistral_ext.path_report(model)
    forward = forward or report.last_forward
    # generate_batch has a loop of its own, which no report knows.
    loop = report.generation or Choice("python", "not generate's loop")
    if not loops:
        return f"| {title} | {forward.path} | {forward.reason} |"
    path = "" if loop.path == "native" else forward.path
    reasons = [loop.reason, forward.reason if path == "module" else ""]
    why = "; ".join(dict.fromkeys(reason for reason in reasons if reason)).replace("|", r"\|")
    return f"| {title} | {loop.path} | {path} | {why} |"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        transformers.utils.logging.set_verbosity(verbosity)


if __name__ == "__main__":
    FILE.write_text(table())
    sys.stdout.write(f"written: {FILE}\n")
