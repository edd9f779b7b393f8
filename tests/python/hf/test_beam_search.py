"""Beam search and beam sampling from the C++ loop: Hugging Face's tokens, scores and shapes."""

import pytest
import torch
from helpers.models import random_ids, small_model
from transformers import (
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteria,
    StoppingCriteriaList,
    TextStreamer,
    TopKLogitsWarper,
)

import mistral_ext

EVERYTHING = {
    "return_dict_in_generate": True,
    "output_scores": True,
    "output_logits": True,
}


def pair(name, device, eos=(7, 40), **changes):
    hf_model = small_model(name, device=device, eos_token_id=list(eos) or None, **changes)
    return hf_model, mistral_ext.from_hf(hf_model)


def prompt(device, lengths=(9, 5, 7)):
    """Prompts padded on the left, and their mask."""
    ids, longest = random_ids(len(lengths), max(lengths)), max(lengths)
    mask = torch.arange(longest) >= longest - torch.tensor(lengths)[:, None]
    return ids.masked_fill(~mask, 0).to(device), mask.long().to(device)


def both(models, ids, seed=0, **call):
    """(Hugging Face's output, ours), after the same seed."""
    outputs = []
    for model in models:
        torch.manual_seed(seed)
        outputs.append(model.generate(ids, **{"max_new_tokens": 12, "num_beams": 3, **call}))
    return outputs


def assert_native(model):
    report = mistral_ext.path_report(model).generation
    assert report.path == "native", report


def assert_same(theirs, ours):
    """Every field of two outputs with return_dict_in_generate."""
    assert type(ours) is type(theirs)
    assert torch.equal(ours.sequences, theirs.sequences)
    assert torch.equal(ours.beam_indices, theirs.beam_indices)
    assert ours.beam_indices.dtype == theirs.beam_indices.dtype
    assert ours.sequences_scores.dtype == theirs.sequences_scores.dtype
    # Both models sum some hundred products in fp32, in their own order, at each of twelve steps.
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(ours.sequences_scores, theirs.sequences_scores, **close)
    for name in ("scores", "logits"):
        for mine, reference in zip(getattr(ours, name), getattr(theirs, name), strict=True):
            assert mine.dtype == reference.dtype
            torch.testing.assert_close(mine, reference, rtol=1e-3, atol=1e-3)
    for name in ("attentions", "hidden_states"):
        assert getattr(ours, name) is None
        assert getattr(theirs, name) is None
    assert ours.past_key_values.get_seq_length() == theirs.past_key_values.get_seq_length()


SEARCHES = {
    "plain": {},
    "two beams": {"num_beams": 2},
    "many beams": {"num_beams": 8, "num_return_sequences": 8},
    "returned": {"num_return_sequences": 3},
    "long ones": {"length_penalty": 2.0, "num_return_sequences": 3},
    "short ones": {"length_penalty": -1.5, "num_return_sequences": 2},
    "no penalty": {"length_penalty": 0, "num_return_sequences": 2},
    "at once": {"early_stopping": True, "num_return_sequences": 3},
    "never": {"early_stopping": "never", "num_return_sequences": 3},
    "never, short ones": {"early_stopping": "never", "length_penalty": -1.0},
    "canonical": {"early_stopping": "never", "length_penalty": 0.0},
    "min_length": {"min_length": 17, "num_return_sequences": 2},
    "min_new_tokens": {"min_new_tokens": 8, "num_return_sequences": 2},
    "repetition_penalty": {"repetition_penalty": 1.4, "num_return_sequences": 2},
    "max_length": {"max_length": 13, "max_new_tokens": None},
    "in chunks": {"prefill_chunk_size": 4, "num_return_sequences": 2},
    "one new token": {"max_new_tokens": 1, "num_return_sequences": 3},
}

SAMPLINGS = {
    "sampled": {"top_k": 0},
    "default": {},
    "temperature": {"top_k": 0, "temperature": 0.5},
    "top_k": {"top_k": 9, "temperature": 1.5},
    "top_k of few": {"top_k": 1},
    "top_p": {"top_k": 0, "top_p": 0.7},
    "min_p": {"top_k": 0, "min_p": 0.2},
    "a high min_p": {"top_k": 0, "min_p": 0.9},
    "all": {
        "top_k": 30,
        "top_p": 0.9,
        "min_p": 0.01,
        "temperature": 1.2,
        "repetition_penalty": 1.2,
        "min_new_tokens": 4,
        "early_stopping": True,
    },
}


@pytest.mark.parametrize("name", ["gqa", "window", "two_layer_types"])
@pytest.mark.parametrize("search", SEARCHES)
def test_finds_hugging_faces_sequences(name, search, device):
    models = pair(name, device)
    ids, mask = prompt(device)
    assert_same(*both(models, ids, attention_mask=mask, **EVERYTHING, **SEARCHES[search]))
    assert_native(models[1])


@pytest.mark.parametrize("name", ["gqa", "window"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_draws_hugging_faces_sequences(name, sampling, device):
    models = pair(name, device)
    ids, mask = prompt(device)
    call = {"do_sample": True, "num_return_sequences": 2, **SAMPLINGS[sampling]}
    for seed in range(3):
        assert_same(*both(models, ids, seed, attention_mask=mask, **EVERYTHING, **call))
    assert_native(models[1])


@pytest.mark.parametrize("eos", [(), (7,), (7, 8, 9, 40), (7, 7)], ids=str)
@pytest.mark.parametrize("pad", [0, 5, None], ids=lambda pad: f"pad {pad}")
@pytest.mark.parametrize("do_sample", [False, True], ids=["search", "sampling"])
def test_ends_and_padding_are_hugging_faces(eos, pad, do_sample, device):
    models = pair("gqa", device, eos)
    for model in models:
        model.generation_config.pad_token_id = pad
    ids, mask = prompt(device)
    call = {"num_return_sequences": 3, "length_penalty": -1.0, "do_sample": do_sample}
    theirs, ours = both(models, ids, attention_mask=mask, **call)
    assert torch.equal(ours, theirs)
    assert_native(models[1])


@pytest.mark.parametrize("length", [4, 5, 6, 10, 20])
def test_beams_cross_the_window(length, device):
    models = pair("window", device, eos=())
    ids, mask = prompt(device, (length, max(1, length - 3)))
    call = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 14}
    assert_same(*both(models, ids, attention_mask=mask, **EVERYTHING, **call))
    assert_native(models[1])


@pytest.mark.parametrize("name", ["mqa", "tied", "llama3", "query_scale", "dynamic"])
def test_every_architecture_searches_alike(name, device):
    models = pair(name, device)
    ids, mask = prompt(device)
    assert_same(*both(models, ids, attention_mask=mask, num_return_sequences=2, **EVERYTHING))
    assert_native(models[1])


def test_many_prompts_end_at_their_own_steps(device):
    models = pair("gqa", device, eos=(7, 11, 40, 60))
    ids = random_ids(12, 6, seed=3).to(device)
    for call in ({}, {"early_stopping": True}, {"early_stopping": "never"}):
        theirs, ours = both(models, ids, max_new_tokens=24, num_return_sequences=3, **call)
        assert torch.equal(ours, theirs)
        assert_native(models[1])


def test_starts_from_embeddings(device):
    models = pair("gqa", device)
    ids, mask = prompt(device)
    embeds = models[0].get_input_embeddings()(ids).detach()
    outputs = [
        model.generate(inputs_embeds=embeds, attention_mask=mask, num_beams=3, max_new_tokens=8)
        for model in models
    ]
    assert torch.equal(*outputs)
    assert_native(models[1])


def test_positions_given_are_counted_on(device):
    models = pair("gqa", device)
    ids, mask = prompt(device, (6, 6))
    positions = torch.arange(6, device=device) * 2 + torch.tensor([[0], [3]], device=device)
    theirs, ours = both(models, ids, attention_mask=mask, position_ids=positions)
    assert torch.equal(ours, theirs)
    assert_native(models[1])


def test_goes_on_from_a_cache_with_a_row_a_beam(device):
    models = pair("window", device)
    ids = random_ids(2, 9).to(device)
    outputs = []
    for model in models:
        start = model(ids[:, :5], use_cache=True).past_key_values
        start.batch_repeat_interleave(3)
        outputs.append(
            model.generate(ids, past_key_values=start, num_beams=3, max_new_tokens=8, **EVERYTHING)
        )
    assert_same(*outputs)
    assert_native(models[1])


def test_the_cache_returned_is_in_the_order_of_hugging_faces(device):
    for name in ("gqa", "window"):
        models = pair(name, device, eos=())
        ids = random_ids(3, 9).to(device)  # what stands at padded places is nobody's
        theirs, ours = both(models, ids, num_beams=4, **EVERYTHING)
        for mine, reference in zip(
            ours.past_key_values.layers, theirs.past_key_values.layers, strict=True
        ):
            torch.testing.assert_close(mine.keys, reference.keys, rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(mine.values, reference.values, rtol=1e-3, atol=1e-3)


class StopAtLength(StoppingCriteria):
    def __init__(self, length):
        self.length = length

    def __call__(self, input_ids, scores, **kwargs):
        assert scores is None
        return torch.full(
            (len(input_ids),), input_ids.shape[1] >= self.length, device=input_ids.device
        )


class StopAtEvenTokens(StoppingCriteria):
    """Ends a sequence at the third even token of those after the prompt."""

    def __call__(self, input_ids, scores, **kwargs):
        return (input_ids[:, 9:] % 2 == 0).sum(1) >= 3


@pytest.mark.parametrize("eos", [(), (7, 40)], ids=["no end", "ends"])
@pytest.mark.parametrize("criterion", [StopAtLength(14), StopAtEvenTokens()], ids=lambda c: "")
def test_stopping_criteria_end_sequences_in_the_cpp_loop(criterion, eos, device):
    models = pair("gqa", device, eos)
    ids, mask = prompt(device)
    call = {"stopping_criteria": StoppingCriteriaList([criterion]), "num_return_sequences": 3}
    theirs, ours = both(models, ids, attention_mask=mask, **call)
    assert torch.equal(ours, theirs)
    assert_native(models[1])


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (
            {"prefix_allowed_tokens_fn": lambda row, ids: list(range(3 + row, 60))},
            "PrefixConstrainedLogitsProcessor",
        ),
        (
            {"do_sample": True, "top_k": 0, "logits_processor": [TopKLogitsWarper(4)]},
            "settings that C++ lacks",
        ),
        ({"use_cache": False}, "use_cache is off"),
        ({"cache_implementation": "static"}, "StaticCache"),
        ({"return_dict_in_generate": True, "output_hidden_states": True}, "output_hidden_states"),
        ({"stopping_criteria": [MaxLengthCriteria(12)]}, "another max_length"),
        (
            {
                "stopping_criteria": [StopAtLength(12)],
                "return_dict_in_generate": True,
                "output_scores": True,
            },
            "may read the scores",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cpp_lacks_runs_hugging_faces_loop(call, reason, device):
    if "scores" in reason:

        class Quiet(StoppingCriteria):
            def __call__(self, input_ids, scores, **kwargs):
                return torch.full((len(input_ids),), len(scores) >= 5, device=input_ids.device)

        call = {**call, "stopping_criteria": [Quiet()]}
    for kind, name in ((LogitsProcessorList, "processor"), (StoppingCriteriaList, "criteria")):
        call = {k: kind(v) if k.endswith(name) else v for k, v in call.items()}
    models = pair("gqa", device)
    ids, mask = prompt(device)
    theirs, ours = both(models, ids, attention_mask=mask, **call)
    if not torch.is_tensor(ours):
        theirs, ours = theirs.sequences, ours.sequences
    assert torch.equal(ours, theirs)
    report = mistral_ext.path_report(models[1])
    assert report.generation.path == "python"
    assert reason in report.generation.reason
    if "Static" not in reason:
        assert report.last_forward.path == "native"


def test_an_overridden_step_is_called(device):
    hf_model, _ = pair("gqa", device)
    calls = []

    class Own(mistral_ext.MistralForCausalLM):
        def _get_top_k_continuations(self, **kwargs):
            calls.append(1)
            return super()._get_top_k_continuations(**kwargs)

    model = Own(hf_model.config)
    model.set_attn_implementation("mistral_ext")
    model.load_state_dict(hf_model.state_dict())
    model.eval().to(device)
    ids, mask = prompt(device)
    both([model], ids, attention_mask=mask)
    assert calls
    assert "overridden" in mistral_ext.path_report(model).generation.reason


def test_streamers_are_refused_as_by_hugging_face(device):
    for model in pair("gqa", device):
        with pytest.raises(ValueError, match="cannot be used with beam search"):
            both([model], random_ids(1, 5).to(device), streamer=TextStreamer(None))


def test_low_memory_is_refused_as_by_hugging_face(device):
    for model in pair("gqa", device):
        with pytest.raises(ValueError, match="low_memory"):
            both([model], random_ids(1, 5).to(device), low_memory=True)


def test_the_module_path_forces_hugging_faces_loop(device):
    models = pair("gqa", device)
    ids, mask = prompt(device)
    with mistral_ext.use_path("module"):
        theirs, ours = both(models, ids, attention_mask=mask)
    assert torch.equal(ours, theirs)
    assert mistral_ext.path_report(models[1]).generation.path == "python"


@pytest.mark.parametrize("call", [{}, {"do_sample": True, "top_p": 0.9}], ids=["search", "sample"])
def test_transition_scores_are_hugging_faces(call, device):
    models = pair("gqa", device)
    ids, mask = prompt(device)
    outputs = both(models, ids, attention_mask=mask, **EVERYTHING, **call)
    scores = [
        model.compute_transition_scores(output.sequences, output.scores, output.beam_indices)
        for model, output in zip(models, outputs, strict=True)
    ]
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-4, atol=1e-4)


def test_in_bf16_a_prompt_fed_once_is_as_exact_as_one_fed_for_each_beam(device):
    """The bound of docs/numerics.md, on the logits that the first tokens are picked from."""
    oracle, bf16 = (
        small_model("gqa", dtype, device, eos_token_id=None)
        for dtype in (torch.float32, torch.bfloat16)
    )
    models = [oracle, bf16, mistral_ext.from_hf(bf16)]
    ids, mask = prompt(device)
    first = [output.logits[0] for output in both(models, ids, attention_mask=mask, **EVERYTHING)]
    errors = [(logits - first[0]).square().mean().sqrt() for logits in first[1:]]
    assert errors[1] <= 1.1 * errors[0]
    assert_native(models[2])
