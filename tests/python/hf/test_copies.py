"""Copying, pickling, saving and loading: the C++ side is no part of any of them."""

import copy
import io
import json
import pickle

import pytest
import torch
import transformers
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.models import CONFIGS, random_ids, small_model
from safetensors import safe_open

import mistral_ext

COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


def save_and_load(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES["torch"] = save_and_load


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_gives_the_same_logits_from_its_own_weights(kind, device):
    model = mistral_ext.from_hf(small_model("tied", device=device))
    ids = random_ids(2, 9).to(device)
    before = model(ids).logits
    twin = COPIES[kind](model)
    assert type(twin) is type(model)
    assert torch.equal(twin(ids).logits, before)
    assert_ran(twin, "native")
    assert twin.lm_head.weight is twin.model.embed_tokens.weight
    if kind != "copy":  # a shallow copy shares its submodules
        with torch.no_grad():
            twin.model.norm.weight.mul_(3)
        assert torch.equal(model(ids).logits, before)
        assert not torch.equal(twin(ids).logits, before)


def test_the_state_dict_is_hugging_faces(device):
    hf_model = small_model(device=device)
    model = mistral_ext.from_hf(hf_model)
    model(random_ids(1, 4).to(device))
    ours, theirs = model.state_dict(), hf_model.state_dict()
    assert list(ours) == list(theirs)
    assert all(ours[name].data_ptr() == theirs[name].data_ptr() for name in theirs)


@pytest.mark.parametrize("name", CONFIGS)
def test_saved_files_equal_hugging_faces(name, tmp_path):
    hf_model = small_model(name, dtype=torch.bfloat16)
    model = mistral_ext.from_hf(hf_model)
    hf_model.save_pretrained(tmp_path / "theirs")
    model.save_pretrained(tmp_path / "ours")
    files = sorted(file.name for file in (tmp_path / "theirs").iterdir())
    assert sorted(file.name for file in (tmp_path / "ours").iterdir()) == files
    for file in files:
        ours, theirs = tmp_path / "ours" / file, tmp_path / "theirs" / file
        if file.endswith(".json"):
            assert json.loads(ours.read_text()) == json.loads(theirs.read_text())
            continue
        with safe_open(ours, "pt") as a, safe_open(theirs, "pt") as b:
            assert a.keys() == b.keys()
            for key in b.keys():  # noqa: SIM118  not a dictionary
                assert a.get_tensor(key).dtype == b.get_tensor(key).dtype
                assert torch.equal(a.get_tensor(key), b.get_tensor(key))


@pytest.mark.parametrize("name", CONFIGS)
def test_either_class_loads_what_the_other_saved(name, tmp_path, device):
    hf_model = small_model(name, device=device)
    ids = random_ids(2, 9).to(device)
    expected = hf_model(ids).logits
    hf_model.save_pretrained(tmp_path / "theirs")
    ours = getattr(mistral_ext, type(hf_model).__name__)
    model = ours.from_pretrained(tmp_path / "theirs").to(device)
    assert_close_to_scale(model(ids).logits, expected)
    assert_ran(model, "native")
    model.save_pretrained(tmp_path / "ours")
    back = type(hf_model).from_pretrained(tmp_path / "ours").to(device)
    assert_close_to_scale(back(ids).logits, expected)


def test_loads_in_another_dtype(tmp_path):
    small_model().save_pretrained(tmp_path)
    model = mistral_ext.MistralForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert model(random_ids(1, 4)).logits.dtype == torch.bfloat16
    assert_ran(model, "native")


def test_patch_makes_transformers_give_our_classes(tmp_path):
    theirs = transformers.MistralForCausalLM
    small_model().save_pretrained(tmp_path)
    with mistral_ext.patch():
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
        assert type(model) is mistral_ext.MistralForCausalLM
        assert transformers.MistralForCausalLM is mistral_ext.MistralForCausalLM
        with mistral_ext.patch():
            pass
        assert transformers.MistralForCausalLM is mistral_ext.MistralForCausalLM
    assert transformers.MistralForCausalLM is theirs
    assert type(transformers.AutoModelForCausalLM.from_pretrained(tmp_path)) is theirs
    mistral_ext.patch()
    assert transformers.Ministral3ForCausalLM is mistral_ext.Ministral3ForCausalLM
    mistral_ext.unpatch()
    mistral_ext.unpatch()
    assert transformers.Ministral3ForCausalLM is not mistral_ext.Ministral3ForCausalLM


def test_every_exported_name_exists():
    for name in mistral_ext.__all__:
        assert getattr(mistral_ext, name) is not None
    assert "from_hf" in dir(mistral_ext)
    with pytest.raises(AttributeError, match="nothing"):
        mistral_ext.nothing  # noqa: B018  reading it is the test


def test_saved_shards_equal_hugging_faces_byte_for_byte(tmp_path):
    hf_model = small_model("window", dtype=torch.bfloat16)
    for name, model in (("theirs", hf_model), ("ours", mistral_ext.from_hf(hf_model))):
        model.save_pretrained(tmp_path / name, max_shard_size="50KB")
    files = sorted(file.name for file in (tmp_path / "theirs").iterdir())
    assert sum(file.endswith(".safetensors") for file in files) > 2
    assert sorted(file.name for file in (tmp_path / "ours").iterdir()) == files
    for file in files:
        # The configuration too: it does not say which attention was asked for.
        ours, theirs = (tmp_path / name / file for name in ("ours", "theirs"))
        assert ours.read_bytes() == theirs.read_bytes(), file
    model = mistral_ext.MistralForCausalLM.from_pretrained(tmp_path / "ours")
    ids = random_ids(2, 9)
    assert torch.equal(model(ids).logits, mistral_ext.from_hf(hf_model)(ids).logits)
