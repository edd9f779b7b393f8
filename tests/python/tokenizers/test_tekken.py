"""Tekken tokenizers against mistral-common's, which encode with tiktoken."""

import time

import pytest
from helpers.mistral_files import TEKKEN
from helpers.multilingual import long_lines, multilingual_lines, scripts
from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from mistral_ext import _C


@pytest.fixture(scope="module", params=TEKKEN)
def pair(request):
    file = TEKKEN[request.param]
    return _C.load_tekken(file), Tekkenizer.from_file(file)


def text_only(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False, parse_special_tokens=False)


def test_ids_and_text_are_mistral_commons_on_many_scripts(pair):
    tokenizer, oracle = pair
    lines = multilingual_lines()
    assert len(scripts(lines)) >= 20
    start = time.perf_counter()
    expected = [oracle.encode(line, bos=False, eos=False) for line in lines]
    middle = time.perf_counter()
    got = [text_only(tokenizer, line) for line in lines]
    end = time.perf_counter()
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in got]
    different = [i for i, ids in enumerate(got) if ids != expected[i]]
    changed = [i for i, text in enumerate(texts) if text != oracle.decode(expected[i])]
    print(f"{len(lines)} lines, {len(different)} ids and {len(changed)} texts differ;", end=" ")
    print(f"{len(lines) / (end - middle):.0f} lines/s, x{(middle - start) / (end - middle):.2f}")
    assert not different, lines[different[0]]
    assert not changed, lines[changed[0]]


def test_long_lines_are_encoded_as_mistral_common_does(pair):
    tokenizer, oracle = pair
    for line in long_lines(20_000):
        assert text_only(tokenizer, line) == oracle.encode(line, bos=False, eos=False), line[:20]


def test_bos_goes_before_a_text_and_special_tokens_are_found(pair):
    tokenizer, oracle = pair
    assert tokenizer.encode("Hi") == oracle.encode("Hi", bos=True, eos=False)
    ids = tokenizer.encode("[INST]a[/INST]b</s><SPECIAL_999>", add_special_tokens=False)
    assert ids == [
        oracle.get_special_token("[INST]"),
        *oracle.encode("a", bos=False, eos=False),
        oracle.get_special_token("[/INST]"),
        *oracle.encode("b", bos=False, eos=True),
        999,
    ]
    assert tokenizer.decode(ids) == oracle.decode(ids, SpecialTokenPolicy.KEEP)
    assert all(i >= 1000 for i in text_only(tokenizer, "[INST]a[/INST]b</s><SPECIAL_999>"))


def test_the_vocabulary_is_mistral_commons(pair):
    tokenizer, oracle = pair
    assert tokenizer.vocab_size == oracle.n_words
    assert tokenizer.bos_token_id == oracle.bos_id
    assert tokenizer.eos_token_id == oracle.eos_id
    assert [tokenizer.id_to_token(i) for i in range(oracle.n_words)] == oracle.vocab()
    for i in range(0, oracle.n_words, 7):
        token = oracle.id_to_byte_piece(i, SpecialTokenPolicy.KEEP)
        assert tokenizer.token_to_id(token) == i
        assert tokenizer.is_special(i) == oracle.is_special(i)
    assert tokenizer.token_to_id("no such token") is None


def test_an_id_out_of_range_is_refused(pair):
    tokenizer, _ = pair
    with pytest.raises(ValueError, match="decode: ids must not be negative, got -1"):
        tokenizer.decode([-1])
    for i in (-1, tokenizer.vocab_size, 2**62):
        with pytest.raises(ValueError, match="id_to_token: id must be from 0 to "):
            tokenizer.id_to_token(i)


def test_a_text_that_is_no_utf8_is_refused_with_its_place(pair):
    with pytest.raises(ValueError, match="encode: text must be UTF-8, got the byte 0xA0 at 1 "):
        pair[0].encode(b"a\xa0")
