"""Runs the benchmarks: `python -m benchmarks [topic ...]`, all of them where none is named.

Prints a table a topic and writes the figures with the machine's description to
benchmarks/results/<topic>.json.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import machine

TOPICS = {
    "model": "benchmarks.model",
    "memory": "benchmarks.memory",
    "loading": "benchmarks.loading",
    "generate": "benchmarks.generate",
    "training": "benchmarks.training",
    "attention": "benchmarks.ops.attention",
    "linear": "benchmarks.ops.linear",
    "all_reduce": "benchmarks.parallel.all_reduce",
    "tensor_parallel": "benchmarks.parallel.tensor_parallel",
}
RESULTS = Path(__file__).parent / "results"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("topics", nargs="*", choices=[*TOPICS, []], help=", ".join(TOPICS))
    parser.add_argument(
        "--case",
        action="append",
        default=[],
        help="only this case of the one topic named, where it has cases (training)",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: does everything run?")
    parser.add_argument("--seconds", type=float, default=60.0, help="a measurement's time, about")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON files")
    arguments = parser.parse_args(argv)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    chosen = {"cases": arguments.case} if arguments.case else {}
    if chosen:
        cases = _cases(arguments.topics)
        if unknown := set(arguments.case) - set(cases):
            parser.error(f"--case must be one of {', '.join(cases)}, got {', '.join(unknown)}")
    seconds = 0.0 if arguments.quick else arguments.seconds
    described = machine.describe()
    print(", ".join(f"{name} {described[name]}" for name in ("cpu", "threads", "cpu_level")))
    for topic in arguments.topics or TOPICS:
        module = importlib.import_module(TOPICS[topic])
        rows = module.run(quick=arguments.quick, seconds=seconds, **chosen)
        arguments.output.mkdir(parents=True, exist_ok=True)
        file = arguments.output / f"{topic}.json"
        file.write_text(json.dumps({"machine": described, "rows": rows}, indent=1) + "\n")
        print(f"written to {file}\n", flush=True)
    return 0


def _cases(topics: Sequence[str]) -> Sequence[str]:
    """Of the one topic that is named."""
    if len(topics) != 1:
        return []
    return list(getattr(importlib.import_module(TOPICS[topics[0]]), "CASES", []))


if __name__ == "__main__":
    sys.exit(main())
