"""From the options every command has to a model in C++."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from transformers.utils import logging

import mistral_ext
from mistral_ext import _C
from mistral_ext.cli import smollm2
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
    parser.add_argument("--threads", type=integer(1), help="CPU threads (default: torch's)")


def apply_threads(arguments: argparse.Namespace) -> None:
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)


def load_model(arguments: argparse.Namespace) -> Loaded:
    """The model that --model, --dtype and --device name, in eval mode."""
    apply_threads(arguments)
    device = _device(arguments.device)
    with _messages():
        name, source = _source(arguments.model)
        try:
            config = transformers.AutoConfig.from_pretrained(source)
            _C.MistralConfig.from_dict(config.to_dict())
            hf_model = transformers.AutoModelForCausalLM.from_pretrained(
                source, dtype=DTYPES[arguments.dtype]
            )
            hf_model = hf_model.to(device).eval()
            return Loaded(name, mistral_ext.from_hf(hf_model), hf_model)
        except (OSError, ValueError) as error:
            raise UsageError(f"--model: cannot load {name}: {_first_sentence(error)}") from error


def load_tokenizer(arguments: argparse.Namespace) -> Any:
    name, source = _source(arguments.model)
    try:
        return transformers.AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--model: cannot load the tokenizer of {name}: {_first_sentence(error)}"
        ) from error


def _source(named: str | None) -> tuple[str, str]:
    """(what to call the model, what transformers loads it from)"""
    if named is None:
        return smollm2.NAME, str(smollm2.checkpoint_folder())
    folder = Path(named).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UsageError(f"--model: the folder {named} has no config.json")
        return named, str(folder)
    if folder.exists():
        raise UsageError(f"--model must be a checkpoint folder, got the file {named}")
    if named.startswith((".", "/", "~")) or named.count("/") > 1:
        raise UsageError(f"--model: there is no folder {named}")
    return named, named


def _device(named: str | None) -> torch.device:
    if named is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(named)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device: cannot use {named}: {_first_sentence(error)}") from error
    return device


def _first_sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0]


@contextmanager
def _messages() -> Iterator[None]:
    """Progress bars on a terminal alone, and no warnings: what matters comes as an error."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
