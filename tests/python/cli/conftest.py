"""Fixtures of the command's tests."""

import pytest
from helpers.checkpoint import save_small_checkpoint

from mistral_ext.cli import main

CHAT_TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}> "


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return str(save_small_checkpoint(tmp_path_factory.mktemp("checkpoint")))


@pytest.fixture(scope="session")
def chat_checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    return str(save_small_checkpoint(folder, CHAT_TEMPLATE))


@pytest.fixture
def run(capsys, device):
    """Runs the command in this process: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([*arguments, "--device", str(device)] if len(arguments) > 1 else arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
