"""One version, pyproject.toml's, wherever a program may ask for it."""

import re
import subprocess
from pathlib import Path

import pytest
from helpers.cpp_programs import tool

import mistral_ext

INCLUDE = Path(mistral_ext.get_include()) / "mistral_ext"


def test_the_header_says_the_package_s_version():
    header = (INCLUDE / "version.h").read_text()
    parts = re.findall(r"#define MISTRAL_EXT_VERSION_(MAJOR|MINOR|PATCH) (\d+)$", header, re.M)
    assert [name for name, _ in parts] == ["MAJOR", "MINOR", "PATCH"]
    assert ".".join(number for _, number in parts) == mistral_ext.__version__
    assert f'#define MISTRAL_EXT_VERSION "{mistral_ext.__version__}"\n' in header


@pytest.mark.skipif(
    not mistral_ext.__version__.startswith("0.1."), reason="names versions near 0.1"
)
@pytest.mark.parametrize(
    ("asked_for", "fits"),
    [("0.1", True), ("0.1.0", True), ("0.0.9", False), ("0.2", False), ("1.0", False)],
)
def test_find_package_accepts_what_semantic_versions_promise(asked_for, fits, tmp_path):
    """Below 1.0 a minor version may break what it likes, and so has to be the one asked for."""
    version_file = (
        Path(mistral_ext.cmake_prefix_path) / "mistral_ext/mistral_extConfigVersion.cmake"
    )
    major, minor, *_ = asked_for.split(".")
    script = tmp_path / "ask.cmake"
    script.write_text(
        f"set(PACKAGE_FIND_VERSION {asked_for})\n"
        f"set(PACKAGE_FIND_VERSION_MAJOR {major})\n"
        f"set(PACKAGE_FIND_VERSION_MINOR {minor})\n"
        f"include({version_file})\n"
        'message("${PACKAGE_VERSION_COMPATIBLE}")\n'
    )
    answer = subprocess.run(
        [tool("cmake"), "-P", str(script)], capture_output=True, text=True, check=True
    )
    assert answer.stderr.strip() == ("TRUE" if fits else "FALSE")
