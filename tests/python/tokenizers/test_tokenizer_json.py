"""tokenizer.json against Hugging Face's tokenizers, on real models' files."""

import json
import random
import time

import pytest
from helpers.mistral_files import SENTENCEPIECE, TEKKEN
from helpers.multilingual import long_lines, multilingual_lines, scripts
from helpers.tokenizer_json import REAL, ours, real
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from mistral_ext import _C


@pytest.fixture(scope="module", params=REAL)
def pair(request, tmp_path_factory):
    oracle = real(request.param)
    return ours(oracle, tmp_path_factory.mktemp("tokenizer")), oracle


def ids_differ(tokenizer, oracle: Tokenizer, lines, **options) -> list[str]:
    return [
        line
        for line in lines
        if tokenizer.encode(line, **options) != oracle.encode(line, **options).ids
    ]


def test_ids_and_texts_are_the_oracles_on_many_scripts(pair):
    tokenizer, oracle = pair
    lines = multilingual_lines()
    assert len(lines) >= 10_000
    assert len(scripts(lines)) >= 20
    start = time.perf_counter()
    expected = [oracle.encode(line).ids for line in lines]
    middle = time.perf_counter()
    got = [tokenizer.encode(line) for line in lines]
    end = time.perf_counter()
    different = [i for i, ids in enumerate(got) if ids != expected[i]]
    changed = [
        (skip, i)
        for skip in (False, True)
        for i, ids in enumerate(expected)
        if tokenizer.decode(ids, skip) != oracle.decode(ids, skip_special_tokens=skip)
    ]
    print(f"{len(lines)} lines, {len(different)} ids and {len(changed)} texts differ;", end=" ")
    print(f"{len(lines) / (end - middle):.0f} lines/s, x{(middle - start) / (end - middle):.2f}")
    assert not different, lines[different[0]]
    assert not changed, (changed[0], lines[changed[0][1]])


def test_ids_are_the_oracles_without_special_tokens(pair):
    tokenizer, oracle = pair
    lines = multilingual_lines()[:3000]
    assert not ids_differ(tokenizer, oracle, lines, add_special_tokens=False)


def test_special_tokens_can_be_text_like_any_other(pair):
    tokenizer, oracle = pair
    plain = Tokenizer.from_str(oracle.to_str())
    plain.encode_special_tokens = True
    for line in multilingual_lines()[:2000]:
        ids = tokenizer.encode(line, parse_special_tokens=False)
        assert ids == plain.encode(line).ids, line


def test_long_lines_are_the_oracles(pair):
    tokenizer, oracle = pair
    for line in long_lines(100_000):
        ids = oracle.encode(line).ids
        assert tokenizer.encode(line) == ids, line[:20]
        assert tokenizer.decode(ids) == oracle.decode(ids, skip_special_tokens=False), line[:20]


def test_a_line_of_a_million_letters_is_encoded(tmp_path):
    oracle = real("v1")
    line = "a" * 1_000_000
    assert ours(oracle, tmp_path).encode(line) == oracle.encode(line).ids


def test_any_ids_are_decoded_as_the_oracle_does_all_at_once_and_one_by_one(pair):
    tokenizer, oracle = pair
    source = random.Random(3)
    vocabulary = oracle.get_vocab_size()
    assert tokenizer.vocab_size == vocabulary
    for _ in range(2000):
        # Of all tokens, and of the first, among which are bytes and special ones.
        below = source.choice([300, 1500, vocabulary])
        ids = [source.randrange(below) for _ in range(source.randint(0, 20))]
        for skip in (False, True):
            expected = oracle.decode(ids, skip_special_tokens=skip)
            assert tokenizer.decode(ids, skip) == expected, ids
        stream = tokenizer.text_stream()
        parts = [stream.put(i) for i in ids] + [stream.finish()]
        assert "".join(parts) == oracle.decode(ids, skip_special_tokens=False), ids


def test_tokens_and_ids_are_the_oracles(pair):
    tokenizer, oracle = pair
    vocabulary = oracle.get_vocab()
    assert all(tokenizer.token_to_id(token) == i for token, i in vocabulary.items())
    assert all(tokenizer.id_to_token(i) == token for token, i in vocabulary.items())
    special = {i for i, token in oracle.get_added_tokens_decoder().items() if token.special}
    assert {i for i in range(len(vocabulary)) if tokenizer.is_special(i)} == special
    assert tokenizer.token_to_id("no such token") is None


BAD_UTF8 = {
    "a lone surrogate": (b"ab\xed\xa0\x80", 2),
    "a surrogate pair": (b"\xed\xa0\xbd\xed\xb8\x80", 0),
    "an overlong form": (b"abc\xc0\xaf", 3),
    "a long overlong form": (b"\xe0\x80\xaf", 0),
    "a character cut off": ("é".encode() + b"\xe6\xbc", 2),
    "a stray byte": (b"a\x80", 1),
    "beyond Unicode": (b"\xf4\x90\x80\x80", 0),
    "no lead": (b"x\xff", 1),
}


@pytest.mark.parametrize("text", BAD_UTF8)
def test_text_that_is_no_utf8_is_refused_with_its_byte(pair, text):
    tokenizer, _ = pair
    data, byte = BAD_UTF8[text]
    with pytest.raises(ValueError, match=rf"0x{data[byte]:02X} at {byte} "):
        tokenizer.encode(data)


def test_ids_of_no_token_decode_to_nothing_and_negative_ones_are_refused(pair):
    tokenizer, oracle = pair
    for id_ in (tokenizer.vocab_size, 2**31):
        assert tokenizer.decode([1, id_]) == oracle.decode([1, id_], skip_special_tokens=False)
        assert tokenizer.decode([id_]) == ""
    with pytest.raises(ValueError, match="decode: ids must not be negative, got -1"):
        tokenizer.decode([1, -1])
    with pytest.raises(ValueError, match="id must be that of a token"):
        tokenizer.id_to_token(tokenizer.vocab_size)


def test_the_folder_names_the_first_and_the_last_token(tmp_path):
    oracle = real("v1")
    assert ours(oracle, tmp_path).bos_token_id is None
    (tmp_path / "generation_config.json").write_text('{"bos_token_id": 1, "eos_token_id": [2, 0]}')
    tokenizer = _C.load_tokenizer(tmp_path)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": {"content": "<unk>"}}')
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": null}')
    tokenizer = _C.load_tokenizer(tmp_path)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (None, 0)
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "no such token"}')
    tokenizer = _C.load_tokenizer(tmp_path)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (None, 0)
    assert tokenizer.encode("Hello") == oracle.encode("Hello").ids


def settings(folder, **values) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(values))


def test_a_folder_of_mistral_7bs_kind_is_read_as_its_tokenizer_json_is_written(tmp_path):
    """transformers 5 makes such a tokenizer anew, with a Metaspace, and gives other ids for what
    begins with a space; the file itself gives SentencePiece's, which the model was trained on."""
    oracle = real("v1")
    settings(tmp_path, tokenizer_class="LlamaTokenizer", legacy=True, bos_token="<s>")
    tokenizer = ours(oracle, tmp_path)
    sentencepiece = SentencePieceProcessor(model_file=str(SENTENCEPIECE["v1"]))
    special = ("<s>", "</s>", "<unk>")
    lines = [line for line in multilingual_lines() if not any(name in line for name in special)]
    lines += [" " + line for line in lines[:500]] + ["  two", " ", "   "]
    for line in lines:
        ids = tokenizer.encode(line)
        assert ids == oracle.encode(line).ids, line
        assert ids == [1, *sentencepiece.encode(line)], line


@pytest.mark.parametrize("name", ["v1", "v3 metaspace"])
def test_a_space_that_the_settings_deny_is_refused_where_transformers_denies_it(name, tmp_path):
    oracle = real(name)
    for tokenizer_class in ("PreTrainedTokenizerFast", "TokenizersBackend"):
        settings(tmp_path, add_prefix_space=False, tokenizer_class=tokenizer_class)
        tokenizer = ours(oracle, tmp_path)
        assert tokenizer.encode("Hello") == oracle.encode("Hello").ids
        theirs = AutoTokenizer.from_pretrained(tmp_path)("Hello").input_ids
        assert tokenizer.encode("Hello") == theirs
    settings(tmp_path, add_prefix_space=True, tokenizer_class="LlamaTokenizer")
    assert ours(oracle, tmp_path).encode("Hello") == oracle.encode("Hello").ids
    settings(tmp_path, add_prefix_space=False, tokenizer_class="LlamaTokenizer")
    assert AutoTokenizer.from_pretrained(tmp_path)("Hello").input_ids != oracle.encode("Hello").ids
    with pytest.raises(ValueError, match=r"tokenizer_config.json: add_prefix_space must be true"):
        ours(oracle, tmp_path)


def test_a_space_that_nobody_puts_may_be_denied(tmp_path):
    settings(tmp_path, add_prefix_space=False, tokenizer_class="GPT2Tokenizer")
    oracle = real("smollm2")
    assert ours(oracle, tmp_path).encode("Hello") == oracle.encode("Hello").ids


def test_tokens_that_only_the_settings_have_are_added(tmp_path):
    oracle = real("v1")
    more = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    decoder = {
        # In numerical order, and the first as tokenizer.json has it.
        "32001": {"content": "<|b|>", "special": True, **more},
        "32000": {"content": "<|a|>", "special": True, **more},
        "2": {"content": "</s>", "special": True, **more},
        "9999": {"content": oracle.id_to_token(9999), "special": False, **more},
    }
    common = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|b|>"}
    settings(tmp_path, added_tokens_decoder=decoder, **common)
    tokenizer = ours(oracle, tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("x<|a|>y<|b|>", "<|b|><|a|> </s>", f"x{oracle.id_to_token(9999)}y"):
        assert tokenizer.encode(text) == theirs(text).input_ids
    assert (tokenizer.eos_token_id, tokenizer.vocab_size) == (32001, 32002)
    for wrong, message in (
        ({"7": decoder["2"]}, 'the id of "</s>" must be that of tokenizer.json, 2, got 7'),
        ({"32007": decoder["32000"]}, "id must be the next one, 32000"),
        ({"a": decoder["2"]}, "added_tokens_decoder must hold tokens by id, got a"),
        ({"32000": "<|a|>"}, "added_tokens_decoder must hold tokens by id, got 32000"),
        ({"32000": {"content": "<|a|>"}}, "single_word must be given"),
    ):
        settings(tmp_path, added_tokens_decoder=wrong)
        with pytest.raises(ValueError, match=message):
            ours(oracle, tmp_path)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must have tokenizer\.json, tekken\.json"):
        _C.load_tokenizer(tmp_path)


def test_a_folder_with_mistrals_own_file_is_loaded(tmp_path):
    (tmp_path / "tokenizer.model.v1").symlink_to(SENTENCEPIECE["v1"])
    (tmp_path / "tokenizer.model.v3").symlink_to(SENTENCEPIECE["v3"])
    assert _C.load_tokenizer(tmp_path).vocab_size == 32768
    (tmp_path / "tekken.json").symlink_to(TEKKEN["v3"])
    assert _C.load_tokenizer(tmp_path).vocab_size == 131072
