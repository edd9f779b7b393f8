"""mistral-ext export, in this process."""

import torch
import transformers
from safetensors.torch import load_file


def test_writes_what_a_cpp_program_loads(run, checkpoint, tmp_path):
    folder = tmp_path / "exported"
    code, out, err = run("export", str(folder), "--model", checkpoint)
    assert (code, out) == (0, "")
    assert "exported" in err
    names = {path.name for path in folder.iterdir()}
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    } <= names
    weights = load_file(f"{checkpoint}/model.safetensors")
    for name, weight in load_file(folder / "model.safetensors").items():
        assert torch.equal(weight, weights[name])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("Hello, 日本").input_ids) == "Hello, 日本"


def test_weights_are_of_the_dtype_asked_for(run, checkpoint, tmp_path):
    code, _, _ = run("export", str(tmp_path), "--model", checkpoint, "--dtype", "bfloat16")
    assert code == 0
    weights = load_file(tmp_path / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}


def test_a_folder_with_something_in_it_is_left_alone(run, checkpoint, tmp_path):
    (tmp_path / "mine").write_text("")
    code, _, err = run("export", str(tmp_path), "--model", checkpoint)
    assert code == 2
    assert "folder must be new or empty" in err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_folder_that_cannot_be_written_is_one_sentence(run, checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run("export", str(tmp_path / "file" / "folder"), "--model", checkpoint)
    assert code == 2
    assert "folder: cannot write" in err
    assert err.count("\n") == 1
