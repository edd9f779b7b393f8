"""Folders loaded and saved in C++, against transformers."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from helpers.models import CLASSES, CONFIGS, random_ids, small_config, small_model
from safetensors.torch import load_file, save_file

from benchmarks import mistral_format
from mistral_ext import _C

# Sums are made in another order than Hugging Face's; relative to the logits' scale.
FP32_TOLERANCE = 1e-4


def assert_same_logits(loaded, hf_model, tolerance: float = FP32_TOLERANCE) -> None:
    ids = random_ids(2, 20).to(hf_model.device)
    with torch.no_grad():
        logits = loaded.forward(input_ids=ids)[0]
        expected = hf_model(ids).logits
    assert logits.dtype == expected.dtype
    error = (logits - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, error


@pytest.mark.parametrize("name", CONFIGS)
def test_a_saved_model_loads_with_the_same_logits(name, tmp_path, device):
    hf_model = small_model(name, device=device)
    hf_model.save_pretrained(tmp_path)
    assert_same_logits(_C.load_pretrained(tmp_path, device=device), hf_model)


@pytest.mark.parametrize("name", ["gqa", "tied", "two_layer_types"])
def test_a_model_in_several_files_loads(name, tmp_path):
    hf_model = small_model(name)
    hf_model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_same_logits(_C.load_pretrained(tmp_path), hf_model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_weight_is_as_stored_or_as_transformers_converts_it(dtype, tmp_path):
    hf_model = small_model(dtype=dtype)
    hf_model.save_pretrained(tmp_path)
    stored = _C.load_pretrained(tmp_path).state_dict()
    converted = _C.load_pretrained(tmp_path, dtype=torch.float32).state_dict()
    for key, parameter in hf_model.state_dict().items():
        assert stored[key].dtype == dtype
        assert torch.equal(stored[key], parameter)
        assert torch.equal(converted[key], parameter.float())


def test_fields_of_older_configurations_are_read(tmp_path):
    hf_model = small_model()
    hf_model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["torch_dtype"] = config.pop("dtype")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert_same_logits(_C.load_pretrained(tmp_path), hf_model)
    config["torch_dtype"] = "torch.bfloat16"  # as str(dtype) is
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert _C.load_pretrained(tmp_path).state_dict()["model.norm.weight"].dtype == torch.bfloat16


def change_config(folder: Path, **fields) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


@pytest.mark.parametrize(
    "types", [["full_attention", "sliding_attention", "full_attention"], None], ids=str
)
def test_a_mistral_with_layer_types_is_what_transformers_auto_class_makes_of_it(types, tmp_path):
    hf_model = small_model("window")
    assert hf_model.config.num_hidden_layers == 3
    hf_model.save_pretrained(tmp_path)
    change_config(tmp_path, layer_types=types)
    expected = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager"
    )
    assert type(expected) is transformers.MinistralForCausalLM
    loaded = _C.load_pretrained(tmp_path)
    assert_same_logits(loaded, expected)
    _C.save_pretrained(loaded, tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved["model_type"] == "ministral"
    assert saved["layer_types"] == expected.config.layer_types


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 100.0},
        {"rope_scaling": {"rope_type": "linear", "factor": 4.0, "rope_theta": 50.0}},
        {"rope_scaling": {}},
        {"rope_scaling": None},
    ],
    ids=str,
)
def test_of_two_rope_fields_the_one_counts_that_counts_for_transformers(fields, tmp_path):
    small_model().save_pretrained(tmp_path)
    change_config(tmp_path, **fields)
    expected = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert_same_logits(_C.load_pretrained(tmp_path), expected)


@pytest.mark.parametrize("at_the_top", [{}, {"original_max_position_embeddings": 8}], ids=str)
@pytest.mark.parametrize("rope_type", ["yarn", "yarn_of_lengths", "llama3"])
def test_lengths_of_a_rope_are_those_of_transformers(rope_type, at_the_top, tmp_path):
    rope = {"rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 16}
    if rope_type == "yarn_of_lengths":
        rope |= {"factor": None}
    if rope_type == "llama3":
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope["rope_type"] = rope_type.split("_")[0]
    small_model().save_pretrained(tmp_path)
    change_config(tmp_path, rope_parameters=rope, max_position_embeddings=128, **at_the_top)
    expected = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert_same_logits(_C.load_pretrained(tmp_path), expected)


def test_a_stored_head_that_differs_is_not_tied(tmp_path):
    hf_model = small_model("tied")
    hf_model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert "lm_head.weight" not in _C.load_pretrained(tmp_path).state_dict()
    weights["lm_head.weight"] += 1
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    expected = transformers.MistralForCausalLM.from_pretrained(tmp_path)
    assert_same_logits(_C.load_pretrained(tmp_path), expected)


def write_mistral_format(hf_model, folder: Path, sliding_window=None, **further) -> None:
    mistral_format.save(hf_model, folder, sliding_window=sliding_window, **further)


@pytest.mark.parametrize(
    ("name", "sliding_window"),
    [
        ("gqa", None),
        ("head_dim", None),
        ("window", 5),
        ("tied", None),
        ("window", "5"),
        ("two_layer_types", [6, None, 6]),
    ],
)
@pytest.mark.parametrize("field", ["sliding_window", "_sliding_window"])
def test_mistrals_own_format_gives_the_same_logits(name, sliding_window, field, tmp_path):
    hf_model = small_model(name)
    write_mistral_format(hf_model, tmp_path, **{field: sliding_window})
    assert_same_logits(_C.load_pretrained(tmp_path), hf_model)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_saved_in_cpp_transformers_loads(name, tmp_path):
    hf_model = small_model(name)
    hf_model.save_pretrained(tmp_path / "theirs")
    _C.save_pretrained(_C.load_pretrained(tmp_path / "theirs"), tmp_path / "ours")
    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", attn_implementation="eager"
    )
    assert type(again).__name__ == CLASSES[hf_model.config.model_type] + "ForCausalLM"
    expected = hf_model.state_dict()
    assert again.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in again.state_dict().items())
    ids = random_ids(2, 20)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, hf_model(ids).logits)
    assert_same_logits(_C.load_pretrained(tmp_path / "ours"), hf_model)


def test_what_is_saved_in_cpp_ends_where_the_loaded_folder_says(tmp_path):
    hf_model = small_model()
    hf_model.config.update({"bos_token_id": 5, "eos_token_id": [7, 9], "use_cache": False})
    hf_model.config.save_pretrained(tmp_path / "theirs")
    hf_model.save_pretrained(tmp_path / "theirs")
    _C.save_pretrained(_C.load_pretrained(tmp_path / "theirs"), tmp_path / "ours")
    theirs, ours = (
        transformers.AutoConfig.from_pretrained(tmp_path / side).to_dict()
        for side in ("theirs", "ours")
    )
    for fields in (theirs, ours):
        fields.pop("_name_or_path", None)
    assert ours == theirs
    assert ours["eos_token_id"] == [7, 9]


@pytest.mark.parametrize("name", ["gqa", "tied"])
def test_what_is_saved_in_several_files_transformers_loads(name, tmp_path):
    hf_model = small_model(name)
    hf_model.save_pretrained(tmp_path / "theirs", max_shard_size="60KB")
    loaded = _C.load_pretrained(tmp_path / "theirs")
    _C.save_pretrained(loaded, tmp_path / "ours", max_shard_size=60_000)
    files = sorted(path.name for path in (tmp_path / "ours").glob("*.safetensors"))
    assert len(files) > 2
    assert all(path.stat().st_size < 70_000 for path in (tmp_path / "ours").glob("*.safetensors"))
    index, theirs = (
        json.loads((tmp_path / side / "model.safetensors.index.json").read_text())
        for side in ("ours", "theirs")
    )
    assert index["metadata"] == theirs["metadata"]
    assert index["weight_map"].keys() == theirs["weight_map"].keys()
    assert set(index["weight_map"].values()) == set(files)
    again = transformers.MistralForCausalLM.from_pretrained(tmp_path / "ours")
    expected = hf_model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in again.state_dict().items())
    _C.save_pretrained(loaded, tmp_path / "ours")  # in one file, over them and mapped from others
    assert [path.name for path in (tmp_path / "ours").glob("model*")] == ["model.safetensors"]
    assert_same_logits(_C.load_pretrained(tmp_path / "ours"), hf_model)


def test_a_model_saves_over_the_file_it_is_mapped_from(tmp_path):
    hf_model = small_model()
    hf_model.save_pretrained(tmp_path)
    loaded = _C.load_pretrained(tmp_path)
    _C.save_pretrained(loaded, tmp_path)
    assert_same_logits(loaded, hf_model)
    assert_same_logits(_C.load_pretrained(tmp_path), hf_model)


def test_updates_in_place_stay_out_of_the_file(tmp_path):
    hf_model = small_model()
    hf_model.save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    for weight in _C.load_pretrained(tmp_path).state_dict().values():
        weight.add_(1)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert_same_logits(_C.load_pretrained(tmp_path), hf_model)


def split_mistral_format(folder: Path) -> None:
    """consolidated.safetensors as two files and their index."""
    whole = folder / "consolidated.safetensors"
    weights = load_file(whole)
    names = sorted(weights)
    index = {}
    for i, part in enumerate((names[::2], names[1::2])):
        file = f"consolidated-0000{i + 1}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    whole.unlink()
    (folder / "consolidated.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


@pytest.mark.parametrize("name", ["gqa", "tied"])
def test_mistrals_own_format_loads_from_several_files(name, tmp_path):
    hf_model = small_model(name)
    write_mistral_format(hf_model, tmp_path)
    split_mistral_format(tmp_path)
    assert_same_logits(_C.load_pretrained(tmp_path), hf_model)


def test_tensors_of_other_parts_are_ignored_and_those_of_ours_refused(tmp_path):
    hf_model = small_model()
    hf_model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    more = {"vision_tower.x": torch.zeros(3, dtype=torch.uint8)}
    save_file(weights | more, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_same_logits(_C.load_pretrained(tmp_path), hf_model)
    more = {"model.layers.0.mlp.up_proj.bias": torch.zeros(3)}
    save_file(weights | more, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"up_proj.bias is not a parameter of this model"):
        _C.load_pretrained(tmp_path)


YARN = {"original_max_position_embeddings": 16, "factor": 4.0, "beta": 24.0, "alpha": 2.0}
SCALING = {"original_max_position_embeddings": 8, "beta": 0.5}


# As transformers' convert_ministral3_weights_to_hf.py has it (apply_scale false there), and vLLM.
@pytest.mark.parametrize("apply_scale", [False, True])
@pytest.mark.parametrize("query_scale", [False, True])
def test_mistrals_yarn_gives_the_same_logits(apply_scale, query_scale, tmp_path):
    rope = {
        "rope_type": "yarn",
        "rope_theta": 100.0,
        "factor": 4.0,
        "original_max_position_embeddings": 8 if query_scale else 16,
        "beta_fast": 24.0,
        "beta_slow": 2.0,
    }
    if not apply_scale:
        rope |= {"mscale": 1.0, "mscale_all_dim": 1.0}
    further = {"yarn": YARN | {"apply_scale": apply_scale}}
    if query_scale:
        rope["llama_4_scaling_beta"] = 0.5
        further["yarn"] |= {"original_max_position_embeddings": 8}
        further["llama_4_scaling"] = SCALING
    hf_model = small_model("query_scale" if query_scale else "yarn", rope_parameters=rope)
    write_mistral_format(hf_model, tmp_path, **further)
    loaded = _C.load_pretrained(tmp_path)
    assert_same_logits(loaded, hf_model)
    (tmp_path / "saved").mkdir()
    _C.save_pretrained(loaded, tmp_path / "saved")
    saved = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert type(saved) is type(hf_model)
    assert_same_logits(loaded, saved)


def test_mistrals_query_scale_needs_no_yarn(tmp_path):
    rope = {
        "rope_type": "default",
        "rope_theta": 100.0,
        "original_max_position_embeddings": 8,
        "llama_4_scaling_beta": 0.5,
    }
    hf_model = small_model("query_scale", rope_parameters=rope)
    write_mistral_format(hf_model, tmp_path, llama_4_scaling=SCALING)
    assert_same_logits(_C.load_pretrained(tmp_path), hf_model)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        *((name, {"a": 1}, f"{name} must be absent") for name in ("moe", "vision_encoder", "lora")),
        ("quantization", {"qformat_weight": "fp8_e4m3"}, "quantization must be absent"),
        ("q_lora_rank", 512, "q_lora_rank must be absent"),
        ("something_new", 0.5, "something_new must be absent"),
        ("use_biases", True, "use_biases must be false"),
        ("causal", False, "causal must be true"),
        ("activation", "gelu", "activation must be silu"),
        ("model_type", "mamba", "model_type must be transformer"),
        ("pos_embed", "sinusoidal", "pos_embed must be rope"),
        ("sliding_window", "wide", "sliding_window must be an integer"),
        ("yarn", YARN, "yarn: apply_scale must be given"),
        ("yarn", YARN | {"apply_scale": 1}, "yarn: apply_scale must be true or false"),
        ("yarn", {"apply_scale": True}, "yarn: original_max_position_embeddings must be given"),
        ("yarn", YARN | {"apply_scale": True, "mscale": 1.0}, "mscale must be absent from yarn"),
        ("yarn", YARN | {"apply_scale": True, "factor": -1}, "factor must be positive"),
        ("yarn", 4, "yarn must be a mapping"),
        ("llama_4_scaling", {"beta": 0.1}, "llama_4_scaling: original_max_position_emb.* given"),
        ("llama_4_scaling", {**SCALING, "gamma": 1}, "gamma must be absent from llama_4_scaling"),
    ],
)
def test_what_mistrals_format_says_of_other_models_is_refused(field, value, message, tmp_path):
    write_mistral_format(small_model(), tmp_path, **{field: value})
    with pytest.raises(ValueError, match=f"params.json: config: .*{message}"):
        _C.load_pretrained(tmp_path)


def test_mistrals_scalings_must_go_together(tmp_path):
    yarn = YARN | {"apply_scale": False}
    write_mistral_format(small_model(), tmp_path, yarn=yarn, llama_4_scaling=SCALING)
    with pytest.raises(ValueError, match=r"must be that of yarn, 16, got 8"):
        _C.load_pretrained(tmp_path)
    write_mistral_format(small_model(), tmp_path, [5, None, 5], llama_4_scaling=SCALING)
    with pytest.raises(ValueError, match=r"sliding_window must be null or one number beside"):
        _C.load_pretrained(tmp_path)
    write_mistral_format(small_model(), tmp_path, 5, _sliding_window=[5, None, 5])
    with pytest.raises(ValueError, match=r"_sliding_window must be null beside sliding_window"):
        _C.load_pretrained(tmp_path)


def test_what_mistrals_format_switches_off_is_no_hindrance(tmp_path):
    hf_model = small_model()
    off = {"moe": None, "q_lora_rank": None, "use_biases": False, "causal": True, "yarn": {}}
    write_mistral_format(hf_model, tmp_path, **off, activation="silu", use_cache=True)
    assert_same_logits(_C.load_pretrained(tmp_path), hf_model)


def test_generation_goes_as_the_folder_says(tmp_path):
    hf_model = small_model()
    hf_model.generation_config.update(eos_token_id=[2, 5, 17], max_new_tokens=30, min_new_tokens=3)
    hf_model.save_pretrained(tmp_path)
    ids = random_ids(2, 8)
    config = _C.load_generation_config(tmp_path)
    output = _C.generate(_C.load_pretrained(tmp_path), input_ids=ids, config=config)
    expected = hf_model.generate(ids, do_sample=False, attention_mask=torch.ones_like(ids))
    assert torch.equal(output.sequences, expected)


def test_a_field_of_generation_that_has_no_meaning_here_is_refused(tmp_path):
    small_config().save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"num_beams": 4}))
    with pytest.raises(ValueError, match=r"generation_config.json: .*: num_beams must be off"):
        _C.load_generation_config(tmp_path)
