"""generate over the C++ loop: Hugging Face's tokens, and which loop ran."""

import pytest
import torch
import transformers
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

import mistral_ext


@pytest.fixture
def pair(device):
    """Hugging Face's model and ours, same parameters; a window shorter than the prompt."""
    config = transformers.MistralConfig(
        vocab_size=97,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=6,
        max_position_embeddings=128,
        pad_token_id=0,
        eos_token_id=[3, 5],
        attn_implementation="eager",
    )
    hf = transformers.MistralForCausalLM(config).eval().to(device)
    for parameter in hf.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.3)
    return hf, mistral_ext.from_hf(hf)


def prompt(device, batch=2, length=9):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(6, 97, (batch, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    return ids.to(device), mask.to(device)


SETTINGS = {
    "greedy": {"do_sample": False},
    "sampling": {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.9},
    "min_p": {"do_sample": True, "min_p": 0.05, "top_k": 0},
    "repetition penalty": {"do_sample": False, "repetition_penalty": 1.3, "min_new_tokens": 5},
    "prefill in chunks": {"do_sample": False, "prefill_chunk_size": 4},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_gives_hugging_faces_tokens_from_the_cpp_loop(pair, device, name):
    hf, ours = pair
    ids, mask = prompt(device)
    results = []
    for model in (hf, ours):
        torch.manual_seed(5)
        results.append(
            model.generate(ids, attention_mask=mask, max_new_tokens=24, **SETTINGS[name])
        )
    assert torch.equal(*results)
    assert mistral_ext.path_report(ours).generation.path == "native"


def test_returns_scores_logits_and_a_cache_that_goes_on(pair, device):
    hf, ours = pair
    ids, mask = prompt(device)
    asked = {
        "attention_mask": mask,
        "max_new_tokens": 6,
        "min_new_tokens": 6,
        "do_sample": False,
        "return_dict_in_generate": True,
        "output_scores": True,
        "output_logits": True,
    }
    expected, got = hf.generate(ids, **asked), ours.generate(ids, **asked)
    assert torch.equal(expected.sequences, got.sequences)
    for name in ("scores", "logits"):
        for a, b in zip(getattr(expected, name), getattr(got, name), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert got.past_key_values.get_seq_length() == expected.past_key_values.get_seq_length()
    more = {"attention_mask": torch.cat([mask, torch.ones_like(mask[:, :6])], 1)}
    continued = [
        model.generate(
            output.sequences, past_key_values=output.past_key_values, max_new_tokens=4, **more
        )
        for model, output in ((hf, expected), (ours, got))
    ]
    assert torch.equal(*continued)


class Forbid(LogitsProcessor):
    def __call__(self, input_ids, scores):
        scores[:, 7] = -float("inf")
        return scores


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"logits_processor": LogitsProcessorList([Forbid()])}, "Forbid"),
        ({"guidance_scale": 1.5}, "ClassifierFreeGuidance"),
        ({"output_hidden_states": True, "return_dict_in_generate": True}, "output_hidden_states"),
        ({"use_cache": False}, "use_cache"),
    ],
)
def test_runs_hugging_faces_loop_for_what_cpp_does_not_know_and_says_why(
    pair, device, asked, reason
):
    ours = pair[1]
    ids, mask = prompt(device)
    results = [m.generate(ids, attention_mask=mask, max_new_tokens=8, **asked) for m in pair]
    if not torch.is_tensor(results[0]):
        results = [result.sequences for result in results]
    assert torch.equal(*results)
    report = mistral_ext.path_report(ours)
    assert report.generation.path == "python"
    assert reason in report.generation.reason
    assert report.path == "native"  # forward still is C++


class StopAfter(StoppingCriteria):
    def __init__(self, length):
        self.length = length

    def __call__(self, input_ids, scores, **kwargs):
        return torch.full(
            (len(input_ids),), input_ids.shape[1] >= self.length, device=input_ids.device
        )


def test_serves_stopping_criteria_and_streamers_from_the_cpp_loop(pair, device):
    ours = pair[1]
    ids, _ = prompt(device, batch=1)

    class Tokens(transformers.generation.BaseStreamer):
        def __init__(self):
            self.seen = []

        def put(self, value):
            self.seen.append(value.flatten().tolist())

        def end(self):
            self.seen.append("end")

    streamers, results = [], []
    for model in pair:
        streamers.append(Tokens())
        results.append(
            model.generate(
                ids,
                max_new_tokens=20,
                min_new_tokens=10,
                do_sample=False,
                streamer=streamers[-1],
                stopping_criteria=StoppingCriteriaList([StopAfter(14)]),
            )
        )
    assert torch.equal(*results)
    assert results[1].shape[1] == 14
    assert streamers[0].seen == streamers[1].seen
    assert mistral_ext.path_report(ours).generation.path == "native"


def test_a_hook_moves_the_loop_to_python(pair, device):
    ours = pair[1]
    ids, mask = prompt(device)
    calls = []
    handle = ours.model.layers[1].register_forward_hook(lambda *args: calls.append(1))
    hooked = ours.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False)
    handle.remove()
    assert calls
    assert mistral_ext.path_report(ours).generation.path == "python"
    plain = ours.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False)
    assert torch.equal(hooked, plain)


def test_beams_run_the_cpp_loop_with_hugging_faces_result(pair, device):
    ids, mask = prompt(device)
    results = [
        m.generate(ids, attention_mask=mask, max_new_tokens=10, num_beams=3, do_sample=False)
        for m in pair
    ]
    assert torch.equal(*results)
    assert mistral_ext.path_report(pair[1]).generation.path == "native"
