"""Drives CMake, which alone describes the build. The metadata is in pyproject.toml."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCE = Path(__file__).parent.resolve()
sys.path.insert(0, str(SOURCE / "tools"))
from build_backend import MINIMUM_TORCH, find_tool, installed_torch  # noqa: E402


class CMakeBuild(build_ext):
    """Configures, builds and installs with CMake; the package folder is the install prefix.

    An editable install builds in build/ and leaves the libraries in the source's mistral_ext/, as
    `cmake -DMISTRAL_EXT_INPLACE=ON` does. CMAKE_ARGS adds arguments to the configuration;
    CMAKE_BUILD_PARALLEL_LEVEL sets the number of jobs.
    """

    def run(self) -> None:
        in_place = self.inplace or self.editable_mode
        build = SOURCE / "build" if in_place else Path(self.build_temp).resolve()
        self._cmake(*self._configuration(build, in_place))
        self._cmake("--build", str(build))
        if not in_place:
            self._install(build, Path(self.build_lib).resolve() / "mistral_ext")

    def _configuration(self, build: Path, in_place: bool) -> list[str]:
        arguments = ["-S", str(SOURCE), "-B", str(build)]
        arguments.append(f"-DPython_EXECUTABLE={sys.executable}")
        arguments.append(f"-DMISTRAL_EXT_INPLACE={'ON' if in_place else 'OFF'}")
        if not in_place:  # docs/dependencies.md says why a wheel has none
            arguments.append("-DMISTRAL_EXT_PROGRAMS=OFF")
        ninja = find_tool("ninja")
        if ninja is not None:
            arguments += ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
        torch = installed_torch()
        if torch is not None:
            arguments.append(f"-DTorch_DIR={torch.folder / 'share' / 'cmake' / 'Torch'}")
        return arguments + shlex.split(os.environ.get("CMAKE_ARGS", ""))

    def _install(self, build: Path, package: Path) -> None:
        # build_lib outlives a build: what an earlier one left must not get into this wheel.
        for folder in ("include", "lib", "share"):
            shutil.rmtree(package / folder, ignore_errors=True)
        self._cmake("--install", str(build), "--prefix", str(package))

    def _cmake(self, *arguments: str) -> None:
        cmake = find_tool("cmake")
        if cmake is None:
            raise SystemExit("mistral_ext: CMake is missing: pip install cmake ninja")
        subprocess.run([cmake, *arguments], check=True)

    # What setuptools would copy or list; CMake has put everything in its place.
    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


def torch_requirement() -> str:
    """The one torch release the binary fits; where there is no torch, as in an sdist, the range."""
    torch = installed_torch()
    return f"torch>={MINIMUM_TORCH}" if torch is None else f"torch=={torch.release}"


setup(
    install_requires=[torch_requirement(), "transformers>=5.15", "safetensors>=0.5"],
    # No sources: the name alone makes the wheel a platform's.
    ext_modules=[Extension("mistral_ext._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
