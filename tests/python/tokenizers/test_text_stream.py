"""The text of ids that come one at a time: what is decoded from all of them at once, in pieces that
never end inside a character."""

import random
from functools import partial

import pytest
from helpers.mistral_files import SENTENCEPIECE, TEKKEN
from helpers.multilingual import multilingual_lines
from helpers.tokenizer_json import ours, real
from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from sentencepiece import SentencePieceProcessor

from mistral_ext import _C


def sentencepiece(version):
    oracle = SentencePieceProcessor(model_file=str(SENTENCEPIECE[version]))
    return _C.load_sentencepiece(SENTENCEPIECE[version]), oracle.decode


def tekken():
    oracle = Tekkenizer.from_file(TEKKEN["v3"])
    return _C.load_tekken(TEKKEN["v3"]), oracle.decode


@pytest.fixture(scope="module", params=["v1", "v3", "tekken", "smollm2"])
def pair(request, tmp_path_factory):
    """A tokenizer, and the oracle's decode of all ids at once, special tokens left out."""
    if request.param == "smollm2":
        oracle = real("smollm2")
        decode = partial(oracle.decode, skip_special_tokens=True)
        return ours(oracle, tmp_path_factory.mktemp("tokenizer")), decode
    return tekken() if request.param == "tekken" else sentencepiece(request.param)


def streamed(tokenizer, ids, skip_special_tokens):
    stream = tokenizer.text_stream(skip_special_tokens)
    # A str at all: half a character would be none.
    return [*(stream.put(i) for i in ids), stream.finish()]


def test_the_pieces_of_texts_are_the_text(pair):
    tokenizer, decode = pair
    for line in multilingual_lines()[::10]:
        ids = tokenizer.encode(line, parse_special_tokens=False)
        if tokenizer.id_to_token(0) == "<|endoftext|>" and 0 in ids:
            line = decode(ids)  # SmolLM2 has no tokens for some control characters
        pieces = streamed(tokenizer, ids, skip_special_tokens=True)
        # SentencePiece's mark for a space is a space wherever it stands.
        assert "".join(pieces) in (line, line.replace("▁", " "))


def random_ids(tokenizer, source):
    """Any ids, with runs of single bytes and of special tokens: most are no text."""
    bytes_of = range(3, 259) if tokenizer.vocab_size < 40_000 else range(1000, 1256)
    if tokenizer.id_to_token(3) != "<0x00>" and tokenizer.vocab_size == 32_768:
        bytes_of = range(771, 1027)
    if tokenizer.vocab_size == 49_152:  # in the order of ByteLevel's alphabet, "!" first
        bytes_of = range(17, 273)
    kinds = [bytes_of, bytes_of[128:], range(tokenizer.vocab_size), range(12)]
    ids = []
    for _ in range(source.randint(0, 6)):
        kind = source.choice(kinds)
        ids += [source.choice(kind) for _ in range(source.randint(1, 6))]
    return ids


def test_any_ids_give_what_the_oracle_decodes_from_all(pair):
    tokenizer, decode = pair
    source = random.Random(1)
    replaced = 0
    for _ in range(4000):
        ids = random_ids(tokenizer, source)
        expected = decode(ids)
        assert "".join(streamed(tokenizer, ids, skip_special_tokens=True)) == expected, ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == expected, ids
        assert "".join(streamed(tokenizer, ids, skip_special_tokens=False)) == tokenizer.decode(ids)
        replaced += "\ufffd" in expected
    assert replaced > 1000


def test_tekkens_text_with_special_tokens_is_mistral_commons():
    tokenizer, _ = tekken()
    oracle = Tekkenizer.from_file(TEKKEN["v3"])
    source = random.Random(2)
    for _ in range(1000):
        ids = random_ids(tokenizer, source)
        assert tokenizer.decode(ids) == oracle.decode(ids, SpecialTokenPolicy.KEEP)


def test_an_emoji_comes_whole(pair):
    tokenizer, _ = pair
    ids = tokenizer.encode("ok 🫠!", add_special_tokens=False)
    pieces = [piece for piece in streamed(tokenizer, ids, skip_special_tokens=True) if piece]
    assert any("🫠" in piece for piece in pieces)
    assert "".join(pieces) == "ok 🫠!"
    assert "\ufffd" not in "".join(pieces)


def test_a_text_that_is_final_is_not_held_back(pair):
    tokenizer, _ = pair
    stream = tokenizer.text_stream()
    ids = tokenizer.encode("The quick brown fox", add_special_tokens=False)
    assert all(stream.put(i) for i in ids)
    assert stream.finish() == ""


def test_a_stream_begins_anew_after_its_end(pair):
    tokenizer, _ = pair
    stream = tokenizer.text_stream()
    ids = tokenizer.encode("Hello", add_special_tokens=False)
    texts = ["".join([*(stream.put(i) for i in ids), stream.finish()]) for _ in range(2)]
    assert texts == ["Hello", "Hello"]


def test_a_negative_id_leaves_the_stream_as_it_was(pair):
    tokenizer, _ = pair
    stream = tokenizer.text_stream()
    ids = tokenizer.encode("🫠", add_special_tokens=False)
    text = "".join(stream.put(i) for i in ids[:-1])
    with pytest.raises(ValueError, match="decode: ids must not be negative, got -1"):
        stream.put(-1)
    assert text + stream.put(ids[-1]) + stream.finish() == "🫠"


def test_ids_of_a_padded_vocabulary_are_as_if_they_were_not_there(pair):
    """As in Hugging Face, also inside a character; mistral-common and sentencepiece raise."""
    tokenizer, _ = pair
    size = tokenizer.vocab_size
    ids = tokenizer.encode("ok 🫠!", add_special_tokens=False)
    for padding in ([size], [size + 60, 2**31, 2**62]):
        padded = [i for token in ids for i in (*padding, token, *padding)]
        assert "".join(streamed(tokenizer, padded, skip_special_tokens=True)) == "ok 🫠!"
        assert tokenizer.decode(padded) == "ok 🫠!"
        assert tokenizer.decode(padding) == ""
