"""model.generate on a GPU at Mistral 7B's shape, random bf16 weights: milliseconds a token.

    python benchmarks/cuda/generate.py results.json

The time of a short run is taken from that of a long one, so neither the prompt nor what a call
costs is in it. What the memory allows is in the first line of decode_step.cu's output.
"""

import json
import sys
import time

import torch
import transformers

import mistral_ext

SHAPE = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40000,
}
# batch, prompt, window, tokens
ROWS = [
    (1, 512, None, 256),
    (2, 512, None, 256),
    (4, 512, None, 256),
    (8, 512, None, 256),
    (16, 512, None, 128),
    (32, 512, None, 128),
    (1, 32768, None, 128),
    (1, 4096, 4096, 128),
    (1, 32768, 4096, 128),
]
FEW = 17


def random_model(window: int | None) -> transformers.PreTrainedModel:
    config = transformers.MistralConfig(**SHAPE, sliding_window=window, dtype=torch.bfloat16)
    with torch.device("meta"):
        model = mistral_ext.MistralForCausalLM(config).to(torch.bfloat16)
    model = model.to_empty(device="cuda").eval()
    model.model.rotary_emb = type(model.model.rotary_emb)(config).to("cuda")
    for name, parameter in model.named_parameters():
        parameter.data.fill_(1.0) if "norm" in name else parameter.data.normal_(0, 0.02)
    return model


def seconds(model: transformers.PreTrainedModel, ids: torch.Tensor, tokens: int) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    model.generate(ids, max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0)
    torch.cuda.synchronize()
    return time.perf_counter() - started


def main(path: str) -> None:
    rows = []
    model, window = random_model(None), None
    for batch, prompt, wanted, tokens in ROWS:
        if wanted != window:
            del model
            model, window = random_model(wanted), wanted
        ids = torch.randint(3, SHAPE["vocab_size"], (batch, prompt), device="cuda")
        first = seconds(model, ids, 2)
        few = min(seconds(model, ids, FEW) for _ in range(2))
        many = min(seconds(model, ids, FEW + tokens) for _ in range(2))
        row = {
            "batch": batch,
            "prompt": prompt,
            "sliding_window": window,
            "tokens": tokens,
            "milliseconds_a_token": (many - few) / tokens * 1e3,
            "first_call_seconds": first,
        }
        rows.append(row)
        print(row, flush=True)
    with open(path, "w") as file:
        json.dump({"device": torch.cuda.get_device_name(), "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main(sys.argv[1])
