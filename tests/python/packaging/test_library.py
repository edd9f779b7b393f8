"""What libmistral_ext shows to a program that links it, and asks of it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import mistral_ext

LIBRARY = Path(mistral_ext.__file__).parent / "lib" / "libmistral_ext.so"

# The Itanium C++ ABI's names of what is in namespace mistral_ext: functions, variables, virtual
# tables, types, thunks, guards and the statics of functions.
OURS = re.compile(
    r"_Z(N[KRO]?|T[VTIS]N|Th\d+_NK?|Tv0_n\d+_NK?|G[VR]Z?NK?|ZNK?)11mistral_ext|_ZT[hv].*11mistral_ext"
)


def symbols(*options: str) -> list[str]:
    if shutil.which("nm") is None:
        pytest.skip("binutils' nm is missing")
    printed = subprocess.run(
        ["nm", "--dynamic", *options, str(LIBRARY)], capture_output=True, text=True, check=True
    ).stdout
    return [line.split()[-1].split("@")[0] for line in printed.splitlines()]


def test_it_defines_names_of_its_own_namespace_alone():
    defined = symbols("--defined-only")
    assert len(defined) > 100
    assert [name for name in defined if not OURS.match(name)] == []


def test_it_asks_for_nothing_of_python():
    wanted = symbols("--undefined-only")
    assert any("at" in name for name in wanted)
    of_python = re.compile(r"_?Py[A-Z_]|.*pybind11|.*THPVariable")
    assert [name for name in wanted if of_python.match(name)] == []


def test_it_links_no_library_of_python():
    if shutil.which("readelf") is None:
        pytest.skip("binutils' readelf is missing")
    dynamic = subprocess.run(
        ["readelf", "-d", str(LIBRARY)], capture_output=True, text=True, check=True
    ).stdout
    needed = re.findall(r"NEEDED.*\[(.*)\]", dynamic)
    assert "libc10.so" in needed
    assert [name for name in needed if "python" in name] == []
