"""Small Hugging Face models, one for each thing in which architectures of the family differ."""

import copy
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

ROPE = {"rope_type": "default", "rope_theta": 100.0}

# Each reads as: what differs from SMALL below.
CONFIGS: dict[str, dict[str, Any]] = {
    "mha": {"num_key_value_heads": 4},
    "gqa": {},
    "mqa": {"num_key_value_heads": 1},
    "head_dim": {"hidden_size": 48, "head_dim": 32},
    "window": {"sliding_window": 5},
    "tied": {"tie_word_embeddings": True},
    "linear": {"rope_parameters": {**ROPE, "rope_type": "linear", "factor": 4.0}},
    # Shorter than the prompts, so that the frequencies do change with the length.
    "dynamic": {
        "max_position_embeddings": 12,
        "rope_parameters": {**ROPE, "rope_type": "dynamic", "factor": 2.0},
    },
    "yarn": {
        "rope_parameters": {
            **ROPE,
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 16,
        }
    },
    "llama3": {
        "rope_parameters": {
            **ROPE,
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    },
    "two_layer_types": {
        "model_type": "ministral",
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "query_scale": {
        "model_type": "ministral3",
        "rope_parameters": {
            **ROPE,
            "rope_type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 8,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.5,
        },
    },
    "window_mqa_tied_head_dim": {
        "num_key_value_heads": 1,
        "head_dim": 24,
        "sliding_window": 7,
        "tie_word_embeddings": True,
    },
}

SMALL: dict[str, Any] = {
    "model_type": "mistral",
    "vocab_size": 99,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "sliding_window": None,
    "rope_parameters": ROPE,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

CLASSES = {"mistral": "Mistral", "ministral": "Ministral", "ministral3": "Ministral3"}


def small_config(name: str = "gqa", **changes: Any) -> PreTrainedConfig:
    """The configuration CONFIGS[name], with eager attention."""
    fields = copy.deepcopy({**SMALL, **CONFIGS[name], **changes})
    prefix = CLASSES[fields.pop("model_type")]
    config = getattr(transformers, f"{prefix}Config")(**fields)
    config._attn_implementation = "eager"
    return config


def small_model(
    name: str = "gqa",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    seed: int = 0,
    kind: str = "ForCausalLM",
    **changes: Any,
) -> PreTrainedModel:
    """A Hugging Face model of CONFIGS[name] whose every part matters to its logits.

    kind: of the model's class; "Model" is the one without a head.
    """
    config = small_config(name, **changes)
    prefix = CLASSES[config.model_type]
    model = getattr(transformers, f"{prefix}{kind}")(config).eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            mean, std = 1.0, 0.2
        else:
            # Above 1 / sqrt(fan_in): attention scores then spread enough to prefer some keys.
            mean, std = 0.0, 1.5 / parameter.shape[1] ** 0.5
        with torch.no_grad():
            parameter.normal_(mean, std, generator=generator)
    return in_dtype(model, dtype).to(device)


def in_dtype(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Casts the parameters alone, as from_pretrained(dtype=...) does.

    model.to(dtype) would round the rotary frequencies too, and so make the reference worse.
    """
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype
    return model


def random_ids(batch: int, length: int, vocab_size: int = 99, seed: int = 0) -> torch.Tensor:
    """int64 [batch, length], none of the special ids 0, 1, 2 among them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, vocab_size, (batch, length), generator=generator)
