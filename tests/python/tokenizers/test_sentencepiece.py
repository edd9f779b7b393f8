"""SentencePiece tokenizers against the sentencepiece package, another release of the library."""

import subprocess
import sys
import time

import pytest
from helpers.mistral_files import FOLDER, SENTENCEPIECE
from helpers.multilingual import long_lines, multilingual_lines, scripts
from sentencepiece import SentencePieceProcessor

from mistral_ext import _C


@pytest.fixture(scope="module", params=SENTENCEPIECE)
def pair(request):
    file = SENTENCEPIECE[request.param]
    return _C.load_sentencepiece(file), SentencePieceProcessor(model_file=str(file))


def text_only(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False, parse_special_tokens=False)


def test_ids_and_text_are_the_librarys_on_many_scripts(pair):
    tokenizer, oracle = pair
    lines = multilingual_lines()
    assert len(scripts(lines)) >= 20
    start = time.perf_counter()
    expected = [oracle.encode(line) for line in lines]
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


def test_long_lines_are_encoded_as_the_library_does(pair):
    tokenizer, oracle = pair
    for line in long_lines(20_000):
        assert text_only(tokenizer, line) == oracle.encode(line), line[:20]


def test_bos_goes_before_a_text_and_special_tokens_are_found(pair):
    tokenizer, oracle = pair
    assert tokenizer.encode("Hi") == [oracle.bos_id(), *oracle.encode("Hi")]
    ids = tokenizer.encode("a</s>b<s>", add_special_tokens=False)
    assert ids == [*oracle.encode("a"), oracle.eos_id(), *oracle.encode("b"), oracle.bos_id()]
    assert tokenizer.decode(ids) == "a</s>b<s>"
    assert oracle.eos_id() not in text_only(tokenizer, "a</s>b<s>")


def test_the_vocabulary_is_the_files(pair):
    tokenizer, oracle = pair
    assert tokenizer.vocab_size == oracle.vocab_size()
    assert tokenizer.bos_token_id == oracle.bos_id()
    assert tokenizer.eos_token_id == oracle.eos_id()
    for i in range(oracle.vocab_size()):
        piece = oracle.id_to_piece(i)
        assert tokenizer.id_to_token(i) == piece
        assert tokenizer.token_to_id(piece) == i
        assert tokenizer.is_special(i) == oracle.is_control(i)
    assert tokenizer.token_to_id("no such piece") is None


def test_an_id_out_of_range_is_refused(pair):
    tokenizer, _ = pair
    with pytest.raises(ValueError, match="decode: ids must not be negative, got -1"):
        tokenizer.decode([-1])
    for i in (-1, tokenizer.vocab_size, 2**62):
        with pytest.raises(ValueError, match="id_to_token: id must be from 0 to "):
            tokenizer.id_to_token(i)
        assert not tokenizer.is_special(i)


@pytest.mark.parametrize(
    ("text", "byte"),
    [
        (b"ab\xff", 2),
        (b"\xed\xa0\x80", 0),
        (b"a\xc3", 1),
        (b"\xe2\x82", 0),
        (b"\xf4\x90\x80\x80", 0),
    ],
)
def test_a_text_that_is_no_utf8_is_refused_with_its_place(pair, text, byte):
    with pytest.raises(ValueError, match=f"encode: text must be UTF-8, got the byte .* at {byte} "):
        pair[0].encode(text)


@pytest.mark.parametrize("first", ["mistral_ext", "sentencepiece"])
def test_a_process_can_have_the_sentencepiece_package_too(first):
    ours = "from mistral_ext import _C\n"
    theirs = "import sentencepiece\n"
    imports = ours + theirs if first == "mistral_ext" else theirs + ours
    program = imports + (
        f"file = {str(FOLDER / 'tokenizer.model.v1')!r}\n"
        "theirs = sentencepiece.SentencePieceProcessor(model_file=file)\n"
        "ours = _C.load_sentencepiece(file)\n"
        "text = 'Grüße, 世界 🌍'\n"
        "assert ours.encode(text, False) == theirs.encode(text)\n"
        "assert ours.decode(theirs.encode(text)) == theirs.decode(theirs.encode(text)) == text\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
