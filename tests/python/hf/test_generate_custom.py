"""Decoding methods, processors and criteria of the caller's own, in every loop of generate."""

import pytest
import torch
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.generation import PLAIN, generate_both, left_padded
from helpers.models import random_ids, small_model
from transformers import (
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

import mistral_ext


def contrastive_search(model, input_ids, *, alpha, candidates, **arguments):
    """Su et al. 2022, arXiv 2202.06417: of the likeliest tokens the one least like the context.

    Each step feeds all candidates, as rows of a repeated cache, and keeps the rows of those chosen.
    """
    processors, criteria = arguments.pop("logits_processor"), arguments.pop("stopping_criteria")
    mask, cache = arguments["attention_mask"], arguments["past_key_values"]
    rows = torch.arange(len(input_ids), device=input_ids.device)
    output = model(
        input_ids,
        attention_mask=mask,
        past_key_values=cache,
        output_hidden_states=True,
        use_cache=True,
    )
    context = torch.nn.functional.normalize(output.hidden_states[-1], dim=-1)
    logits, stopped = output.logits[:, -1], torch.zeros_like(rows, dtype=torch.bool)
    while not stopped.all():
        probabilities = processors(input_ids, logits.float()).softmax(-1)
        likeliest = probabilities.topk(candidates)
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], 1)
        cache.batch_repeat_interleave(candidates)
        output = model(
            likeliest.indices.view(-1, 1),
            attention_mask=mask.repeat_interleave(candidates, 0),
            past_key_values=cache,
            output_hidden_states=True,
            use_cache=True,
        )
        states = torch.nn.functional.normalize(output.hidden_states[-1][:, -1], dim=-1)
        states = states.unflatten(0, (-1, candidates))
        likeness = states @ context.transpose(1, 2)
        likeness = likeness.masked_fill(mask[:, None, :-1] == 0, -1.0).amax(-1)
        best = ((1 - alpha) * likeliest.values - alpha * likeness).argmax(-1)
        cache.batch_select_indices(rows * candidates + best)
        context = torch.cat([context, states[rows, best][:, None]], 1)
        logits = output.logits[:, -1].unflatten(0, (-1, candidates))[rows, best]
        input_ids = torch.cat([input_ids, likeliest.indices[rows, best][:, None]], 1)
        stopped = stopped | criteria(input_ids, None)
    return input_ids


@pytest.mark.parametrize("name", ["gqa", "window", "two_layer_types"])
@pytest.mark.parametrize("cache", ["made by generate", "the caller's"])
def test_contrastive_search_as_a_callable(name, cache, device):
    hf_model = small_model(name, device=device)
    ids, mask = left_padded(random_ids(2, 9).to(device), 3, 0)

    def make(model):
        return {"past_key_values": DynamicCache(config=model.config)} if "caller" in cache else {}

    call = {"attention_mask": mask, "no_repeat_ngram_size": 3, "max_new_tokens": 14}
    run = generate_both(
        hf_model, ids, make, custom_generate=contrastive_search, alpha=0.6, candidates=4, **call
    )
    assert torch.equal(run.ours, run.theirs)
    assert run.ours.shape == (2, 9 + 14)
    assert run.report.last_forward.path == "native"
    plain = generate_both(hf_model, ids, **call)
    assert not torch.equal(plain.ours, run.ours)  # the likeness did decide


@pytest.mark.parametrize(
    "call",
    [
        {"penalty_alpha": 0.6, "top_k": 4},
        {"dola_layers": "high"},
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
        {"num_beams": 2, "force_words_ids": [[5]]},
    ],
    ids=lambda call: next(iter(call)),
)
def test_methods_that_transformers_has_given_up_do_what_they_do_there(call, device):
    hf_model = small_model(device=device)
    outcomes = []
    for each in (hf_model, mistral_ext.from_hf(hf_model)):
        try:
            outcomes.append(each.generate(random_ids(1, 5).to(device), **{**PLAIN, **call}))
        except Exception as error:
            outcomes.append((type(error), str(error)))
    if torch.is_tensor(outcomes[0]):
        assert torch.equal(*outcomes)
    else:
        assert outcomes[0] == outcomes[1]


def drafting(model, device, seed=4):
    """Arguments for assisted decoding by a draft model without windows.

    Hugging Face's cache fails to roll back under a window, so its model gets one without windows,
    which leaves them to the masks.
    """
    draft = small_model("gqa", seed=seed, device=device)
    if isinstance(model, mistral_ext.MistralForCausalLM | mistral_ext.MinistralForCausalLM):
        return {"assistant_model": mistral_ext.from_hf(draft)}
    return {"assistant_model": draft, "past_key_values": DynamicCache()}


class LowerOften(LogitsProcessor):
    """Lowers what a row has, by how often it has it; counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, input_ids, scores):
        self.calls += 1
        counts = torch.zeros_like(scores).scatter_add_(
            1, input_ids, torch.ones_like(input_ids, dtype=scores.dtype)
        )
        return scores - 1.5 * counts


class EndAfter(StoppingCriteria):
    """Ends a row once it has three tokens of a kind."""

    def __call__(self, input_ids, scores, **kwargs):
        return (input_ids[:, 7:] % 3 == 0).sum(1) >= 3


LOOPS = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 20},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "beam sampling": {"num_beams": 3, "do_sample": True},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "assisted": {},
    "assisted sampling": {"do_sample": True, "top_k": 20},
}


@pytest.mark.parametrize("name", ["gqa", "window"])
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("own", ["processor", "criterion", "both"])
def test_processors_and_criteria_of_the_callers_own_in_every_loop(name, loop, own, device):
    hf_model = small_model(name, device=device)
    made = []

    def make(model):
        arguments = {}
        if own != "criterion":
            made.append(LowerOften())
            arguments["logits_processor"] = LogitsProcessorList(made[-1:])
        if own != "processor":
            arguments["stopping_criteria"] = StoppingCriteriaList([EndAfter()])
        if loop.startswith("assisted"):
            arguments |= drafting(model, device)
        elif loop == "prompt lookup" and model is hf_model:
            arguments["past_key_values"] = DynamicCache()
        return arguments

    assists = loop.startswith("assisted") or loop == "prompt lookup"
    ids, mask = left_padded(
        random_ids(1 if assists else 3, 7).to(device), *([0] if assists else [2, 0, 5])
    )
    call = {"attention_mask": mask, "eos_token_id": 7, "max_new_tokens": 14, **LOOPS[loop]}
    run = generate_both(hf_model, ids, make, **call)
    assert torch.equal(run.ours, run.theirs)
    in_cpp = own == "criterion" and not assists
    assert run.report.generation.path == ("native" if in_cpp else "python")
    assert in_cpp or run.report.last_forward.path == "native"
    if own != "criterion":
        assert made[0].calls == made[1].calls > 0


@pytest.mark.parametrize("name", ["gqa", "window", "two_layer_types"])
@pytest.mark.parametrize("loop", ["beams", "beam sampling", "prompt lookup", "assisted sampling"])
def test_returns_everything_that_can_be_asked_for(name, loop, device):
    """Of greedy decoding and sampling test_generate_options.py."""
    hf_model = small_model(name, device=device)
    assists = loop in ("prompt lookup", "assisted sampling")
    ids, mask = left_padded(
        random_ids(1 if assists else 2, 7).to(device), *([0] if assists else [2, 0])
    )
    states = ["hidden_states", "attentions"]
    if assists and name != "gqa":
        states.pop()  # of another length in Hugging Face's cache without windows
    asked = {f"output_{kind}": True for kind in ("scores", "logits", *states)}

    def make(model):
        if loop == "assisted sampling":
            return drafting(model, device)
        return {"past_key_values": DynamicCache()} if assists and model is hf_model else {}

    run = generate_both(
        hf_model,
        ids,
        make,
        attention_mask=mask,
        return_dict_in_generate=True,
        eos_token_id=7,
        **asked,
        **LOOPS[loop],
    )
    ours, theirs = run.ours, run.theirs
    assert ours.keys() == theirs.keys()
    assert torch.equal(ours.sequences, theirs.sequences)
    for kind in ("scores", "logits"):
        for mine, reference in zip(ours[kind], theirs[kind], strict=True):
            kept = reference.isfinite()
            assert torch.equal(mine.isfinite(), kept)
            assert_close_to_scale(mine, reference, kept)
    beams = LOOPS[loop].get("num_beams", 1)
    prompt = mask.bool().repeat_interleave(beams, 0)
    for kind in states:
        for step, (mine, reference) in enumerate(zip(ours[kind], theirs[kind], strict=True)):
            for a, b in zip(mine, reference, strict=True):
                a, b = (a, b) if kind == "hidden_states" else (a.transpose(1, 2), b.transpose(1, 2))
                assert_close_to_scale(a, b, prompt if step == 0 and not assists else ...)
    assert run.report.generation.path == "python"


@pytest.mark.parametrize("name", ["window", "two_layer_types"])
@pytest.mark.parametrize("seed", range(4))
def test_assisted_sampling_rolls_back_across_the_window(name, seed, device):
    """Of greedy decoding test_generate_windows.py; here with the draft's own sampled rejections."""
    hf_model = small_model(name, device=device, seed=seed)
    model = mistral_ext.from_hf(hf_model)
    outputs = []
    for each in (hf_model, model):
        torch.manual_seed(seed)
        output = each.generate(
            random_ids(1, 9, seed=seed).to(device),
            do_sample=True,
            max_new_tokens=20,
            return_dict_in_generate=True,
            eos_token_id=None,
            pad_token_id=0,
            **drafting(each, device, seed + 9),
        )
        outputs.append(output)
    assert torch.equal(outputs[1].sequences, outputs[0].sequences)
    lengths = [output.past_key_values.get_seq_length() for output in outputs]
    assert lengths[0] == lengths[1]
    assert_ran(model, "native")
    assert "assisted decoding" in mistral_ext.path_report(model).generation.reason
