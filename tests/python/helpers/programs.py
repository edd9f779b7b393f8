"""Runs a C++ program of the checkout."""

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

BIN = Path(__file__).parents[3] / "mistral_ext" / "bin"


class Done(NamedTuple):
    code: int
    out: str
    err: str


def program(name: str) -> str:
    path = BIN / name
    if not path.exists():
        pytest.skip("the programs are not built: CMake found no CLI11")
    return str(path)


def environment() -> dict[str, str]:
    """One thread: most models here are so small that more would only wait for each other."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def call(name: str, *arguments: str | bytes, stdin: bytes = b"") -> Done:
    done = subprocess.run(
        [program(name), *arguments],
        input=stdin,
        capture_output=True,
        env=environment(),
        check=False,
        timeout=300,
    )
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def assert_one_line(done: Done, code: int, message: str) -> None:
    """An error: its exit code, nothing on stdout, one line on stderr that says `message`."""
    assert done.code == code, done
    assert done.out == ""
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith(("mistral_ext_generate: error: ", "mistral_ext_bench: error: "))
    assert message in done.err
