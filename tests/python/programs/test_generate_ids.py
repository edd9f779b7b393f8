"""mistral_ext_generate with token ids: the tokens are Python's."""

import pytest
import torch
import transformers

import mistral_ext

IDS = [5, 17, 40, 99, 12, 7]
TEXT_IDS = ",".join(map(str, IDS))


@pytest.fixture(scope="module")
def python_model(checkpoint):
    return mistral_ext.from_hf(transformers.AutoModelForCausalLM.from_pretrained(checkpoint))


@pytest.fixture
def expected(python_model, one_thread):
    """What Python's generate makes: new tokens."""

    def make(**options) -> list[int]:
        if "seed" in options:
            torch.manual_seed(options.pop("seed"))
        with mistral_ext.use_path("native"):
            sequences = python_model.generate(torch.tensor([IDS]), max_new_tokens=12, **options)
        return sequences[0, len(IDS) :].tolist()

    return make


@pytest.fixture
def tokens(generated, checkpoint):
    def make(*options: str) -> list[int]:
        return generated(checkpoint, "--ids", TEXT_IDS, "--max-new-tokens", "12", *options)[
            "tokens"
        ]

    return make


def test_greedy_tokens_are_pythons(tokens, expected):
    assert tokens() == expected(do_sample=False)
    assert tokens("--greedy") == expected(do_sample=False)


def test_a_prepacked_checkpoint_is_loaded_where_there_is_no_other(
    generated, python_model, expected, tmp_path
):
    python_model.save_prepacked(tmp_path)
    ids = ("--ids", TEXT_IDS, "--max-new-tokens", "12")
    result = generated(str(tmp_path), *ids)
    assert (result["tokens"], result["dtype"]) == (expected(do_sample=False), "float32")
    assert generated(str(tmp_path), *ids, "--dtype", "bfloat16")["dtype"] == "bfloat16"
    # A configuration beside it is no other checkpoint.
    python_model.config.save_pretrained(tmp_path)
    assert generated(str(tmp_path), *ids)["tokens"] == expected(do_sample=False)


@pytest.mark.parametrize(
    ("options", "keywords"),
    [
        (("--seed", "7"), {"seed": 7}),
        (("--seed", "0"), {"seed": 0}),
        (("--seed", str(2**53 + 1)), {"seed": 2**53 + 1}),
        (("--seed", "7", "--temperature", "1.7"), {"seed": 7, "temperature": 1.7}),
        (("--seed", "7", "--top-k", "5"), {"seed": 7, "top_k": 5}),
        (("--seed", "7", "--top-k", "0"), {"seed": 7, "top_k": 0}),
        (("--seed", "7", "--top-p", "0.6"), {"seed": 7, "top_p": 0.6}),
        (("--seed", "7", "--min-p", "0.3"), {"seed": 7, "min_p": 0.3}),
        (
            ("--seed", "7", "--temperature", "1.3", "--top-k", "40", "--top-p", "0.9"),
            {"seed": 7, "temperature": 1.3, "top_k": 40, "top_p": 0.9},
        ),
    ],
)
def test_a_seed_draws_what_it_draws_in_python(options, keywords, tokens, expected):
    assert tokens(*options) == expected(do_sample=True, **keywords)


def test_repetition_penalty_and_beams_are_pythons(tokens, expected):
    penalised = expected(do_sample=False, repetition_penalty=1.8)
    assert tokens("--repetition-penalty", "1.8") == penalised
    assert tokens("--num-beams", "3") == expected(do_sample=False, num_beams=3)
    seeded = expected(do_sample=True, num_beams=3, seed=3)
    assert tokens("--num-beams", "3", "--seed", "3") == seeded


def test_defaults_are_the_folders(generated, edited, expected):
    folder = edited("generation_config.json", do_sample=True, temperature=1.5, top_k=20)
    run = generated(folder, "--ids", TEXT_IDS, "--max-new-tokens", "12", "--seed", "5")
    assert run["tokens"] == expected(do_sample=True, temperature=1.5, top_k=20, seed=5)
    greedy = generated(folder, "--ids", TEXT_IDS, "--max-new-tokens", "12", "--greedy")
    assert greedy["tokens"] == expected(do_sample=False)
    assert "seed" not in greedy


def test_beams_are_the_folders_unless_an_option_says_otherwise(generated, edited, expected):
    said = {"num_beams": 3, "length_penalty": -2.0, "early_stopping": True}
    folder = edited("generation_config.json", **said)
    options = (folder, "--ids", TEXT_IDS, "--max-new-tokens", "12")
    assert generated(*options)["tokens"] == expected(do_sample=False, **said)
    five = expected(do_sample=False, **(said | {"num_beams": 5}))
    assert generated(*options, "--num-beams", "5")["tokens"] == five
    assert generated(*options, "--num-beams", "1")["tokens"] == expected(do_sample=False)


def test_sequence_bias_is_the_folders(generated, edited, expected):
    usual = expected(do_sample=False)
    bias = [[[usual[0]], -50.0], [[usual[2], usual[3]], -50.0]]
    biased = expected(do_sample=False, sequence_bias=bias)
    assert biased != usual
    for value in (bias, {str(tuple(tokens)): number for tokens, number in bias}):
        folder = edited("generation_config.json", sequence_bias=value)
        run = generated(folder, "--ids", TEXT_IDS, "--max-new-tokens", "12")
        assert run["tokens"] == biased


def test_an_end_of_sequence_token_ends_it(generated, edited, expected):
    whole = expected(do_sample=False)
    end = next(token for token in whole if whole.index(token) >= 3)
    folder = edited("generation_config.json", eos_token_id=end)
    assert generated(folder, "--ids", TEXT_IDS)["tokens"] == whole[: whole.index(end) + 1]


def test_without_a_seed_each_run_has_its_own_and_says_it(generated, checkpoint):
    options = (checkpoint, "--ids", TEXT_IDS, "--temperature", "1.5", "--max-new-tokens", "12")
    first, second = generated(*options), generated(*options)
    assert first["seed"] != second["seed"]
    assert first["tokens"] != second["tokens"]
    again = generated(*options, "--seed", str(first["seed"]))
    assert again["tokens"] == first["tokens"]


def test_ids_come_out_as_ids(generate, tokens, without_tokenizer):
    options = ("--ids", "5 17, 40 99,12  7", "--max-new-tokens", "12")
    done = generate(without_tokenizer, *options)
    assert (done.code, done.err) == (0, "")
    assert done.out == " ".join(map(str, tokens())) + "\n"


def test_dtype_and_threads_are_those_asked_for(generated, checkpoint):
    run = generated(
        checkpoint, "--ids", TEXT_IDS, "--dtype", "bfloat16", "--threads", "2", "--device", "cpu"
    )
    assert (run["dtype"], run["threads"], run["device"]) == ("bfloat16", 2, "cpu")
    assert len(run["tokens"]) == 128


def test_stats_are_a_line_on_stderr(generate, checkpoint):
    done = generate(checkpoint, "--ids", TEXT_IDS, "--stats")
    assert done.code == 0
    assert done.err.count("\n") == 1
    for part in ("loaded in", "6 prompt tokens in", "128 tokens at", "GB/s", "memory at the peak"):
        assert part in done.err


def test_json_says_what_ran_and_how_fast(generated, checkpoint):
    run = generated(checkpoint, "--ids", TEXT_IDS)
    assert run["model"] == checkpoint
    assert run["prompt_ids"] == IDS
    for name in ("load_seconds", "first_token_seconds", "step_seconds", "peak_memory_bytes"):
        assert run[name] > 0
