"""mistral_ext_generate where something is wrong: one line that names it, and an exit code."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers.programs import assert_one_line, environment, program


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--temperature", "nan"), "--temperature: must be a number from 1e-6 to 1e6, got 'nan'"),
        (("--temperature", "-1"), "--temperature: must be a number from 1e-6 to 1e6, got '-1'"),
        (("--temperature", "1e-44"), "must be a number from 1e-6 to 1e6, got '1e-44'"),
        (("--top-p", "1.5"), "--top-p: must be a number in (0, 1], got '1.5'"),
        (("--top-p", "0"), "--top-p: must be a number in (0, 1], got '0'"),
        (("--min-p", "-0.1"), "--min-p: must be a number in [0, 1], got '-0.1'"),
        (("--top-k", "-3"), "--top-k: must be an integer from 0 to 2147483647, got '-3'"),
        (("--max-new-tokens", "-1"), "--max-new-tokens: must be an integer from 1 to"),
        (("--max-new-tokens", "many"), "--max-new-tokens: must be an integer from 1 to"),
        (("--max-new-tokens", "9" * 30), "--max-new-tokens: must be an integer from 1 to"),
        (("--max-new-tokens", "1e3"), "--max-new-tokens: must be an integer from 1 to"),
        (("--num-beams", "0"), "--num-beams: must be an integer from 1 to"),
        (("--repetition-penalty", "0"), "must be a number from 1e-6 to 1e6, got '0'"),
        (("--threads", "0"), "--threads: must be an integer from 1 to 1024, got '0'"),
        (("--seed", "-1"), "--seed: must be an integer from 0 to 9223372036854775807, got '-1'"),
        (("--seed", str(2**63)), "--seed: must be an integer from 0 to 9223372036854775807"),
        (("--dtype", "int8"), "--dtype: must be auto, float32, bfloat16 or float16, got 'int8'"),
        (("--device", "abacus"), "--device: cannot use abacus: "),
        (("--device", "meta"), "--device: cannot use meta: its tensors hold no numbers"),
        (("--greedy", "--top-k", "3"), "--greedy excludes --top-k"),
        (("--no-such-option",), "--no-such-option"),
        (("--temperature",), "--temperature"),
        (("--chat",), "--chat"),
    ],
)
def test_a_wrong_option_ends_it_with_2(arguments, message, generate, checkpoint):
    assert_one_line(generate(checkpoint, "--ids", "5,6", *arguments), 2, message)


@pytest.mark.parametrize("ids", ["1,x", "1.5", "0x10", "9" * 30, "1-2", "", " , "])
def test_ids_that_are_no_numbers_end_it_with_2(ids, generate, checkpoint):
    assert_one_line(generate(checkpoint, "--ids", ids), 2, "--ids: must be ")


@pytest.mark.parametrize("ids", ["5,-4", "5,259", "9223372036854775807"])
def test_ids_beyond_the_vocabulary_end_it_with_1(ids, generate, checkpoint):
    assert_one_line(generate(checkpoint, "--ids", ids), 1, "input_ids must be in [0, 259), got ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "model is required"),
        (("FOLDER",), "prompt is required, or --prompt-file, or --ids"),
        (("FOLDER", "text", "--ids", "1"), "prompt excludes --ids"),
        (("FOLDER", "text", "more"), "more"),
        (("FOLDER", "text", "--chat", "--template", "v9"), "--template must be v1, v2, v3"),
        (("FOLDER", "text", "--template", "v3"), "--template requires --chat"),
    ],
)
def test_arguments_that_do_not_fit_end_it_with_2(arguments, message, generate, checkpoint):
    arguments = [checkpoint if argument == "FOLDER" else argument for argument in arguments]
    assert_one_line(generate(*arguments), 2, message)


def test_a_folder_that_is_not_there_ends_it_with_1(generate, tmp_path):
    done = generate(str(tmp_path / "none"), "Hello")
    assert_one_line(done, 1, f"there is no folder {tmp_path}/none")


def test_a_file_in_the_place_of_the_folder_ends_it_with_1(generate, checkpoint):
    done = generate(f"{checkpoint}/config.json", "Hello")
    assert_one_line(done, 1, "there is no folder ")


def test_a_folder_without_a_model_ends_it_with_1(generate, tmp_path):
    assert_one_line(generate(str(tmp_path), "--ids", "1"), 1, "config.json")


def test_another_architecture_ends_it_with_1(generate, edited):
    folder = edited("config.json", model_type="gpt2")
    done = generate(folder, "--ids", "5")
    assert_one_line(done, 1, "model_type must be mistral, ministral or ministral3, got gpt2")


def test_what_generate_does_not_do_ends_it_with_1(generate, edited):
    folder = edited("generation_config.json", guidance_scale=2.0)
    assert_one_line(generate(folder, "--ids", "5"), 1, "guidance_scale must be off")


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ({"temperature": 0.0}, ("--seed", "1"), "temperature must be positive and finite, got 0"),
        ({"repetition_penalty": 0.0}, (), "repetition_penalty must be positive"),
        ({"num_beams": 0}, (), "num_beams must be positive, got 0"),
    ],
)
def test_a_setting_that_cannot_work_ends_it_before_the_prompt_is_written(
    values, options, message, generate, edited
):
    folder = edited("generation_config.json", **values)
    assert_one_line(generate(folder, "Hello", *options), 1, message)


def test_a_folder_whose_name_json_cannot_hold_ends_it_before_anything_is_made(
    generate, checkpoint, tmp_path
):
    folder = tmp_path / os.fsdecode(b"\xff")
    shutil.copytree(checkpoint, folder)
    (folder / "model.safetensors").write_bytes(b"never read")
    done = generate(bytes(folder), "Hello", "--json")
    assert_one_line(done, 1, "--json: model: strings must be UTF-8")


@pytest.mark.parametrize("bytes_left", [0, 7, 8, 100, -1])
def test_cut_weights_end_it_with_1(bytes_left, generate, checkpoint, tmp_path):
    folder = tmp_path / "cut"
    shutil.copytree(checkpoint, folder)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:bytes_left])
    assert_one_line(generate(str(folder), "--ids", "5"), 1, "model.safetensors")


def test_a_prompt_file_that_cannot_be_read_ends_it_with_1(generate, checkpoint, tmp_path):
    for path in (tmp_path / "none", tmp_path):
        done = generate(checkpoint, "--prompt-file", str(path))
        assert_one_line(done, 1, f"--prompt-file: cannot read {path}")


def test_a_sequence_beyond_max_position_embeddings_is_told_of(generate, edited):
    folder = edited("config.json", max_position_embeddings=8)
    done = generate(folder, "--ids", "5,6,7,8,9,10,11,12,13", "--max-new-tokens", "4")
    assert done.code == 0
    assert len(done.out.split()) == 4
    assert done.err.count("\n") == 1
    assert "more than the model's max_position_embeddings" in done.err


def test_a_full_standard_output_ends_it_with_1(checkpoint):
    command = [program("mistral_ext_generate"), checkpoint, "--ids", "5"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, env=environment(), check=False
        )
    assert done.returncode == 1
    expected = "mistral_ext_generate: error: cannot write to standard output\n"
    assert done.stderr.decode() == expected


def test_ctrl_c_ends_it_between_two_tokens_with_130(checkpoint):
    command = [program("mistral_ext_generate"), checkpoint, "--ids", "5"]
    running = subprocess.Popen(
        [*command, "--max-new-tokens", "1000000", "--seed", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert running.stdout.read(1)  # the first token has come
    time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert out.endswith(b"\n")
    assert b"error" not in err


def test_help_and_version_print_and_leave(generate, bench):
    import mistral_ext

    for run in (generate, bench):
        assert run("--version") == (0, mistral_ext.__version__ + "\n", "")
        code, out, err = run("--help")
        assert (code, err) == (0, "")
        assert "--device" in out
