"""The typed wrappers and the stub name what is registered and bound, argument for argument."""

import ast
import inspect
from pathlib import Path

import pytest
import torch

import mistral_ext
from mistral_ext import _C, ops


@pytest.mark.parametrize("name", ops.__all__)
def test_a_wrapper_has_the_arguments_and_defaults_of_its_operator(name):
    schema = getattr(torch.ops.mistral_ext, name).default._schema
    parameters = inspect.signature(getattr(ops, name)).parameters
    assert list(parameters) == [argument.name for argument in schema.arguments]
    for argument in schema.arguments:
        default = parameters[argument.name].default
        assert (default is not inspect.Parameter.empty) == argument.has_default_value()
        if argument.has_default_value():
            assert default == argument.default_value


def test_wrappers_call_their_operators(device):
    x, residual, weight = torch.randn(3, 8, device=device).unbind()
    cos_sin = torch.randn(4, 8, device=device)
    query = torch.randn(1, 4, 2, 8, device=device)
    positions = torch.arange(4, device=device)[None]
    matrix = torch.randn(5, 8, device=device)
    labels = torch.tensor([1, -100, 0, 2, 4], device=device)
    calls = {
        "rms_norm": (x, weight, 1e-6),
        "add_rms_norm": (x, residual, weight, 1e-6),
        "rotary_embedding": (query, query, positions, cos_sin),
        "silu_mul": (x, residual),
        "attention": (query, query, query, 0.5, True, 2),
        "linear": (x, matrix),
        "cross_entropy": (matrix, labels),
        "linear_cross_entropy": (matrix, matrix, labels),
    }
    assert {*calls, "kv_cache_update_"} == set(ops.__all__)
    for name, arguments in calls.items():
        torch.testing.assert_close(
            getattr(ops, name)(*arguments), getattr(torch.ops.mistral_ext, name)(*arguments)
        )
    cache = torch.zeros(2, 1, 2, 6, 8, device=device).unbind()
    ops.kv_cache_update_(*cache, query, 2 * query, 1)
    torch.testing.assert_close(cache[1][:, :, 1:5], 2 * query.transpose(1, 2))


def test_the_stub_names_all_that_is_bound():
    stub = ast.parse((Path(mistral_ext.__file__).parent / "_C.pyi").read_text())
    classes = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef)}
    named = set(classes) | {node.name for node in stub.body if isinstance(node, ast.FunctionDef)}
    bound = {name for name in vars(_C) if not name.startswith("_")}
    assert bound - {"version", "torch_version"} == named
    for name, node in classes.items():
        members = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
        public = {member for member in vars(getattr(_C, name)) if not member.startswith("_")}
        assert {member for member in members if not member.startswith("_")} == public, name
