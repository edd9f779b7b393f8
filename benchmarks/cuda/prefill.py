"""Prompts through the model on a GPU at Mistral 7B's shape, random bf16 weights.

    python benchmarks/cuda/prefill.py results.json [--peer] [--profile 2048 8192]

Each time is the median of several calls of forward with a cache, one after the other, the logits of
the last position alone. The limit beside it: the products' operations at the rate of an
8192 x 8192 x 8192 product measured here, and attention's over the visible keys at 600 TFLOP/s;
padding counts for nothing. A GPU holds the rate of a few such products only for a fraction of a
second, before it meets the limit of its power: the last column is of the limit with the rate of
products that run as long as prompts do.
"""

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch.profiler import ProfilerActivity, profile

import mistral_ext
from benchmarks.cuda.generate import SHAPE, random_model
from benchmarks.table import Table

ATTENTION_RATE = 600e12
# prompt, window
PROMPTS = [(512, None), (2048, None), (8192, None), (32768, None), (32768, 4096)]
PEER_PROMPTS = (2048, 8192)
PRODUCTS = 400
PADDED_ROWS, SHORTEST, LONGEST = 16, 100, 4000


def product_rates() -> tuple[float, float]:
    """Operations a second of large products: of a few of them, and over a second."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    few = seconds(lambda: a @ b.T, calls=11)

    def many() -> None:
        for _ in range(PRODUCTS):
            a @ b.T

    return 2 * 8192**3 / few, 2 * 8192**3 * PRODUCTS / seconds(many, calls=1)


def seconds(run: Callable[[], Any], calls: int = 5) -> float:
    run()
    times = []
    for _ in range(calls):
        torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def limit(lengths: list[int], window: int | None, rate: float) -> float:
    """Seconds that prompts of these lengths need at least."""
    heads, head_dim = SHAPE["num_attention_heads"], SHAPE["head_dim"]
    hidden, keys = SHAPE["hidden_size"], SHAPE["num_key_value_heads"] * head_dim
    layer = 2 * hidden * (heads * head_dim + keys) + 3 * hidden * SHAPE["intermediate_size"]
    layers = SHAPE["num_hidden_layers"]
    products = 2 * sum(lengths) * layers * layer + 2 * len(lengths) * hidden * SHAPE["vocab_size"]
    pairs = 0
    for length in lengths:
        seen = length if window is None else min(length, window)
        pairs += length * seen - seen * (seen - 1) // 2
    return products / rate + 4 * head_dim * heads * layers * pairs / ATTENTION_RATE


def forward(model: transformers.PreTrainedModel, **inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs, use_cache=True, logits_to_keep=1).logits


def random_ids(*shape: int) -> torch.Tensor:
    return torch.randint(3, SHAPE["vocab_size"], shape, device="cuda")


def padded_batch() -> tuple[list[int], dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(SHORTEST, LONGEST + 1, (PADDED_ROWS,), generator=generator)
    lengths[0], lengths[1] = SHORTEST, LONGEST
    mask = torch.arange(LONGEST) >= LONGEST - lengths[:, None]
    ids = random_ids(PADDED_ROWS, LONGEST).masked_fill(~mask.cuda(), 0)
    positions = (mask.long().cumsum(1) - 1).masked_fill(~mask, 0)
    inputs = {"input_ids": ids, "attention_mask": mask.long(), "position_ids": positions}
    return lengths.tolist(), {name: x.cuda() for name, x in inputs.items()}


def memory(model: transformers.PreTrainedModel, length: int) -> int:
    """Bytes held at the worst moment of a prompt, beyond the weights and the cache."""
    ids = random_ids(1, length)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with torch.no_grad():
        cache = model(ids, use_cache=True, logits_to_keep=1).past_key_values
    return torch.cuda.max_memory_allocated() - before - cache.nbytes


def print_profile(run: Callable[[], Any], title: str) -> list[dict[str, Any]]:
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    kernels = sorted(profiler.key_averages(), key=lambda k: -k.self_device_time_total)
    rows = [
        {"kernel": k.key, "calls": k.count, "milliseconds": k.self_device_time_total / 1e3}
        for k in kernels
        if k.self_device_time_total > 0
    ]
    ranges = [e.time_range for e in profiler.events() if e.device_type.name == "CUDA"]
    span = max(r.end for r in ranges) - min(r.start for r in ranges)
    busy = sum(row["milliseconds"] for row in rows)
    print(f"{title}: {busy:.2f} ms in kernels of {span / 1e3:.2f} from the first to the last")
    for row in rows[:16]:
        print(f"{row['milliseconds']:9.3f} ms {row['calls']:5d}  {row['kernel'][:110]}")
    return rows


def peer_of(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """Hugging Face's class on the same weights."""
    with torch.device("meta"):
        peer = transformers.MistralForCausalLM(model.config)
    peer.load_state_dict(model.state_dict(), assign=True)
    peer.model.rotary_emb = type(peer.model.rotary_emb)(model.config).to("cuda")
    return peer.eval()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("path")
    parser.add_argument("--peer", action="store_true", help="Hugging Face's class beside it")
    parser.add_argument("--profile", type=int, nargs="*", default=[], help="prompts to look into")
    parser.add_argument("--no-padded", action="store_true", help="leave the padded batch out")
    arguments = parser.parse_args()

    model, window = random_model(None), None
    ids = random_ids(1, 512)
    torch.cuda.synchronize()
    started = time.perf_counter()
    forward(model, input_ids=ids).argmax().item()
    first = time.perf_counter() - started
    rate, long_rate = product_rates()
    print(
        f"{torch.cuda.get_device_name()}: products at {rate / 1e12:.0f} TFLOP/s,"
        f" {long_rate / 1e12:.0f} over a second"
    )

    table = Table(
        "prefill",
        prompt="s",
        window="d",
        first_ms=".1f",
        launch_ms=".2f",
        ms=".2f",
        limit_ms=".2f",
        fraction=".3f",
        over_a_second=".3f",
    )

    def measure(
        of: transformers.PreTrainedModel,
        name: str,
        lengths: list[int],
        inputs: dict[str, torch.Tensor],
    ) -> None:
        started = time.perf_counter()
        forward(of, **inputs).argmax().item()
        first = time.perf_counter() - started
        took = seconds(lambda: forward(of, **inputs), calls=7 if sum(lengths) < 16384 else 3)
        started = time.perf_counter()
        forward(of, **inputs)
        launched = time.perf_counter() - started
        least = limit(lengths, window, rate)
        table.add(
            prompt=name,
            window=window,
            first_ms=first * 1e3,
            launch_ms=launched * 1e3,
            ms=took * 1e3,
            limit_ms=least * 1e3,
            fraction=least / took,
            over_a_second=limit(lengths, window, long_rate) / took,
        )

    profiles = {}
    for length, wanted in PROMPTS:
        if wanted != window:
            del model
            model, window = random_model(wanted), wanted
        prompt = {"input_ids": random_ids(1, length)}
        measure(model, str(length), [length], prompt)
        if length in arguments.profile and window is None:
            profiles[length] = print_profile(
                functools.partial(forward, model, **prompt), f"prompt {length}"
            )
        if arguments.peer and length in PEER_PROMPTS:
            measure(peer_of(model), f"{length}, HF", [length], prompt)
        if length == 8192:
            extra = memory(model, length)
            print(f"memory beyond weights and cache at {length}: {extra / 1e9:.3f} GB")
        if length == 32768 and window is None and not arguments.no_padded:
            lengths, inputs = padded_batch()
            measure(model, f"{PADDED_ROWS} padded", lengths, inputs)
    print(f"first call of the process, prompt 512: {first:.3f} s")
    with open(arguments.path, "w") as file:
        results = {
            "device": torch.cuda.get_device_name(),
            "torch": torch.__version__,
            "mistral_ext": mistral_ext.__version__,
            "product_tflops": rate / 1e12,
            "product_tflops_over_a_second": long_rate / 1e12,
            "first_call_seconds": first,
            "memory_beyond_weights_and_cache": extra,
            "rows": table.rows,
            "profiles": profiles,
        }
        json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
