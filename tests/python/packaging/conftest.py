from pathlib import Path

import pytest
from helpers.cpp_programs import ROOT, run, tool


@pytest.fixture(scope="session")
def prefix(tmp_path_factory) -> Path:
    """A folder with what `cmake --install` lays out."""
    if not (ROOT / "build" / "cmake_install.cmake").exists():
        pytest.skip("the library was not built in build/")
    folder = tmp_path_factory.mktemp("prefix")
    run(tool("cmake"), "--install", ROOT / "build", "--prefix", folder)
    return folder
