"""generate names the argument, what it must be and what it was, before any work."""

import pytest
import torch
from helpers.twins import VOCAB_SIZE, Twins, prompts

from mistral_ext import _C

NAN = float("nan")

SETTINGS = [
    ({"max_new_tokens": None}, "max_new_tokens or max_length must be given, got neither"),
    ({"max_new_tokens": 0}, "max_new_tokens must be positive, got 0"),
    ({"max_new_tokens": -3}, "max_new_tokens must be positive, got -3"),
    ({"max_new_tokens": None, "max_length": -1}, "max_length must not be negative, got -1"),
    ({"max_new_tokens": None, "max_length": 9}, "max_length must be beyond the prompt's 9 tokens"),
    ({"min_length": -1}, "min_length must not be negative, got -1"),
    ({"min_new_tokens": -1}, "min_new_tokens must not be negative, got -1"),
    ({"prefill_chunk_size": -1}, "prefill_chunk_size must not be negative, got -1"),
    ({"repetition_penalty": 0.0}, "repetition_penalty must be positive and finite, got 0"),
    ({"repetition_penalty": NAN}, "repetition_penalty must be positive and finite, got nan"),
    ({"temperature": NAN}, "temperature must be positive and finite, got nan"),
    ({"temperature": 0.0}, "temperature must be positive and finite, got 0"),
    ({"temperature": -1.0}, "temperature must be positive and finite, got -1"),
    ({"top_k": -1}, "top_k must not be negative, got -1"),
    ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0"),
    ({"top_p": 1.5}, r"top_p must be in \(0, 1\], got 1.5"),
    ({"top_p": NAN}, r"top_p must be in \(0, 1\], got nan"),
    ({"min_p": -0.1}, r"min_p must be in \[0, 1\], got -0.1"),
    ({"min_p": 1.1}, r"min_p must be in \[0, 1\], got 1.1"),
    ({"eos_token_ids": [2]}, "pad_token_id must be given with eos_token_ids and a batch of 2"),
    ({"eos_token_ids": [2], "pad_token_id": -1}, r"pad_token_id must be in \[0, 307\), got -1"),
]


def call(twins: Twins, inputs: dict, **settings: object) -> _C.GenerateOutput:
    settings = {"max_new_tokens": 4, "do_sample": True, **settings}
    return _C.generate(twins.ours, config=_C.GenerationConfig(**settings), **inputs)


@pytest.mark.parametrize(("settings", "message"), SETTINGS)
def test_refuses_a_setting_that_cannot_work(full_twins, device, settings, message):
    ids, _ = prompts(device, [9, 9])
    cache = full_twins.new_cache()
    with pytest.raises(ValueError, match="generate: " + message):
        call(full_twins, {"input_ids": ids, "cache": cache}, **settings)
    assert cache.seen == 0


def bad_inputs(device: torch.device) -> dict[str, tuple[dict, str]]:
    ids, mask = prompts(device, [9, 9])
    embeds = torch.zeros(2, 9, 32, device=device)
    return {
        "nothing": ({}, "input_ids or inputs_embeds must be given, got neither"),
        "flat ids": ({"input_ids": ids[0]}, "input_ids must have shape"),
        "no row": ({"input_ids": ids[:0]}, "input_ids must have shape"),
        "no token": ({"input_ids": ids[:, :0]}, "input_ids must have tokens beyond the 0"),
        "floating ids": ({"input_ids": ids.float()}, "input_ids must be int64 or int32, got Float"),
        "id too high": (
            {"input_ids": ids.masked_fill(ids == ids[0, 3], VOCAB_SIZE)},
            r"input_ids must be in \[0, 307\), got 307",
        ),
        "id too low": (
            {"input_ids": ids.masked_fill(ids == ids[0, 3], -1)},
            r"input_ids must be in \[0, 307\), got -1",
        ),
        "short mask": (
            {"input_ids": ids, "attention_mask": mask[:, 1:]},
            r"attention_mask must have shape \[2, 9\]",
        ),
        "mask of other rows": (
            {"input_ids": ids, "attention_mask": mask[:1]},
            r"attention_mask must have shape \[2, 9\]",
        ),
        "mask of four dimensions": (
            {"input_ids": ids, "attention_mask": mask[:, None, None]},
            r"attention_mask must have shape \[2, 9\]",
        ),
        "short positions": (
            {"input_ids": ids, "position_ids": mask[:, 1:]},
            r"position_ids must have shape \[2 or 1, at least 9\]",
        ),
        "narrow embeddings": (
            {"inputs_embeds": embeds[..., 1:]},
            r"inputs_embeds must have shape \[2, tokens, 32\]",
        ),
        "flat embeddings": ({"inputs_embeds": embeds[0]}, "inputs_embeds must have shape"),
        "embeddings of another dtype": (
            {"inputs_embeds": embeds.double()},
            "inputs_embeds must have the model's dtype Float, got Double",
        ),
    }


@pytest.mark.parametrize("case", bad_inputs(torch.device("cpu")))
def test_refuses_inputs_that_do_not_fit(full_twins, device, case):
    inputs, message = bad_inputs(device)[case]
    with pytest.raises(ValueError, match=message):
        call(full_twins, inputs)


def test_refuses_a_prompt_that_the_cache_holds_already(full_twins, device):
    ids, _ = prompts(device, [9])
    cache = full_twins.new_cache()
    call(full_twins, {"input_ids": ids, "cache": cache})
    assert cache.seen == 12
    with pytest.raises(ValueError, match="input_ids must have tokens beyond the 12 in the cache"):
        call(full_twins, {"input_ids": ids, "cache": cache})
    assert cache.seen == 12


def test_refuses_rows_to_stop_of_another_shape(full_twins, device):
    ids, _ = prompts(device, [9, 9])
    with pytest.raises(ValueError, match=r"on_step must return bool \[2\]"):
        call(full_twins, {"input_ids": ids, "on_step": lambda *_: torch.ones(3, dtype=torch.bool)})


def test_says_that_scores_with_a_nan_cannot_be_drawn_from(full_twins, device):
    if device.type != "cpu":
        pytest.skip("an accelerator finds out later, and cannot be used afterwards")
    ids, _ = prompts(device, [9])
    full_twins.ours.state_dict()["model.norm.weight"].fill_(NAN)
    with pytest.raises(RuntimeError, match="probability tensor contains"):
        call(full_twins, {"input_ids": ids}, top_k=5)


def test_generate_without_a_model():
    with pytest.raises(TypeError):
        _C.generate(None, input_ids=torch.ones(1, 2).long(), config=_C.GenerationConfig())
