"""mistral_ext_bench."""

import json

import pytest
from helpers.programs import assert_one_line

QUICK = ("--repeats", "1", "--new-tokens", "4", "--device", "cpu")


def test_prints_a_row_for_each_batch_and_length_and_the_limits(bench, checkpoint):
    done = bench(checkpoint, "--prompt-tokens", "8,16", "--batch", "1,2", *QUICK)
    assert (done.code, done.err) == (0, "")
    header, *rows, caption = done.out.splitlines()
    assert header.split()[:2] == ["batch", "prompt"]
    assert [row.split()[:2] for row in rows] == [["1", "8"], ["1", "16"], ["2", "8"], ["2", "16"]]
    assert "GB/s read" in caption
    assert "GFLOP/s" in caption


def test_json_has_the_figures_the_limits_and_the_machine(bench, tmp_path):
    file = tmp_path / "figures.json"
    options = ("--prompt-tokens", "16", "--json", str(file), "--threads", "1")
    done = bench("--shape", "tiny", *options, *QUICK)
    assert (done.code, done.err) == (0, "")
    figures = json.loads(file.read_text())
    assert figures["model"] == "tiny"
    assert figures["dtype"] == "bfloat16"
    assert figures["machine"]["threads"] == 1
    assert figures["machine"]["cpu_level"]
    assert figures["read_bandwidth"] > 0
    assert figures["operations_per_second"] > 0
    # Two matrices of 1000 x 256, of which decoding reads the head, and two layers.
    layer = 2 * 256 + 256 * (256 + 2 * 128 + 256) + 3 * 256 * 512
    assert figures["weight_bytes"] == 2 * (1000 * 256 + 2 * layer + 256)
    (row,) = figures["cases"]
    bandwidth = figures["read_bandwidth"]
    cache = 2 * 2 * 2 * (16 + 2) * 128  # layers, keys and values, bytes, tokens, width
    limit = bandwidth / (figures["weight_bytes"] + cache)
    share = row["new_tokens_per_second"] / limit
    assert row["new_tokens_share_of_limit"] == pytest.approx(share)
    assert row["prompt_share_of_limit"] > 0


def test_json_alone_goes_to_standard_output(bench, checkpoint):
    done = bench(checkpoint, "--prompt-tokens", "8", "--json", "-", "--dtype", "float16", *QUICK)
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["dtype"] == "float16"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "model is required, or --shape"),
        (("--shape", "huge"), 2, "--shape: "),
        (("FOLDER", "--shape", "tiny"), 2, "excludes"),
        (("FOLDER", "--prompt-tokens", "0"), 2, "--prompt-tokens: must be an integer from 1 to"),
        (("FOLDER", "--batch", "1,-2"), 2, "--batch: must be an integer from 1 to"),
        (("FOLDER", "--repeats", "none"), 2, "--repeats: must be an integer from 1 to"),
        (("/none",), 1, "there is no folder /none"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, code, message, bench, checkpoint):
    arguments = [checkpoint if argument == "FOLDER" else argument for argument in arguments]
    assert_one_line(bench(*arguments), code, message)


def test_a_file_that_cannot_be_written_is_one_line(bench):
    done = bench("--shape", "tiny", "--json", "/none/figures.json", *QUICK)
    assert done.code == 1
    assert "/none/figures.json" in done.err
    assert done.err.count("\n") == 1
