"""The benchmarks run; what they measure is no test."""

import json
import math
import sys
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

sys.path.insert(0, str(Path(__file__).parents[3]))

from benchmarks.__main__ import TOPICS, main


@pytest.fixture(autouse=True)
def no_accelerator():
    """accelerate keeps one state a process, of whoever came first: a Trainer of another test."""
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("topic", TOPICS)
def test_writes_its_figures_with_the_machines_description(topic, tmp_path):
    assert main([topic, "--quick", "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / f"{topic}.json").read_text())
    assert found["machine"]["read_bandwidth"] > 0
    assert found["machine"]["cpu_level"]
    assert found["rows"]
    for row in found["rows"]:
        # A difference of two times may come out negative where others use the machine.
        figures = [value for value in row.values() if isinstance(value, float)]
        assert figures
        assert all(math.isfinite(figure) for figure in figures)


def test_a_case_of_a_topic_can_be_chosen(tmp_path, capsys):
    arguments = ["training", "--quick", "--output", str(tmp_path)]
    assert main([*arguments, "--case", "sgd"]) == 0
    rows = json.loads((tmp_path / "training.json").read_text())["rows"]
    assert {row["case"] for row in rows} == {"sgd"}
    for wrong in ([*arguments, "--case", "none"], ["--quick", "--case", "sgd"]):
        with pytest.raises(SystemExit):
            main(wrong)
        assert "--case must be one of" in capsys.readouterr().err
