"""Runs the C++ programs on small checkpoints."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.checkpoint import save_small_checkpoint
from helpers.programs import Done, call

LONG = '"max_position_embeddings": 4096'


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> str:
    folder = save_small_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    path = folder / "config.json"  # without the word on what goes beyond its 64 positions
    path.write_text(path.read_text().replace('"max_position_embeddings": 64', LONG))
    return str(folder)


@pytest.fixture(scope="session")
def without_tokenizer(checkpoint, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("checkpoint") / "wordless"
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns("token*"))
    return str(folder)


@pytest.fixture(scope="session")
def generate() -> Callable[..., Done]:
    return lambda *arguments, **keywords: call("mistral_ext_generate", *arguments, **keywords)


@pytest.fixture(scope="session")
def bench() -> Callable[..., Done]:
    return lambda *arguments: call("mistral_ext_bench", *arguments)


@pytest.fixture(scope="session")
def generated(generate) -> Callable[..., dict[str, Any]]:
    """The JSON object of a run that succeeds."""

    def run(*arguments: str, **keywords: bytes) -> dict[str, Any]:
        done = generate(*arguments, "--json", **keywords)
        assert (done.code, done.err) == (0, "")
        return json.loads(done.out)

    return run


@pytest.fixture
def edited(checkpoint, tmp_path) -> Callable[..., str]:
    """A copy of the checkpoint in which a JSON file has other values."""

    def copy(file: str, **values: Any) -> str:
        folder = tmp_path / "edited"
        shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
        path = Path(folder) / file
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(content | values))
        return str(folder)

    return copy
