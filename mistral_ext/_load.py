"""Finds and loads the compiled libraries, after making sure that they fit the running torch."""

from pathlib import Path

import torch

PACKAGE = Path(__file__).parent


def load() -> None:
    """Loads libmistral_ext, which registers the operators under `torch.ops.mistral_ext`.

    Raises ImportError where the libraries were never built, or were built for another torch.
    """
    library = PACKAGE / "lib" / "libmistral_ext.so"
    try:
        from mistral_ext._build_info import torch_version
    except ModuleNotFoundError:
        torch_version = None
    if torch_version is None or not library.exists():
        raise ImportError(
            f"mistral_ext: the compiled library {library} is missing: build it with `make dev` in a"
            " checkout, or install the package with `pip install .`"
        )
    check_torch(torch_version, torch.__version__)
    torch.ops.load_library(library)


def check_torch(built_for: str, running: str) -> None:
    """Raises ImportError unless `running` is the release `built_for`.

    torch keeps no binary interface between releases: with another one the library would fail to
    load, or worse, read a tensor's fields in the wrong place. The local part of the version (+cpu,
    +cu130) names how torch was compiled and does not matter.
    """
    if release(running) == release(built_for):
        return
    raise ImportError(
        f"mistral_ext was built for torch {built_for} and this is torch {running}: either"
        f" `pip install torch=={release(built_for)}`, or build mistral_ext again for this one with"
        " `pip install --no-build-isolation --no-deps --force-reinstall <mistral_ext>`"
    )


def release(version: str) -> str:
    """The version without its local part: 2.13.0 for 2.13.0+cpu."""
    return version.split("+")[0]


def get_include() -> str:
    """The folder to give a C++ compiler for `#include "mistral_ext/..."`."""
    return str(PACKAGE / "include")


cmake_prefix_path = str(PACKAGE / "share" / "cmake")
