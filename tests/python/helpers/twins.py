"""A small model twice: Hugging Face's and ours, with the same weights; and prompts for it."""

from typing import NamedTuple

import torch
import transformers

import mistral_ext  # noqa: F401  registers the operators
from mistral_ext import _C

VOCAB_SIZE = 307
PAD = 0


class Twins(NamedTuple):
    hf: transformers.MistralForCausalLM
    ours: _C.MistralForCausalLM
    config: _C.MistralConfig

    def new_cache(self) -> _C.KVCache:
        return _C.KVCache(self.config.layer_windows)


def make_twins(device: torch.device, **overrides: object) -> Twins:
    config = transformers.MistralConfig(
        **{
            "vocab_size": VOCAB_SIZE,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "sliding_window": None,
            "attn_implementation": "eager",
            **overrides,
        }
    )
    torch.manual_seed(0)
    hf = transformers.MistralForCausalLM(config).to(device).eval()
    # Weights of the usual initialisation give nearly equal scores: here a prompt decides.
    for parameter in hf.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(8)
    our_config = _C.MistralConfig.from_dict(config.to_dict())
    ours = _C.MistralForCausalLM(our_config)
    ours.load_parameters(hf.state_dict())
    return Twins(hf, ours, our_config)


def prompts(device: torch.device, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Random prompts, padded on the left to the longest, and their mask."""
    longest = max(lengths)
    ids = torch.randint(3, VOCAB_SIZE, (len(lengths), longest), device=device)
    places = torch.arange(longest, device=device)
    mask = places >= longest - torch.tensor(lengths, device=device)[:, None]
    return ids.masked_fill(~mask, PAD), mask.long()
