"""What use_path and MISTRAL_EXT_PATH force: forward and generate keep to it or say what hinders."""

import pytest
import torch
from helpers.compare import assert_ran

import mistral_ext


def test_a_path_can_be_forced(model, ids, monkeypatch):
    with mistral_ext.use_path("module"):
        model(ids)
        assert_ran(model, "module")
        with mistral_ext.use_path("native"):
            model(ids)
            assert_ran(model, "native")
    monkeypatch.setenv("MISTRAL_EXT_PATH", "module")
    model(ids)
    assert_ran(model, "module")
    with mistral_ext.use_path("auto"):
        model(ids)
        assert_ran(model, "native")
    monkeypatch.setenv("MISTRAL_EXT_PATH", "native")
    with pytest.raises(RuntimeError, match="the native path is forced, but output_attentions"):
        model(ids, output_attentions=True)
    model.lm_head.register_forward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="forced, but lm_head has a hook"):
        model(ids)


LOOPS = {
    "greedy": ({}, ""),
    "sampling": ({"do_sample": True, "top_k": 3}, ""),
    "beams": ({"num_beams": 2}, ""),
    "without a cache": ({"use_cache": False}, "use_cache is off"),
    "a static cache": ({"cache_implementation": "static"}, "past_key_values is a StaticCache"),
    "guidance": ({"guidance_scale": 1.5}, "the logits processor UnbatchedClassifierFree.* is not"),
    "beams with a foreign processor": (
        {"num_beams": 2, "prefix_allowed_tokens_fn": lambda row, ids: [5, 6]},
        "the logits processor PrefixConstrainedLogitsProcessor is not one of the C",
    ),
    "hidden states": (
        {"return_dict_in_generate": True, "output_hidden_states": True},
        "output_hidden_states is asked for",
    ),
    "prompt lookup": ({"prompt_lookup_num_tokens": 2}, "assisted decoding is asked for"),
}


@pytest.mark.parametrize("how", LOOPS)
def test_generate_keeps_to_the_path_that_is_forced(model, hf_model, ids, how):
    call, reason = LOOPS[how]
    call = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, **call}
    one = ids[:1]
    with mistral_ext.use_path("native"):
        if reason:
            with pytest.raises(RuntimeError, match=f"the native path is forced, but {reason}"):
                model.generate(one, **call)
        else:
            model.generate(one, **call)
            assert str(mistral_ext.path_report(model).generation) == "native"
    with mistral_ext.use_path("module"):
        torch.manual_seed(0)
        ours = model.generate(one, **call)
        assert mistral_ext.path_report(model).generation.path == "python"
        assert_ran(model, "module")
    torch.manual_seed(0)
    theirs = hf_model.generate(one, **call)
    if not torch.is_tensor(ours):
        ours, theirs = ours.sequences, theirs.sequences
    assert torch.equal(ours, theirs)


def test_a_draft_model_has_no_loop_in_cpp(model, hf_model, ids):
    """Nor has the model that it drafts for: each step of both is native where nothing is forced."""
    drafter = mistral_ext.from_hf(hf_model)
    call = {"assistant_model": drafter, "max_new_tokens": 4, "do_sample": False}
    model.generate(ids[:1], **call)
    assert mistral_ext.path_report(drafter).generation.path == "python"
    with (
        mistral_ext.use_path("native"),
        pytest.raises(RuntimeError, match="forced, but assisted decoding is asked for"),
    ):
        model.generate(ids[:1], **call)


def test_a_path_that_is_none_is_refused(model, ids, monkeypatch):
    with (
        pytest.raises(ValueError, match="must be one of auto, native, module, got 'fast'"),
        mistral_ext.use_path("fast"),
    ):
        pass
    monkeypatch.setenv("MISTRAL_EXT_PATH", "fast")
    with pytest.raises(ValueError, match="MISTRAL_EXT_PATH must be one of"):
        model(ids)
