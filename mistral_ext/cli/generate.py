"""Continue a text, or with --chat answer it.

Sampling is what the checkpoint's generation config says, unless an option says otherwise.
"""

import argparse
import json
import sys
import time
from typing import Any

import torch

import mistral_ext
from mistral_ext.cli import loading, ranks
from mistral_ext.cli.arguments import divisor, integer, probability, share
from mistral_ext.cli.errors import UsageError
from mistral_ext.cli.text_stream import TextStream

_SAMPLING = ("temperature", "top_k", "top_p", "min_p")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", help="the text to continue; - reads it from standard input")
    loading.add_arguments(parser)
    parser.add_argument("--max-new-tokens", type=integer(1), default=128, metavar="N")
    parser.add_argument("--temperature", type=divisor, help="above 1 flattens the distribution")
    parser.add_argument("--top-k", type=integer(1), metavar="N", help="draw from the likeliest N")
    parser.add_argument(
        "--top-p", type=probability, metavar="P", help="draw from the likeliest that make up P"
    )
    parser.add_argument(
        "--min-p", type=share, metavar="P", help="leave out what is below P times the likeliest"
    )
    parser.add_argument(
        "--repetition-penalty", type=divisor, metavar="R", help="above 1 avoids earlier tokens"
    )
    parser.add_argument("--greedy", action="store_true", help="always the likeliest token")
    parser.add_argument(
        "--seed", type=integer(0, 2**64 - 1), metavar="N", help="sample; a seed gives one text"
    )
    parser.add_argument("--chat", action="store_true", help="the prompt is a user's message")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")


def run(arguments: argparse.Namespace) -> int:
    options = _generate_options(arguments)
    with ranks.joined(loading.device_of(arguments)) as group:
        return _run(arguments, options, group)


def _run(arguments: argparse.Namespace, options: dict[str, Any], group: Any) -> int:
    source = loading.find_source(arguments)
    tokenizer = loading.load_tokenizer(source)
    text = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    input_ids = _encode(tokenizer, text, arguments.chat)
    if group is None:
        model = loading.load_model(source, arguments).model
    else:
        model = loading.load_part(source, arguments, group)
    # torch starts every process with one and the same seed.
    seed = torch.seed() if arguments.seed is None else arguments.seed
    torch.manual_seed(seed)
    if arguments.greedy and arguments.seed is not None:
        print("mistral-ext: --seed is not used, since --greedy draws nothing", file=sys.stderr)

    def write(piece: str) -> None:
        if not arguments.json:
            print(piece, end="", flush=True)

    if not arguments.chat:
        write(text)
    stream = TextStream(tokenizer, write)
    input_ids = input_ids.to(model.device)
    started = time.perf_counter()
    try:
        model.generate(
            input_ids, attention_mask=torch.ones_like(input_ids), streamer=stream, **options
        )
    except ValueError as error:
        write("\n")  # the error gets a line of its own
        raise UsageError(str(error)) from error
    except RuntimeError:
        write("\n")
        raise
    report = mistral_ext.path_report(model)
    result = _result(stream, started) | {
        "model": source.name,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "ranks": 1 if group is None else group.size(),
        "forward": str(report.last_forward or report.path),
        "loop": str(report.generation),
        "seed": None if arguments.greedy else seed,
        "prompt": text,
        "prompt_tokens": input_ids.shape[1],
    }
    if arguments.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print()
        print(_summary(result), file=sys.stderr)
    return 0


def _generate_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of generate()."""
    sampling = {
        name: value for name in _SAMPLING if (value := getattr(arguments, name)) is not None
    }
    if arguments.greedy and sampling:
        option = next(iter(sampling)).replace("_", "-")
        raise UsageError(f"--greedy and --{option} exclude each other")
    options: dict[str, Any] = {"max_new_tokens": arguments.max_new_tokens, **sampling}
    if arguments.greedy:
        options["do_sample"] = False
    elif sampling or arguments.seed is not None:
        options["do_sample"] = True
    if arguments.repetition_penalty is not None:
        options["repetition_penalty"] = arguments.repetition_penalty
    return options


def _encode(tokenizer: Any, text: str, chat: bool) -> torch.Tensor:
    """int64 [1, tokens]"""
    if chat:
        if not tokenizer.chat_template:
            raise UsageError("--chat: the model's tokenizer has no chat template")
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
    input_ids = tokenizer(text, return_tensors="pt", add_special_tokens=not chat).input_ids
    if input_ids.numel() == 0:
        raise UsageError("prompt must have at least one token, got an empty text")
    return input_ids.long()


def _result(stream: TextStream, started: float) -> dict[str, Any]:
    """The text and how fast it came. Decoding is counted from the first token to the last."""
    times = stream.times
    decoding = times[-1] - times[0] if len(times) > 1 else 0.0
    return {
        "text": stream.text,
        "tokens": stream.tokens,
        "new_tokens": len(stream.tokens),
        "first_token_seconds": times[0] - started if times else None,
        "tokens_per_second": (len(times) - 1) / decoding if decoding > 0 else None,
    }


def _summary(result: dict[str, Any]) -> str:
    rate = result["tokens_per_second"]
    ranks_of = "" if result["ranks"] == 1 else f"{result['ranks']} ranks of "
    speed = "" if rate is None else f", then {rate:.1f} tokens/s"
    return (
        f"{result['new_tokens']} tokens; the first after {result['first_token_seconds']:.2f} s"
        f" ({result['prompt_tokens']} in the prompt){speed}; {result['model']}, {result['dtype']},"
        f" {result['device']}, {ranks_of}{result['threads']} threads, forward"
        f" {result['forward']}, loop {result['loop']}"
    )
