"""What Hugging Face's class refuses ours does, at least as clearly; what it takes, ours takes."""

import pytest
import torch
import transformers
from helpers.generation import PLAIN, generate_both
from helpers.models import ROPE, random_ids, small_config, small_model

import mistral_ext

IDS = random_ids(2, 6)

FORWARD = {
    "labels of fewer rows": ({"labels": IDS[:1]}, "batch_size"),
    "labels of another length": ({"labels": IDS[:, :4]}, "batch_size"),
    "a label beyond the vocabulary": ({"labels": IDS + 200}, r"labels must be in \[0, 99\)"),
    "a negative label": ({"labels": IDS * 0 - 5}, r"labels must be in \[0, 99\)"),
    "float labels": ({"labels": IDS.float()}, "Long"),
    "a position that is not there": (
        {"logits_to_keep": torch.tensor([9])},
        r"logits_to_keep must hold positions in \[-6, 6\), got \[9\]",
    ),
    "a tuple as cache": ({"past_key_values": ((1, 2),)}, "tuple"),
    "a list of ids": ({"input_ids": [[1, 2]]}, "must be Tensor, not list"),
    "text": ({"input_ids": "text"}, "must be Tensor, not str"),
    "ids beyond the vocabulary": ({"input_ids": IDS + 900}, r"input_ids must be in \[0, 99\)"),
    "ids of three dimensions": (
        {"input_ids": IDS[None]},
        "input_ids must have 2 dimensions, got 3",
    ),
    "ids of one dimension": ({"input_ids": IDS[0]}, "input_ids must have 2 dimensions, got 1"),
    "ids of int16": ({"input_ids": IDS.short()}, "input_ids must be int64 or int32, got Short"),
    "negative ids": ({"input_ids": IDS - 50}, r"input_ids must be in \[0, 99\)"),
    "no rows": ({"input_ids": IDS[:0]}, r"at least one row and one token, got shape \[0, 6\]"),
    "no tokens": ({"input_ids": IDS[:, :0]}, r"at least one row and one token, got shape \[2, 0\]"),
    "an array of ids": ({"input_ids": IDS.numpy()}, "must be Tensor, not numpy.ndarray"),
    "neither ids nor embeddings": ({"input_ids": None}, "exactly one of .*, got neither"),
    "ids and embeddings": ({"inputs_embeds": torch.zeros(2, 6, 64)}, "exactly one of .*, got both"),
    "embeddings of another size": (
        {"input_ids": None, "inputs_embeds": torch.zeros(2, 6, 63)},
        r"inputs_embeds must have shape \[batch, seq, 64\], got \[2, 6, 63\]",
    ),
    "positions of another length": (
        {"position_ids": torch.zeros(2, 5).long()},
        r"position_ids must have shape \[2 or 1, 6\], got \[2, 5\]",
    ),
    "a mask of three dimensions": (
        {"attention_mask": torch.ones(2, 6, 6)},
        "attention_mask must have 2 or 4 dimensions, got 3",
    ),
    "a mask of fewer keys": (
        {"attention_mask": torch.ones(2, 1, 6, 5)},
        r"attention_mask of 4 dimensions must have 6 keys \(or 1\), got \[2, 1, 6, 5\]",
    ),
    "text as mask": ({"attention_mask": "text"}, "'str' object"),
    "text as cache": ({"past_key_values": "text"}, "'str' object"),
    "text as labels": ({"labels": "text"}, "must be Tensor, not str"),
    "labels of int32": ({"labels": IDS.int()}, "Long"),
    "text for logits_to_keep": ({"logits_to_keep": "text"}, "str"),
    "a float for logits_to_keep": ({"logits_to_keep": 1.0}, "float"),
    "bool ids": ({"input_ids": IDS.bool()}, "input_ids must be int64 or int32, got Bool"),
}

GENERATE = {
    "no new tokens": ({"max_new_tokens": 0}, "max_new_tokens"),
    "temperature 0": ({"do_sample": True, "temperature": 0.0}, "temperature"),
    "temperature NaN": ({"do_sample": True, "temperature": float("nan")}, "temperature"),
    "negative top_p": ({"do_sample": True, "top_p": -1.0}, "top_p"),
    "negative top_k": ({"do_sample": True, "top_k": -1}, "top_k"),
    "min_p of 2": ({"do_sample": True, "min_p": 2.0}, "min_p"),
    "a penalty of 0": ({"repetition_penalty": 0.0}, "penalty"),
    "an unknown argument": ({"nonsense": 1}, r"not used by the model: \['nonsense'\]"),
    "more sequences than beams": ({"num_beams": 2, "num_return_sequences": 3}, "num_beams"),
    "several greedy sequences": ({"num_return_sequences": 2}, "num_return_sequences"),
    "streamed beams": (
        {"num_beams": 2, "streamer": transformers.generation.BaseStreamer()},
        "streamer",
    ),
    "an unknown cache": ({"cache_implementation": "nonsense"}, "Invalid `cache_implementation`"),
    "chunks of nothing": ({"prefill_chunk_size": 0}, "prefill_chunk_size must be positive, got 0"),
    "a mask of three dimensions": ({"attention_mask": torch.ones(2, 6, 6)}, "must be 2D"),
    "a mask that is too short": (
        {"attention_mask": torch.ones(2, 4)},
        r"attention_mask must have shape \[2, 6\]",
    ),
    "strings without a tokenizer": ({"stop_strings": "a"}, "tokenizer"),
    "a tuple as cache": ({"past_key_values": ((1, 2),)}, "tuple of `past_key_values`"),
    "float ids": ({"input_ids": IDS.float()}, "input_ids must be int64 or int32, got Float"),
    "ids beyond the vocabulary": ({"input_ids": IDS + 900}, r"input_ids must be in \[0, 99\)"),
    "an empty prompt": ({"input_ids": IDS[:, :0]}, "out of bounds"),
}

# torch's and transformers' own, and ValueError, which is ours.
ERRORS = (ValueError, IndexError, TypeError, RuntimeError, AttributeError)


@pytest.mark.parametrize("case", FORWARD)
def test_forward_refuses(case):
    call, message = FORWARD[case]
    hf_model = small_model()
    model = mistral_ext.from_hf(hf_model)
    with torch.no_grad():
        with pytest.raises(ERRORS):
            hf_model(**{"input_ids": IDS, **call})
        with pytest.raises(ERRORS, match=message):
            model(**{"input_ids": IDS, **call})


TAKEN = {
    "an unknown keyword": {"nonsense": 1},
    "ids of int32": {"input_ids": IDS.int()},
    "more logits than tokens": {"logits_to_keep": 100},
    "a mask of bool": {"attention_mask": torch.ones(2, 6).bool()},
    "a mask of halves": {"attention_mask": torch.full((2, 6), 0.5)},
    "a mask of more rows": {"attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0]] + [[1] * 6] * 2)},
    "no labels that count": {"labels": IDS * 0 - 100},
    "no items in the batch": {"labels": IDS, "num_items_in_batch": 0},
    "a share of items": {"labels": IDS, "num_items_in_batch": 2.5},
    "negative positions": {"position_ids": torch.full((2, 6), -1)},
    "positions beyond the greatest": {"position_ids": torch.full((2, 6), 10000)},
    "more tokens than positions": {"input_ids": random_ids(1, 100)},
    "text for use_cache": {"use_cache": "yes"},
    "a tuple to return": {"return_dict": False, "output_hidden_states": True},
}


@pytest.mark.parametrize("case", TAKEN)
def test_forward_takes_what_hugging_faces_takes(case):
    hf_model = small_model()
    call = {"input_ids": IDS, **TAKEN[case]}
    with torch.no_grad():
        theirs, ours = (model(**call) for model in (hf_model, mistral_ext.from_hf(hf_model)))
    if isinstance(theirs, tuple):
        assert len(ours) == len(theirs)
        ours, theirs = ({"logits": output[0]} for output in (ours, theirs))
    for key in {"loss", "logits"} & set(theirs):
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("case", GENERATE)
def test_generate_refuses(case):
    call, message = GENERATE[case]
    hf_model = small_model()
    model = mistral_ext.from_hf(hf_model)
    with pytest.raises(ERRORS):
        hf_model.generate(**{"input_ids": IDS, **PLAIN, **call})
    with pytest.raises(ERRORS, match=message):
        model.generate(**{"input_ids": IDS, **PLAIN, **call})


@pytest.mark.parametrize(
    "call",
    [
        {"pad_token_id": 1000},
        {"pad_token_id": -1},
        {"eos_token_id": 1000},
        {"eos_token_id": -1},
        {"do_sample": True, "top_p": 0.0},
        {"do_sample": True, "top_p": 2.0},
        {"do_sample": True, "top_k": 1000},
        {"min_new_tokens": -1},
        {"min_new_tokens": 30},
        {"max_length": 3},
    ],
    ids=str,
)
def test_generate_takes_what_hugging_faces_takes(call):
    run = generate_both(small_model(), IDS, **call)
    assert torch.equal(run.ours, run.theirs)


@pytest.mark.parametrize("name", ["mistral", "ministral", "ministral3"])
def test_an_unknown_rope_type_is_refused_with_the_known_ones(name):
    config = small_config(model_type=name, rope_parameters={**ROPE, "rope_type": "nonsense"})
    ours = getattr(mistral_ext, type(config).__name__.replace("Config", "ForCausalLM"))
    known = "rope_type must be one of .*default, dynamic, linear, llama3, .*yarn, got 'nonsense'"
    with pytest.raises(ValueError, match=known):
        ours(config)


def test_an_unknown_activation_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"hidden_act must be one of .*gelu.*silu.*got 'nonsense'"):
        mistral_ext.MistralForCausalLM(small_config(hidden_act="nonsense"))


def made(attention):
    mistral_ext.MistralForCausalLM._from_config(small_config(), attn_implementation=attention)


def changed(attention):
    mistral_ext.from_hf(small_model()).set_attn_implementation(attention)


@pytest.mark.parametrize("ask", [made, changed])
def test_an_unknown_attention_is_refused_with_the_known_ones(ask):
    known = r'"nonsense"` is not supported.*eager.*sdpa.*flex_attention.*"mistral_ext"'
    with pytest.raises(ValueError, match=known):
        ask("nonsense")


def test_a_model_without_layers_gives_what_hugging_faces_gives():
    config = small_config(num_hidden_layers=0)
    torch.manual_seed(0)
    hf_model = transformers.MistralForCausalLM(config).eval()
    model = mistral_ext.from_hf(hf_model)
    torch.testing.assert_close(model(IDS).logits, hf_model(IDS).logits)
