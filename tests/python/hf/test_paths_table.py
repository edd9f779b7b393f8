"""docs/paths.md says what runs where, and it is so."""

import pytest
from helpers import paths
from helpers.scenarios import SCENARIOS

pytest.importorskip("peft")


def test_the_table_of_paths_is_what_runs():
    expected = paths.table()
    assert paths.FILE.read_text() == expected, "docs/paths.md is out of date: run `make paths`"


def test_the_table_covers_what_programs_do():
    assert sum(map(len, SCENARIOS.values())) >= 25
