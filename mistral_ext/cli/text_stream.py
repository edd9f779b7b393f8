"""Text as its tokens come."""

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers.generation.streamers import BaseStreamer

# Decoders look at the token before (a leading space, a byte of the same character): the text of new
# tokens is found by decoding them behind this many earlier ones.
_CONTEXT = 6


class TextStream(BaseStreamer):
    """A streamer for generate() that writes each piece of text once it can no longer change.

    A character of several tokens is written when its last one has come. `write` gets the pieces;
    the prompt is not among them.
    """

    def __init__(self, tokenizer: Any, write: Callable[[str], None]) -> None:
        self.tokens: list[int] = []  # new ones
        self.text = ""
        self.times: list[float] = []  # when each new one came, by time.perf_counter()
        self._tokenizer = tokenizer
        self._write = write
        self._ids: list[int] = []
        self._context = 0  # decoding starts here
        self._written: int | None = None  # tokens whose text was written; None before the prompt

    def put(self, value: torch.Tensor) -> None:
        """value: the prompt at the first call, then one token: int64 [1, n] or [n]."""
        ids = value.flatten().tolist()
        self._ids += ids
        if self._written is None:
            self._written = len(self._ids)
            self._context = max(self._written - _CONTEXT, 0)
            return
        self.tokens += ids
        self.times.append(time.perf_counter())
        self._flush(final=False)

    def end(self) -> None:
        self._flush(final=True)

    def _flush(self, final: bool) -> None:
        written = self._written or 0
        before = self._decode(self._ids[self._context : written])
        text = self._decode(self._ids[self._context :])
        # Bytes that are no character yet decode to the replacement character.
        if len(text) <= len(before) or (text.endswith("\N{REPLACEMENT CHARACTER}") and not final):
            return
        piece = text[len(before) :]
        self._context, self._written = written, len(self._ids)
        self.text += piece
        self._write(piece)

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)
