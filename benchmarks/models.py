"""The models that are measured."""

from collections.abc import Callable

import torch
import transformers

from mistral_ext.cli import smollm2


def smollm2_135m(dtype: torch.dtype) -> transformers.PreTrainedModel:
    """Trained weights, tied head."""
    return transformers.MistralForCausalLM.from_pretrained(
        smollm2.checkpoint_folder(), dtype=dtype, attn_implementation="sdpa"
    ).eval()


def shape_1b(dtype: torch.dtype) -> transformers.PreTrainedModel:
    """TinyLlama's shape with random weights, representable in bf16."""
    return random_model(
        dtype,
        vocab_size=32000,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=22,
        num_attention_heads=32,
        num_key_value_heads=4,
    )


def tiny(dtype: torch.dtype) -> transformers.PreTrainedModel:
    """For a quick look whether everything runs."""
    return random_model(
        dtype,
        vocab_size=1000,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )


MODELS: dict[str, Callable[[torch.dtype], transformers.PreTrainedModel]] = {
    "SmolLM2-135M": smollm2_135m,
    "1.1B": shape_1b,
    "tiny": tiny,
}


def chosen(quick: bool) -> list[str]:
    return ["tiny"] if quick else ["SmolLM2-135M", "1.1B"]


def random_model(dtype: torch.dtype, **fields: int) -> transformers.PreTrainedModel:
    config = transformers.MistralConfig(
        **fields, sliding_window=None, max_position_embeddings=4096, dtype=dtype
    )
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        model = transformers.MistralForCausalLM(config)
    model = model.to(dtype).to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    drawn: dict[torch.Size, torch.Tensor] = {}
    for parameter in model.parameters():
        # One draw a shape: layers may be alike, and drawing a billion numbers takes its time.
        if parameter.shape not in drawn:
            values = torch.empty(parameter.shape, dtype=torch.bfloat16)
            if parameter.dim() == 1:
                drawn[parameter.shape] = values.fill_(1)
            else:
                drawn[parameter.shape] = values.normal_(0, 0.02, generator=generator)
        parameter.data.copy_(drawn[parameter.shape])
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    return model
