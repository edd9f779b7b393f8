"""The commands under torchrun, with the real model: three ranks write what one writes, once."""

import json
import os
import socket
import subprocess
import sys

import pytest
from helpers import smollm2
from helpers.programs import program

PROMPT = "Once upon a time, there was"
OPTIONS = ["--max-new-tokens", "12", "--greedy", "--json", "--dtype", "float32"]
RANKS = 3  # SmolLM2 has three key/value heads


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def run(command, **variables):
    return subprocess.run(
        command,
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def torchrun(*command):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return run([*launcher, f"--nproc-per-node={RANKS}", *command])


def only_object(done):
    """What the first rank printed; the others print nothing."""
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.strip().splitlines()
    return json.loads(line)


@pytest.fixture(scope="module")
def folder():
    return str(smollm2.folder())


@pytest.fixture(scope="module")
def of_one_process(folder):
    command = [sys.executable, "-m", "mistral_ext", "generate", PROMPT, "--model", folder]
    return only_object(run([*command, *OPTIONS]))


def test_the_python_command_runs_under_torchrun(folder, of_one_process):
    done = torchrun("-m", "mistral_ext", "generate", PROMPT, "--model", folder, *OPTIONS)
    result = only_object(done)
    assert result["tokens"] == of_one_process["tokens"]
    assert result["ranks"] == RANKS
    assert result["loop"].startswith("native")


def test_the_cpp_program_runs_under_torchrun(folder, of_one_process):
    done = torchrun("--no-python", program("mistral_ext_generate"), folder, PROMPT, *OPTIONS)
    assert only_object(done)["tokens"] == of_one_process["tokens"]


def test_the_cpp_program_runs_as_mpirun_starts_it(folder, of_one_process):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program("mistral_ext_generate"), folder, PROMPT, *OPTIONS]
    processes = [
        subprocess.Popen(
            command,
            env={
                **environment(),
                "OMPI_COMM_WORLD_RANK": str(rank),
                "OMPI_COMM_WORLD_SIZE": str(RANKS),
                "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
                "OMPI_COMM_WORLD_LOCAL_SIZE": str(RANKS),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(RANKS)
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * RANKS, outputs
    assert json.loads(outputs[0][0])["tokens"] == of_one_process["tokens"]
    assert [out for out, _ in outputs[1:]] == [""] * (RANKS - 1)
