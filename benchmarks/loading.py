"""A folder's way into memory, beside Hugging Face's and beside `cat` of the file, warm page cache.

`python -m benchmarks.loading FOLDER DTYPE CONTESTANT` is one loading in a process of its own: it
prints a JSON object.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers

import mistral_ext
from benchmarks import mistral_format, models
from benchmarks.memory import in_a_process, resident
from benchmarks.table import Table
from mistral_ext import _C

# Mistral's own format of the model lies in this folder inside the other.
MISTRAL_FORMAT = "mistral_format"

# Each with what its further columns begin with; None where there are none.
CONTESTANTS = {
    "mistral_ext": "",
    "hugging_face": "hf_",
    "prepacked": "prepacked_",
    "mistral_format": "mistral_format_",
    "verified": None,
    "prepacked_cpp": None,
    "from_pretrained": None,
}


def run(quick: bool, seconds: float) -> list[dict[str, Any]]:
    table = Table(
        "ms to load and then to have touched every page, peak memory over the weights' own bytes; "
        "cat: ms to read the file; prepacked, verified: load_prepacked of the model class, of the "
        "dtype in the row; from_pretrained: ours; mistral_format: params.json and "
        "consolidated.safetensors, whose q_proj and k_proj are put in another order",
        model="s",
        dtype="s",
        mistral_ext=".1f",
        touched=".0f",
        peak=".3f",
        hugging_face=".1f",
        hf_touched=".0f",
        hf_peak=".3f",
        cat=".0f",
        prepacked=".1f",
        prepacked_touched=".0f",
        prepacked_peak=".3f",
        mistral_format=".1f",
        mistral_format_touched=".0f",
        mistral_format_peak=".3f",
        verified=".0f",
        prepacked_cpp=".1f",
        from_pretrained=".1f",
    )
    for name in models.chosen(quick):
        with tempfile.TemporaryDirectory() as folder:
            model = models.MODELS[name](torch.bfloat16)
            model.save_pretrained(folder)
            mistral_format.save(model, Path(folder) / MISTRAL_FORMAT)
            for dtype in ("bfloat16", "float32"):
                # Converted once; the file lies beside the other, which the rest loads.
                mistral_ext.from_hf(model.to(getattr(torch, dtype))).save_prepacked(folder)
                table.add(model=name, dtype=dtype, **_row(folder, dtype, 1 if quick else 5))
    return table.rows


def _row(folder: str, dtype: str, rounds: int) -> dict[str, Any]:
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        found.setdefault("cat", []).append(_cat(folder))
        for key, prefix in CONTESTANTS.items():
            one = in_a_process("benchmarks.loading", folder, dtype, key)
            growth = one["peak"] - one["before"]
            found.setdefault(key, []).append(one["load"])
            if prefix is not None:
                found.setdefault(prefix + "touched", []).append(one["touched"])
                found.setdefault(prefix + "peak", []).append(growth / one["weights"])
    return {key: statistics.median(values) for key, values in found.items()} | {"all": found}


def _cat(folder: str) -> float:
    files = [str(Path(folder) / "model.safetensors")]
    start = time.perf_counter()
    subprocess.run(["cat", *files], stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - start) * 1e3


def _pretrained(kind: Any, folder: str, dtype: torch.dtype) -> torch.nn.Module:
    return kind.from_pretrained(folder, dtype=dtype)


def _measure(folder: str, dtype: torch.dtype, contestant: str) -> dict[str, float]:
    torch.zeros(8).bfloat16().float()  # what torch sets up on first use
    _ = transformers.MistralForCausalLM  # imported on first use
    _ = mistral_ext.MistralForCausalLM
    loaders = {
        "mistral_ext": lambda: _C.load_pretrained(folder, dtype=dtype),
        "hugging_face": lambda: _pretrained(transformers.MistralForCausalLM, folder, dtype),
        "from_pretrained": lambda: _pretrained(mistral_ext.MistralForCausalLM, folder, dtype),
        "mistral_format": lambda: _C.load_pretrained(Path(folder) / MISTRAL_FORMAT, dtype=dtype),
        "prepacked": lambda: mistral_ext.MistralForCausalLM.load_prepacked(folder),
        "verified": lambda: mistral_ext.MistralForCausalLM.load_prepacked(folder, verify=True),
        "prepacked_cpp": lambda: _C.load_prepacked(folder),
    }
    before = resident("VmRSS")
    start = time.perf_counter()
    model = loaders[contestant]()
    load = time.perf_counter() - start
    weights = {w.data_ptr(): w for w in model.state_dict().values()}.values()  # a tied head once
    for weight in weights:
        weight.detach().view(-1)[:: 4096 // weight.element_size()].sum()
    return {
        "load": load * 1e3,
        "touched": (time.perf_counter() - start) * 1e3,
        "before": before,
        "peak": resident("VmHWM"),
        "weights": sum(weight.nbytes for weight in weights),
    }


if __name__ == "__main__":
    folder, dtype, contestant = sys.argv[1:]
    print(json.dumps(_measure(folder, getattr(torch, dtype), contestant)))
