"""mistral-ext generate, in this process."""

import io
import json
import shutil

import pytest
import torch
import transformers
from helpers import smollm2
from safetensors.torch import load_file, save_file

import mistral_ext

GREEDY = ("--greedy", "--max-new-tokens", "12")


def generated(run, *arguments: str) -> dict:
    code, out, _ = run("generate", *arguments, "--json")
    assert code == 0
    return json.loads(out)


def test_writes_the_prompt_and_what_follows_with_the_speed_on_stderr(run, checkpoint):
    code, out, err = run("generate", "Hello", "--model", checkpoint, *GREEDY)
    assert code == 0
    result = generated(run, "Hello", "--model", checkpoint, *GREEDY)
    assert out == "Hello" + result["text"] + "\n"
    assert "tokens/s" in err
    assert "12 tokens" in err


def test_tokens_are_hugging_faces(run, checkpoint, device):
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).to(device)
    inputs = tokenizer("Hello", return_tensors="pt").to(device)
    expected = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, 5:].tolist()
    result = generated(run, "Hello", "--model", checkpoint, *GREEDY)
    assert result["tokens"] == expected
    assert result["text"] == tokenizer.decode(expected, skip_special_tokens=True)
    assert result["new_tokens"] == 12
    assert result["prompt_tokens"] == 5


def test_says_what_ran(run, checkpoint):
    result = generated(run, "Hello", "--model", checkpoint, *GREEDY)
    assert result["forward"] == "native"
    assert result["loop"] == "native"
    assert result["model"] == checkpoint
    assert result["dtype"] == "float32"


def test_a_seed_gives_one_text(run, checkpoint):
    def sample(seed: str) -> list[int]:
        return generated(run, "Hello", "--model", checkpoint, "--seed", seed)["tokens"]

    assert sample("1") == sample("1")
    assert sample("1") != sample("2")


def test_without_a_seed_each_text_is_another(run, checkpoint):
    options = ("--model", checkpoint, "--temperature", "1.5")
    first, second = (generated(run, "Hello", *options) for _ in range(2))
    assert first["seed"] != second["seed"]
    assert first["tokens"] != second["tokens"]


def test_sampling_options_reach_generate(run, checkpoint):
    options = ("--model", checkpoint, "--seed", "3", "--max-new-tokens", "12")
    greedy = generated(run, "Hello", "--model", checkpoint, *GREEDY)["tokens"]
    for narrow in (("--top-k", "1"), ("--top-p", "1e-6"), ("--min-p", "1")):
        assert generated(run, "Hello", *options, *narrow)["tokens"] == greedy
    cold = generated(run, "Hello", *options, "--temperature", "1e-4")["tokens"]
    assert cold == greedy
    penalised = generated(
        run, "Hello", "--model", checkpoint, *GREEDY, "--repetition-penalty", "1e6"
    )
    assert len(set(penalised["tokens"])) == 12  # none comes twice


def test_dtype_is_the_one_asked_for(run, checkpoint):
    result = generated(run, "Hello", "--model", checkpoint, *GREEDY, "--dtype", "bfloat16")
    assert result["dtype"] == "bfloat16"


def test_prompt_comes_from_standard_input(run, checkpoint, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello"))
    expected = generated(run, "Hello", "--model", checkpoint, *GREEDY)["tokens"]
    assert generated(run, "-", "--model", checkpoint, *GREEDY)["tokens"] == expected


def test_chat_wraps_the_prompt_and_writes_the_answer_alone(run, chat_checkpoint):
    options = ("--model", chat_checkpoint, *GREEDY)
    plain = generated(run, "[user] Hello\n> ", *options)
    chat = generated(run, "Hello", *options, "--chat")
    assert chat["tokens"] == plain["tokens"]
    _, out, _ = run("generate", "Hello", *options, "--chat")
    assert out == chat["text"] + "\n"


def test_threads_are_those_asked_for(run, checkpoint):
    before = torch.get_num_threads()
    try:
        result = generated(run, "Hello", "--model", checkpoint, *GREEDY, "--threads", "1")
        assert result["threads"] == 1
    finally:
        torch.set_num_threads(before)


def test_smollm2_is_the_model_where_none_is_named(run):
    smollm2.folder()  # says where the cache is
    result = generated(run, "The capital of France is", "--greedy", "--max-new-tokens", "8")
    assert "Paris" in result["text"]
    assert result["model"] == "SmolLM2-135M-Instruct"


class TestOneSentenceAndExitCode2:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ("--temperature", "nan"),
                "must be a number from 1e-6 to 1e6, got 'nan'",
            ),
            (("--temperature", "0"), "--temperature: must be a number from 1e-6 to 1e6, got '0'"),
            (("--top-p", "1.5"), "--top-p: must be a number in (0, 1], got '1.5'"),
            (("--top-p", "0"), "--top-p: must be a number in (0, 1], got '0'"),
            (("--min-p", "-0.1"), "--min-p: must be a number in [0, 1], got '-0.1'"),
            (("--top-k", "0"), "--top-k: must be an integer of at least 1, got '0'"),
            (("--max-new-tokens", "-1"), "must be an integer of at least 1, got '-1'"),
            (("--max-new-tokens", "many"), "must be an integer of at least 1, got 'many'"),
            (("--repetition-penalty", "0"), "must be a number from 1e-6 to 1e6, got '0'"),
            (("--threads", "0"), "--threads: must be an integer of at least 1, got '0'"),
            (("--seed", "-1"), "--seed: must be an integer of at least 0, got '-1'"),
            (("--temperature", "1e-44"), "must be a number from 1e-6 to 1e6, got '1e-44'"),
            (("--seed", str(2**64)), "--seed: must be an integer of at most 18446744073709551615"),
            (("--max-new-tokens", "9" * 30), "must be an integer of at most 2147483647"),
            (("--top-k", "9" * 19), "must be an integer of at most 2147483647"),
            (("--threads", "9" * 30), "--threads: must be an integer of at most 1024"),
            (("--device", "meta"), "--device: cannot use meta: its tensors hold no numbers"),
            (("--dtype", "int8"), "--dtype: invalid choice: 'int8'"),
            (("--greedy", "--top-k", "3"), "--greedy and --top-k exclude each other"),
            (("--no-such-option",), "unrecognized arguments: --no-such-option"),
            (("--device", "abacus"), "--device: cannot use abacus"),
            (("--chat",), "--chat: the model's tokenizer has no chat template"),
        ],
    )
    def test_for_an_option(self, capsys, checkpoint, arguments, message):
        from mistral_ext.cli import main

        assert main(["generate", "Hello", "--model", checkpoint, *arguments]) == 2
        self.check(capsys.readouterr(), message)

    def check(self, captured, message: str) -> None:
        assert captured.out == ""
        assert captured.err.startswith("mistral-ext: error: ")
        assert message in captured.err
        assert captured.err.count("\n") == 1

    def test_for_an_empty_prompt(self, run, checkpoint):
        code, _, err = run("generate", "", "--model", checkpoint)
        assert code == 2
        assert "prompt must have at least one token" in err

    def test_for_no_prompt(self, capsys):
        from mistral_ext.cli import main

        assert main(["generate"]) == 2
        self.check(capsys.readouterr(), "required: prompt")

    def test_for_no_command(self, capsys):
        from mistral_ext.cli import main

        assert main([]) == 2
        self.check(capsys.readouterr(), "required: command")

    def test_for_a_folder_that_is_not_there(self, run, tmp_path):
        code, _, err = run("generate", "Hello", "--model", str(tmp_path / "none"))
        assert code == 2
        assert "there is no folder" in err

    def test_for_a_folder_without_a_checkpoint(self, run, tmp_path):
        code, _, err = run("generate", "Hello", "--model", str(tmp_path))
        assert code == 2
        assert "has no config.json" in err

    def test_for_another_architecture(self, run, tmp_path):
        (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
        code, _, err = run("generate", "Hello", "--model", str(tmp_path))
        assert code == 2
        assert "model_type must be mistral, ministral or ministral3, got gpt2" in err

    def test_for_missing_weights(self, run, checkpoint, tmp_path):
        folder = tmp_path / "incomplete"
        shutil.copytree(checkpoint, folder)
        weights = load_file(folder / "model.safetensors")
        del weights["model.layers.1.mlp.up_proj.weight"]
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        code, _, err = run("generate", "Hello", "--model", str(folder))
        assert code == 2
        assert "its weights lack model.layers.1.mlp.up_proj.weight" in err

    def test_for_broken_weights(self, run, checkpoint, tmp_path):
        folder = tmp_path / "broken"
        shutil.copytree(checkpoint, folder)
        (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
        code, _, err = run("generate", "Hello", "--model", str(folder))
        assert code == 2
        assert "cannot load" in err

    def test_for_a_package_that_loading_needs(self, run, checkpoint, tmp_path):
        folder = tmp_path / "quantised"
        shutil.copytree(checkpoint, folder)
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
        (folder / "config.json").write_text(json.dumps(config))
        code, _, err = run("generate", "Hello", "--model", str(folder))
        assert code == 2
        assert "cannot load" in err
        assert "bitsandbytes" in err

    def test_for_a_checkpoint_without_a_tokenizer(self, run, checkpoint, tmp_path):
        folder = tmp_path / "wordless"
        shutil.copytree(checkpoint, folder)
        for file in folder.glob("token*"):
            file.unlink()
        code, _, err = run("generate", "Hello", "--model", str(folder))
        assert code == 2
        assert "cannot load the tokenizer of" in err
        assert err.count("\n") == 1
        assert not err.rstrip().endswith((":", ",", " or"))

    def test_for_more_memory_than_there_is(self, capsys, monkeypatch, checkpoint):
        from mistral_ext.cli import loading, main

        monkeypatch.setattr(loading, "load_model", lambda *_: torch.empty(2**58))
        assert main(["bench", "--model", checkpoint]) == 2
        self.check(capsys.readouterr(), "not enough memory: ")


def test_an_error_after_the_prompt_has_a_line_of_its_own(run, checkpoint, monkeypatch):
    def refuse(*arguments, **keywords):
        raise ValueError("generate: this must work, got an error")

    monkeypatch.setattr(mistral_ext.MistralForCausalLM, "generate", refuse)
    code, out, err = run("generate", "Hello", "--model", checkpoint)
    assert code == 2
    assert out == "Hello\n"
    assert err == "mistral-ext: error: generate: this must work, got an error\n"


def test_a_seed_that_greedy_decoding_ignores_is_said_to_be_ignored(run, checkpoint):
    code, _, err = run("generate", "Hello", "--model", checkpoint, *GREEDY, "--seed", "3")
    assert code == 0
    assert "--seed is not used, since --greedy draws nothing" in err
    assert generated(run, "Hello", "--model", checkpoint, *GREEDY, "--seed", "3")["seed"] is None


def test_ctrl_c_ends_it_with_its_own_exit_code(capsys, monkeypatch, checkpoint):
    from mistral_ext.cli import loading, main

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(loading, "load_model", interrupt)
    assert main(["generate", "Hello", "--model", checkpoint]) == 130


def test_help_and_version_print_and_leave(capsys):
    from mistral_ext import __version__
    from mistral_ext.cli import main

    for option in ("--help", "--version"):
        with pytest.raises(SystemExit) as exit_code:
            main([option])
        assert exit_code.value.code == 0
    assert __version__ in capsys.readouterr().out
