"""Every instruction-set level that this machine has gives the same operators."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run_check(level: str) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "MISTRAL_EXT_CPU_LEVEL": level,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    return subprocess.run(
        [sys.executable, "-m", "helpers.check_level"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("level", ["plain", "avx2", "avx512", "avx512_bf16"])
def test_forced_level_equals_the_oracle(level):
    result = run_check(level)
    if f"got {level}" in result.stderr and "this machine goes up to" in result.stderr:
        pytest.skip(f"this machine lacks {level}")
    assert result.returncode == 0, result.stderr


def test_an_unknown_level_is_refused_with_the_names_that_exist():
    result = run_check("avx1024")
    assert result.returncode != 0
    message = "MISTRAL_EXT_CPU_LEVEL must be plain, avx2, avx512 or avx512_bf16, got avx1024"
    assert message in result.stderr
