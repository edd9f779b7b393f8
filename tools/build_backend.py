"""The build backend: setuptools', with the tools and the torch that the compilation needs.

A compiled extension works only with the torch release it was compiled for. So an isolated build
(`pip install .`) takes the torch of the environment it installs into, and asks for one of its own
only where there is none (`python -m build`, or an empty environment).
"""

import importlib.metadata
import re
import shutil
import site
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any, NamedTuple

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403  the hooks that stay as they are

MINIMUM_TORCH = "2.11"
# What a build in an empty environment takes: the release that the tests run on.
DEFAULT_TORCH = "2.13.0"
MINIMUM_CMAKE = (3, 25)


class Torch(NamedTuple):
    version: str  # "2.13.0+cpu"
    folder: Path  # holds include/, lib/ and share/cmake/

    @property
    def release(self) -> str:
        """The version without its local part, which names only how torch itself was built."""
        return self.version.split("+")[0]


def installed_torch() -> Torch | None:
    """The torch that the extension will run with.

    An isolated build hides the packages of the environment it installs into but runs its
    interpreter, so that environment's folders are searched after sys.path.
    """
    paths = sysconfig.get_paths()
    folders = [*sys.path, paths["purelib"], paths["platlib"], *site.getsitepackages()]
    for distribution in importlib.metadata.distributions(name="torch", path=folders):
        folder = Path(str(distribution.locate_file("torch"))).resolve()
        if (folder / "share" / "cmake" / "Torch").is_dir():
            return Torch(distribution.version, folder)
    return None


def find_tool(name: str) -> str | None:
    """A program beside this interpreter, whose environment need not be activated, or on PATH."""
    beside = Path(sys.executable).parent
    return shutil.which(name, path=str(beside)) or shutil.which(name)


def _cmake_is_new_enough() -> bool:
    cmake = find_tool("cmake")
    if cmake is None:
        return False
    answer = subprocess.run([cmake, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\d+)\.(\d+)", answer.stdout)
    return found is not None and (int(found[1]), int(found[2])) >= MINIMUM_CMAKE


def _requirements_of_the_compilation() -> list[str]:
    requirements = []
    if not _cmake_is_new_enough():
        requirements.append("cmake>=" + ".".join(map(str, MINIMUM_CMAKE)))
    if find_tool("ninja") is None:
        requirements.append("ninja")
    # Headers that are compiled in: nobody needs them to run. CMake prefers the system's.
    requirements.append("nlohmann-json>=3.11")
    # CMake fetches the sources of PCRE2 and SentencePiece with it, and xxHash's header.
    requirements.append("pip")
    if installed_torch() is None:
        requirements.append(f"torch=={DEFAULT_TORCH}")
    return requirements


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    inherited = build_meta.get_requires_for_build_wheel(config_settings)
    return [*inherited, *_requirements_of_the_compilation()]


def get_requires_for_build_editable(config_settings: dict[str, Any] | None = None) -> list[str]:
    inherited = build_meta.get_requires_for_build_editable(config_settings)
    return [*inherited, *_requirements_of_the_compilation()]
