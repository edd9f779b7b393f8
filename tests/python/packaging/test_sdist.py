"""The source distribution: everything a checkout has, so that what README says works in it too."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from helpers.cpp_programs import ROOT


def tracked() -> list[str]:
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("no checkout to compare with")
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_it_holds_every_file_of_the_checkout(tmp_path):
    pytest.importorskip("setuptools")
    names = tracked()
    source = tmp_path / "source"
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    made = tmp_path / "made"
    made.mkdir()
    # What `python -m build --sdist` calls.
    backend = "import sys, setuptools.build_meta as backend; backend.build_sdist(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", backend, made],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = made.iterdir()
    with tarfile.open(archive) as files:
        held = {
            str(Path(*Path(member.name).parts[1:])): member.size
            for member in files.getmembers()
            if member.isfile()
        }
    assert [name for name in names if name not in held] == []
    for name in names:
        if name != "setup.cfg":  # setuptools adds to one
            assert held[name] == (source / name).stat().st_size, name
    more = {name for name in held.keys() - set(names) if "egg-info" not in name}
    assert more <= {"PKG-INFO", "setup.cfg"}
