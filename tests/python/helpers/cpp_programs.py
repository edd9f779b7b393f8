"""C++ programs built against the package, as their users build them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mistral_ext

ROOT = Path(__file__).parents[3]


def run(*command: str | Path) -> str:
    """What the command prints."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tool(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing")
    return found


def build(source: str, folder: Path, prefix: str | Path = mistral_ext.cmake_prefix_path) -> Path:
    """The program of a folder of this repository, built in `folder`: it has the folder's name."""
    options = ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}"]
    options.append(f"-DCMAKE_PREFIX_PATH={prefix}")  # which knows where torch is
    if ccache := shutil.which("ccache"):
        options.append(f"-DCMAKE_CXX_COMPILER_LAUNCHER={ccache}")
    run(tool("cmake"), "-S", ROOT / source, "-B", folder, *options)
    run(tool("cmake"), "--build", folder)
    return folder / Path(source).name
