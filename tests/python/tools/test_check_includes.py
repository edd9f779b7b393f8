"""The include checker finds each kind of offence, and nothing in this repository."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def load_checker():
    path = ROOT / "tools" / "check_includes.py"
    spec = importlib.util.spec_from_file_location("check_includes", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


checker = load_checker()


@pytest.fixture
def tree(tmp_path):
    """Writes files under csrc/mistral_ext, given as {path: include lines}, and checks them."""

    def check(files: dict[str, list[str]]) -> list[str]:
        for name, lines in files.items():
            file = tmp_path / "mistral_ext" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(f"#include {line}\n" for line in lines))
        return list(checker.offences(tmp_path))

    return check


def test_this_repository_has_no_offence():
    assert list(checker.offences(ROOT / "csrc")) == []


def test_an_include_of_a_lower_floor_or_of_the_own_part_is_fine(tree):
    assert not tree(
        {
            "core/check.h": ["<c10/util/Exception.h>", "<utility>"],
            "ops/rms_norm.h": [],
            "ops/rms_norm.cpp": ['"mistral_ext/ops/rms_norm.h"', '"mistral_ext/core/check.h"'],
            "layers/rms_norm.cpp": ['"mistral_ext/ops/rms_norm.h"'],
            "bindings/module.cpp": ["<pybind11/pybind11.h>", '"mistral_ext/ops/rms_norm.h"'],
        }
    )


@pytest.mark.parametrize(
    ("lower", "upper"),
    [("core", "kernels"), ("kernels", "ops"), ("ops", "cache"), ("models", "generation")],
)
def test_an_upward_include_is_found(tree, lower, upper):
    found = tree({f"{lower}/a.cpp": [f'"mistral_ext/{upper}/b.h"'], f"{upper}/b.h": []})
    assert found == [
        f"mistral_ext/{lower}/a.cpp:1: {lower}/ must not include {upper}/"
        f' ("mistral_ext/{upper}/b.h"): includes point down'
    ]


def test_parts_on_one_floor_do_not_include_each_other(tree):
    found = tree({"io/a.cpp": ['"mistral_ext/cache/b.h"'], "cache/b.h": []})
    assert "io/ must not include cache/" in found[0]


@pytest.mark.parametrize("header", ["<ATen/core/Tensor.h>", "<c10/util/Half.h>", "<torch/types.h>"])
def test_torch_in_kernels_is_found(tree, header):
    assert "kernels/ must not include torch" in tree({"kernels/cpu/a.h": [header]})[0]


def test_torch_reached_from_kernels_through_core_is_found_with_its_chain(tree):
    found = tree(
        {
            "kernels/cpu/a.h": ['"mistral_ext/core/outer.h"'],
            "core/outer.h": ['"mistral_ext/core/inner.h"'],
            "core/inner.h": ["<c10/util/Exception.h>"],
        }
    )
    assert found == [
        "mistral_ext/kernels/cpu/a.h:1: kernels/ must not include torch (mistral_ext/core/outer.h"
        " -> mistral_ext/core/inner.h -> c10/util/Exception.h)"
    ]


@pytest.mark.parametrize("header", ["<pybind11/pybind11.h>", "<Python.h>", "<torch/python.h>"])
def test_python_outside_bindings_is_found(tree, header):
    assert "only bindings/ includes Python" in tree({"models/a.cpp": [header]})[0]


@pytest.mark.parametrize(
    ("include", "message"),
    [
        ('"rms_norm.h"', "is not written from csrc/"),
        ('"../core/check.h"', "is not written from csrc/"),
        ('"mistral_ext/core/absent.h"', "does not exist"),
        ("<mistral_ext/core/check.h>", 'is ours: write "mistral_ext/core/check.h"'),
        ("<torch/torch.h>", "is all of torch"),
    ],
)
def test_a_badly_written_include_is_found(tree, include, message):
    found = tree({"ops/a.cpp": [include], "core/check.h": []})
    assert len(found) == 1
    assert message in found[0]


def test_a_file_on_no_floor_is_found(tree):
    assert tree({"helpers/a.cpp": []}) == ["mistral_ext/helpers/a.cpp:1: lies on no floor"]


def test_the_command_says_where_and_exits_1(tree, tmp_path, monkeypatch, capsys):
    tree({"kernels/a.h": ["<vector>", "<ATen/core/Tensor.h>"]})
    monkeypatch.setattr("sys.argv", ["check_includes.py", str(tmp_path)])
    assert checker.main() == 1
    assert capsys.readouterr().out.startswith("mistral_ext/kernels/a.h:2: ")
