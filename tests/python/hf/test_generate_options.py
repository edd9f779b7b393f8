"""Every option of generate: Hugging Face's tokens, and which loop made them."""

import pytest
import torch
from helpers.compare import assert_close_to_scale
from helpers.generation import PLAIN, generate_both, left_padded
from helpers.models import random_ids, small_model
from transformers import (
    ContinuousBatchingConfig,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MaxTimeCriteria,
    StoppingCriteria,
    StoppingCriteriaList,
    WatermarkingConfig,
)

import mistral_ext

SAMPLE = {"do_sample": True, "top_k": 0}

# (arguments, loop): the C++ loop, or Hugging Face's over the C++ model.
OPTIONS = {
    "greedy": ({}, "native"),
    "min_new_tokens": ({"min_new_tokens": 6, "eos_token_id": list(range(3, 60))}, "native"),
    "min_length": ({"min_length": 12, "eos_token_id": list(range(3, 60))}, "native"),
    "max_length": ({"max_length": 15, "max_new_tokens": None}, "native"),
    "several end tokens": ({"eos_token_id": list(range(3, 30))}, "native"),
    "repetition_penalty": ({"repetition_penalty": 1.7}, "native"),
    "several sequences": ({**SAMPLE, "num_return_sequences": 3}, "native"),
    "temperature": ({**SAMPLE, "temperature": 0.6}, "native"),
    "top_k": ({**SAMPLE, "top_k": 7}, "native"),
    "top_p": ({**SAMPLE, "top_p": 0.7}, "native"),
    "min_p": ({**SAMPLE, "min_p": 0.1}, "native"),
    "prefill_chunk_size": ({"prefill_chunk_size": 3}, "native"),
    "top_h": ({**SAMPLE, "top_h": 0.5}, "native"),
    "forced_bos_token_id": ({"forced_bos_token_id": 33}, "native"),
    "max_time": ({"max_time": 1000.0}, "python"),
    "no_repeat_ngram_size": ({"no_repeat_ngram_size": 2}, "native"),
    "bad_words_ids": ({"bad_words_ids": [[5], [7, 9], *([i] for i in range(20, 60))]}, "native"),
    "suppress_tokens": ({"suppress_tokens": list(range(3, 50))}, "native"),
    "begin_suppress_tokens": ({"begin_suppress_tokens": list(range(3, 90))}, "native"),
    "forced_eos_token_id": ({"forced_eos_token_id": 2}, "native"),
    "sequence_bias": ({"sequence_bias": [[[11], 9.0], [[12, 13], -9.0]]}, "native"),
    "exponential decay": (
        {"exponential_decay_length_penalty": (2, 1.5), "eos_token_id": 7},
        "native",
    ),
    "encoder_repetition_penalty": ({"encoder_repetition_penalty": 1.5}, "python"),
    "remove_invalid_values": ({"remove_invalid_values": True}, "native"),
    "renormalize_logits": ({**SAMPLE, "renormalize_logits": True}, "native"),
    "typical_p": ({**SAMPLE, "typical_p": 0.5}, "native"),
    "epsilon_cutoff": ({**SAMPLE, "epsilon_cutoff": 1e-3}, "native"),
    "eta_cutoff": ({**SAMPLE, "eta_cutoff": 1e-2}, "native"),
    "guidance_scale": ({"guidance_scale": 1.5}, "python"),
    "watermarking": (
        {"watermarking_config": WatermarkingConfig(bias=2.5, seeding_scheme="lefthash")},
        "python",
    ),
    "prefix_allowed_tokens_fn": (
        {"prefix_allowed_tokens_fn": lambda row, ids: list(range(3 + row, 40, 2))},
        "python",
    ),
    "without a cache": ({"use_cache": False}, "python"),
    "dynamic cache": ({"cache_implementation": "dynamic"}, "native"),
    "static cache": ({"cache_implementation": "static"}, "python"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_gives_hugging_faces_tokens(option, device):
    call, loop = OPTIONS[option]
    ids, mask = left_padded(random_ids(2, 7).to(device), 3, 0)
    hf_model = small_model("window", device=device)
    run = generate_both(hf_model, ids, attention_mask=mask, **call)
    assert torch.equal(run.ours, run.theirs)
    assert run.report.generation.path == loop
    assert run.report.last_forward is None or (
        run.report.last_forward.path == ("module" if option == "static cache" else "native")
    )


def test_a_generation_config_says_all(device):
    config = GenerationConfig(max_new_tokens=9, do_sample=True, top_k=5, pad_token_id=0)
    hf_model = small_model(device=device)
    model = mistral_ext.from_hf(hf_model)
    ids = random_ids(2, 7).to(device)
    outputs = []
    for each in (model, hf_model):
        torch.manual_seed(0)
        outputs.append(each.generate(ids, generation_config=config))
    assert torch.equal(*outputs)
    assert mistral_ext.path_report(model).generation.path == "native"


class PenaliseLikeness(LogitsProcessor):
    """Lowers the candidates whose embeddings are like those of the tokens so far.

    In the manner of contrastive search: it reads the model and has a state.
    """

    def __init__(self, model):
        self.embeddings = torch.nn.functional.normalize(model.model.embed_tokens.weight.detach())
        self.steps = 0

    def __call__(self, input_ids, scores):
        self.steps += 1
        likeness = self.embeddings[input_ids] @ self.embeddings.T
        return scores - 4.0 * likeness.max(1).values


class AfterTwoOf(StoppingCriteria):
    def __init__(self, tokens):
        self.tokens = tokens

    def __call__(self, input_ids, scores, **kwargs):
        return torch.isin(input_ids[:, 7:], self.tokens).sum(1) >= 2


def test_a_processor_of_the_callers_own_runs_at_each_step(device):
    made = []

    def make(model):
        made.append(PenaliseLikeness(model))
        return {"logits_processor": LogitsProcessorList(made[-1:])}

    ids = random_ids(2, 7).to(device)
    run = generate_both(small_model(device=device), ids, make)
    assert torch.equal(run.ours, run.theirs)
    assert [processor.steps for processor in made] == [12, 12]
    assert "PenaliseLikeness" in run.report.generation.reason
    assert run.report.last_forward.path == "native"


def test_criteria_of_the_callers_own_stop_rows_in_the_c_plus_plus_loop(device):
    tokens = torch.arange(3, 50, device=device)
    criteria = StoppingCriteriaList([AfterTwoOf(tokens), MaxTimeCriteria(1000.0)])
    ids = random_ids(3, 7).to(device)
    run = generate_both(small_model(device=device), ids, stopping_criteria=criteria, eos_token_id=2)
    assert torch.equal(run.ours, run.theirs)
    assert run.ours.shape[1] < 7 + 12
    assert run.report.generation.path == "native"


@pytest.mark.parametrize("name", ["gqa", "window", "two_layer_types"])
@pytest.mark.parametrize("sample", [False, True])
def test_returns_scores_logits_hidden_states_and_attentions(name, sample, device):
    ids, mask = left_padded(random_ids(2, 7).to(device), 2, 0)
    asked = {f"output_{kind}": True for kind in ("scores", "logits", "hidden_states", "attentions")}
    run = generate_both(
        small_model(name, device=device),
        ids,
        attention_mask=mask,
        return_dict_in_generate=True,
        do_sample=sample,
        **asked,
    )
    ours, theirs = run.ours, run.theirs
    assert torch.equal(ours.sequences, theirs.sequences)
    assert ours.keys() == theirs.keys()
    for kind in ("scores", "logits"):
        for mine, reference in zip(getattr(ours, kind), getattr(theirs, kind), strict=True):
            kept = reference.isfinite()
            assert torch.equal(mine.isfinite(), kept)
            assert_close_to_scale(mine, reference, kept)
    prompt = mask.bool()
    for kind in ("hidden_states", "attentions"):
        for step, (mine, reference) in enumerate(
            zip(getattr(ours, kind), getattr(theirs, kind), strict=True)
        ):
            for a, b in zip(mine, reference, strict=True):
                a, b = (a, b) if kind == "hidden_states" else (a.transpose(1, 2), b.transpose(1, 2))
                assert_close_to_scale(a, b, prompt if step == 0 else ...)
    assert run.report.generation.path == "python"


def test_returns_scores_and_logits_from_the_c_plus_plus_loop(device):
    run = generate_both(
        small_model(device=device),
        random_ids(2, 7).to(device),
        return_dict_in_generate=True,
        output_scores=True,
        output_logits=True,
        repetition_penalty=1.4,
    )
    assert run.ours.keys() == run.theirs.keys()
    for kind in ("scores", "logits"):
        for mine, reference in zip(run.ours[kind], run.theirs[kind], strict=True):
            assert_close_to_scale(mine, reference)
    assert run.report.generation.path == "native"


@pytest.mark.parametrize("with_ids", [False, True])
@pytest.mark.parametrize("name", ["gqa", "window"])
def test_begins_with_embeddings(name, with_ids, device):
    hf_model = small_model(name, device=device)
    ids, mask = left_padded(random_ids(2, 9).to(device), 3, 0)
    embeds = hf_model.model.embed_tokens(ids).detach()
    call = {"input_ids": ids} if with_ids else {}
    run = generate_both(hf_model, None, inputs_embeds=embeds, attention_mask=mask, **call)
    assert torch.equal(run.ours, run.theirs)
    assert run.ours.shape[1] == 12 + 9 * with_ids
    assert run.report.generation.path == "native"


@pytest.mark.parametrize("name", ["gqa", "window", "two_layer_types"])
@pytest.mark.parametrize("fed", ["all", "new"])
def test_a_cache_serves_over_several_turns(name, fed, device):
    """As in a chat: each turn appends a question to what was generated."""
    hf_model = small_model(name, device=device, max_position_embeddings=128)
    model = mistral_ext.from_hf(hf_model)
    ids, mask = left_padded(random_ids(2, 7).to(device), 2, 0)
    questions = [random_ids(2, length, seed=length).to(device) for length in (5, 1, 8)]
    conversations = []
    for each in (model, hf_model):
        whole, cache = ids, None
        for question in (whole[:, :0], *questions):
            whole = torch.cat([whole, question], 1)
            begin = cache.get_seq_length() if cache is not None and fed == "new" else 0
            output = each.generate(
                whole[:, begin:],
                attention_mask=torch.cat([mask, torch.ones_like(whole[:, 7:])], 1),
                past_key_values=cache,
                return_dict_in_generate=True,
                **PLAIN,
            )
            whole = torch.cat([whole[:, :begin], output.sequences], 1)
            cache = output.past_key_values
            assert cache.get_seq_length() == whole.shape[1] - 1
        conversations.append(whole)
    assert torch.equal(*conversations)
    assert whole.shape[1] == 7 + 5 + 1 + 8 + 4 * 12
    assert mistral_ext.path_report(model).generation.path == "native"


def test_a_prompt_without_ids_begins_with_the_start_token(device):
    run = generate_both(small_model(device=device), None)
    assert torch.equal(run.ours, run.theirs)
    assert run.ours.shape == (1, 13)


def test_generate_of_the_callers_own_gets_the_models_cache(device):
    def two_tokens(model, input_ids, **kwargs):
        for _ in range(2):
            logits = model(input_ids, use_cache=False).logits
            input_ids = torch.cat([input_ids, logits[:, -1:].argmax(-1)], 1)
        return input_ids

    ids = random_ids(2, 7).to(device)
    run = generate_both(small_model(device=device), ids, custom_generate=two_tokens)
    assert torch.equal(run.ours, run.theirs)
    assert run.ours.shape[1] == 9


@pytest.mark.parametrize("attention", ["mistral_ext", "sdpa"])
def test_generate_batch_gives_the_tokens_of_generate(attention):
    """transformers' continuous batching, which pages keys and values by itself."""
    hf_model = small_model()
    model = mistral_ext.from_hf(hf_model)
    model.set_attn_implementation(attention)
    ids = random_ids(2, 7)
    config = GenerationConfig(max_new_tokens=5, do_sample=False, eos_token_id=2, pad_token_id=0)
    pages = ContinuousBatchingConfig(num_blocks=4, block_size=16, max_batch_tokens=32)
    outputs = model.generate_batch(
        ids.tolist(), generation_config=config, continuous_batching_config=pages
    )
    expected = hf_model.generate(ids, generation_config=config)[:, 7:].tolist()
    found = [output.generated_tokens for output in outputs.values()]
    assert sorted(found) == sorted(expected)
    assert model.config._attn_implementation == attention
    assert torch.equal(model.generate(ids, generation_config=config)[:, 7:], torch.tensor(expected))
    assert mistral_ext.path_report(model).generation.path == "native"
