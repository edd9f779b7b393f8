"""_C.beam_search by itself: what generate cannot ask of it, interruption, bad input."""

import signal
import threading

import pytest
import torch
from helpers.twins import PAD, VOCAB_SIZE, Twins, prompts

from mistral_ext import _C

NEW = 10


def search(
    twins: Twins, inputs: dict, beams: dict | None = None, **settings: object
) -> _C.BeamSearchOutput:
    return _C.beam_search(
        twins.ours,
        config=_C.GenerationConfig(**{"max_new_tokens": NEW, **settings}),
        beams=_C.BeamSearchConfig(**{"num_beams": 3, **(beams or {})}),
        **inputs,
    )


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("lengths", [[9], [9, 2, 6]], ids=["one", "left_padded"])
def test_a_row_a_prompt_gives_hugging_faces_sequences(twins, device, lengths, early_stopping):
    ids, mask = prompts(device, lengths)
    how = {"num_beams": 4, "num_return_sequences": 3, "early_stopping": early_stopping}
    ends = [11, 12, 13]
    expected = twins.hf.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=NEW,
        do_sample=False,
        eos_token_id=ends,
        pad_token_id=5,
        return_dict_in_generate=True,
        output_scores=True,
        **how,
    )
    inputs = {"input_ids": ids, "attention_mask": mask}
    ours = search(twins, inputs, how, eos_token_ids=ends, pad_token_id=5)
    assert torch.equal(ours.sequences, expected.sequences)
    assert torch.equal(ours.beam_indices, expected.beam_indices)
    # Two orders of summation in fp32.
    torch.testing.assert_close(
        ours.sequences_scores, expected.sequences_scores, rtol=1e-4, atol=1e-4
    )


def test_a_seed_or_a_generator_repeats_the_draw_of_manual_seed(full_twins, device):
    ids, _ = prompts(device, [9, 9])
    settings = {"do_sample": True, "top_k": 20, "pad_token_id": PAD}
    torch.manual_seed(5)
    expected = search(full_twins, {"input_ids": ids}, **settings).sequences
    state = torch.random.get_rng_state()
    seeded = search(full_twins, {"input_ids": ids}, seed=5, **settings)
    generator = torch.Generator(device).manual_seed(5)
    drawn = search(full_twins, {"input_ids": ids, "generator": generator}, **settings)
    assert torch.equal(seeded.sequences, expected)
    assert torch.equal(drawn.sequences, expected)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_without_padding_an_early_end_is_followed_by_minus_one(full_twins, device):
    ids, _ = prompts(device, [9])
    free = search(full_twins, {"input_ids": ids}).sequences
    ends = [int(free[0, 11])]
    how = {"num_return_sequences": 3, "length_penalty": -3.0}
    output = search(full_twins, {"input_ids": ids}, how, eos_token_ids=ends)
    assert torch.equal(output.sequences[:, 9:] == -1, output.beam_indices == -1)
    assert (output.beam_indices == -1).any()


def test_an_error_in_the_callback_reaches_the_caller(full_twins, device):
    ids, _ = prompts(device, [9])

    def on_step(tokens: torch.Tensor, sequences: torch.Tensor) -> None:
        raise LookupError("no such token")

    with pytest.raises(LookupError, match="no such token"):
        search(full_twins, {"input_ids": ids, "on_step": on_step})


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_ctrl_c_ends_it_and_leaves_model_and_cache_usable(full_twins, device):
    ids, _ = prompts(device, [9])
    expected = search(full_twins, {"input_ids": ids}).sequences
    cache = full_twins.new_cache()
    # The timer's thread gets to run because the loop does not hold the interpreter.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            search(full_twins, {"input_ids": ids, "cache": cache}, max_new_tokens=10**7)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, previous)
    assert {cache.layer(i).seen for i in range(len(cache))} == {cache.seen}
    assert torch.equal(search(full_twins, {"input_ids": ids}).sequences, expected)
    cache.reset()
    fresh = {"input_ids": ids, "cache": full_twins.new_cache()}
    assert torch.equal(search(full_twins, fresh).sequences, expected)


BEAMS = [
    ({"num_beams": 0}, "num_beams must be positive, got 0"),
    ({"num_return_sequences": 0}, r"num_return_sequences must be in \[1, num_beams = 3\], got 0"),
    ({"num_return_sequences": 4}, r"num_return_sequences must be in \[1, num_beams = 3\], got 4"),
    ({"length_penalty": float("inf")}, "length_penalty must be finite, got inf"),
    ({"early_stopping": "soon"}, 'early_stopping must be True, False or "never", got "soon"'),
]


@pytest.mark.parametrize(("beams", "message"), BEAMS)
def test_refuses_a_setting_that_cannot_work(full_twins, device, beams, message):
    ids, _ = prompts(device, [9])
    cache = full_twins.new_cache()
    with pytest.raises(ValueError, match="beam_search: " + message):
        search(full_twins, {"input_ids": ids, "cache": cache}, beams)
    assert cache.seen == 0


def test_refuses_more_ends_than_leave_a_token(full_twins, device):
    ids, _ = prompts(device, [9])
    with pytest.raises(ValueError, match=f"fewer than the vocabulary's {VOCAB_SIZE} tokens"):
        search(full_twins, {"input_ids": ids}, eos_token_ids=list(range(VOCAB_SIZE)))


def test_refuses_a_cache_whose_rows_fit_neither_prompts_nor_beams(full_twins, device):
    ids, _ = prompts(device, [9, 9])
    cache = full_twins.new_cache()
    full_twins.ours.forward(input_ids=ids[:, :4].repeat(2, 1), cache=cache)
    with pytest.raises(ValueError, match="batch of 2, got 4"):
        search(full_twins, {"input_ids": ids, "cache": cache})


def test_refuses_rows_to_end_of_another_shape(full_twins, device):
    ids, _ = prompts(device, [9])
    inputs = {"input_ids": ids, "on_step": lambda *_: torch.ones(3, dtype=torch.bool)}
    with pytest.raises(ValueError, match=r"beam_search: on_step must return bool \[6\]"):
        search(full_twins, inputs)
