"""The C++ cache as a transformers.Cache."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache
from transformers.utils.deprecation import deprecate_kwarg

from mistral_ext import _C


class MistralCacheLayer(CacheLayerMixin):
    """Keys and values of one layer of a MistralCache.

    keys, values: [batch, kv_heads, kept, head_dim], oldest token first, or None while empty. Under
        a sliding window W at most the last W - 1 tokens are kept, as in transformers. They are
        views of the C++ buffer where its slots are in order: clone them to keep them beyond the
        next call of the model or reorder_cache. Both can be assigned.
    """

    is_croppable = True
    # The buffers are made when the first tokens enter.
    supports_early_init = False

    # The base class's constructor would assign keys and values.
    def __init__(self, layer: "_C.KVCacheLayer") -> None:
        self._layer = layer
        self._assigned: dict[str, torch.Tensor] = {}

    def _get(self, name: str) -> torch.Tensor | None:
        return self._assigned.get(name, getattr(self._layer, name))

    def _set(self, name: str, states: torch.Tensor | None) -> None:
        if states is None:
            self._assigned.clear()
            self._layer.reset()
            return
        self._assigned[name] = states
        keys, values = self._get("keys"), self._get("values")
        if keys is None or values is None or keys.shape != values.shape:
            return  # the other of the two is still to be assigned
        self._assigned.clear()
        before = self._layer.keys
        kept = 0 if before is None else before.shape[2]
        self._layer.assign(keys, values, self._layer.seen - kept + keys.shape[2])

    def settled(self) -> "_C.KVCacheLayer":
        """The C++ layer. ValueError where only one of keys and values was assigned."""
        if self._assigned:
            name = next(iter(self._assigned))
            raise ValueError(
                f"cache: keys and values must have one shape, got {_shape(self.keys)} and"
                f" {_shape(self.values)} after assigning {name}"
            )
        return self._layer

    @property
    def keys(self) -> torch.Tensor | None:
        return self._get("keys")

    @keys.setter
    def keys(self, states: torch.Tensor | None) -> None:
        self._set("keys", states)

    @property
    def values(self) -> torch.Tensor | None:
        return self._get("values")

    @values.setter
    def values(self, states: torch.Tensor | None) -> None:
        self._set("values", states)

    @property
    def is_initialized(self) -> bool:
        return self._layer.is_initialized

    @property
    def is_sliding(self) -> bool:
        return self._layer.window > 0

    @property
    def sliding_window(self) -> int | None:
        return self._layer.window or None

    @property
    def cumulative_length(self) -> int:
        """The tokens seen, those that a window has dropped included."""
        return self._layer.seen

    @property
    def record_past(self) -> bool:
        return self._layer.records_past

    @record_past.setter
    def record_past(self, record: bool) -> None:
        self._layer.record_past(record)

    @property
    def dtype(self) -> torch.dtype | None:
        return None if self.keys is None else self.keys.dtype

    @property
    def device(self) -> torch.device | None:
        return None if self.keys is None else self.keys.device

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        pass

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends [batch, kv_heads, new, head_dim]; returns all that the new tokens' queries see.

        The C++ model appends by itself: this is how Hugging Face's modules do.
        """
        layer = self.settled()
        held = layer.keys
        dtype = torch.promote_types(key_states.dtype, value_states.dtype)
        dtype = dtype if held is None else held.dtype
        # With gradients nothing may be overwritten that a graph still needs.
        differentiable = torch.is_grad_enabled()
        _, _, rotation = layer.extent(key_states.shape[2], differentiable)
        keys, values = layer.update(key_states.to(dtype), value_states.to(dtype), differentiable)
        if rotation:
            return keys.roll(-rotation, 2), values.roll(-rotation, 2)
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """(number of keys, position of the first) that an update of query_length will return."""
        length, first, _ = self.settled().extent(query_length, torch.is_grad_enabled())
        return length, first

    def get_seq_length(self) -> int:
        return self.settled().seen

    def get_max_length(self) -> int:
        return self.sliding_window or -1

    def get_max_cache_shape(self) -> int:
        return self.get_max_length()

    def activate_past_recording(self) -> None:
        self._layer.record_past()

    # As the layers of transformers do, until they stop.
    @deprecate_kwarg("max_length", new_name="tokens_to_remove", version="5.18")
    def crop(self, tokens_to_remove: int) -> None:
        layer = self.settled()
        layer.drop_last(_tokens_to_drop(tokens_to_remove, layer.seen))

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self.settled().select_rows(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        layer = self.settled()
        layer.select_rows(_row_numbers(indices, layer.batch_size))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.settled().repeat_rows(repeats)

    def reset(self) -> None:
        self._assigned.clear()
        self._layer.reset()


class MistralCache(DynamicCache):
    """Keys and values of every layer, in C++; what the native path appends to.

    Stands wherever transformers takes a DynamicCache, and is one for who asks. A layer without a
    window grows by doubling; one with a window W is a ring of W slots. deepcopy and pickle copy the
    contents.

    ddp_cache_data: (keys, values) or (keys, values, window) of each layer, as iterating a cache
        gives them; None for an empty cache. The name is transformers'.
    config: of the model; says how far each layer sees.
    offloading, offload_only_non_sliding: a DynamicCache's; this one stays where the model is.
    windows: the keys that each layer's queries see, 0 for all; instead of config. Read-only later.
    """

    def __init__(
        self,
        ddp_cache_data: Iterable[tuple[torch.Tensor | None, ...]] | None = None,
        config: PreTrainedConfig | None = None,
        offloading: bool = False,
        offload_only_non_sliding: bool = False,
        *,
        windows: Sequence[int] | None = None,
    ) -> None:
        if offloading:
            raise ValueError(
                "MistralCache: offloading must be False, got True (use a DynamicCache for that)"
            )
        states = None if ddp_cache_data is None else list(ddp_cache_data)
        if windows is None:
            windows = _windows(states, config)
        self.windows = tuple(windows)
        self._kv = _C.KVCache(self.windows)
        # DynamicCache's own constructor would make other layers.
        Cache.__init__(
            self, layers=[MistralCacheLayer(self._kv.layer(i)) for i in range(len(self._kv))]
        )
        for layer, state in zip(self.layers, states or (), strict=states is not None):
            if state[0] is not None:
                layer.update(state[0], state[1])

    def settled(self) -> "_C.KVCache":
        """The C++ cache. ValueError where only one of a layer's keys and values was assigned."""
        for layer in self.layers:
            layer.settled()
        return self._kv

    @property
    def is_initialized(self) -> bool:
        return self._kv.batch_size > 0

    @property
    def batch_size(self) -> int:
        """-1 while the cache is empty."""
        return self._kv.batch_size or -1

    @property
    def nbytes(self) -> int:
        """Bytes allocated for keys and values."""
        return self._kv.nbytes

    def reserve(self, tokens: int) -> None:
        """Makes room for `tokens` in all, so that appending them allocates nothing."""
        self._kv.reserve(tokens)

    def allocate(
        self,
        batch_size: int,
        num_key_value_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Takes the memory for what was reserved now, not when the first tokens enter."""
        nothing = torch.empty(
            batch_size, num_key_value_heads, 0, head_dim, dtype=dtype, device=device
        )
        for layer in self.layers:
            layer.settled().update(nothing, nothing)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Row i becomes row beam_idx[i], int64 [rows]; a row that stays is not copied."""
        self.settled().select_rows(beam_idx)

    def crop(self, tokens_to_remove: int) -> None:
        """Drops the last -tokens_to_remove tokens; a positive number is how many to keep.

        Where a window has overwritten what would become visible again, RuntimeError is raised and
        the cache stays as it is: activate_past_recording() before prevents that.
        """
        kv = self.settled()
        kv.drop_last(_tokens_to_drop(tokens_to_remove, kv.seen))

    def __iter__(self) -> Iterator[tuple[torch.Tensor | None, ...]]:
        for layer in self.layers:
            window = layer.sliding_window
            yield layer.keys, layer.values, None if window is None else torch.tensor(window)

    def __getstate__(self) -> dict[str, Any]:
        kv = self.settled()
        layers = [kv.layer(i) for i in range(len(kv))]
        return {
            "windows": self.windows,
            "layers": [
                (_copy(layer.keys), _copy(layer.values), layer.seen, layer.records_past)
                for layer in layers
            ],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        MistralCache.__init__(self, windows=state["windows"])
        for i, (keys, values, seen, records_past) in enumerate(state["layers"]):
            layer = self._kv.layer(i)
            if records_past:
                layer.record_past()
            if keys is not None:
                layer.assign(keys, values, seen)


def windows_of(config: PreTrainedConfig) -> tuple[int, ...]:
    """The keys that each layer's queries see; 0 is all."""
    config = config.get_text_config(decoder=True)
    window = config.sliding_window or 0
    # Hugging Face's other two classes apply the window to every layer whatever layer_types says.
    if config.model_type != "ministral":
        return (window,) * config.num_hidden_layers
    return tuple(window if kind == "sliding_attention" else 0 for kind in config.layer_types)


def _windows(states: list[Any] | None, config: PreTrainedConfig | None) -> tuple[int, ...]:
    if config is not None:
        return windows_of(config)
    if states is None:
        raise ValueError("MistralCache: config or windows must be given, got neither")
    return tuple(0 if len(state) < 3 or state[2] is None else int(state[2]) for state in states)


def _tokens_to_drop(tokens_to_remove: int, seen: int) -> int:
    if tokens_to_remove > 0:
        return max(seen - tokens_to_remove, 0)
    return min(-tokens_to_remove, seen)


def _row_numbers(indices: torch.Tensor, batch_size: int) -> torch.Tensor:
    indices = torch.as_tensor(indices)
    if indices.dtype == torch.bool:
        return indices.nonzero().squeeze(1)
    return torch.where(indices < 0, indices + batch_size, indices)


def _copy(states: torch.Tensor | None) -> torch.Tensor | None:
    return None if states is None else states.detach().clone()


def _shape(states: torch.Tensor | None) -> list[int] | None:
    return None if states is None else list(states.shape)
