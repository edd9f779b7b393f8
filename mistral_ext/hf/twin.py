"""A second tree of modules around the same tensors."""

from typing import Any

from torch import nn


def twin(module: nn.Module, old_config: Any, new_config: Any) -> nn.Module:
    """A module of the same class and attributes, and with the same tensors, of its own children."""
    copy = module.__class__.__new__(module.__class__)
    for name, value in module.__dict__.items():
        # The dictionaries of parameters, buffers, children and hooks: the entries are shared.
        copy.__dict__[name] = value.copy() if isinstance(value, dict | set) else value
    for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        copy.__dict__[hooks].clear()
    for name in ("_output_capturing_hooks_installed", "_native"):
        copy.__dict__.pop(name, None)
    if module.__dict__.get("config") is old_config:
        copy.__dict__["config"] = new_config
    for name, child in module._modules.items():
        copy._modules[name] = None if child is None else twin(child, old_config, new_config)
    return copy
