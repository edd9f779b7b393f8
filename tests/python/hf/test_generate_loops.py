"""Which loop generate runs for what the C++ loop lacks; the tokens are Hugging Face's anyway."""

import logging

import pytest
import torch
import transformers
from helpers.models import random_ids, small_model
from transformers import (
    EosTokenCriteria,
    LogitsProcessorList,
    MaxLengthCriteria,
    MinLengthLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
)

import mistral_ext

COMMON = {"max_new_tokens": 10, "pad_token_id": 0, "do_sample": False}


class StopRowsOneByOne(StoppingCriteria):
    def __call__(self, input_ids, scores, **kwargs):
        length = input_ids.shape[1]
        return torch.tensor([length >= 8, length >= 12], device=input_ids.device)


def both(name, device, ids, **call):
    """(our output, Hugging Face's, which loop ours ran)"""
    hf_model = small_model(name, device=device, eos_token_id=call.get("eos_token_id"))
    model = mistral_ext.from_hf(hf_model)
    outputs = []
    for each in (model, hf_model):
        torch.manual_seed(0)
        outputs.append(each.generate(ids.to(device), **{**COMMON, **call}))
    return *outputs, mistral_ext.path_report(model).generation


@pytest.mark.parametrize(("eos", "loop"), [(None, "python"), (2, "native")])
def test_rows_that_a_criterion_stops(eos, loop, device):
    criteria = StoppingCriteriaList([StopRowsOneByOne()])
    call = {} if eos is None else {"eos_token_id": eos}
    ours, theirs, ran = both("gqa", device, random_ids(2, 5), stopping_criteria=criteria, **call)
    assert torch.equal(ours, theirs)
    assert ran.path == loop


class Stop(StoppingCriteria):
    """All rows at 8 columns; `make` gives the answer its form."""

    def __init__(self, make):
        self.make = make

    def __call__(self, input_ids, scores, **kwargs):
        input_ids.view(-1)  # which only contiguous ids have
        return self.make(input_ids, input_ids.shape[1] >= 8)


FORMS = {
    "bool": lambda ids, stop: stop,
    "tensor without dimensions": lambda ids, stop: torch.tensor(stop, device=ids.device),
    "one for all": lambda ids, stop: torch.tensor([stop], device=ids.device),
    "rows": lambda ids, stop: torch.full((len(ids),), stop, device=ids.device),
    "integers": lambda ids, stop: torch.full((len(ids),), int(stop), device=ids.device),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [1, 3])
def test_criteria_answer_in_any_form_that_hugging_faces_loop_takes(form, batch, device):
    criteria = StoppingCriteriaList([Stop(FORMS[form])])
    call = {"stopping_criteria": criteria, "eos_token_id": 2}
    ours, theirs, ran = both("gqa", device, random_ids(batch, 5), **call)
    assert torch.equal(ours, theirs)
    assert ours.shape == (batch, 8)
    assert ran.path == "native"


@pytest.mark.parametrize("own", ["processor", "criterion"])
def test_ends_of_a_processor_or_a_criterion_alone(own, device):
    """Not the ends that the others know: those are hidden for so long, these end the text."""
    ids = random_ids(1, 5)
    plain, _, _ = both("gqa", device, ids)
    token = int(plain[0, 6])
    if own == "processor":
        processor = MinLengthLogitsProcessor(30, token, device=device)
        call = {"logits_processor": LogitsProcessorList([processor])}
    else:
        criteria = StoppingCriteriaList([EosTokenCriteria(token)])
        call = {"stopping_criteria": criteria, "min_new_tokens": 5, "eos_token_id": 2}
    ours, theirs, ran = both("gqa", device, ids, **call)
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, plain)
    assert ran.path == "python"


def test_a_greatest_length_below_the_prompts_leaves_one_token(device):
    criteria = StoppingCriteriaList([MaxLengthCriteria(4)])
    call = {"stopping_criteria": criteria, "max_new_tokens": None}
    ours, theirs, ran = both("gqa", device, random_ids(1, 5), **call)
    assert torch.equal(ours, theirs)
    assert ours.shape == (1, 6)
    assert ran.path == "native"


@pytest.mark.parametrize(
    "call",
    [
        {"attention_mask": torch.ones(2, 9, dtype=torch.long)},
        {"position_ids": torch.arange(5.0)[None].expand(2, 5)},
        {"do_sample": True, "top_p": 0.0},
    ],
    ids=str,
)
def test_what_hugging_faces_loop_alone_takes(call, device):
    call = {n: v.to(device) if isinstance(v, torch.Tensor) else v for n, v in call.items()}
    ours, theirs, ran = both("gqa", device, random_ids(2, 5), **call)
    assert torch.equal(ours, theirs)
    assert ran.path == "python"


@pytest.mark.parametrize("warper", [TemperatureLogitsWarper(0.5), TopKLogitsWarper(3)])
def test_warpers_given_to_greedy_decoding_show_in_its_scores(warper, device):
    ours, theirs, ran = both(
        "gqa",
        device,
        random_ids(2, 5),
        logits_processor=LogitsProcessorList([warper]),
        return_dict_in_generate=True,
        output_scores=True,
    )
    assert torch.equal(ours.sequences, theirs.sequences)
    for mine, reference in zip(ours.scores, theirs.scores, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-4)
    assert ran.path == "python"


@pytest.mark.parametrize("name", ["gqa", "window"])
@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ({"guidance_scale": 1.5}, "UnbatchedClassifierFreeGuidanceLogitsProcessor"),
        ({"cache_implementation": "static"}, "StaticCache"),
        ({"use_cache": False}, "use_cache is off"),
    ],
    ids=str,
)
def test_what_the_loop_lacks_runs_in_python_over_the_same_model(name, call, reason, device):
    ours, theirs, ran = both(name, device, random_ids(2, 7), **call)
    assert torch.equal(ours, theirs)
    assert ran.path == "python"
    assert reason in ran.reason


@pytest.mark.parametrize("name", ["gqa", "window"])
@pytest.mark.parametrize("draft", ["model", "prompt lookup"])
def test_assisted_decoding_rolls_the_cache_back(name, draft, device):
    ids = random_ids(1, 7)
    call = {"prompt_lookup_num_tokens": 3}
    if draft == "model":
        call = {"assistant_model": mistral_ext.from_hf(small_model(name, seed=4, device=device))}
    hf_model = small_model(name, device=device)
    model = mistral_ext.from_hf(hf_model)
    ours = model.generate(ids.to(device), **{**COMMON, **call})
    assert torch.equal(ours, hf_model.generate(ids.to(device), **COMMON))
    report = mistral_ext.path_report(model)
    assert "assisted decoding" in report.generation.reason
    assert report.last_forward.path == "native"


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("length", [10, 11, 12, 13, 20])
def test_warns_of_the_models_length_where_hugging_face_does(length, beams, device, monkeypatch):
    logger = transformers.generation.stopping_criteria.logger
    said = []
    monkeypatch.setattr(logger, "warning_once", said.append)
    hf_model = small_model("gqa", device=device, eos_token_id=None, max_position_embeddings=12)
    model = mistral_ext.from_hf(hf_model)
    forward_logger = logging.getLogger(mistral_ext.hf.modeling.__name__)
    monkeypatch.setattr(forward_logger, "warning_once", pytest.fail, raising=False)
    ids = random_ids(2, 9).to(device)
    warnings = []
    for each in (hf_model, model):
        said.clear()
        each.generate(ids, max_length=length, num_beams=beams, do_sample=False, pad_token_id=0)
        warnings.append(set(said))
    assert warnings[0] == warnings[1]
    assert bool(warnings[1]) == (length > 13)
    assert mistral_ext.path_report(model).generation.path == "native"
