"""Gradient checkpointing as Hugging Face has it switched on, for the C++ model."""

import functools
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def turns_caching_off(backbone: torch.nn.Module) -> bool:
    """Whether Hugging Face's model sets use_cache to False for gradient checkpointing."""
    return bool(getattr(backbone, "gradient_checkpointing", False) and backbone.training)


def checkpointed_layers(backbone: torch.nn.Module) -> list[bool]:
    """Which layers Hugging Face would checkpoint now; empty for none."""
    flags = [
        bool(getattr(layer, "gradient_checkpointing", False) and layer.training)
        for layer in backbone.layers
    ]
    return flags if any(flags) else []


def checkpointing_obstacle(backbone: torch.nn.Module, past: Any, use_cache: bool) -> str:
    """What of gradient checkpointing only Python modules do; or ""."""
    flags = checkpointed_layers(backbone)
    if not flags:
        return ""
    if past is not None:
        return "gradient checkpointing is active and past_key_values is given"
    if use_cache and not turns_caching_off(backbone):
        return "gradient checkpointing is active in layers alone, and use_cache is asked for"
    layers = (layer for layer, flag in zip(backbone.layers, flags, strict=True) if flag)
    functions = (getattr(layer, "_gradient_checkpointing_func", None) for layer in layers)
    if not all(_is_plain_checkpoint(function) for function in functions):
        return "gradient checkpointing has a function of its own"
    return ""


# Arguments of torch's checkpoint that say how it goes about it, not what it computes.
_CHECKPOINT_ARGUMENTS = frozenset(
    {"use_reentrant", "preserve_rng_state", "determinism_check", "debug", "early_stop"}
)


def _is_plain_checkpoint(function: Any) -> bool:
    """Whether this is torch's checkpoint, as gradient_checkpointing_enable sets it."""
    if isinstance(function, functools.partial):
        known = not function.args and _CHECKPOINT_ARGUMENTS.issuperset(function.keywords)
        return known and function.func is checkpoint
    return function is checkpoint
