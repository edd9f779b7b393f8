"""mistral_ext_generate with text: what it reads, writes and refuses."""

import os
import shutil
import subprocess
from itertools import takewhile

import pytest
import torch
import transformers
from helpers import smollm2
from helpers.checkpoint import byte_tokenizer
from helpers.mistral_files import SENTENCEPIECE, TEKKEN
from helpers.models import small_model
from helpers.programs import assert_one_line, environment, program
from mistral_common.protocol.instruct.messages import UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

import mistral_ext
from benchmarks import mistral_format

TEXT = "déjà vu, 日本 🙂\n  two  spaces"


@pytest.fixture(scope="module")
def tokenizer(checkpoint):
    return transformers.AutoTokenizer.from_pretrained(checkpoint)


def test_prompt_and_text_are_pythons(generated, checkpoint, tokenizer):
    run = generated(checkpoint, TEXT, "--max-new-tokens", "40")
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    assert run["prompt"] == TEXT
    assert run["prompt_ids"] == ids[0].tolist()
    model = mistral_ext.MistralForCausalLM.from_pretrained(checkpoint)
    expected = model.generate(ids, max_new_tokens=40, do_sample=False)[0, ids.shape[1] :]
    assert run["tokens"] == expected.tolist()
    assert run["text"] == tokenizer.decode(expected, skip_special_tokens=True)


def test_prompt_comes_from_an_argument_a_file_or_standard_input(generate, checkpoint, tmp_path):
    (tmp_path / "prompt").write_text(TEXT)
    options = (checkpoint, "--max-new-tokens", "5")
    expected = generate(*options, TEXT)
    assert expected.code == 0
    assert expected.out.startswith(TEXT)
    assert generate(*options, "-", stdin=TEXT.encode()) == expected
    assert generate(*options, "--prompt-file", str(tmp_path / "prompt")) == expected


def test_no_character_is_written_in_parts(checkpoint):
    """Each token of this model is a byte; whatever is read at once must be whole characters."""
    command = [program("mistral_ext_generate"), checkpoint, "é", "--max-new-tokens", "300"]
    reading, writing = os.pipe()
    running = subprocess.Popen([*command, "--seed", "4"], stdout=writing, env=environment())
    os.close(writing)
    pieces = []
    while piece := os.read(reading, 1 << 16):
        pieces.append(piece)
    os.close(reading)
    assert running.wait() == 0
    assert len(pieces) > 1
    for piece in pieces:
        piece.decode()  # raises where a character is cut


HELD = {
    "all": [{"type": "Fuse"}, {"type": "Replace", "pattern": {"Regex": "X"}, "content": "Y"}],
    "as it may be the beginning of a match": [
        {"type": "ByteLevel"},
        {"type": "Replace", "pattern": {"String": TEXT[-6:] + "X"}, "content": "Y"},
    ],
    "all, changed later": [
        {"type": "ByteLevel"},
        {"type": "Replace", "pattern": {"Regex": "spaces(?=.)"}, "content": "日"},
    ],
}


@pytest.mark.parametrize("held", HELD)
def test_a_prompt_whose_text_is_held_is_written_once(held, edited, generate, generated):
    folder = edited("tokenizer.json", decoder={"type": "Sequence", "decoders": HELD[held]})
    options = (folder, TEXT, "--max-new-tokens", "40", "--seed", "3")
    run = generated(*options)
    whole = mistral_ext._C.load_tokenizer(folder)
    prompt, both = (
        whole.decode(ids, skip_special_tokens=True)
        for ids in (run["prompt_ids"], run["prompt_ids"] + run["tokens"])
    )
    same = takewhile(lambda pair: pair[0] == pair[1], zip(prompt, both, strict=False))
    new = both[len(list(same)) :]
    assert (run["prompt"], run["text"]) == (TEXT, new)
    assert len(new) > 10
    assert generate(*options).out == TEXT + new + "\n"


def test_the_real_model_writes_its_prompt_once_and_each_token_as_it_comes(generated):
    """Its decoder fuses all tokens before it maps them to bytes."""
    folder = str(smollm2.folder())
    prompt = "Once upon a time, in a café"
    options = (folder, prompt, "--max-new-tokens", "24")
    run = generated(*options)
    tokenizer = smollm2.tokenizer()
    text = tokenizer.decode(run["tokens"], skip_special_tokens=True)
    assert (run["prompt"], run["text"]) == (prompt, text)
    running = subprocess.Popen(
        [program("mistral_ext_generate"), *options], stdout=subprocess.PIPE, env=environment()
    )
    pieces = list(iter(lambda: os.read(running.stdout.fileno(), 1 << 16), b""))
    assert running.wait() == 0
    assert b"".join(pieces).decode() == prompt + text + "\n"
    # The prompt, then tokens: were they held, one read would give them all.
    assert len(pieces) > 5


def test_special_tokens_in_a_prompt_are_special(generated, checkpoint, tokenizer):
    run = generated(checkpoint, "a<s>b", "--max-new-tokens", "1")
    assert run["prompt_ids"] == tokenizer("a<s>b").input_ids
    assert tokenizer.bos_token_id in run["prompt_ids"]


def test_text_that_is_no_utf8_ends_it_with_1(generate, checkpoint, tmp_path):
    bad = b"abc\xff\xfe"
    (tmp_path / "prompt").write_bytes(bad)
    for arguments, stdin in ((("-",), bad), (("--prompt-file", str(tmp_path / "prompt")), b"")):
        done = generate(checkpoint, *arguments, stdin=stdin)
        assert_one_line(done, 1, "UTF-8")
    assert_one_line(generate(checkpoint, b"abc\xed\xa0\x80"), 1, "UTF-8")


@pytest.mark.parametrize("arguments", [("",), ("-",)])
def test_an_empty_prompt_ends_it_with_1(arguments, generate, checkpoint):
    done = generate(checkpoint, *arguments)
    assert_one_line(done, 1, "prompt must have at least one token, got an empty text")


def test_a_folder_without_a_tokenizer_ends_it_with_1(generate, without_tokenizer):
    assert_one_line(generate(without_tokenizer, "Hello"), 1, without_tokenizer)


def test_a_broken_tokenizer_ends_it_with_1(generate, checkpoint, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(checkpoint, folder)
    content = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(content[: len(content) // 2])
    assert_one_line(generate(str(folder), "Hello"), 1, "tokenizer.json")


class TestChat:
    @pytest.fixture
    def model(self, tmp_path_factory):
        """A model for each of Mistral's vocabularies."""

        def make(vocab_size: int) -> str:
            folder = tmp_path_factory.mktemp("chat")
            model = small_model(vocab_size=vocab_size, hidden_size=16, intermediate_size=16)
            model.save_pretrained(folder)
            return str(folder)

        return make

    @pytest.mark.parametrize(
        ("files", "newest"),
        [
            ({"tokenizer.model": SENTENCEPIECE["v1"]}, "v1"),
            (
                {"tokenizer.model": SENTENCEPIECE["v1"], "tokenizer.model.v3": SENTENCEPIECE["v3"]},
                "v3",
            ),
        ],
    )
    def test_prompt_is_mistral_commons(self, files, newest, model, generated):
        folder = model(32768)
        for name, file in files.items():
            shutil.copy(file, f"{folder}/{name}")
        run = generated(folder, "Who are [INST] you?", "--chat", "--max-new-tokens", "1")
        assert run["prompt_ids"] == self.expected(SENTENCEPIECE[newest], "Who are [INST] you?")

    def test_tekken_says_its_version_and_an_option_overrides_it(self, model, generated):
        folder = model(131072)
        shutil.copy(TEKKEN["v3"], f"{folder}/tekken.json")
        options = (folder, "Qui êtes-vous ?", "--chat", "--max-new-tokens", "1")
        expected = self.expected(TEKKEN["v3"], "Qui êtes-vous ?")
        assert generated(*options)["prompt_ids"] == expected
        assert generated(*options, "--template", "v3")["prompt_ids"] == expected

    def test_the_answer_is_written_alone(self, model, generate, generated):
        folder = model(32768)
        shutil.copy(SENTENCEPIECE["v3"], f"{folder}/tokenizer.model.v3")
        options = (folder, "Who are you?", "--chat", "--max-new-tokens", "8")
        done = generate(*options)
        assert done.code == 0
        assert done.out == generated(*options)["text"] + "\n"

    def test_a_folder_that_names_no_template_needs_one_named(self, generate, checkpoint):
        assert_one_line(generate(checkpoint, "Hello", "--chat"), 2, "name it with --template")

    def expected(self, file, content: str) -> list[int]:
        request = ChatCompletionRequest(messages=[UserMessage(content=content)])
        return MistralTokenizer.from_file(str(file)).encode_chat_completion(request).tokens


def test_a_vocabulary_with_more_ids_than_the_tokenizer_has_is_no_hindrance(tmp_path, generated):
    """Those ids are nothing in the text, as in Hugging Face."""
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    model = small_model(vocab_size=len(tokenizer) + 1000)
    model.generation_config.eos_token_id = None
    model.save_pretrained(tmp_path)
    run = generated(str(tmp_path), "Hello", "--max-new-tokens", "40", "--seed", "1")
    assert any(token >= len(tokenizer) for token in run["tokens"])
    assert len(run["tokens"]) == 40
    assert run["text"] == tokenizer.decode(run["tokens"], skip_special_tokens=True)


@pytest.mark.parametrize("has_tokenizer", [True, False])
def test_text_of_a_model_in_mistrals_own_format_ends_at_the_tokenizers_end(
    has_tokenizer, tmp_path, generated
):
    model = small_model(vocab_size=32768, tie_word_embeddings=False, num_hidden_layers=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(0 if "proj" in name or "lm_head" in name else 1)
        model.lm_head.weight[2] = 1  # whatever comes, </s> comes next
    mistral_format.save(model, tmp_path)
    if has_tokenizer:
        shutil.copy(SENTENCEPIECE["v3"], tmp_path / "tokenizer.model.v3")
    run = generated(str(tmp_path), "--ids", "1,5", "--max-new-tokens", "6")
    assert run["tokens"] == ([2] if has_tokenizer else [2] * 6)


def test_the_first_space_of_sentencepiece_is_kept(tmp_path, generated):
    """Decoded alone the new tokens would lose it."""
    folder = str(tmp_path)
    model = small_model(vocab_size=32768, hidden_size=16, intermediate_size=16)
    model.save_pretrained(folder)
    shutil.copy(SENTENCEPIECE["v3"], f"{folder}/tokenizer.model.v3")
    run = generated(folder, "Once upon", "--max-new-tokens", "12", "--seed", "1")
    whole = mistral_ext._C.load_sentencepiece(SENTENCEPIECE["v3"])
    both = whole.decode(run["prompt_ids"] + run["tokens"], skip_special_tokens=True)
    assert run["prompt"] + run["text"] == both
