"""The runner of Hugging Face's tests tells apart what only their class passes."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def load_runner():
    path = ROOT / "tools" / "run_hf_tests.py"
    spec = importlib.util.spec_from_file_location("run_hf_tests", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


runner = load_runner()

REPORT = """<testsuites><testsuite>
<testcase classname="tests.x.XTest" name="test_passes"/>
<testcase classname="tests.x.XTest" name="test_fails"><failure message="no&#10;more"/></testcase>
<testcase classname="tests.x.XTest" name="test_breaks"><error message="it"/></testcase>
<testcase classname="tests.x.XTest" name="test_skips"><skipped message="why"/></testcase>
<testcase classname="tests.x.XTest" name="test_subtests"><skipped message="one"/></testcase>
<testcase classname="tests.x.XTest" name="test_subtests"/>
</testsuite></testsuites>"""


def test_reads_each_tests_worst_outcome_and_its_first_line(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    assert runner.outcomes(report) == {
        "XTest::test_passes": ("passed", ""),
        "XTest::test_fails": ("failed", "no"),
        "XTest::test_breaks": ("failed", "it"),
        "XTest::test_skips": ("skipped", "why"),
        "XTest::test_subtests": ("skipped", "one"),
    }


@pytest.mark.parametrize(("kind", "lost"), [("passed", 0), ("failed", 1), ("skipped", 1)])
def test_what_only_their_class_passes_is_lost(kind, lost, capsys):
    theirs = {"a": runner.Outcome("passed", ""), "b": runner.Outcome("failed", "no hub")}
    ours = {"a": runner.Outcome(kind, "because"), "b": runner.Outcome("passed", "")}
    assert runner.compare(theirs, ours) == lost
    said = capsys.readouterr().out
    assert "fails for transformers' own class: b: no hub" in said
    assert (f"a: passed for transformers' class, {kind} for ours: because" in said) == bool(lost)


def test_a_test_that_did_not_run_for_ours_is_lost():
    assert runner.compare({"a": runner.Outcome("passed", "")}, {}) == 1


def test_a_folder_without_their_tests_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run_hf_tests.py", str(tmp_path)])
    with pytest.raises(SystemExit):
        runner.main()
    assert "must hold transformers' tests/test_modeling_common.py" in capsys.readouterr().err
