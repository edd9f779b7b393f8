"""The C++ loop against Hugging Face's generate: the same tokens, and the same draws for a seed."""

import signal
import threading

import pytest
import torch
from helpers.twins import PAD, VOCAB_SIZE, Twins, prompts

from mistral_ext import _C

NEW = 12

SAMPLING = {
    "plain": {"top_k": 0},
    "top_k": {"top_k": 7},
    "top_k_of_everything": {"top_k": VOCAB_SIZE + 5},
    "temperature": {"top_k": 0, "temperature": 0.6},
    "top_p": {"top_k": 0, "top_p": 0.8},
    "top_p_and_min_p": {"top_k": 0, "top_p": 0.95, "min_p": 0.01, "temperature": 1.4},
    "min_p": {"top_k": 0, "min_p": 0.1},
    "repetition_penalty": {"top_k": 0, "repetition_penalty": 1.7},
    "top_k_and_top_p": {"top_k": 50, "top_p": 0.9},
    "top_k_and_min_p": {"top_k": 50, "min_p": 0.02},
    "everything": {
        "top_k": 40,
        "temperature": 1.3,
        "top_p": 0.95,
        "min_p": 0.01,
        "repetition_penalty": 1.2,
    },
}


def hf_generate(
    twins: Twins,
    ids: torch.Tensor | None,
    *,
    eos: list[int] | None = None,
    seed: int = 11,
    **kwargs: object,
) -> torch.Tensor:
    torch.manual_seed(seed)
    kwargs.setdefault("max_new_tokens", NEW)
    kwargs.setdefault("do_sample", False)
    return twins.hf.generate(ids, eos_token_id=eos, pad_token_id=PAD, **kwargs)


def our_generate(
    twins: Twins,
    ids: torch.Tensor | None,
    *,
    eos: list[int] | None = None,
    seed: int = 11,
    inputs: dict | None = None,
    **kwargs: object,
) -> _C.GenerateOutput:
    torch.manual_seed(seed)
    if "max_length" not in kwargs:
        kwargs.setdefault("max_new_tokens", NEW)
    config = _C.GenerationConfig(eos_token_ids=eos or [], pad_token_id=PAD, **kwargs)
    return _C.generate(twins.ours, input_ids=ids, config=config, **(inputs or {}))


@pytest.mark.parametrize("lengths", [[9], [9, 9, 9], [9, 2, 6]], ids=["one", "even", "left_padded"])
def test_greedy_tokens_are_hugging_faces(twins, device, lengths):
    ids, mask = prompts(device, lengths)
    expected = hf_generate(twins, ids, attention_mask=mask)
    ours = our_generate(twins, ids, inputs={"attention_mask": mask})
    assert torch.equal(ours.sequences, expected)
    assert ours.steps == NEW
    assert not ours.stopped.any()


@pytest.mark.parametrize("settings", SAMPLING.values(), ids=SAMPLING)
@pytest.mark.parametrize("lengths", [[9], [9, 2, 6]], ids=["one", "left_padded"])
def test_drawn_tokens_are_hugging_faces(twins, device, lengths, settings):
    ids, mask = prompts(device, lengths)
    for seed in range(2):
        how = {"do_sample": True, "seed": seed, **settings}
        expected = hf_generate(twins, ids, attention_mask=mask, **how)
        ours = our_generate(twins, ids, inputs={"attention_mask": mask}, **how)
        assert torch.equal(ours.sequences, expected)


def test_right_padding_is_hugging_faces(twins, device):
    # No more padding than leaves every place a token in its window: where there is none, ours gives
    # 0 and the reference an average over what it should not see.
    ids, mask = prompts(device, [9, 6])
    ids, mask = ids.flip(1), mask.flip(1)
    expected = hf_generate(twins, ids, attention_mask=mask)
    ours = our_generate(twins, ids, inputs={"attention_mask": mask})
    assert torch.equal(ours.sequences, expected)


def test_rows_stop_on_their_own_at_any_of_several_ends(full_twins, device):
    ids, mask = prompts(device, [9, 2, 6, 9])
    free = hf_generate(full_twins, ids, attention_mask=mask)
    # Tokens that rows come across at different steps.
    eos = [int(free[0, 9 + 3]), int(free[2, 9 + 8])]
    expected = hf_generate(full_twins, ids, attention_mask=mask, eos=eos)
    ours = our_generate(full_twins, ids, inputs={"attention_mask": mask}, eos=eos)
    assert torch.equal(ours.sequences, expected)
    assert (expected == PAD).sum() > (ids == PAD).sum()
    ended = torch.isin(expected[:, 9:], torch.tensor(eos, device=device)).any(1)
    assert torch.equal(ours.stopped, ended.cpu())


def test_ends_at_the_step_where_the_last_row_ends(full_twins, device):
    ids, mask = prompts(device, [9, 5])
    free = hf_generate(full_twins, ids, attention_mask=mask)
    eos = [int(free[0, 9 + 2]), int(free[1, 9 + 6])]
    expected = hf_generate(full_twins, ids, attention_mask=mask, eos=eos)
    ours = our_generate(full_twins, ids, inputs={"attention_mask": mask}, eos=eos)
    assert torch.equal(ours.sequences, expected)
    assert expected.size(1) < 9 + NEW
    assert ours.stopped.all()


@pytest.mark.parametrize(
    "least", [{"min_length": 9 + 7}, {"min_new_tokens": 7}], ids=["min_length", "min_new_tokens"]
)
def test_no_row_ends_before_the_minimum(full_twins, device, least):
    ids, _ = prompts(device, [9])
    free = hf_generate(full_twins, ids)
    eos = [int(free[0, 9 + 2])]
    expected = hf_generate(full_twins, ids, eos=eos, **least)
    ours = our_generate(full_twins, ids, eos=eos, **least)
    assert torch.equal(ours.sequences, expected)
    assert ours.steps >= 7


def test_max_length_counts_the_prompt(full_twins, device):
    ids, _ = prompts(device, [9])
    ours = our_generate(full_twins, ids, max_length=12)
    assert torch.equal(ours.sequences, hf_generate(full_twins, ids, max_new_tokens=3))


@pytest.mark.parametrize("chunk", [1, 4, 9, 100])
def test_a_prompt_in_chunks_gives_the_same_tokens(twins, device, chunk):
    ids, mask = prompts(device, [9, 3])
    inputs = {"attention_mask": mask}
    whole = our_generate(twins, ids, inputs=inputs)
    chunked = our_generate(twins, ids, inputs=inputs, prefill_chunk_size=chunk)
    assert torch.equal(chunked.sequences, whole.sequences)


@pytest.mark.parametrize("given", ["all tokens", "new tokens"])
def test_continues_from_a_cache(twins, device, given):
    ids, mask = prompts(device, [9, 4])
    cache = twins.new_cache()
    inputs = {"attention_mask": mask, "cache": cache}
    first = our_generate(twins, ids, inputs=inputs, max_new_tokens=5).sequences
    assert cache.seen == first.size(1) - 1
    mask = torch.cat([mask, mask.new_ones(2, 5)], 1)
    expected = hf_generate(twins, first, attention_mask=mask)
    fed = first if given == "all tokens" else first[:, cache.seen :]
    ours = our_generate(twins, fed, inputs={"attention_mask": mask, "cache": cache})
    assert torch.equal(ours.sequences[:, -NEW:], expected[:, -NEW:])
    assert ours.sequences.size(1) == fed.size(1) + NEW


def test_starts_from_embeddings(twins, device):
    ids, mask = prompts(device, [9, 4])
    embeds = twins.hf.get_input_embeddings()(ids)
    expected = hf_generate(twins, None, inputs_embeds=embeds, attention_mask=mask)
    inputs = {"inputs_embeds": embeds, "attention_mask": mask}
    ours = our_generate(twins, None, inputs=inputs)
    assert torch.equal(ours.sequences, expected)
    begun = our_generate(twins, ids, inputs=inputs)
    assert torch.equal(begun.sequences, torch.cat([ids, expected], 1))


def test_positions_given_are_counted_on(full_twins, device):
    ids, mask = prompts(device, [9, 9])
    positions = torch.arange(9, device=device)[None] * 3 + torch.tensor([[0], [5]], device=device)
    expected = hf_generate(full_twins, ids, attention_mask=mask, position_ids=positions)
    ours = our_generate(full_twins, ids, inputs={"position_ids": positions})
    assert torch.equal(ours.sequences, expected)


@pytest.mark.parametrize("settings", [{}, {"do_sample": True, "top_k": 5}], ids=["greedy", "drawn"])
def test_scores_and_logits_are_hugging_faces(full_twins, device, settings):
    ids, _ = prompts(device, [9, 9])
    settings = {**settings, "repetition_penalty": 1.3, "max_new_tokens": 6}
    expected = hf_generate(
        full_twins,
        ids,
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        **settings,
    )
    ours = our_generate(full_twins, ids, output_scores=True, output_logits=True, **settings)
    # Two orders of summation in fp32 over sums of 32 to 64 products.
    for a, b in zip(ours.logits, expected.logits, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))
    for a, b in zip(ours.scores, expected.scores, strict=True):
        torch.testing.assert_close(
            a, b, rtol=1e-4, atol=1e-4 * float(expected.logits[0].abs().max())
        )


def test_a_seed_or_a_generator_repeats_the_draw_of_manual_seed(full_twins, device):
    ids, _ = prompts(device, [9])
    settings = {"do_sample": True, "top_k": 20}
    expected = our_generate(full_twins, ids, **settings, seed=5).sequences
    state = torch.random.get_rng_state()
    config = _C.GenerationConfig(max_new_tokens=NEW, seed=5, **settings)
    seeded = _C.generate(full_twins.ours, input_ids=ids, config=config)
    generator = torch.Generator(device).manual_seed(5)
    config = _C.GenerationConfig(max_new_tokens=NEW, **settings)
    drawn = _C.generate(full_twins.ours, input_ids=ids, config=config, generator=generator)
    assert torch.equal(seeded.sequences, expected)
    assert torch.equal(drawn.sequences, expected)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_callback_sees_every_step_and_can_stop_rows(full_twins, device):
    ids, _ = prompts(device, [9, 9])
    free = our_generate(full_twins, ids).sequences
    seen = []

    def on_step(tokens: torch.Tensor, sequences: torch.Tensor) -> torch.Tensor | None:
        seen.append((tokens, sequences))
        step = len(seen)
        return None if step < 4 else torch.tensor([step >= 4, step >= 6], device=device)

    stopped = our_generate(full_twins, ids, inputs={"on_step": on_step})
    assert torch.equal(stopped.sequences, free[:, : 9 + 6])
    assert stopped.stopped.all()
    for step, (tokens, sequences) in enumerate(seen):
        assert torch.equal(tokens, free[:, 9 + step])
        assert torch.equal(sequences, free[:, : 10 + step])


def test_an_error_in_the_callback_reaches_the_caller(full_twins, device):
    ids, _ = prompts(device, [9])

    def on_step(tokens: torch.Tensor, sequences: torch.Tensor) -> None:
        raise LookupError("no such token")

    with pytest.raises(LookupError, match="no such token"):
        our_generate(full_twins, ids, inputs={"on_step": on_step})


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_ctrl_c_ends_it_and_leaves_model_and_cache_usable(full_twins, device):
    ids, _ = prompts(device, [9])
    expected = our_generate(full_twins, ids).sequences
    cache = full_twins.new_cache()
    # The timer's thread gets to run because the loop does not hold the interpreter.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.1, signal.raise_signal, [signal.SIGINT])
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            our_generate(full_twins, ids, inputs={"cache": cache}, max_new_tokens=10**7)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, previous)
    assert {cache.layer(i).seen for i in range(len(cache))} == {cache.seen}
    assert torch.equal(our_generate(full_twins, ids).sequences, expected)
    cache.reset()
    assert torch.equal(our_generate(full_twins, ids, inputs={"cache": cache}).sequences, expected)


def test_the_cache_serves_a_pass_with_gradients_afterwards(full_twins, device):
    ids, _ = prompts(device, [9])
    cache = full_twins.new_cache()
    out = our_generate(full_twins, ids, inputs={"cache": cache}).sequences
    for parameter in full_twins.ours.state_dict().values():
        parameter.requires_grad_(True)
    logits, _, _ = full_twins.ours.forward(input_ids=out[:, -1:], cache=cache)
    logits.sum().backward()
    assert full_twins.ours.state_dict()["lm_head.weight"].grad.abs().sum() > 0


def test_a_generous_max_length_allocates_little(full_twins, device):
    ids, _ = prompts(device, [9])
    cache = full_twins.new_cache()
    free = our_generate(full_twins, ids).sequences
    our_generate(
        full_twins, ids, inputs={"cache": cache}, eos=[int(free[0, 12])], max_new_tokens=2**62
    )
    assert cache.nbytes < 2**20


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_goes_on_beyond_max_position_embeddings(full_twins, device):
    ids, _ = prompts(device, [120])
    expected = hf_generate(full_twins, ids)
    assert torch.equal(our_generate(full_twins, ids).sequences, expected)
