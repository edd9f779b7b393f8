"""Loading the libraries: only beside the torch they were built for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mistral_ext
from mistral_ext import _C, _load

ROOT = Path(mistral_ext.__file__).parent.parent


@pytest.mark.parametrize(
    ("built_for", "running"),
    [("2.13.0", "2.13.0"), ("2.13.0", "2.13.0+cpu"), ("2.13.0+cu130", "2.13.0+cpu")],
)
def test_how_torch_itself_was_built_does_not_matter(built_for, running):
    _load.check_torch(built_for, running)


@pytest.mark.parametrize("running", ["2.12.1", "2.13.1", "2.14.0+cpu", "2.13.0.dev20260101"])
def test_another_release_is_refused_with_both_versions_and_the_remedy(running):
    with pytest.raises(ImportError) as error:
        _load.check_torch("2.13.0", running)
    sentence = str(error.value)
    assert sentence.startswith(
        f"mistral_ext was built for torch 2.13.0 and this is torch {running}"
    )
    assert "`pip install torch==2.13.0`" in sentence
    assert "--no-build-isolation" in sentence
    assert "\n" not in sentence


def import_with(setup: str) -> str:
    """The last line that `import mistral_ext` writes to stderr in a new process after `setup`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{setup}\nimport mistral_ext"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def test_the_import_of_a_build_for_another_torch_stops_before_loading():
    message = import_with(
        "import sys, types\n"
        "info = types.ModuleType('mistral_ext._build_info')\n"
        "info.torch_version = '2.10.0'\n"
        "sys.modules['mistral_ext._build_info'] = info"
    )
    assert message.startswith(
        f"ImportError: mistral_ext was built for torch 2.10.0 and this is torch {torch.__version__}"
    )


def test_the_import_without_a_build_says_how_to_build():
    message = import_with("import sys\nsys.modules['mistral_ext._build_info'] = None")
    assert message.startswith("ImportError: mistral_ext: the compiled library ")
    assert "make dev" in message


def test_the_binaries_say_what_they_are():
    assert _C.version == mistral_ext.__version__
    assert _C.torch_version == torch.__version__.split("+")[0]
    assert _C.cpu_level() in ("plain", "avx2", "avx512", "avx512_bf16")


def test_the_include_folder_and_the_cmake_package_exist():
    for header in ("mistral_ext.h", "version.h", "ops/rms_norm.h"):
        assert (Path(mistral_ext.get_include()) / "mistral_ext" / header).is_file()
    package = Path(mistral_ext.cmake_prefix_path) / "mistral_ext"
    assert (package / "mistral_extConfig.cmake").is_file()
    assert (package / "mistral_extTargets.cmake").is_file()
