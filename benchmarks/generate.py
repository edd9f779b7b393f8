"""What generate costs beyond the model: once a call, and for each token, streamed or not.

Ours once a call is what model.generate spends before and after _C.generate; for each token, what
_C.generate takes longer under generate, callbacks and their way into Python included, than alone:
on a tiny model, beside whose steps a microsecond is seen (below that it is noise, of either sign).
Hugging Face's is what its loop spends outside forward. What TextStreamer adds to a streamer that
does nothing is its own decoding and printing.
"""

import contextlib
import functools
import io
import itertools
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers
from transformers.generation.streamers import BaseStreamer

import mistral_ext
from benchmarks import models
from benchmarks.table import Table
from mistral_ext import _C
from mistral_ext.cli import measure, smollm2

PROMPT, NEW_TOKENS = 32, 32
REPEATS = 9


def run(quick: bool, seconds: float) -> list[dict[str, Any]]:
    table = Table(
        "generate beyond the model's own work",
        what_is_measured="s",
        unit="s",
        mistral_ext=".1f",
        hugging_face=".1f",
    )
    hf_model = models.MODELS[models.chosen(quick)[0]](torch.float32)
    tokens = 4 if quick else NEW_TOKENS
    ours, theirs = _Ours(mistral_ext.from_hf(hf_model), tokens), _Theirs(hf_model, tokens)
    for contestant in (ours, theirs):
        contestant.generate(None)  # warms up
    streamers: dict[str, Callable[[], BaseStreamer] | None] = {
        "a token": None,
        "with a streamer": _Silent,
    }
    if not quick:
        tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2.checkpoint_folder())
        streamers["TextStreamer"] = lambda: transformers.TextStreamer(tokenizer)
    for name, make in streamers.items():
        own_calls: list[float] = []
        their_calls: list[float] = []
        their_tokens: list[float] = []
        started = time.perf_counter()
        for turn in range(REPEATS):
            if turn >= 2 and time.perf_counter() - started > seconds:
                break
            own_calls.append(ours.measure(make() if make else None))
            call, token = theirs.measure(make() if make else None)
            their_calls.append(call)
            their_tokens.append(token)
        if make is None:
            table.add(
                what_is_measured="once a call",
                unit="ms",
                mistral_ext=1e3 * measure.median(own_calls),
                hugging_face=1e3 * measure.median(their_calls),
                seconds={"mistral_ext": own_calls, "hugging_face": their_calls},
            )
        table.add(
            what_is_measured=name,
            unit="us",
            mistral_ext=1e6 * _beyond_the_loop(quick, make),
            hugging_face=1e6 * measure.median(their_tokens),
        )
    return table.rows


class _Silent(BaseStreamer):
    def put(self, value: torch.Tensor) -> None:
        pass

    def end(self) -> None:
        pass


class _Contestant:
    def __init__(self, model: transformers.PreTrainedModel, tokens: int) -> None:
        self.model = model
        self.tokens = tokens
        self.ids = torch.randint(model.config.vocab_size, (1, PROMPT))
        self.inside = 0.0  # seconds of the last measured call in the C++ loop

    def generate(self, streamer: BaseStreamer | None) -> float:
        """Seconds from call to return; what a streamer prints is dropped."""
        call = {
            "attention_mask": torch.ones_like(self.ids),
            "max_new_tokens": self.tokens,
            "min_new_tokens": self.tokens,
            "do_sample": False,
            "pad_token_id": 0,
            "streamer": streamer,
        }
        with contextlib.redirect_stdout(io.StringIO()):
            return measure.seconds(lambda: self.model.generate(self.ids, **call))


class _Ours(_Contestant):
    def measure(self, streamer: BaseStreamer | None) -> float:
        """Seconds once a call."""
        loop = _C.generate
        inside: list[float] = []

        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            output = loop(*args, **kwargs)
            inside.append(time.perf_counter() - started)
            return output

        _C.generate = timed
        try:
            total = self.generate(streamer)
        finally:
            _C.generate = loop
        self.inside = inside[0]
        return total - self.inside


class _Theirs(_Contestant):
    def measure(self, streamer: BaseStreamer | None) -> tuple[float, float]:
        """(seconds once a call, seconds a token)"""
        forward, spans = self.model.forward, []

        @functools.wraps(forward)
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            output = forward(*args, **kwargs)
            spans.append((started, time.perf_counter()))
            return output

        self.model.forward = timed
        try:
            total = self.generate(streamer)
        finally:
            del self.model.forward
        gaps = [then[0] - now[1] for now, then in itertools.pairwise(spans)]
        token = measure.median(gaps)
        return total - (spans[-1][1] - spans[0][0]) - token, token


def _beyond_the_loop(quick: bool, make: Callable[[], BaseStreamer] | None) -> float:
    """Seconds a token of the loop under generate, with a streamer or none, beyond it alone."""
    tokens = 8 if quick else 256
    contestant = _Ours(mistral_ext.from_hf(models.tiny(torch.float32)), tokens)
    arguments: dict[str, Any] = {}
    loop = _C.generate

    def noted(*args: Any, **kwargs: Any) -> Any:
        arguments.update(kwargs, model=args[0])
        return loop(*args, **kwargs)

    _C.generate = noted
    try:
        contestant.generate(None)
    finally:
        _C.generate = loop

    def alone() -> float:
        cache = contestant.model.create_cache()
        return measure.seconds(lambda: loop(**{**arguments, "cache": cache.settled()}))

    def under_generate() -> float:
        contestant.measure(make() if make else None)
        return contestant.inside

    figures = measure.interleaved({"under": under_generate, "alone": alone}, 2 if quick else 25)
    return (min(figures["under"]) - min(figures["alone"])) / tokens
