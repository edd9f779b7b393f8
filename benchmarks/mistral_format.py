"""A Hugging Face model in Mistral's own format: params.json and consolidated.safetensors."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

FIELDS = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "head_dim": "head_dim",
    "hidden_dim": "intermediate_size",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "norm_eps": "rms_norm_eps",
    "vocab_size": "vocab_size",
    "tied_embeddings": "tie_word_embeddings",
    "max_position_embeddings": "max_position_embeddings",
}
NAMES = {
    "model.embed_tokens": "tok_embeddings",
    "lm_head": "output",
    "model.": "",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}


def save(model: transformers.PreTrainedModel, folder: Path, **further: Any) -> None:
    """further: fields of params.json."""
    config = model.config
    params = {theirs: getattr(config, ours) for theirs, ours in FIELDS.items()}
    params["rope_theta"] = config.rope_parameters["rope_theta"]
    params["dtype"] = str(model.dtype).removeprefix("torch.")
    params |= further
    folder.mkdir(exist_ok=True)
    (folder / "params.json").write_text(json.dumps(params))
    weights = {}
    for name, parameter in model.named_parameters():  # a tied head is none of them
        weight = parameter.detach()
        if "q_proj" in name or "k_proj" in name:
            weight = _interleaved(weight, config.head_dim)
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        weights[name] = weight
    save_file(weights, folder / "consolidated.safetensors")


def _interleaved(weight: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows of half-split heads as pairs beside each other, which is how Mistral stores them."""
    halves = weight.unflatten(0, (-1, 2, head_dim // 2))
    return halves.transpose(1, 2).flatten(0, 2).contiguous()
