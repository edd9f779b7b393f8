"""mistral-ext info and bench, in this process."""

import importlib.util
import json

import pytest
import torch
from helpers.models import small_model

import mistral_ext
from mistral_ext.cli import measure


def test_info_says_versions_kernels_and_what_the_model_is(run, checkpoint):
    code, out, _ = run("info", "--model", checkpoint, "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["environment"]["torch"] == torch.__version__
    assert facts["environment"]["mistral_ext"] == mistral_ext.__version__
    assert facts["environment"]["cpu_level"]
    model = facts["model"]
    assert model["num_hidden_layers"] == 3
    assert model["parameters"] * 4 == model["bytes"]
    assert model["sliding_window"] == "none"
    assert model["path"].startswith("next forward: native")


def test_info_prints_for_people_too(run, checkpoint):
    code, out, _ = run("info", "--model", checkpoint)
    assert code == 0
    assert "num key value heads      2" in out


def test_info_without_a_model_says_what_would_be_needed(run, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, out, _ = run("info", "--json")
    assert code == 0
    assert "pip install" in json.loads(out)["model"]["none"]


BENCH = ("--prompt-tokens", "16", "--new-tokens", "3", "--repeats", "2", "--batch", "2")


def test_bench_measures_both_and_what_memory_allows(run, checkpoint, monkeypatch):
    monkeypatch.setattr(measure, "_BUFFER_BYTES", 1 << 20)
    code, out, _ = run("bench", "--model", checkpoint, *BENCH, "--compare", "--json")
    assert code == 0
    result = json.loads(out)
    for figures in (result["prefill_tokens_per_second"], result["decode_tokens_per_second"]):
        assert figures.keys() == {"mistral_ext", "hugging_face"}
        assert all(figure > 0 for figure in figures.values())
    if result["model"]["device"] == "cpu":
        assert result["decode_limit_tokens_per_second"] > 0


def test_bench_prints_a_table(run, checkpoint, monkeypatch):
    monkeypatch.setattr(measure, "_BUFFER_BYTES", 1 << 20)
    code, out, err = run("bench", "--model", checkpoint, *BENCH)
    assert code == 0
    assert out.splitlines()[1].startswith("mistral_ext")
    assert "hugging_face" not in out
    assert "batch 2, 16 prompt tokens, 3 new ones" in err


@pytest.mark.parametrize(("name", "expected"), [("tied", 0), ("gqa", 1)])
def test_an_untied_embedding_is_not_read_whole_for_a_token(name, expected):
    model = small_model(name)
    every = sum(parameter.nbytes for parameter in model.parameters())
    left_out = every - measure.bytes_per_token(model)
    assert left_out == expected * model.model.embed_tokens.weight.nbytes


def test_contestants_take_turns():
    order = []
    contestants = {name: lambda n=name: order.append(n) or 1.0 for name in "ab"}
    figures = measure.interleaved(contestants, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert figures == {"a": [1.0] * 3, "b": [1.0] * 3}
    assert measure.interleaved(contestants, 9, seconds=0.0) == {"a": [1.0] * 2, "b": [1.0] * 2}
