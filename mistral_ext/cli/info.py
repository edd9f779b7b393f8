"""Say which versions, kernels and devices run, and what a model is."""

import argparse
import json
import os
import platform
from typing import Any

import torch
import transformers

import mistral_ext
from mistral_ext import _C
from mistral_ext.cli import loading
from mistral_ext.cli.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    loading.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    loading.apply_threads(arguments)
    facts: dict[str, Any] = {"environment": environment()}
    try:
        facts["model"] = describe(loading.load_model(loading.find_source(arguments), arguments))
    except UsageError as error:
        # The model that runs where none is named is an extra, which may not be there.
        if arguments.model is not None:
            raise
        facts["model"] = {"none": str(error)}
    if arguments.json:
        print(json.dumps(facts))
        return 0
    for title, rows in facts.items():
        print(title)
        for name, value in rows.items():
            print(f"  {name.replace('_', ' '):<24} {value}")
    return 0


def environment() -> dict[str, Any]:
    return {
        "mistral_ext": mistral_ext.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "cpu_level": _C.cpu_level(),
        "devices": ", ".join(
            ["cpu"] + [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        ),
    }


def describe(loaded: loading.Loaded) -> dict[str, Any]:
    model = loaded.model
    config = _C.MistralConfig.from_dict(model.config.to_dict())
    parameters = list(model.parameters())
    windows = sorted(set(config.layer_windows))
    return {
        "name": loaded.name,
        "model_type": config.model_type,
        "parameters": sum(p.numel() for p in parameters),
        "bytes": sum(p.nbytes for p in parameters),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "rope": f"{config.rope_type}, theta {config.rope_theta:g}",
        "sliding_window": ", ".join(str(window) if window else "none" for window in windows),
        "tied_head": model.lm_head.weight is model.model.embed_tokens.weight,
        "path": str(mistral_ext.path_report(model)),
    }
