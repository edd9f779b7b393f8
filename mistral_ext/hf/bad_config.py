"""What Hugging Face's constructors would meet as a KeyError, said in words."""

from collections.abc import Iterable

from transformers import PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS


def check_names(config: PreTrainedConfig) -> None:
    """ValueError where the configuration names a rope type or an activation that is not known."""
    rope = getattr(config, "rope_parameters", None) or {}
    _check("rope_type", rope.get("rope_type", "default"), {"default", *ROPE_INIT_FUNCTIONS})
    _check("hidden_act", getattr(config, "hidden_act", "silu"), ACT2FN)


def _check(name: str, value: object, known: Iterable[str]) -> None:
    if value not in known:
        raise ValueError(f"config: {name} must be one of {', '.join(sorted(known))}, got {value!r}")
