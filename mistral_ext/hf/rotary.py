"""Whether a model's rotary module turns positions into the angles that the C++ model has.

The C++ model takes its frequencies from the configuration; the module has them in a buffer, which
may be written to, or be that of another configuration.
"""

from typing import Any

import torch

from mistral_ext import _C

# What a model may have been cast to, and back; the frequencies of C++ stay what they were.
_CASTS = (torch.float32, torch.bfloat16, torch.float16)


class RotaryWatch:
    """Compares one model's rotary module with C++, values where its buffers have changed.

    A dynamic rope remembers the longest sequence: the module holds that state, so that it is
    copied, and seen by Hugging Face's modules. follow() gives it to the C++ model before a call,
    publish() takes back what the call has made of it.
    """

    def __init__(self, config: _C.MistralConfig, fields: dict[str, Any]) -> None:
        """fields: what `config` was made from."""
        self._config = config
        self._fields = fields
        self._dynamic = config.rope_type == "dynamic"
        self._key: tuple[Any, ...] | None = None
        self._kept: tuple[torch.Tensor, ...] = ()  # so that no other tensor gets their id
        self._difference = ""

    def follow(self, rotary: torch.nn.Module, model: "_C.MistralForCausalLM") -> str:
        """Makes the C++ model's state the module's; returns what differs otherwise, or ""."""
        buffers = rotary._buffers
        frequencies = buffers.get("inv_freq")
        original = buffers.get("original_inv_freq") if self._dynamic else None
        if frequencies is None or (self._dynamic and original is None):
            return "rotary_emb has no inv_freq"
        length = int(rotary.max_seq_len_cached) if self._dynamic else 0
        key = (
            _version(frequencies),
            None if original is None else _version(original),
            rotary.attention_scaling,
            rotary.rope_type,
            length,
        )
        if key != self._key or frequencies.is_inference():
            self._kept = (frequencies, original)
            self._difference = self._compare(rotary, length)
            self._key = key
        if not self._dynamic or self._difference:
            return self._difference
        if self._configuration_differs(rotary):
            return "the configuration of a dynamic rope was changed"
        if model.rope_length != length:
            model.rope_length = length
        return ""

    def publish(self, rotary: torch.nn.Module, model: "_C.MistralForCausalLM") -> None:
        """Makes the module's state the C++ model's, as its own forward would have made it."""
        if not self._dynamic:
            return
        length = model.rope_length
        if length == int(rotary.max_seq_len_cached):
            return
        original = rotary._buffers["original_inv_freq"]
        if length > rotary.original_max_seq_len:
            frequencies, _ = self._config.rope_frequencies(length, original.device)
        else:
            frequencies = original
        rotary.register_buffer("inv_freq", frequencies, persistent=False)
        rotary.max_seq_len_cached = length

    def _compare(self, rotary: torch.nn.Module, length: int) -> str:
        config, buffers = self._config, rotary._buffers
        if rotary.rope_type != config.rope_type:
            return f"rotary_emb has rope_type {rotary.rope_type!r}, not the configuration's"
        ours, scaling = config.rope_frequencies(length, torch.device("cpu"))
        if abs(rotary.attention_scaling - scaling) > 1e-9 * scaling:
            return "rotary_emb has another attention_scaling than the configuration"
        same = _agree(buffers["inv_freq"], ours)
        if self._dynamic:
            start, _ = config.rope_frequencies(0, torch.device("cpu"))
            same = same and _agree(buffers["original_inv_freq"], start)
        return "" if same else "rotary_emb has other frequencies than the configuration"

    def _configuration_differs(self, rotary: torch.nn.Module) -> bool:
        """Whether growing would read other numbers than those C++ has."""
        config = rotary.config
        return (
            config.rope_parameters != self._fields["rope_parameters"]
            or config.max_position_embeddings != self._config.max_position_embeddings
            or rotary.original_max_seq_len != self._config.max_position_embeddings
        )


def _version(tensor: torch.Tensor) -> tuple[int, ...]:
    """Another one wherever the values may be others."""
    if tensor.is_inference() or tensor.is_meta:
        return (id(tensor),)
    return id(tensor), tensor._version, tensor.data_ptr()


def _agree(theirs: torch.Tensor, ours: torch.Tensor) -> bool:
    """Whether `theirs` are `ours`, or what a cast of the whole model has left of them.

    model.bfloat16() rounds the module's frequencies as well, which nobody wants.
    """
    if theirs.shape != ours.shape:
        return False
    if theirs.is_meta:
        return True  # no numbers that could differ
    theirs = theirs.detach().to("cpu", torch.float32)
    for dtype in _CASTS:
        if not torch.equal(theirs.to(dtype).float(), theirs):
            continue
        finfo = torch.finfo(dtype)
        # A last bit for another order of operations, which rounding may carry to the next number.
        smallest = finfo.smallest_normal * finfo.eps
        if torch.allclose(theirs, ours.to(dtype).float(), rtol=4 * finfo.eps, atol=smallest):
            return True
    return False
