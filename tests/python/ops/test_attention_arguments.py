"""What attention refuses, by name, and how it is registered."""

import pytest
import torch
from helpers.attention import make_inputs

import mistral_ext  # noqa: F401  registers the operators

attention = torch.ops.mistral_ext.attention
attention_backward = torch.ops.mistral_ext.attention_backward


def valid(device, dtype=torch.float32):
    query, key, value = make_inputs(device, dtype, 4, 2, 8, 3, 5)
    return {"query": query, "key": key, "value": value, "scale": 0.25}


LONG = torch.int64

BAD = {
    "query: dimensions": (
        {"query": (2, 3, 8)},
        r"query must have 4 dimensions, got shape \[2, 3, 8\]",
    ),
    "query: dtype": (
        {"query": LONG},
        "query must be float32, bfloat16, float16 or float64, got Long",
    ),
    "key: dtype": ({"key": torch.float64}, "key must have query's dtype Float, got Double"),
    "key: dimensions": ({"key": (2, 5, 8)}, r"key must have 4 dimensions, got shape \[2, 5, 8\]"),
    "key: batch": (
        {"key": (3, 5, 2, 8)},
        r"key must have query's batch 2 and head_dim 8, got shape \[3, 5, 2, 8\]",
    ),
    "key: head_dim": (
        {"key": (2, 5, 2, 7)},
        r"key must have query's batch 2 and head_dim 8, got shape \[2, 5, 2, 7\]",
    ),
    "key: heads": (
        {"key": (2, 5, 3, 8)},
        "key must have a number of heads that divides query's 4, got 3",
    ),
    "key: no heads": (
        {"key": (2, 5, 0, 8)},
        "key must have a number of heads that divides query's 4, got 0",
    ),
    "key: length": ({"key": (2, 2, 2, 8)}, "key must have at least query's 3 tokens, got 2"),
    "value: shape": (
        {"value": (2, 5, 1, 8)},
        r"value must have key's shape \[2, 5, 2, 8\], got \[2, 5, 1, 8\]",
    ),
    "value: dtype": (
        {"value": torch.bfloat16},
        "value must have query's dtype Float, got BFloat16",
    ),
    "scale": ({"scale": float("nan")}, "scale must be finite, got nan"),
    "sliding_window": ({"sliding_window": -1}, "sliding_window must be >= 0, got -1"),
    "mask: dimensions": (
        {"mask": torch.ones(5)},
        r"mask must have 2 or 4 dimensions, got shape \[5\]",
    ),
    "mask: 2 dimensions, dtype": (
        {"mask": torch.ones(2, 5)},
        "mask of 2 dimensions must be bool or integer, got Float",
    ),
    "mask: 2 dimensions, shape": (
        {"mask": torch.ones(2, 4, dtype=LONG)},
        r"mask of 2 dimensions must have shape \[2, 5\], got \[2, 4\]",
    ),
    "mask: 4 dimensions, dtype": (
        {"mask": torch.ones(2, 1, 3, 5, dtype=LONG)},
        "mask of 4 dimensions must be bool, float32, bfloat16, float16 or float64, got Long",
    ),
    "mask: 4 dimensions, shape": (
        {"mask": torch.ones(2, 2, 3, 5)},
        r"mask of 4 dimensions must have shape \[2, 4, 3, 5\] or 1 in their place, "
        r"got \[2, 2, 3, 5\]",
    ),
    "sequence_ids: dtype": (
        {"sequence_ids": torch.ones(2, 5, dtype=torch.int32)},
        "sequence_ids must be int64, got Int",
    ),
    "sequence_ids: shape": (
        {"sequence_ids": torch.ones(2, 3, dtype=LONG)},
        r"sequence_ids must have shape \[2, 5\], got \[2, 3\]",
    ),
}


def spoil(arguments, changes, device):
    """A shape makes a tensor of it, a dtype converts, a tensor moves to the device."""
    for name, change in changes.items():
        if isinstance(change, tuple):
            change = torch.randn(change, device=device)
        elif isinstance(change, torch.dtype):
            change = arguments[name].to(change)
        elif isinstance(change, torch.Tensor):
            change = change.to(device)
        arguments[name] = change
    return arguments


@pytest.mark.parametrize("case", BAD)
def test_bad_argument_is_named(case, device):
    changes, message = BAD[case]
    with pytest.raises(ValueError, match="^attention: " + message):
        attention(**spoil(valid(device), changes, device))


@pytest.mark.parametrize("case", BAD)
def test_bad_argument_is_named_without_running(case):
    changes, message = BAD[case]
    with pytest.raises(ValueError, match="^attention: " + message):
        attention(**spoil(valid(torch.device("meta")), changes, torch.device("meta")))


@pytest.mark.parametrize("argument", ["key", "value", "mask", "sequence_ids"])
def test_tensor_of_another_device_is_named(argument, device):
    arguments = valid(device)
    arguments["mask"] = torch.ones(2, 5, dtype=torch.bool, device=device)
    arguments["sequence_ids"] = torch.ones(2, 5, dtype=LONG, device=device)
    arguments[argument] = arguments[argument].to("meta")
    with pytest.raises(ValueError, match=f"^attention: {argument} must be on query's device"):
        attention(**arguments)


BAD_BACKWARD = {
    "grad_output: shape": (
        {"grad_output": (2, 3, 4, 7)},
        r"grad_output must have query's shape \[2, 3, 4, 8\], got \[2, 3, 4, 7\]",
    ),
    "grad_output: dtype": (
        {"grad_output": torch.float64},
        "grad_output must have query's dtype Float, got Double",
    ),
    "output: shape": (
        {"output": (2, 3, 1, 8)},
        r"output must have query's shape \[2, 3, 4, 8\], got \[2, 3, 1, 8\]",
    ),
    "logsumexp: dtype": ({"logsumexp": torch.float64}, "logsumexp must be Float, got Double"),
    "logsumexp: shape": (
        {"logsumexp": (2, 3, 4)},
        r"logsumexp must have shape \[2, 4, 3\], got \[2, 3, 4\]",
    ),
    "value: shape": (
        {"value": (2, 5, 1, 8)},
        r"value must have key's shape \[2, 5, 2, 8\], got \[2, 5, 1, 8\]",
    ),
}


@pytest.mark.parametrize("case", BAD_BACKWARD)
def test_bad_argument_of_the_backward_is_named(case, device):
    changes, message = BAD_BACKWARD[case]
    arguments = valid(device)
    arguments["output"], arguments["logsumexp"] = attention(**arguments)
    arguments["grad_output"] = torch.ones_like(arguments["output"])
    with pytest.raises(ValueError, match="^attention_backward: " + message):
        attention_backward(**spoil(arguments, changes, device))


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_registration_is_sound(dtype, requires_grad, device):
    inputs = make_inputs(device, dtype, 4, 2, 8, 3, 5)
    inputs = [x.requires_grad_(requires_grad) for x in inputs]
    mask = torch.ones(2, 5, dtype=torch.bool, device=device)
    ids = torch.zeros(1, 5, dtype=LONG, device=device)
    torch.library.opcheck(attention, (*inputs, 0.25))
    torch.library.opcheck(attention, (*inputs, 0.25, True, 3, mask, ids))


def test_registration_of_the_backward_is_sound(device):
    inputs = make_inputs(device, torch.float32, 4, 2, 8, 3, 5)
    output, logsumexp = attention(*inputs, 0.25)
    arguments = (torch.ones_like(output), *inputs, output, logsumexp, 0.25, True, 3)
    torch.library.opcheck(attention_backward, arguments)


def test_a_mask_that_requires_a_gradient_is_refused_where_one_is_recorded(device):
    query, key, value = make_inputs(device, torch.float32, 4, 2, 16, 3, 5)
    mask = torch.zeros(2, 1, 3, 5, device=device, requires_grad=True)
    with pytest.raises(ValueError, match=r"^attention: mask must not require gradients"):
        attention(query, key, value, 0.25, False, 0, mask)
    with torch.no_grad():
        attention(query, key, value, 0.25, False, 0, mask)
