"""from_pretrained with ranks: each maps or reads its part of the folder's files and no more."""

from os import PathLike
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from mistral_ext import _C
from mistral_ext.hf.parallel import install_parallel_modules
from mistral_ext.hf.prepacked import GENERATION_CONFIG, no_garbage_collection, put, without_weights

HUB_ARGUMENTS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "revision",
    "subfolder",
    "token",
)


def load_shards(
    cls: type[Any],
    name: str | PathLike[str],
    context: _C.ParallelContext,
    *,
    dtype: torch.dtype | str | None = None,
    torch_dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    device_map: Any = None,
    attn_implementation: str | None = None,
    **kwargs: Any,
) -> Any:
    """The part of a checkpoint that this rank holds, as a model of class cls.

    name: a folder, or a name on the hub, whose files this process then finds in its cache.
    dtype: None or "auto" is the checkpoint's. device: None is the CPU, or this process's current
    accelerator where the group has no backend for the CPU.
    """
    hub = {key: kwargs.pop(key) for key in HUB_ARGUMENTS if key in kwargs}
    if kwargs:
        raise ValueError(
            "from_pretrained: with tp_group the arguments must be dtype, device,"
            f" attn_implementation or the hub's, got {', '.join(sorted(kwargs))}"
        )
    folder = _folder(name, hub)
    wanted = torch_dtype if dtype is None else dtype
    if isinstance(wanted, str):
        wanted = None if wanted == "auto" else getattr(torch, wanted)
    place = _device(context, device if device is not None else device_map)
    tensors = _C.load_pretrained(folder, dtype=wanted, device=place, context=context).state_dict()
    config = cls.config_class.from_pretrained(folder)
    config.dtype = tensors["model.norm.weight"].dtype
    if attn_implementation is not None:
        config._attn_implementation = attn_implementation
    with torch.inference_mode(False), no_garbage_collection():
        model = without_weights(cls, config)
        put(model, tensors)
    if (folder / GENERATION_CONFIG).exists():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    config.name_or_path = str(name)
    install_parallel_modules(model, context)
    return model


def _folder(name: str | PathLike[str], hub: dict[str, Any]) -> Path:
    folder = Path(name)
    if folder.is_dir():
        return folder / hub.get("subfolder", "")
    config = cached_file(str(name), "config.json", **hub)
    for file in ("model.safetensors", "model.safetensors.index.json", GENERATION_CONFIG):
        found = cached_file(str(name), file, _raise_exceptions_for_missing_entries=False, **hub)
        if file.endswith(".index.json") and found is not None:
            get_checkpoint_shard_files(str(name), found, **hub)
    return Path(config).parent


def _device(context: _C.ParallelContext, given: Any) -> torch.device:
    if isinstance(given, dict):
        places = set(given.values())
        if len(places) != 1:
            raise ValueError(
                "from_pretrained: with tp_group device_map must name one device, got"
                f" {sorted(map(str, places))}"
            )
        given = places.pop()
    if isinstance(given, int):
        given = torch.device(torch.accelerator.current_accelerator().type, given)
    if given not in (None, "auto"):
        return torch.device(given)
    place = torch.device("cpu")
    try:
        context.check_device(place)
    except ValueError:
        accelerator = torch.accelerator.current_accelerator()
        place = torch.device(accelerator.type, torch.accelerator.current_device_index())
    return place
