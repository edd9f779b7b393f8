"""Runs Hugging Face's published model tests on transformers' own classes and on ours.

    python tools/run_hf_tests.py PATH_TO_TRANSFORMERS_CHECKOUT [--models NAME ...] [-n 2] [-k WORDS]

The checkout should be of the installed transformers' version. Its tests are copied to a scratch
folder and run there, unchanged, once with the classes of the installed transformers and once with
ours in their place. Prints how many passed, failed and were skipped, and each test that ended
otherwise for ours; exits 1 where transformers' own class passes and ours does not.

Needs pytest, pytest-xdist, parameterized and datasets.
"""

import argparse
import collections
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

import transformers

TOOLS = Path(__file__).resolve().parent
MODELS = ("mistral", "ministral", "ministral3")
OUTCOMES = ("passed", "failed", "skipped")


class Outcome(NamedTuple):
    kind: str  # one of OUTCOMES
    reason: str


def run(tests: Path, models: list[str], whose: str, pytest_arguments: list[str]) -> Path:
    """Runs the tests with `whose` classes, "theirs" or "ours"; returns the report's path."""
    report = tests.parent / f"{whose}.xml"
    files = [tests / "models" / model / f"test_modeling_{model}.py" for model in models]
    environment = {
        # The hub would be asked for models that no test here needs.
        "HF_HUB_OFFLINE": "1",
        # In models this small threads would only wait for each other.
        "OMP_NUM_THREADS": "1",
        **os.environ,
        "MISTRAL_EXT_HF_TESTS": whose,
        "PYTHONPATH": os.pathsep.join(
            [str(TOOLS), str(TOOLS.parent), os.environ.get("PYTHONPATH", "")]
        ),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "hf_tests_plugin"]
    command += ["--disable-warnings", f"--rootdir={tests.parent}", f"--junitxml={report}"]
    command += pytest_arguments
    subprocess.run([*command, *map(str, files)], cwd=tests.parent, env=environment, check=False)
    return report


def outcomes(report: Path) -> dict[str, Outcome]:
    """Each test's outcome, by its name. A test with subtests ends as the worst of them."""
    found: dict[str, Outcome] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        outcome = Outcome("passed", "")
        for tag, kind in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
            element = case.find(tag)
            if element is not None:
                outcome = Outcome(kind, (element.get("message") or "").strip().split("\n")[0])
                break
        before = found.get(name)
        worst = ("failed", "skipped", "passed")
        if before is None or worst.index(outcome.kind) < worst.index(before.kind):
            found[name] = outcome
    return found


def compare(theirs: dict[str, Outcome], ours: dict[str, Outcome]) -> int:
    """Prints both columns and what differs; returns how many tests only transformers' pass."""
    counts = [collections.Counter(o.kind for o in run.values()) for run in (theirs, ours)]
    print(f"{'':10}{'transformers':>14}{'mistral_ext':>14}")
    for kind in OUTCOMES:
        print(f"{kind:10}{counts[0][kind]:14}{counts[1][kind]:14}")
    missing = Outcome("missing", "")
    lost = 0
    for name in sorted({*theirs, *ours}):
        a, b = theirs.get(name, missing), ours.get(name, missing)
        if a.kind == "failed":
            print(f"fails for transformers' own class: {name}: {a.reason}")
        if a.kind != b.kind:
            print(f"{name}: {a.kind} for transformers' class, {b.kind} for ours: {b.reason}")
            lost += a.kind == "passed"
    return lost


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkout", type=Path, help="folder that holds transformers' tests/")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("-n", default="2", help="processes (pytest-xdist)")
    parser.add_argument("-k", default="", help="which tests, as pytest's -k")
    arguments = parser.parse_args()
    for needed in ("tests/test_modeling_common.py", "utils/test_module"):
        if not (arguments.checkout / needed).exists():
            parser.error(f"{arguments.checkout} must hold transformers' {needed}")
    with tempfile.TemporaryDirectory() as scratch:
        tests = Path(scratch) / "tests"
        shutil.copytree(arguments.checkout / "tests", tests)
        # The tests import helpers from utils/, and look for the package in src/.
        shutil.copytree(arguments.checkout / "utils", tests.parent / "utils")
        (tests.parent / "src").mkdir()
        (tests.parent / "src" / "transformers").symlink_to(Path(transformers.__file__).parent)
        pytest_arguments = ["-n", arguments.n, "-k", arguments.k]
        reports = [
            outcomes(run(tests, arguments.models, whose, pytest_arguments))
            for whose in ("theirs", "ours")
        ]
    return 1 if compare(*reports) else 0


if __name__ == "__main__":
    sys.exit(main())
