"""Holds the includes under csrc/ to the floors of docs/architecture.md.

    python tools/check_includes.py [csrc folder]

Prints one line for each offence, `path:line: what is wrong`, and exits 1 where there is one.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

# Lowest first. Includes point down, or stay in their own part; parts on one floor are apart.
FLOORS = [
    ["core"],
    ["kernels"],
    ["ops"],
    ["parallel", "io", "cache"],
    ["tokenizers", "layers"],
    ["models"],
    ["generation"],
    ["bindings", "programs"],
]
FLOOR_OF = {part: number for number, parts in enumerate(FLOORS) for part in parts}
SUFFIXES = {".h", ".cpp", ".cuh", ".cu"}

# kernels/ is raw pointers and sizes: it compiles with no torch installed.
TORCH = re.compile(r"(ATen|c10|caffe2|torch|fmt)/")
PYTHON = re.compile(
    r"pybind11/|Python\.h$|torch/(python|extension)\.h$|torch/csrc/utils/pybind\.h$"
)
# These pull in all of torch: seconds for each file that includes them.
WHOLE_TORCH = {"torch/torch.h", "torch/all.h", "torch/extension.h", "ATen/ATen.h"}

# Above all floors: what programs include.
UMBRELLA = "mistral_ext.h"
# Written by CMake.
GENERATED = {"mistral_ext/version.h"}

INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')


def includes(file: Path) -> Iterator[tuple[int, str, str]]:
    """(line number, opening < or ", path) of each #include."""
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        match = INCLUDE.match(line)
        if match:
            yield number, match[1], match[2]


def part_of(file: Path, root: Path) -> str:
    """The folder under csrc/mistral_ext that holds the file: core, kernels, ..."""
    return file.relative_to(root / "mistral_ext").parts[0]


def path_to_torch(file: Path, root: Path, seen: set[Path]) -> list[str]:
    """The chain of headers through which the file reaches torch; empty where it does not."""
    seen.add(file)
    for _, _, path in includes(file):
        if TORCH.match(path):
            return [path]
        ours = root / path
        if path.startswith("mistral_ext/") and ours.is_file() and ours not in seen:
            chain = path_to_torch(ours, root, seen)
            if chain:
                return [path, *chain]
    return []


def offences_of_include(part: str, bracket: str, path: str, root: Path) -> Iterator[str]:
    ours = path.startswith("mistral_ext/")
    if bracket == '"' and not ours:
        yield f'"{path}" is not written from csrc/'
    elif ours and bracket == "<":
        yield f'<{path}> is ours: write "{path}"'
    elif path in GENERATED:
        return
    elif ours and not (root / path).is_file():
        yield f'"{path}" does not exist'
    elif ours:
        target = part_of(root / path, root)
        if target not in FLOOR_OF:
            yield f'"{path}" lies on no floor'
        elif target != part and FLOOR_OF[target] >= FLOOR_OF[part]:
            yield f'{part}/ must not include {target}/ ("{path}"): includes point down'
    if part == "kernels" and TORCH.match(path):
        yield f"kernels/ must not include torch (<{path}>)"
    if part != "bindings" and PYTHON.match(path):
        yield f"only bindings/ includes Python and pybind11 (<{path}>)"
    if path in WHOLE_TORCH:
        yield f"<{path}> is all of torch: include the headers that are used"


def offences(root: Path) -> Iterator[str]:
    """Every offence under `root`, the folder that include paths are written from."""
    for file in sorted((root / "mistral_ext").rglob("*")):
        if file.suffix not in SUFFIXES:
            continue
        name = file.relative_to(root)
        if name == Path("mistral_ext") / UMBRELLA:
            continue
        part = part_of(file, root)
        if part not in FLOOR_OF:
            yield f"{name}:1: lies on no floor"
            continue
        for number, bracket, path in includes(file):
            for what in offences_of_include(part, bracket, path, root):
                yield f"{name}:{number}: {what}"
            hidden = []
            if part == "kernels" and path.startswith("mistral_ext/") and (root / path).is_file():
                hidden = path_to_torch(root / path, root, set())
            if hidden and part_of(root / path, root) != "kernels":
                chain = " -> ".join(hidden)
                yield f"{name}:{number}: kernels/ must not include torch ({path} -> {chain})"


def main() -> int:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent / "csrc")
    found = list(offences(root))
    print("\n".join(found) if found else f"includes: every file under {root.name}/ keeps its floor")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
