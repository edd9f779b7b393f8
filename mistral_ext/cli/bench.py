"""Measure prefill and decoding, with --compare beside Hugging Face's own model."""

import argparse
import json
import sys
from typing import Any

import torch

from mistral_ext.cli import info, loading, measure
from mistral_ext.cli.arguments import integer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    loading.add_arguments(parser)
    parser.add_argument("--prompt-tokens", type=integer(1), default=512, metavar="N")
    parser.add_argument("--new-tokens", type=integer(1), default=64, metavar="N")
    parser.add_argument("--batch", type=integer(1), default=1, metavar="N")
    parser.add_argument("--repeats", type=integer(1), default=3, metavar="N")
    parser.add_argument("--compare", action="store_true", help="run Hugging Face's model too")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    loaded = loading.load_model(loading.find_source(arguments), arguments)
    models = {"mistral_ext": loaded.model}
    if arguments.compare:
        models["hugging_face"] = loaded.hf_model
    vocab_size = loaded.model.config.vocab_size
    generator = torch.Generator().manual_seed(0)
    shape = (arguments.batch, arguments.prompt_tokens)
    input_ids = torch.randint(vocab_size, shape, generator=generator).to(loaded.model.device)

    for model in models.values():
        measure.prefill_seconds(model, input_ids)
        measure.decode_seconds(model, input_ids[:, :1], 2)
    prefill = measure.interleaved(
        {name: lambda m=m: measure.prefill_seconds(m, input_ids) for name, m in models.items()},
        arguments.repeats,
    )
    decode = measure.interleaved(
        {
            name: lambda m=m: measure.decode_seconds(m, input_ids, arguments.new_tokens)
            for name, m in models.items()
        },
        arguments.repeats,
    )
    result: dict[str, Any] = {
        "environment": info.environment(),
        "model": info.describe(loaded),
        "batch": arguments.batch,
        "prompt_tokens": arguments.prompt_tokens,
        "new_tokens": arguments.new_tokens,
        "prefill_tokens_per_second": {
            name: input_ids.numel() / measure.median(figures) for name, figures in prefill.items()
        },
        "decode_tokens_per_second": {
            name: arguments.batch / measure.median(figures) for name, figures in decode.items()
        },
    }
    if loaded.model.device.type == "cpu":
        result["read_bandwidth"] = measure.read_bandwidth()
        result["decode_limit_tokens_per_second"] = (
            arguments.batch * result["read_bandwidth"] / measure.bytes_per_token(loaded.model)
        )
    print(json.dumps(result) if arguments.json else _table(result))
    if not arguments.json:
        print(_caption(result), file=sys.stderr)
    return 0


def _table(result: dict[str, Any]) -> str:
    limit = result.get("decode_limit_tokens_per_second")
    lines = [f"{'tokens/s':<14}{'prefill':>12}{'decode':>12}"]
    for name, prefill in result["prefill_tokens_per_second"].items():
        decode = result["decode_tokens_per_second"][name]
        lines.append(f"{name:<14}{prefill:>12.1f}{decode:>12.1f}")
    if len(lines) == 3:
        ratios = [
            figures["mistral_ext"] / figures["hugging_face"]
            for figures in (
                result["prefill_tokens_per_second"],
                result["decode_tokens_per_second"],
            )
        ]
        lines.append(f"{'ratio':<14}{ratios[0]:>12.2f}{ratios[1]:>12.2f}")
    if limit is not None:
        lines.append(f"{'memory allows':<14}{'':>12}{limit:>12.1f}")
    return "\n".join(lines)


def _caption(result: dict[str, Any]) -> str:
    model, environment = result["model"], result["environment"]
    return (
        f"{model['name']}, {model['dtype']}, {model['device']}, {environment['threads']} threads,"
        f" batch {result['batch']}, {result['prompt_tokens']} prompt tokens,"
        f" {result['new_tokens']} new ones, {model['path']}"
    )
