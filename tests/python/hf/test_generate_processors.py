"""The logits processors of the C++ loop: Hugging Face's arithmetic, bit for bit.

A processor that does nothing makes generate run Hugging Face's loop over the same C++ model: the
logits are then the same numbers, and so must be what each loop makes of them.
"""

import random
import re

import pytest
import torch
from helpers.generation import PLAIN, PYTHON_LOOP, generate_both, left_padded
from helpers.models import random_ids, small_model
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
)

import mistral_ext

VOCAB_SIZE = 99
ENDS = [7, 40, 41, 55]
EVERYTHING = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}


# Values of each option, of which a case has some.
AT_EVERY_STEP = {
    "sequence_bias": [
        [[[11], 9.0], [[12, 13], -9.0]],
        {(5,): 2.5, (9, 5): 3.0, (4, 9, 5): -1.25, (9, 8): float("-inf"), (0,): -0.5},
    ],
    "repetition_penalty": [1.3, 0.8],
    "no_repeat_ngram_size": [1, 2, 3, 5],
    "bad_words_ids": [
        [[5], [7, 9], *([i] for i in range(20, 60))],
        [[7], *([i, j] for i in range(3, 99, 2) for j in (4, 50, 60))],
    ],
    "min_length": [14],
    "min_new_tokens": [6],
    "forced_bos_token_id": [33],
    "forced_eos_token_id": [2, [7, 40]],
    "remove_invalid_values": [True],
    "exponential_decay_length_penalty": [(2, 1.5), (0, 0.9)],
    "suppress_tokens": [list(range(3, 30)), [-1, 5, 500], []],
    "begin_suppress_tokens": [list(range(3, 90)), [41, 200]],
    "renormalize_logits": [True],
}
SAMPLING = {
    "temperature": [0.7, 1.6],
    "top_h": [0.4, 0.9],
    "top_k": [0, 1, 7, 40],
    "top_p": [0.4, 0.95],
    "min_p": [0.02, 0.3],
    "typical_p": [0.2, 0.9],
    "epsilon_cutoff": [1e-3, 0.1],
    "eta_cutoff": [1e-3, 0.1],
}


def draw_options(seed):
    """Some options of the tables above, each with one of its values."""
    choice = random.Random(seed)
    options = {"do_sample": choice.random() < 0.5}
    tables = AT_EVERY_STEP | (SAMPLING if options["do_sample"] else {})
    for name in choice.sample(sorted(tables), choice.randint(2, 6)):
        options[name] = choice.choice(tables[name])
    if options["do_sample"] and "exponential_decay_length_penalty" in options:
        options.pop("min_length", None)  # see the test of scores without a probability
        options.pop("min_new_tokens", None)
    options["eos_token_id"] = choice.choice([None, 7, ENDS])
    if "min_length" in options or "exponential_decay_length_penalty" in options:
        options["eos_token_id"] = ENDS
    return options


def prompts(seed, device):
    if seed % 4 == 3:
        return random_ids(1, 1, seed=seed).to(device), None
    ids, mask = left_padded(random_ids(3, 9, seed=seed).to(device), 4, 0, seed % 7)
    return ids, mask


def run(model, ids, options, seed, **call):
    """Our model's output and which loop made it."""
    torch.manual_seed(seed)
    output = model.generate(ids, **{**PLAIN, **options, **call})
    return output, mistral_ext.path_report(model).generation


def assert_same_to_the_bit(ours, reference):
    assert ours.keys() == reference.keys()
    assert torch.equal(ours.sequences, reference.sequences)
    for name in ("logits", "scores", "sequences_scores", "beam_indices"):
        if name not in ours:
            continue
        values = zip(as_tuple(ours[name]), as_tuple(reference[name]), strict=True)
        for mine, theirs in values:
            if mine.device.type != "cpu":
                # The C++ loop runs a prompt once for all its beams, and the libraries of a GPU sum
                # in another order for another number of rows.
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4, equal_nan=True)
            else:
                assert torch.equal(mine.view(torch.int32), theirs.view(torch.int32)), name


def as_tuple(value):
    return value if isinstance(value, tuple) else (value,)


def assert_one_result(hf_model, ids, options, seed, **call):
    """Our C++ loop, Hugging Face's loop over our model, and Hugging Face's model alone."""
    model = mistral_ext.from_hf(hf_model)
    call |= EVERYTHING
    torch.manual_seed(seed)
    theirs = hf_model.generate(ids, **{**PLAIN, **options, **call})
    ours, loop = run(model, ids, options, seed, **call)
    assert str(loop) == "native"
    reference, loop = run(model, ids, options, seed, **PYTHON_LOOP, **call)
    assert loop.path == "python"
    assert_same_to_the_bit(ours, reference)
    assert torch.equal(ours.sequences, theirs.sequences)
    for mine, other in zip(ours.scores, theirs.scores, strict=True):
        # Sums of some hundred products in fp32, in another order.
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3)


def test_scores_without_a_probability_are_refused_in_the_same_words(device):
    if device.type != "cpu":
        pytest.skip("an accelerator finds out later, and cannot be used afterwards")
    hf_model = small_model()
    # The second makes nan of the minus infinity that the first gives to the ends.
    options = {"min_length": 14, "exponential_decay_length_penalty": (2, 1.5)}
    options |= {"do_sample": True, "eos_token_id": ENDS}
    with pytest.raises(RuntimeError) as theirs:
        hf_model.generate(random_ids(2, 5), **{**PLAIN, **options})
    with pytest.raises(RuntimeError, match=re.escape(str(theirs.value))):
        run(mistral_ext.from_hf(hf_model), random_ids(2, 5), options, 0)


@pytest.mark.parametrize("seed", range(32))
def test_combinations_with_one_beam(seed, device):
    ids, mask = prompts(seed, device)
    hf_model = small_model("window" if seed % 2 else "gqa", device=device, seed=seed)
    assert_one_result(hf_model, ids, draw_options(seed), seed, attention_mask=mask)


@pytest.mark.parametrize("seed", range(100, 124))
def test_combinations_with_beams(seed, device):
    ids, mask = prompts(seed, device)
    hf_model = small_model("window" if seed % 2 else "gqa", device=device, seed=seed)
    beams = {"num_beams": 2 + seed % 3, "num_return_sequences": 2, "early_stopping": seed % 5 == 0}
    options = draw_options(seed)
    if options["eos_token_id"] is None:
        options["eos_token_id"] = 7
    assert_one_result(hf_model, ids, options, seed, attention_mask=mask, **beams)


@pytest.mark.parametrize("name", [*AT_EVERY_STEP, *SAMPLING])
@pytest.mark.parametrize("beams", [1, 3])
def test_each_alone_is_to_the_bit_what_hugging_faces_loop_gives(name, beams, device):
    ids, mask = prompts(0, device)
    hf_model = small_model(device=device)
    tables = AT_EVERY_STEP | SAMPLING
    for value in tables[name]:
        options = {name: value, "eos_token_id": ENDS, "num_beams": beams}
        if name in SAMPLING:
            options |= {"do_sample": True, "top_k": 0} | {name: value}
        assert_one_result(hf_model, ids, options, 5, attention_mask=mask)


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("with_ids", [False, True])
def test_embeddings_have_no_tokens_to_repeat(beams, with_ids, device):
    hf_model = small_model(device=device)
    ids, mask = prompts(0, device)
    embeds = hf_model.model.embed_tokens(ids).detach()
    call = {"input_ids": ids} if with_ids else {}
    options = {
        "no_repeat_ngram_size": 2,
        "bad_words_ids": [[5], [9, 10]],
        "begin_suppress_tokens": list(range(3, 80)),
        "sequence_bias": {(30,): 3.0, (30, 31): 4.0},
        "renormalize_logits": True,
    }
    run = generate_both(
        hf_model,
        None,
        inputs_embeds=embeds,
        attention_mask=mask,
        num_beams=beams,
        **call,
        **options,
    )
    assert torch.equal(run.ours, run.theirs)
    assert str(run.report.generation) == "native"


def test_infinite_and_missing_scores_are_removed_as_hugging_face_does(device):
    hf_model = small_model(device=device)
    with torch.no_grad():
        hf_model.lm_head.weight[11] = float("nan")
        hf_model.lm_head.weight[12] = float("inf")
    ids, mask = prompts(0, device)
    options = {"remove_invalid_values": True, "suppress_tokens": [12], "eos_token_id": ENDS}
    model = mistral_ext.from_hf(hf_model)
    for extra in ({}, {"do_sample": True, "top_k": 4}, {"num_beams": 2}):
        call = {"attention_mask": mask, **EVERYTHING, **extra}
        ours, loop = run(model, ids, options, 0, **call)
        assert str(loop) == "native"
        reference, _ = run(model, ids, options, 0, **PYTHON_LOOP, **call)
        assert torch.equal(ours.sequences, reference.sequences)
        for mine, theirs in zip(ours.scores, reference.scores, strict=True):
            assert torch.equal(mine.isnan(), theirs.isnan())
            assert torch.equal(mine.nan_to_num(), theirs.nan_to_num())


BAD = {
    "no_repeat_ngram_size": 2.5,
    "bad_words_ids": [],
    "bad_words_ids of words": [5, 6],
    "bad_words_ids below zero": [[-3]],
    "bad_words_ids beyond the vocabulary": [[3], [4, 500]],
    "sequence_bias": {(3,): 1},
    "sequence_bias beyond the vocabulary": {(300,): 1.0},
    "repetition_penalty": -1.0,
    "forced_eos_token_id": -4,
    "forced_bos_token_id": 500,
    "typical_p": -0.5,
    "top_h": 1.5,
}


@pytest.mark.parametrize("case", BAD)
def test_what_hugging_face_refuses_is_refused_with_its_words(case, device):
    """Before it runs, or where its loop first meets it."""
    name = case.split(" ", maxsplit=1)[0]
    hf_model = small_model(device=device)
    model = mistral_ext.from_hf(hf_model)
    length = 1 if name == "forced_bos_token_id" else 7
    errors = []
    for each in (hf_model, model):
        call = {name: BAD[case], "do_sample": name in SAMPLING}
        with pytest.raises(Exception) as error:  # noqa: PT011 - compared below
            each.generate(random_ids(2, length).to(device), **{**PLAIN, **call})
        errors.append((error.type, str(error.value)))
    assert errors[0] == errors[1]


def test_processors_made_by_the_caller_are_known_in_generates_order_alone(device):
    penalty = RepetitionPenaltyLogitsProcessor(1.4)
    suppress = SuppressTokensLogitsProcessor([5, 6, 7], device=device)
    ids = random_ids(2, 7).to(device)
    for processors, loop in (((penalty, suppress), "native"), ((suppress, penalty), "python")):
        run = generate_both(
            small_model(device=device), ids, logits_processor=LogitsProcessorList(processors)
        )
        assert torch.equal(run.ours, run.theirs)
        assert run.report.generation.path == loop
