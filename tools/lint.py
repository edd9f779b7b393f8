"""Every check that needs no build: formatting, ruff, the floors of the includes, clang-tidy.

    python tools/lint.py [--base COMMIT] [--tidy-seconds N]

clang-tidy reads the files of the floors that changed since --base: by default, since the branch
left main, or all of them on main itself. It stops taking files when --tidy-seconds are over and
names those that were left; files that changed last come first.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
BUILD = ROOT / "build-lint"
CODE = ("*.h", "*.cpp", "*.cuh", "*.cu")
# A change of these changes what clang-tidy sees in every file.
FOR_ALL_FILES = (".clang-tidy", "CMakeLists.txt", "cmake/")


def git(*arguments: str) -> list[str]:
    answer = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return answer.stdout.splitlines() if answer.returncode == 0 else []


def tool(name: str, *arguments: str) -> bool:
    """Runs a tool of this environment; True where it finds nothing."""
    found = subprocess.run([str(BIN / name), *arguments], cwd=ROOT, check=False)
    print(f"lint: {name} {arguments[0]}: {'passed' if found.returncode == 0 else 'failed'}")
    return found.returncode == 0


def default_base() -> str | None:
    """The commit at which this branch left main; None on main itself, or without a main."""
    head = git("rev-parse", "HEAD")
    for main in ("origin/main", "main"):
        base = git("merge-base", "HEAD", main)
        if base and base != head:
            return base[0]
    return None


def floor_of(path: str) -> str:
    """core, kernels, ops, ...: the folder under csrc/mistral_ext that holds the file."""
    return path.split("/")[2]


def files_to_tidy(base: str | None) -> list[str]:
    """The .cpp files of the changed floors, those that changed last first."""
    sources = git("ls-files", "csrc/*.cpp")
    if base is not None:
        changed = git("diff", "--name-only", base)
        if not any(path.startswith(FOR_ALL_FILES) for path in changed):
            floors = {floor_of(path) for path in changed if path.startswith("csrc/mistral_ext/")}
            sources = [path for path in sources if floor_of(path) in floors]
    by_age = [path for path in git("log", "--format=", "--name-only", "-n", "200") if path]
    age = {path: place for place, path in reversed(list(enumerate(by_age)))}
    return sorted(sources, key=lambda path: age.get(path, len(by_age)))


def compile_database() -> Path:
    """One entry a file: a kernel that is compiled for several levels is read once, at the highest.

    Configured without the precompiled header, which GCC writes and clang cannot read.
    """
    configure = ["-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja"]
    options = ["-DMISTRAL_EXT_PCH=OFF", f"-DPython_EXECUTABLE={sys.executable}"]
    ninja = f"-DCMAKE_MAKE_PROGRAM={BIN / 'ninja'}"
    command = [str(BIN / "cmake"), *configure, *options, ninja]
    subprocess.run(command, check=True, capture_output=True)
    entries = json.loads((BUILD / "compile_commands.json").read_text())
    folder = BUILD / "tidy"
    folder.mkdir(exist_ok=True)
    last_of_each = {entry["file"]: entry for entry in entries}
    (folder / "compile_commands.json").write_text(json.dumps(list(last_of_each.values())))
    return folder


def clang_tidy(base: str | None, seconds: float) -> bool:
    files = files_to_tidy(base)
    print(f"lint: clang-tidy: {len(files)} files, changed since {base or 'the beginning'}")
    if not files:
        return True
    database = compile_database()
    entries = json.loads((database / "compile_commands.json").read_text())
    built = {str(Path(entry["file"]).resolve()) for entry in entries}
    missing = [path for path in files if str((ROOT / path).resolve()) not in built]
    if missing:
        print(f"lint: clang-tidy: not part of this machine's build: {' '.join(missing)}")
    files = [path for path in files if path not in missing]
    deadline = time.monotonic() + seconds

    def check(path: str) -> tuple[str, bool | None, str]:
        if time.monotonic() > deadline:
            return path, None, ""
        command = [str(BIN / "clang-tidy"), "--quiet", "-p", str(database), path]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        return path, found.returncode == 0, found.stdout

    passed = True
    left = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for path, clean, output in pool.map(check, files):
            if clean is None:
                left.append(path)
            elif not clean:
                passed = False
                print(output.strip())
    if left:
        print(f"lint: clang-tidy: {seconds:.0f} s are over; not read: {' '.join(left)}")
    print(f"lint: clang-tidy: {'passed' if passed else 'failed'}")
    return passed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default=default_base(), help="commit to compare with")
    parser.add_argument("--tidy-seconds", type=float, default=600, help="limit for clang-tidy")
    options = parser.parse_args()
    code = git("ls-files", *CODE)
    passed = [
        tool("clang-format", "--dry-run", "-Werror", *code),
        tool("ruff", "check", "."),
        tool("ruff", "format", "--check", "."),
        tool("python", "tools/check_includes.py"),
        clang_tidy(options.base, options.tidy_seconds),
    ]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
