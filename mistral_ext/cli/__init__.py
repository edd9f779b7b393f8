"""The command `mistral-ext`: generate text, say what runs, measure it, write a folder for C++."""

import argparse
import os
import sys
from collections.abc import Sequence

import torch

import mistral_ext
from mistral_ext.cli import bench, export, generate, info
from mistral_ext.cli.errors import UsageError

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        raise UsageError(message)


def parser() -> argparse.ArgumentParser:
    top = _Parser(
        prog="mistral-ext", description="Mistral language models in C++.", allow_abbrev=False
    )
    top.add_argument("--version", action="version", version=mistral_ext.__version__)
    commands = top.add_subparsers(metavar="command", required=True)
    for command in (generate, info, bench, export):
        name = command.__name__.rpartition(".")[2]
        summary = command.__doc__.splitlines()[0]
        child = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        command.add_arguments(child)
        child.set_defaults(run=command.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; argv is without the program's name, None takes the process's own.

    Returns the exit code: 0, or 2 where an argument is wrong or asks for more memory than there is
    (one sentence on stderr says which), or 130 where Ctrl-C stopped it.
    """
    try:
        arguments = parser().parse_args(argv)
        return arguments.run(arguments)
    except UsageError as error:
        print(f"mistral-ext: error: {error}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _is_lack_of_memory(error):
            raise
        print(f"mistral-ext: error: not enough memory: {_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has gone (`| head`). Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _is_lack_of_memory(error: Exception) -> bool:
    """torch has no type of its own for this on the CPU."""
    signs = ("can't allocate memory", "overflow")  # the second where the bytes have no number
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        sign in str(error) for sign in signs
    )


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
