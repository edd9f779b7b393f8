"""The functional API against the Hugging Face model its parameters come from."""

import copy
import gc
import io
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers import smollm2
from helpers.models import CONFIGS, random_ids, small_model
from torch.utils import _pytree as pytree

import mistral_ext
from mistral_ext import (
    convert_back_mistral_lm_params,
    convert_mistral_lm_params,
    create_mistral_lm_cache,
    forward_mistral_lm,
    shard_mistral_lm_params,
)

pytestmark = pytest.mark.usefixtures("one_thread")

# Sums of some hundred products in another order.
RELATIVE = 1e-4


def assert_same_logits(ours: torch.Tensor, theirs: torch.Tensor, where=...) -> None:
    error = (ours - theirs)[where].abs().max() / theirs[where].abs().max()
    assert error <= RELATIVE


def hf_logits(model, *arguments, **keywords) -> torch.Tensor:
    with torch.no_grad():
        return model(*arguments, use_cache=False, **keywords).logits


def square_mask(attention_mask: torch.Tensor) -> torch.Tensor:
    """The mask of mistral-jax's page: bool [batch, 1, 1, seq, seq]."""
    mask = attention_mask.bool()
    return torch.tril(torch.einsum("bi,bj->bij", mask, mask))[:, None, None]


@pytest.fixture
def hf_model(device):
    return small_model(device=device)


@pytest.fixture
def ids(device):
    return random_ids(2, 17).to(device)


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_equal_hugging_faces_without_a_mask(name, ids, device):
    hf_model = small_model(name, device=device)
    params = shard_mistral_lm_params(convert_mistral_lm_params(hf_model))
    assert_same_logits(forward_mistral_lm(params, ids), hf_logits(hf_model, ids))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_of_padded_rows_equal_hugging_faces_at_every_token(name, side, ids, device):
    hf_model = small_model(name, device=device)
    attention_mask = torch.ones_like(ids)
    padding = slice(0, 6) if side == "left" else slice(11, 17)
    attention_mask[0, padding] = 0
    params = convert_mistral_lm_params(hf_model)
    theirs = hf_logits(hf_model, ids, attention_mask=attention_mask)
    for mask in ({"qk_mask": square_mask(attention_mask)}, {"attention_mask": attention_mask}):
        ours = forward_mistral_lm(params, ids, **mask)
        assert ours.isfinite().all()
        assert_same_logits(ours, theirs, attention_mask.bool())


def test_a_mask_may_tell_the_heads_apart(hf_model, ids):
    params = convert_mistral_lm_params(hf_model)
    visible = square_mask(torch.ones_like(ids))
    by_head = visible.repeat(1, 2, 2, 1, 1)
    assert_same_logits(forward_mistral_lm(params, ids, by_head), hf_logits(hf_model, ids))
    by_head[:, 1, 0, :, 0] = False
    changed = forward_mistral_lm(params, ids, by_head)
    assert not torch.allclose(changed, hf_logits(hf_model, ids), atol=1e-2)


@pytest.mark.parametrize("name", ["gqa", "window", "two_layer_types"])
@pytest.mark.parametrize("masked", [False, True])
def test_chunks_with_a_cache_give_the_logits_of_one_pass(name, masked, ids, device):
    hf_model = small_model(name, device=device)
    attention_mask = torch.ones_like(ids)
    if masked:
        attention_mask[1, :4] = 0
    whole = square_mask(attention_mask)
    params = convert_mistral_lm_params(hf_model)
    cache = create_mistral_lm_cache(params)
    logits = []
    for begin, end in [(0, 8), (8, 9), (9, 10), (10, 14), (14, 15), (15, 16), (16, 17)]:
        qk_mask = whole[..., begin:end, :end] if masked else None
        logits.append(forward_mistral_lm(params, ids[:, begin:end], qk_mask, cache=cache))
    theirs = hf_logits(hf_model, ids, attention_mask=attention_mask)
    assert_same_logits(torch.cat(logits, 1), theirs, attention_mask.bool())


def test_a_models_cache_goes_on_where_a_function_left_off(hf_model, ids):
    model = mistral_ext.from_hf(hf_model)
    cache = model.create_cache()
    params = convert_mistral_lm_params(model)
    first = forward_mistral_lm(params, ids[:, :9], cache=cache)
    with torch.no_grad():
        second = model(ids[:, 9:], past_key_values=cache).logits
    assert_same_logits(torch.cat([first, second], 1), hf_logits(hf_model, ids))


def test_positions_that_start_again_are_packed_sequences(hf_model, ids):
    positions = torch.cat([torch.arange(9), torch.arange(8)])[None].to(ids.device)
    params = convert_mistral_lm_params(hf_model)
    ours = forward_mistral_lm(params, ids, position_ids=positions)
    assert_same_logits(ours, hf_logits(hf_model, ids, position_ids=positions))


def test_keeps_the_logits_that_are_asked_for(hf_model, ids):
    params = convert_mistral_lm_params(hf_model)
    every = forward_mistral_lm(params, ids)
    torch.testing.assert_close(forward_mistral_lm(params, ids, logits_to_keep=1), every[:, -1:])
    indices = torch.tensor([3, 0], device=ids.device)
    torch.testing.assert_close(
        forward_mistral_lm(params, ids, logits_to_keep=indices), every[:, [3, 0]]
    )


@pytest.mark.parametrize("name", ["gqa", "tied"])
def test_state_dict_comes_back_as_it_was(name, device):
    hf_model = small_model(name, device=device)
    state = convert_back_mistral_lm_params(convert_mistral_lm_params(hf_model))
    expected = hf_model.state_dict()
    assert state.keys() == expected.keys()
    for key, tensor in expected.items():
        assert state[key].data_ptr() == tensor.data_ptr()
        assert torch.equal(state[key], tensor)
    small_model(name, device=device, seed=1).load_state_dict(state, strict=True)


def test_structure_is_named_as_hugging_faces_parameters(hf_model):
    params = convert_mistral_lm_params(hf_model)
    layer = params["model"]["layers"][2]
    assert layer["self_attn"]["k_proj"]["weight"].shape == (32, 64)
    assert len(params["model"]["layers"]) == 3
    assert params["config"].to_dict()["hidden_size"] == 64
    assert "lm_head" in params
    assert "lm_head" not in convert_mistral_lm_params(small_model("tied"))


def test_tensors_are_the_models_own_and_need_no_gradient(hf_model):
    params = convert_mistral_lm_params(hf_model)
    for tensor in pytree.tree_leaves(params):
        assert isinstance(tensor, torch.Tensor)
        assert not tensor.requires_grad
    weight = params["model"]["norm"]["weight"]
    assert weight.data_ptr() == hf_model.model.norm.weight.data_ptr()


def test_params_map_as_a_pytree(hf_model, ids):
    params = convert_mistral_lm_params(hf_model)
    doubled = pytree.tree_map(lambda tensor: tensor.double(), params)
    logits = forward_mistral_lm(doubled, ids)
    assert logits.dtype == torch.float64
    assert_same_logits(logits, hf_logits(hf_model, ids).double())
    leaves, structure = pytree.tree_flatten(params)
    again = pytree.tree_unflatten(leaves, structure)
    assert again["config"] == params["config"]
    assert pytree.tree_structure(doubled) == structure


def test_params_of_one_config_object_may_run_in_several_threads(hf_model, ids, device):
    params = convert_mistral_lm_params(hf_model)
    other = convert_mistral_lm_params(small_model(seed=5, device=device))
    both = [params, {**other, "config": params["config"]}]  # as a shallow edit leaves it
    expected = [forward_mistral_lm(each, ids) for each in both]
    with ThreadPoolExecutor(len(both)) as threads:
        runs = list(threads.map(lambda i: forward_mistral_lm(both[i % 2], ids), range(200)))
    for i, logits in enumerate(runs):
        assert torch.equal(logits, expected[i % 2])


@pytest.mark.parametrize("how", ["pickle", "torch.save", "deepcopy"])
def test_params_survive_copies(how, hf_model, ids):
    params = convert_mistral_lm_params(hf_model)
    expected = forward_mistral_lm(params, ids)
    if how == "pickle":
        other = pickle.loads(pickle.dumps(params))
    elif how == "deepcopy":
        other = copy.deepcopy(params)
    else:
        file = io.BytesIO()
        torch.save(params, file)
        file.seek(0)
        other = torch.load(file)
    torch.testing.assert_close(forward_mistral_lm(other, ids), expected, rtol=0, atol=0)


class TestParamsAreReadAtEachCall:
    @pytest.fixture
    def params(self, hf_model, ids):
        params = convert_mistral_lm_params(hf_model)
        forward_mistral_lm(params, ids)
        return params

    def check(self, params, hf_model, ids):
        assert_same_logits(forward_mistral_lm(params, ids), hf_logits(hf_model, ids))

    def test_when_a_tensor_is_replaced(self, params, hf_model, ids):
        other = small_model(device=ids.device, seed=1)
        params["model"]["layers"][1]["mlp"] = convert_mistral_lm_params(other)["model"]["layers"][
            1
        ]["mlp"]
        hf_model.model.layers[1].mlp = other.model.layers[1].mlp
        self.check(params, hf_model, ids)

    def test_when_a_tensor_is_written_to(self, params, hf_model, ids):
        params["model"]["layers"][0]["self_attn"]["q_proj"]["weight"].mul_(0.5)
        self.check(params, hf_model, ids)  # the storage is shared

    def test_when_a_tensor_takes_other_data(self, params, hf_model, ids):
        weight = params["model"]["embed_tokens"]["weight"]
        weight.data = weight.data * 2
        hf_model.model.embed_tokens.weight.data = weight.data
        self.check(params, hf_model, ids)

    def test_when_the_hugging_face_model_is_trained(self, params, hf_model, ids):
        optimizer = torch.optim.SGD(hf_model.parameters(), lr=0.1)
        hf_model(ids, labels=ids).loss.backward()
        optimizer.step()
        self.check(params, hf_model, ids)

    def test_when_the_head_is_untied(self, ids, device):
        hf_model = small_model("tied", device=device)
        params = convert_mistral_lm_params(hf_model)
        forward_mistral_lm(params, ids)
        head = small_model(device=device).lm_head
        params["lm_head"] = {"weight": head.weight.detach()}
        hf_model.lm_head = head
        self.check(params, hf_model, ids)

    def test_and_dropped_ones_are_freed(self, params, ids):
        mapped = pytree.tree_map(torch.clone, params)
        forward_mistral_lm(mapped, ids)
        storage = weakref.ref(mapped["model"]["norm"]["weight"])
        del mapped
        gc.collect()
        assert storage() is None


@pytest.mark.parametrize("name", ["gqa", "tied", "two_layer_types"])
def test_gradients_equal_hugging_faces(name, ids, device):
    hf_model = small_model(name, device=device)
    hf_model(ids, labels=ids).loss.backward()
    params = pytree.tree_map(
        lambda tensor: tensor.clone().requires_grad_(), convert_mistral_lm_params(hf_model)
    )
    logits = forward_mistral_lm(params, ids, square_mask(torch.ones_like(ids)))
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    gradients = torch.autograd.grad(loss, pytree.tree_leaves(params))
    named = convert_back_mistral_lm_params(
        pytree.tree_unflatten(gradients, pytree.tree_structure(params))
    )
    for key, parameter in hf_model.named_parameters():
        error = (named[key] - parameter.grad).abs().max() / parameter.grad.abs().max()
        assert error <= 1e-5, key


def test_two_sentences_of_unequal_length_as_on_mistral_jaxs_page(device):
    model = smollm2.hf_model().to(device)
    tokenizer = smollm2.tokenizer()
    tokenizer.pad_token = tokenizer.eos_token

    sentences = ["I have a cat.", "There is a cat in my home."]
    inputs = tokenizer(sentences, padding=True, return_tensors="pt").to(device)
    assert not inputs.attention_mask.all()
    attn_mask = inputs.attention_mask.bool()
    qk_mask = torch.tril(torch.einsum("bi,bj->bij", attn_mask, attn_mask))[:, None, None]

    params = convert_mistral_lm_params(model)
    params = shard_mistral_lm_params(params)
    outputs = forward_mistral_lm(params, inputs.input_ids, qk_mask)
    theirs = hf_logits(model, inputs.input_ids, attention_mask=inputs.attention_mask)
    assert_same_logits(outputs, theirs, attn_mask)


def test_the_package_exports_the_functions():
    for name in ("convert_mistral_lm_params", "forward_mistral_lm", "create_mistral_lm_cache"):
        assert name in mistral_ext.__all__
