"""SmolLM2, the real model of the tests, converted once into .cache/ of the checkout."""

import functools
import os
from pathlib import Path

import torch
import transformers

ROOT = Path(__file__).parents[3]


@functools.cache
def folder() -> Path:
    from mistral_ext.cli import smollm2

    os.environ.setdefault("MISTRAL_EXT_CACHE", str(ROOT / ".cache" / "mistral_ext"))
    return smollm2.checkpoint_folder()


def hf_model(dtype: torch.dtype = torch.float32, **keywords) -> transformers.PreTrainedModel:
    """Hugging Face's model with eager attention."""
    return transformers.MistralForCausalLM.from_pretrained(
        folder(), dtype=dtype, attn_implementation="eager", **keywords
    ).eval()


def tokenizer() -> transformers.PreTrainedTokenizerBase:
    return transformers.AutoTokenizer.from_pretrained(folder())


def text_ids(count: int) -> torch.Tensor:
    """int64 [1, count]: the first tokens of a text that people wrote, this project's license."""
    text = (ROOT / "LICENSE").read_text()
    ids = tokenizer()(" ".join(text.split()), return_tensors="pt").input_ids
    assert ids.shape[1] >= count
    return ids[:, :count]
