"""Text as it streams."""

import pytest
import torch
from helpers import smollm2
from helpers.checkpoint import byte_tokenizer

from mistral_ext.cli.text_stream import TextStream

TEXTS = ["plain", "déjà vu", "日本語 🙂 ok", "  spaces  \n\n and lines ", "ends in half 🙂"]


def stream(tokenizer, prompt: str, text: str) -> tuple[TextStream, list[str]]:
    pieces: list[str] = []
    streamer = TextStream(tokenizer, pieces.append)
    streamer.put(torch.tensor([tokenizer(prompt).input_ids]))
    for token in tokenizer(text).input_ids:
        streamer.put(torch.tensor([token]))
    streamer.end()
    return streamer, pieces


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("prompt", ["x", "é", "a long prompt, longer than what is decoded again"])
@pytest.mark.parametrize("make_tokenizer", [byte_tokenizer, smollm2.tokenizer])
def test_pieces_are_whole_characters_and_make_up_the_text(make_tokenizer, prompt, text):
    streamer, pieces = stream(make_tokenizer(), prompt, text)
    assert "".join(pieces) == text == streamer.text
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces)


def test_writes_each_character_as_soon_as_it_is_whole():
    _, pieces = stream(byte_tokenizer(), "x", "aé🙂b")
    assert pieces == ["a", "é", "🙂", "b"]


def test_a_character_that_is_never_finished_comes_at_the_end():
    tokenizer = byte_tokenizer()
    pieces: list[str] = []
    streamer = TextStream(tokenizer, pieces.append)
    streamer.put(torch.tensor([tokenizer("x").input_ids]))
    for token in tokenizer("ab🙂").input_ids[:-1]:
        streamer.put(torch.tensor([token]))
    assert pieces == ["a", "b"]
    streamer.end()
    assert "".join(pieces) == "ab\N{REPLACEMENT CHARACTER}"


def test_special_tokens_are_counted_and_not_written():
    tokenizer = byte_tokenizer()
    streamer = TextStream(tokenizer, lambda piece: None)
    streamer.put(torch.tensor([[5, 6]]))
    streamer.put(torch.tensor([tokenizer.eos_token_id]))
    streamer.end()
    assert streamer.text == ""
    assert streamer.tokens == [tokenizer.eos_token_id]
    assert len(streamer.times) == 1
