"""A DynamicCache of the caller's on the native path.

The C++ model appends to a cache of its own, the twin, and the caller's then shows what Hugging
Face's modules would have left in it. As long as the caller's still shows that, the twin goes on
where it was; whatever else the caller did to it (crop, reorder_cache, another model) put other
tensors there, and a new twin is made of them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from mistral_ext import _C
from mistral_ext.hf.cache import MistralCache
from mistral_ext.hf.tensors import is_plain


@dataclass
class _Twin:
    kv: "_C.KVCache"
    shown: list[tuple[Any, ...]]  # _state of each layer, when the twin was last shown


_twins: WeakKeyDictionary[DynamicCache, _Twin] = WeakKeyDictionary()


def dynamic_cache_obstacle(cache: DynamicCache, windows: Sequence[int], dtype: torch.dtype) -> str:
    """What keeps C++ from going on with the cache in layers of these windows; or ""."""
    if cache.offloading:
        return "past_key_values is offloaded"
    if not cache.layers:
        kinds = [(cache.layer_class_to_replicate, 0)] * len(windows)
    else:
        kinds = [(type(layer), getattr(layer, "sliding_window", 0)) for layer in cache.layers]
    if kinds != [(DynamicSlidingWindowLayer if w else DynamicLayer, w) for w in windows]:
        return "past_key_values is a DynamicCache with other windows than the layers have"
    if 1 in windows:  # such a layer of transformers drops nothing
        return "past_key_values is a DynamicCache with a window of one token"
    if any(getattr(layer, "record_past", False) for layer in cache.layers):
        return "past_key_values is a DynamicCache that records its past"
    if not all(map(_is_whole, cache.layers)):
        return "past_key_values is a DynamicCache whose states were changed"
    if any(layer.keys is not None and layer.keys.dtype != dtype for layer in cache.layers):
        return "past_key_values is a DynamicCache of another dtype"
    if len({(layer.keys is None, layer.get_seq_length()) for layer in cache.layers}) > 1:
        return "past_key_values is a DynamicCache with other tokens in each layer"
    return ""


def _is_whole(layer: DynamicLayer) -> bool:
    """Whether it holds what its length says."""
    keys, values, seen = layer.keys, layer.values, layer.get_seq_length()
    if keys is None or values is None or keys.dim() != 4:
        return keys is None and values is None and seen == 0
    window = getattr(layer, "sliding_window", 0)
    kept = min(seen, window - 1) if window else seen
    return (
        is_plain(keys)
        and is_plain(values)
        and keys.shape == values.shape
        and keys.dtype == values.dtype
        and keys.shape[2] == kept
        and keys.shape[0] > 0
    )


@contextmanager
def lent(
    cache: MistralCache | DynamicCache | None, windows: Sequence[int], *, rows_move: bool = False
) -> Iterator["_C.KVCache | None"]:
    """The C++ cache to run with, which the given one shows afterwards.

    A DynamicCache must have no obstacle. rows_move: whether rows of the C++ cache will change
    places, which they do where they are: not under tensors that the caller may have kept.
    """
    if type(cache) is not DynamicCache:
        yield None if cache is None else cache.settled()
        return
    twin = _twins.pop(cache, None)
    if twin is None or rows_move or twin.shown != [_state(layer) for layer in cache.layers]:
        twin = _Twin(_made_of(cache, windows), [])
    try:
        yield twin.kv
    finally:
        kv = twin.kv
        if len({kv.layer(index).seen for index in range(len(kv))}) == 1:  # no pass was cut short
            _show(kv, cache)
            twin.shown = [_state(layer) for layer in cache.layers]
            _twins[cache] = twin


class _Once:
    """Equal to nothing."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return False


def _state(layer: DynamicLayer) -> tuple[Any, ...]:
    """Tells whether the layer is what it was: which tensors it holds, and how often changed."""
    tensors = (layer.keys, layer.values)
    if layer.is_sliding and any(tensor is not None and tensor.is_inference() for tensor in tensors):
        return (_Once(),)  # such tensors do not count their changes
    # A layer without a window shows the twin's own memory: changes there are the twin's too.
    changes = [t._version for t in tensors if t is not None] if layer.is_sliding else []
    return (*map(_Same, tensors), *changes, layer.get_seq_length())


@dataclass(frozen=True, eq=False)
class _Same:
    """Compares a tensor by identity, and keeps it."""

    tensor: torch.Tensor | None

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.tensor is other.tensor


def _made_of(cache: DynamicCache, windows: Sequence[int]) -> "_C.KVCache":
    kv = _C.KVCache(windows)
    for index, layer in enumerate(cache.layers):
        if layer.get_seq_length() > 0:
            kv.layer(index).assign(layer.keys, layer.values, layer.get_seq_length())
    return kv


def _show(kv: "_C.KVCache", cache: DynamicCache) -> None:
    for index in range(len(kv)):
        source = kv.layer(index)
        keys, values = source.keys, source.values
        if keys is None:
            continue
        while len(cache.layers) <= index:
            cache.layers.append(cache.layer_class_to_replicate())
        layer = cache.layers[index]
        if not layer.is_initialized:
            layer.lazy_initialization(keys, values)
        layer.keys, layer.values = _kept(keys, source.window), _kept(values, source.window)
        if source.window:
            layer.cumulative_length = source.seen


def _kept(states: torch.Tensor, window: int) -> torch.Tensor:
    """States that later tokens leave as they are.

    The ring of a window is overwritten. Otherwise what comes later stands behind; and where a graph
    hangs on the states, later ones are made anew.
    """
    if window:
        return states.clone()
    # Without the count of changes that are made behind.
    return states if states.requires_grad else states.data
