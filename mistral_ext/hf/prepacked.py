"""Prepacked checkpoints: a file that is mapped into memory as it is, and runs."""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedConfig
from transformers.initialization import no_init_weights
from typing_extensions import Self

from mistral_ext import _C
from mistral_ext._ranks import as_context
from mistral_ext.hf.native import backbone_of
from mistral_ext.hf.parallel import (
    context_of,
    gather_weights,
    install_parallel_modules,
    on_first_rank,
)

GENERATION_CONFIG = "generation_config.json"


class Prepacked:
    """save_prepacked and load_prepacked of our causal language models."""

    def save_prepacked(self, folder: str | PathLike[str]) -> None:
        """Writes what load_prepacked maps, model.prepacked.safetensors, and generation_config.json.

        folder: made where there is none; files of other names stay as they are. The weights and the
            configuration are one file, which appears whole or not at all. A tokenizer's own
            save_pretrained puts it beside them. A sharded model is gathered, all ranks call this,
            and the first one writes.

        Raises ValueError where the parameters are not those of the configuration (PEFT,
        quantisation), of several dtypes or on several devices, and where the file cannot be
        written.
        """
        head, embedding = self.lm_head.weight, backbone_of(self).embed_tokens.weight
        context = context_of(self)
        if context.size > 1:
            tensors = gather_weights(self)
        else:
            tensors = dict(self.named_parameters(remove_duplicate=False))
        if self.config.tie_word_embeddings and head is embedding:
            del tensors["lm_head.weight"]
        fields = self.config.to_diff_dict()
        fields["architectures"] = [type(self).__name__]
        if self.config.model_type == "mistral":
            # This class does not read them; who loads the file would take it for Ministral's.
            fields.pop("layer_types", None)
        fields["dtype"] = str(embedding.dtype).removeprefix("torch.")
        with on_first_rank(self) as writes:
            if writes:
                self._write_prepacked(fields, tensors, folder)

    def _write_prepacked(
        self, fields: dict[str, Any], tensors: dict[str, torch.Tensor], folder: str | PathLike[str]
    ) -> None:
        if self.generation_config is not None:
            self.generation_config.validate(
                strict=True
            )  # as saving it does, before a file is written
        _C.save_prepacked(json.dumps(fields), tensors, folder)
        if self.generation_config is not None:
            self.generation_config.save_pretrained(folder)
        else:
            (Path(folder) / GENERATION_CONFIG).unlink(missing_ok=True)  # another model's

    @classmethod
    def load_prepacked(
        cls,
        folder: str | PathLike[str],
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        verify: bool = False,
        tp_group: Any = None,
    ) -> Self:
        """The model that save_prepacked wrote, as from_pretrained gives one: in evaluation mode.

        dtype: None is the file's. Another one is converted, tensor by tensor.
        device: on the CPU, in the file's dtype, the parameters are the file's mapping: a page is
            read when it is first used, several processes share it, and what is written to it, as in
            training, stays this process's own.
        verify: reads every tensor now and compares its checksum. Without it only the header is
            checked.

        tp_group: a ProcessGroup, or a DeviceMesh of one dimension, over whose ranks the weights are
            spread: each maps or reads its part. All ranks call this.

        Raises ValueError naming the file and what in it is wrong: damage, another version of the
        format, a configuration that does not fit the tensors, another class's model.
        """
        with torch.inference_mode(False):  # or the parameters could never be trained
            context = _C.ParallelContext()
            if tp_group is not None:
                context = as_context(tp_group, "load_prepacked")
            return cls._load_prepacked(folder, dtype, torch.device(device), verify, context)

    @classmethod
    def _load_prepacked(
        cls,
        folder: str | PathLike[str],
        dtype: torch.dtype | None,
        device: torch.device,
        verify: bool,
        context: "_C.ParallelContext",
    ) -> Self:
        text, tensors = _C.read_prepacked(
            folder, dtype=dtype, device=device, context=context, verify=verify
        )
        fields = json.loads(text)
        if dtype is not None:
            fields["dtype"] = str(dtype).removeprefix("torch.")
        path = Path(folder)
        kind = fields.get("model_type", "mistral")
        if kind != cls.config_class.model_type:
            raise ValueError(
                f"load: {path}: config: model_type must be {cls.config_class.model_type!r} for"
                f" {cls.__name__}, got {kind!r}"
            )
        with no_garbage_collection():
            try:
                config = cls.config_class.from_dict(fields)
                config.name_or_path = str(folder)
                model = without_weights(cls, config)
            except Exception as error:  # transformers also reads fields that C++ does not
                raise ValueError(f"load: {path}: config: {error}") from error
            put(model, tensors)
        if (path / GENERATION_CONFIG).exists():
            try:
                model.generation_config = GenerationConfig.from_pretrained(folder)
            except Exception as error:  # of any kind, as the file's values are
                raise ValueError(f"load: {path / GENERATION_CONFIG}: {error}") from error
        install_parallel_modules(model, context)
        return model


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Thousands of objects are made here and all stay: looking for garbage takes longer."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def without_weights(cls: type[Any], config: PreTrainedConfig) -> Any:
    """What cls(config).eval() makes, its parameters still to be put in.

    transformers' constructor makes one layer of each type. Making a layer takes it twenty times as
    long as copying one.
    """
    count, types = config.num_hidden_layers, getattr(config, "layer_types", None)
    kinds = ["layer"] * count if types is None else list(types)
    distinct = list(dict.fromkeys(kinds))
    config.num_hidden_layers = len(distinct)
    if types is not None:
        config.layer_types = distinct
    with no_init_weights():
        model = cls(config).eval()
    for module in model.modules():
        module._is_hf_initialized = True  # transformers' mark of what it must not initialise again
    config.num_hidden_layers = count
    if types is not None:
        config.layer_types = types
    backbone = backbone_of(model)
    backbone._made_from["num_hidden_layers"] = count
    if types is not None:
        backbone._made_from["layer_types"] = list(types)
    made = {
        kind: iter(_copies(layer, kinds.count(kind)))
        for kind, layer in zip(distinct, backbone.layers, strict=True)
    }
    backbone.layers._modules = {str(i): next(made[kind]) for i, kind in enumerate(kinds)}
    for index, layer in enumerate(backbone.layers):
        layer.self_attn.layer_idx = index
    return model


def _copies(module: nn.Module, count: int) -> list[nn.Module]:
    """`count` modules of the same class and attributes, of dictionaries and children of their own.

    For a module that was just made: it has no hooks, and its parameters will be replaced.
    """
    shared, own = {}, []
    for name, value in module.__dict__.items():
        if isinstance(value, dict | set):
            own.append((name, value.copy if value else type(value)))
        else:
            shared[name] = value
    children = {name: _copies(child, count) for name, child in module._modules.items()}
    copies = []
    for index in range(count):
        copy = module.__class__.__new__(module.__class__)
        copy.__dict__.update(shared)
        for name, make in own:
            copy.__dict__[name] = make()
        copy._modules.update((name, twins[index]) for name, twins in children.items())
        copies.append(copy)
    return copies


def put(model: Any, tensors: dict[str, torch.Tensor]) -> None:
    tied = "lm_head.weight" not in tensors
    for name, module in model.named_modules():
        tensor = tensors.get(f"{name}.weight")
        if tensor is not None:
            module._parameters["weight"] = nn.Parameter(tensor)
        for key, buffer in module._buffers.items():
            module._buffers[key] = buffer.to(tensors["model.norm.weight"].device)
    if tied:
        model.lm_head.weight = model.model.embed_tokens.weight
    else:
        model.all_tied_weights_keys.pop("lm_head.weight", None)
