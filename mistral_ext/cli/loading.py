"""From the options every command has to a model in C++."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import torch
import transformers
from safetensors import SafetensorError

import mistral_ext
from mistral_ext import _C
from mistral_ext.cli import ranks, smollm2
from mistral_ext.cli.arguments import integer
from mistral_ext.cli.errors import UsageError

DTYPES = {
    "auto": "auto",
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Loaded(NamedTuple):
    name: str
    model: transformers.PreTrainedModel  # ours
    hf_model: transformers.PreTrainedModel  # Hugging Face's, of the same weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="FOLDER_OR_NAME",
        help=f"a checkpoint folder or a name on the hub (default: {smollm2.NAME})",
    )
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="default: the checkpoint's")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: cuda where there is one)")
    parser.add_argument("--threads", type=integer(1, 1024), help="CPU threads (default: torch's)")


def apply_threads(arguments: argparse.Namespace) -> None:
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)


class Source(NamedTuple):
    name: str  # what to call the model
    location: str  # what transformers loads it from


def find_source(arguments: argparse.Namespace) -> Source:
    """Where the model that --model names is, once its configuration says that we can run it."""
    with _quiet():
        if arguments.model is None:
            return Source(smollm2.NAME, str(smollm2.checkpoint_folder()))
        source = Source(arguments.model, _location(arguments.model))
        with _load_errors(source.name):
            config = transformers.AutoConfig.from_pretrained(source.location)
            _C.MistralConfig.from_dict(config.to_dict())
        return source


def load_tokenizer(source: Source) -> Any:
    with _quiet(), _load_errors(f"the tokenizer of {source.name}"):
        return transformers.AutoTokenizer.from_pretrained(source.location)


def load_model(source: Source, arguments: argparse.Namespace) -> Loaded:
    """The model in the dtype and on the device that the arguments name, in eval mode."""
    apply_threads(arguments)
    device = device_of(arguments)
    with _quiet(), _load_errors(source.name):
        hf_model, found = transformers.AutoModelForCausalLM.from_pretrained(
            source.location, dtype=DTYPES[arguments.dtype], output_loading_info=True
        )
        for missing in sorted(found["missing_keys"]):  # transformers fills it with random numbers
            raise ValueError(f"its weights lack {missing}")
        hf_model = hf_model.to(device).eval()
        return Loaded(source.name, mistral_ext.from_hf(hf_model), hf_model)


def load_part(
    source: Source, arguments: argparse.Namespace, group: "torch.distributed.ProcessGroup"
) -> Any:
    """This process's part of the model, which all processes of the group load at once."""
    apply_threads(arguments)
    with _quiet(), _load_errors(source.name):
        kind = transformers.AutoConfig.from_pretrained(source.location).model_type
        ours = {
            cls.config_class.model_type: cls
            for cls in (
                mistral_ext.MistralForCausalLM,
                mistral_ext.MinistralForCausalLM,
                mistral_ext.Ministral3ForCausalLM,
            )
        }
        return ours[kind].from_pretrained(
            source.location,
            tp_group=group,
            dtype=DTYPES[arguments.dtype],
            device=ranks.local_device(device_of(arguments)),
        )


def device_of(arguments: argparse.Namespace) -> torch.device:
    return _device(arguments.device)


def _location(named: str) -> str:
    folder = Path(named).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UsageError(f"--model: the folder {named} has no config.json")
        return str(folder)
    if folder.exists():
        raise UsageError(f"--model must be a checkpoint folder, got the file {named}")
    if named.startswith((".", "/", "~")) or named.count("/") > 1:
        raise UsageError(f"--model: there is no folder {named}")
    return named


def _device(named: str | None) -> torch.device:
    if named is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(named)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device: cannot use {named}: {_first_sentence(error)}") from error
    if device.type == "meta":
        raise UsageError("--device: cannot use meta: its tensors hold no numbers")
    return device


def _first_sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text, *more = (line.strip() for line in lines)
    for line in more:
        if not text.endswith((":", ",", " or", " and")):
            break
        text += f" {line}"
    # Some explain at length what else might be meant.
    return text if len(text) < 300 else text.partition(". ")[0]


@contextmanager
def _load_errors(what: str) -> Iterator[None]:
    try:
        yield
    except (ImportError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise UsageError(f"--model: cannot load {what}: {_first_sentence(error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Progress bars on a terminal alone, and no warnings: what matters comes as an error."""
    loggers = (transformers.utils.logging, huggingface_hub.utils.logging)
    levels = [logger.get_verbosity() for logger in loggers]
    bars = transformers.utils.logging.is_progress_bar_enabled()
    for logger in loggers:
        logger.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.set_verbosity(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()
