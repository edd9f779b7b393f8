"""Where and in what dtype a model lives: device maps, meta devices, casts, resized embeddings."""

import pytest
import torch
import transformers
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.generation import PLAIN
from helpers.models import random_ids, small_model

import mistral_ext

accelerate = pytest.importorskip("accelerate")


@pytest.fixture
def folder(tmp_path):
    small_model("window").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def ids():
    return random_ids(2, 11)


@pytest.mark.parametrize("device_map", ["auto", "balanced", "sequential", {"": "cpu"}], ids=str)
def test_a_device_map_of_one_device_stays_native(folder, device_map, ids):
    if torch.cuda.is_available() and device_map != {"": "cpu"}:
        pytest.skip("several devices to map to")
    model = mistral_ext.MistralForCausalLM.from_pretrained(folder, device_map=device_map)
    assert_close_to_scale(model(ids).logits, small_model("window")(ids).logits)
    assert_ran(model, "native")
    assert torch.equal(model.generate(ids, **PLAIN), small_model("window").generate(ids, **PLAIN))
    assert mistral_ext.path_report(model).generation.path == "native"


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two GPUs to map to")
@pytest.mark.parametrize("kind", ["window", "tied"])
def test_a_device_map_of_two_gpus_runs_modules(kind, tmp_path, ids):
    small_model(kind).save_pretrained(tmp_path)
    places = {"model.embed_tokens": 0, "model.rotary_emb": 0, "model.layers.0": 0}
    places |= {"model.layers.1": 1, "model.layers.2": 1, "model.norm": 1}
    places["lm_head"] = 0 if kind == "tied" else 1
    theirs, ours = (
        place.MistralForCausalLM.from_pretrained(tmp_path, device_map=places)
        for place in (transformers, mistral_ext)
    )
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    call = {"attention_mask": mask.cuda(0)}
    labels = ids.cuda(0).masked_fill(mask.cuda(0) == 0, -100)
    found = [model(ids.cuda(0), **call, labels=labels) for model in (theirs, ours)]
    assert_ran(ours, "module")
    assert_close_to_scale(found[1].logits.cpu(), found[0].logits.cpu(), mask.bool())
    torch.testing.assert_close(found[1].loss.cpu(), found[0].loss.cpu(), rtol=1e-4, atol=0)
    tokens = [model.generate(ids.cuda(0), **call, **PLAIN) for model in (theirs, ours)]
    assert torch.equal(*tokens)
    for output in found:
        output.loss.backward()
    for (name, mine), reference in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        error = (mine.grad - reference.grad).norm()
        assert error <= 1e-4 * reference.grad.norm(), name


def test_a_layer_on_disk_is_loaded_by_its_hook(folder, tmp_path, ids):
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk"}
    places |= {"model.layers.2": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu"}
    places["lm_head"] = "cpu"
    model = mistral_ext.MistralForCausalLM.from_pretrained(
        folder, device_map=places, offload_folder=str(tmp_path / "disk")
    )
    expected = small_model("window")
    with torch.no_grad():
        assert_close_to_scale(model(ids).logits, expected(ids).logits)
    assert_ran(model, "module")
    assert torch.equal(model.generate(ids, **PLAIN), expected.generate(ids, **PLAIN))
    assert mistral_ext.path_report(model).generation.path == "python"


def test_empty_weights_are_filled_by_accelerate(folder, ids):
    config = transformers.AutoConfig.from_pretrained(folder)
    with accelerate.init_empty_weights():
        model = mistral_ext.MistralForCausalLM(config)
    assert model.lm_head.weight.is_meta
    model = accelerate.load_checkpoint_and_dispatch(model, str(folder), device_map={"": "cpu"})
    assert_close_to_scale(model.eval()(ids).logits, small_model("window")(ids).logits)


def test_a_model_made_on_the_meta_device_takes_a_state_dict(ids):
    hf_model = small_model("tied")
    with torch.device("meta"):
        model = mistral_ext.MistralForCausalLM(hf_model.config)
    assert mistral_ext.path_report(model).path == "module"
    model.load_state_dict(hf_model.state_dict(), assign=True)
    model.tie_weights()
    # Which a checkpoint does not hold; from_pretrained makes it anew.
    model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config)
    model.set_attn_implementation("mistral_ext")
    assert_close_to_scale(model.eval()(ids).logits, hf_model(ids).logits)
    assert_ran(model, "native")


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double", "float"])
def test_casts_are_as_near_to_fp32_as_hugging_faces(cast, ids, device):
    exact = small_model(device=device).double()(ids.to(device)).logits
    errors, dtypes = [], []
    for make in (mistral_ext.from_hf, lambda model: model):
        model = getattr(make(small_model(device=device)), cast)()
        logits = model(ids.to(device)).logits
        dtypes.append(logits.dtype)
        errors.append((logits.double() - exact).square().mean().sqrt().item())
    assert dtypes[0] == dtypes[1]
    # 1.1 is the contract's; the rest is what so few numbers leave to chance. The rotary angles are
    # fp32 in either class, and need not be rounded alike.
    assert errors[0] <= 1.25 * errors[1] + 1e-6 * exact.abs().max().item()


def test_moves_to_another_device_and_back(ids, device):
    model = mistral_ext.from_hf(small_model("window"))
    before = model(ids).logits
    model.to(device)
    assert_close_to_scale(model(ids.to(device)).logits.cpu(), before)
    model.cpu()
    assert_close_to_scale(model(ids).logits, before)
    assert_ran(model, "native")


@pytest.mark.parametrize("size", [120, 60])
@pytest.mark.parametrize("name", ["gqa", "tied"])
def test_resized_embeddings_generate_as_hugging_faces(name, size, device):
    ids = random_ids(2, 7, vocab_size=60).to(device)
    outputs = []
    for make in (lambda model: model, mistral_ext.from_hf):
        model = make(small_model(name, device=device))
        model(ids)
        torch.manual_seed(0)
        model.resize_token_embeddings(size)
        outputs.append(model.generate(ids, **PLAIN))
        assert model.config.vocab_size == size
        assert model(ids).logits.shape[-1] == size
    assert torch.equal(*outputs)
    assert mistral_ext.path_report(model).generation.path == "native"


def test_casts_in_the_middle_of_use_are_seen_by_generate_and_training(ids, device):
    ids = ids.to(device)
    hf_model, model = small_model("window", device=device), small_model("window", device=device)
    model = mistral_ext.from_hf(model)
    expected = model.generate(ids, **PLAIN)
    for dtype in (torch.bfloat16, torch.float32, torch.float16, torch.float32):
        for each in (hf_model, model):
            each.to(dtype)
        assert model.generate(ids, **PLAIN).shape == expected.shape
        assert mistral_ext.path_report(model).generation.path == "native"
        losses = [each(ids, labels=ids).loss for each in (hf_model, model)]
        losses[1].backward()
        assert losses[0].dtype == losses[1].dtype
        assert model.lm_head.weight.grad.dtype == dtype
        model.zero_grad()
        # Of 2^-8 a step, over all that comes before the loss; after it the weights are rounded
        # alike, but Hugging Face's rotary frequencies are rounded too.
        torch.testing.assert_close(losses[1], losses[0], rtol=2e-2, atol=0)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), hf_model.parameters(), strict=True)
    )


@pytest.mark.parametrize("name", ["window", "tied"])
def test_a_model_made_empty_takes_a_state_dict(name, ids, device):
    hf_model = small_model(name, device=device)
    with torch.device("meta"):
        model = mistral_ext.MistralForCausalLM(hf_model.config)
    model.to_empty(device=device)
    model.load_state_dict(hf_model.state_dict(), assign=True)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config).to(device)
    model.set_attn_implementation("sdpa")
    ids = ids.to(device)
    assert_close_to_scale(model.eval()(ids).logits, hf_model(ids).logits)
    assert torch.equal(model.generate(ids, **PLAIN), hf_model.generate(ids, **PLAIN))
    assert mistral_ext.path_report(model).generation.path == "native"


@pytest.mark.parametrize("multiple", [None, 8])
@pytest.mark.parametrize("name", ["gqa", "tied"])
def test_resized_embeddings_train_as_hugging_faces(name, multiple, device):
    found = []
    for make in (lambda model: model, mistral_ext.from_hf):
        model = make(small_model(name, device=device))
        torch.manual_seed(0)
        model.resize_token_embeddings(130, pad_to_multiple_of=multiple, mean_resizing=False)
        ids = random_ids(2, 9, vocab_size=130).to(device)
        optimizer = torch.optim.SGD(model.train().parameters(), lr=0.01)
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = model(ids, labels=ids).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        found.append((losses, model.eval().generate(ids, **PLAIN)))
    assert_ran(model, "native")
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-4, atol=0)
    assert found[1][0][-1] < found[1][0][0]
    assert torch.equal(found[1][1], found[0][1])
