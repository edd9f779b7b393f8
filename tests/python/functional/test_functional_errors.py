"""What the functional API refuses, and how it says so."""

import pytest
import torch
from helpers.models import random_ids, small_model

from mistral_ext import (
    convert_back_mistral_lm_params,
    convert_mistral_lm_params,
    create_mistral_lm_cache,
    forward_mistral_lm,
    shard_mistral_lm_params,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def hf_model(device):
    return small_model(device=device)


@pytest.fixture
def ids(device):
    return random_ids(2, 17).to(device)


def square_mask(ids: torch.Tensor) -> torch.Tensor:
    return torch.ones(ids.shape[0], 1, 1, 17, 17, dtype=torch.bool, device=ids.device).tril()


@pytest.fixture
def params(hf_model):
    return convert_mistral_lm_params(hf_model)


def test_a_model_of_another_kind():
    with pytest.raises(ValueError, match="hf_model must be a Hugging Face model object"):
        convert_mistral_lm_params(torch.nn.Linear(2, 2))


def test_a_model_of_another_type():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    with pytest.raises(ValueError, match=r"model_type must be mistral.*got llama"):
        convert_mistral_lm_params(LlamaForCausalLM(config))


def test_a_model_without_a_head(hf_model):
    with pytest.raises(ValueError, match="hf_model must have a language-model head"):
        convert_mistral_lm_params(hf_model.model)


def test_a_model_without_storage():
    hf_model = small_model().to("meta")
    with pytest.raises(ValueError, match=r"embed_tokens\.weight must have storage"):
        convert_mistral_lm_params(hf_model)


def test_parameters_that_the_architecture_has_not(hf_model):
    hf_model.model.layers[0].mlp.up_proj = torch.nn.Linear(64, 96)
    with pytest.raises(ValueError, match=r"up_proj\.bias is not a parameter"):
        convert_mistral_lm_params(hf_model)


def test_params_without_their_config(params, ids):
    del params["config"]
    for call in (
        lambda: forward_mistral_lm(params, ids),
        lambda: shard_mistral_lm_params(params),
        lambda: convert_back_mistral_lm_params(params),
        lambda: create_mistral_lm_cache(params),
    ):
        with pytest.raises(ValueError, match="params must be what convert_mistral_lm_params"):
            call()


def test_a_parameter_that_is_missing(params, ids):
    del params["model"]["layers"][1]["mlp"]["up_proj"]
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj\.weight is missing"):
        forward_mistral_lm(params, ids)


def test_a_parameter_of_another_shape(params, ids):
    params["model"]["norm"]["weight"] = torch.ones(63, device=ids.device)
    with pytest.raises(ValueError, match=r"norm\.weight must have shape \[64\], got \[63\]"):
        forward_mistral_lm(params, ids)


def test_a_parameter_that_is_no_tensor(params, ids):
    params["model"]["norm"]["weight"] = 1.0
    with pytest.raises(ValueError, match=r"model\.norm\.weight must be a tensor, dict or list"):
        forward_mistral_lm(params, ids)


def test_a_mask_of_another_dtype_or_shape(params, ids):
    mask = square_mask(ids)
    for wrong in (mask.float(), mask[:, 0], mask.repeat(1, 3, 1, 1, 1)):
        with pytest.raises(ValueError, match="qk_mask must be bool"):
            forward_mistral_lm(params, ids, wrong)
    with pytest.raises(ValueError, match="qk_mask must have shape"):
        forward_mistral_lm(params, ids, mask[..., :-1])


def test_two_masks(params, ids):
    mask = torch.ones_like(ids)
    with pytest.raises(ValueError, match="at most one of attention_mask and qk_mask"):
        forward_mistral_lm(params, ids, square_mask(ids), attention_mask=mask)


def test_a_cache_of_another_kind(params, ids):
    with pytest.raises(ValueError, match="cache must come from create_mistral_lm_cache"):
        forward_mistral_lm(params, ids, cache=object())


def test_a_group_that_is_none(params):
    with pytest.raises(ValueError, match="group must be a process group, got 'tp' before"):
        shard_mistral_lm_params(params, group="tp")


def test_token_ids_outside_the_vocabulary(params, ids):
    ids[0, 3] = 99
    with pytest.raises((ValueError, IndexError), match="99"):
        forward_mistral_lm(params, ids)


def test_a_head_that_went_missing(params, ids):
    del params["lm_head"]
    missing = r"^params: lm_head\.weight must be given, since"
    with pytest.raises(ValueError, match=missing):
        forward_mistral_lm(params, ids)
    with pytest.raises(ValueError, match=missing):
        convert_back_mistral_lm_params(params)


def test_a_head_that_was_tied_by_hand_need_not_be_there(hf_model, ids):
    hf_model.lm_head.weight = hf_model.model.embed_tokens.weight
    params = convert_mistral_lm_params(hf_model)
    assert "lm_head" not in params
    # Sums of some hundred products in another order.
    torch.testing.assert_close(
        forward_mistral_lm(params, ids), hf_model(ids).logits, rtol=1e-4, atol=1e-4
    )
    state = convert_back_mistral_lm_params(params)
    assert state["lm_head.weight"] is state["model.embed_tokens.weight"]
