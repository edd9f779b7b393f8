"""The notebooks run from top to bottom, and what is committed of them fits any machine."""

import os
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[3]
NOTEBOOK = ROOT / "notebooks" / "drop_in.ipynb"


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def images(notebook):
    return [o for o in outputs(notebook) if "image/png" in o.get("data", {})]


def test_runs_and_plots(monkeypatch, tmp_path):
    monkeypatch.setenv("NEW_TOKENS", "4")
    monkeypatch.setenv("REPEATS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    assert len(images(notebook)) == 2
    text = "".join(output.get("text", "") for output in outputs(notebook))
    assert "last generation: native" in text
    assert "mistral_ext.hf.modeling.MistralForCausalLM" in text


def test_is_committed_with_its_outputs_and_without_a_path_of_a_machine():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert len(images(notebook)) == 2
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    # All but pictures, whose base64 may hold any letters.
    text = re.sub(r'"image/png": "[^"]*"', "", NOTEBOOK.read_text())
    assert not re.search(r"/(home|root|work|tmp|usr|opt|Users)/", text)
    assert "Warning" not in text
