"""Write a model as a folder that C++ programs load: configurations, weights and tokenizer."""

import argparse
import sys
from pathlib import Path

from mistral_ext.cli import loading
from mistral_ext.cli.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="what to write; new, or empty")
    loading.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    folder = Path(arguments.folder).expanduser()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"folder must be new or empty, got {arguments.folder}")
    source = loading.find_source(arguments)
    tokenizer = loading.load_tokenizer(source)
    model = loading.load_model(source, arguments).hf_model
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except OSError as error:
        raise UsageError(f"folder: cannot write {arguments.folder}: {error.strerror}") from error
    print(f"{source.name} is in {arguments.folder}", file=sys.stderr)
    return 0
