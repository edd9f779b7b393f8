"""Prepacked checkpoints: a model loaded from one is as any other."""

import copy
import json
from pathlib import Path

import pytest
import torch
import transformers
from helpers.models import CONFIGS, random_ids, small_model
from safetensors import safe_open
from torch import nn

import mistral_ext
from mistral_ext import _C

FILE = "model.prepacked.safetensors"

# Attributes in which from_pretrained notes how it loaded.
LOADING = ("name_or_path", "_use_kernels", "_weight_conversions")


def saved(folder: Path, name: str = "gqa", **changes) -> nn.Module:
    """One of our models, saved prepacked."""
    model = mistral_ext.from_hf(small_model(name, **changes))
    model.save_prepacked(folder)
    return model


def assert_same_state(model: nn.Module, expected: nn.Module) -> None:
    state, other = model.state_dict(), expected.state_dict()
    assert state.keys() == other.keys()
    for key, value in state.items():
        assert value.dtype == other[key].dtype
        assert torch.equal(value, other[key]), key


def attributes(module: nn.Module) -> dict:
    """What a module is besides its tensors and children."""
    found = {}
    for name, value in module.__dict__.items():
        if name == "_made_from":
            found[name] = {key: x for key, x in value.items() if "name_or_path" not in key}
        elif name in ("_parameters", "_modules", "_buffers", "_native"):
            found[name] = list(value) if name != "_native" else None
        elif isinstance(value, transformers.PreTrainedConfig | transformers.GenerationConfig):
            fields = value.to_dict()
            for path in ("_name_or_path", "transformers_version"):
                fields.pop(path, None)
            found[name] = fields
        elif name not in LOADING and not isinstance(value, nn.Module):
            found[name] = value
    return found


def test_mistrals_class_ignores_layer_types_wherever_it_is_saved(tmp_path):
    small_model("window").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["layer_types"] = ["full_attention", "sliding_attention", "full_attention"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = mistral_ext.MistralForCausalLM.from_pretrained(tmp_path)
    model.save_prepacked(tmp_path)
    again = mistral_ext.MistralForCausalLM.load_prepacked(tmp_path)
    in_cpp = _C.load_prepacked(tmp_path)
    ids = random_ids(2, 40)
    with torch.no_grad(), mistral_ext.use_path("native"):
        expected = transformers.MistralForCausalLM.from_pretrained(tmp_path)(ids).logits
        for logits in (model(ids).logits, again(ids).logits, in_cpp.forward(input_ids=ids)[0]):
            # Sums are made in another order than Hugging Face's; relative to the logits' scale.
            torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4 * expected.abs().max())


@pytest.mark.parametrize("name", CONFIGS)
def test_every_module_is_what_from_pretrained_makes(name, tmp_path):
    model = saved(tmp_path / "prepacked", name, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "pretrained")
    expected = type(model).from_pretrained(tmp_path / "pretrained", dtype="auto")
    loaded = type(model).load_prepacked(tmp_path / "prepacked")
    assert_same_state(loaded, expected)
    modules, others = dict(loaded.named_modules()), dict(expected.named_modules())
    assert modules.keys() == others.keys()
    for path, module in modules.items():
        assert type(module) is type(others[path]), path
        assert attributes(module) == attributes(others[path]), path
        for key, buffer in module.named_buffers(recurse=False):
            assert torch.equal(buffer, dict(others[path].named_buffers(recurse=False))[key])
    names = [name for name, _ in loaded.named_parameters()]
    assert names == [name for name, _ in expected.named_parameters()]
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.config.dtype == expected.config.dtype
    dictionaries = [id(m._forward_hooks) for m in modules.values()]
    assert len(set(dictionaries)) == len(dictionaries)


@pytest.mark.parametrize("name", ["gqa", "tied", "two_layer_types", "query_scale", "dynamic"])
def test_logits_and_tokens_are_those_of_the_model_that_was_saved(name, tmp_path):
    model = saved(tmp_path, name)
    loaded = type(model).load_prepacked(tmp_path, verify=True)
    ids = random_ids(2, 20)
    with torch.no_grad():
        expected = model(ids).logits
        assert torch.equal(loaded(ids).logits, expected)
    assert mistral_ext.path_report(loaded).last_forward.path == "native"
    assert torch.equal(_C.load_prepacked(tmp_path).forward(input_ids=ids)[0], expected)
    arguments = {"max_new_tokens": 6, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    assert torch.equal(loaded.generate(ids, **arguments), model.generate(ids, **arguments))


def test_the_file_holds_each_tensor_once_at_64_bytes_under_its_own_name(tmp_path):
    model = saved(tmp_path, "tied", dtype=torch.bfloat16)
    with safe_open(tmp_path / FILE, "pt") as file:
        names = {name for name in file.keys() if not name.startswith("padding.")}  # noqa: SIM118
        metadata = file.metadata()
        assert names == {name for name, _ in model.named_parameters()}
        for name, parameter in model.named_parameters():
            assert torch.equal(file.get_tensor(name), parameter)
    assert metadata["format_version"] == "1"
    assert json.loads(metadata["config"])["hidden_size"] == model.config.hidden_size
    for parameter in type(model).load_prepacked(tmp_path).parameters():
        assert parameter.data_ptr() % 64 == 0


def test_the_weights_are_the_files_mapping(tmp_path):
    saved(tmp_path)
    loaded = mistral_ext.MistralForCausalLM.load_prepacked(tmp_path)
    ranges = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(tmp_path / FILE)):
            ranges.append([int(x, 16) for x in line.split()[0].split("-")])
    for parameter in loaded.parameters():
        assert any(begin <= parameter.data_ptr() < end for begin, end in ranges)


def test_it_trains_and_the_file_stays(tmp_path):
    model = saved(tmp_path)
    before = (tmp_path / FILE).read_bytes()
    loaded = mistral_ext.MistralForCausalLM.load_prepacked(tmp_path)
    ids = random_ids(2, 12)
    for each in (model, loaded):
        optimizer = torch.optim.AdamW(each.parameters(), lr=1e-2)
        for _ in range(2):
            optimizer.zero_grad()
            each(ids, labels=ids).loss.backward()
            optimizer.step()
    assert_same_state(loaded, model)
    with torch.no_grad():  # the next call sees what the optimizer did
        assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert (tmp_path / FILE).read_bytes() == before


def test_it_is_copied_saved_cast_and_resized_as_any_model(tmp_path):
    model = saved(tmp_path / "prepacked", "tied")
    loaded = type(model).load_prepacked(tmp_path / "prepacked")
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    twin = copy.deepcopy(loaded)
    with torch.no_grad():
        twin.model.norm.weight.add_(1)
    assert_same_state(loaded, model)
    loaded.save_pretrained(tmp_path / "pretrained")
    again = transformers.MistralForCausalLM.from_pretrained(tmp_path / "pretrained")
    assert_same_state(again, model)
    loaded.save_prepacked(tmp_path / "prepacked")  # over the file that it is mapped from
    assert_same_state(type(model).load_prepacked(tmp_path / "prepacked", verify=True), model)
    loaded.resize_token_embeddings(105)
    loaded.to(torch.bfloat16).save_prepacked(tmp_path / "resized")
    resized = type(model).load_prepacked(tmp_path / "resized")
    assert resized.config.vocab_size == 105
    assert resized.config.dtype == torch.bfloat16
    assert_same_state(resized, loaded)


def test_a_head_that_differs_from_the_embedding_is_kept(tmp_path):
    model = mistral_ext.from_hf(small_model("tied"))
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach() + 1)
    model.save_prepacked(tmp_path)
    loaded = type(model).load_prepacked(tmp_path)
    ids = random_ids(1, 5)
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_the_generation_config_comes_along(tmp_path):
    model = mistral_ext.from_hf(small_model())
    model.generation_config.update(eos_token_id=[2, 5], max_new_tokens=7)
    model.save_prepacked(tmp_path)
    loaded = type(model).load_prepacked(tmp_path)
    assert loaded.generation_config.eos_token_id == [2, 5]
    assert _C.load_generation_config(tmp_path) is not None
    (tmp_path / "generation_config.json").unlink()
    assert type(model).load_prepacked(tmp_path).generation_config.eos_token_id == 2
    assert _C.load_generation_config(tmp_path) is not None  # the ends that the file names


@pytest.mark.parametrize("text", ["{", "[1]", '{"max_new_tokens": -3}'])
def test_a_malformed_generation_config_is_a_value_error_that_names_it(text, tmp_path):
    saved(tmp_path)
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(ValueError, match=r"load: .*generation_config\.json: "):
        mistral_ext.MistralForCausalLM.load_prepacked(tmp_path)


def test_it_loads_onto_a_device(tmp_path, device):
    model = saved(tmp_path)
    loaded = type(model).load_prepacked(tmp_path, device=device)
    ids = random_ids(1, 5)
    assert all(tensor.device.type == device.type for tensor in loaded.state_dict().values())
    assert all(buffer.device.type == device.type for buffer in loaded.buffers())
    with torch.no_grad():
        logits = loaded(ids.to(device)).logits.cpu()
        expected = model(ids).logits
    # Another device sums in another order.
    assert torch.allclose(logits, expected, atol=1e-4 * expected.abs().max())


@pytest.mark.parametrize("name", ["gqa", "tied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_is_converted_to_the_dtype_that_is_asked_for(name, dtype, tmp_path):
    model = saved(tmp_path, name)
    loaded = type(model).load_prepacked(tmp_path, dtype=dtype)
    assert loaded.dtype == loaded.config.dtype == dtype
    assert_same_state(loaded, model.to(dtype))
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    in_cpp = _C.load_prepacked(tmp_path, dtype=dtype).state_dict()
    assert all(torch.equal(weight, loaded.state_dict()[key]) for key, weight in in_cpp.items())
    with pytest.raises(ValueError, match=r"dtype must be float32, .* or float64, got Int"):
        type(model).load_prepacked(tmp_path, dtype=torch.int32)


def test_another_class_is_named(tmp_path):
    saved(tmp_path, "two_layer_types")
    with pytest.raises(ValueError, match="model_type must be 'mistral' for MistralForCausalLM"):
        mistral_ext.MistralForCausalLM.load_prepacked(tmp_path)


def test_a_damaged_tensor_is_found_and_named_where_it_is_looked_for(tmp_path):
    saved(tmp_path)
    content = bytearray((tmp_path / FILE).read_bytes())
    content[-1] ^= 1
    (tmp_path / FILE).write_bytes(content)
    mistral_ext.MistralForCausalLM.load_prepacked(tmp_path)
    with pytest.raises(ValueError, match=r"\.weight must have the checksum .* are damaged"):
        mistral_ext.MistralForCausalLM.load_prepacked(tmp_path, verify=True)


@pytest.mark.parametrize("length", [0, 7, 8, 100, 4095, 4096, 4097, -4096, -1])
def test_a_file_that_was_cut_is_a_value_error(length, tmp_path):
    saved(tmp_path)
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[:length])
    with pytest.raises(ValueError, match=FILE):
        mistral_ext.MistralForCausalLM.load_prepacked(tmp_path)


def test_what_cannot_be_saved_is_named_and_nothing_is_written(tmp_path):
    model = mistral_ext.from_hf(small_model())
    model.model.norm.weight.data = model.model.norm.weight.data.bfloat16()
    with pytest.raises(ValueError, match=r"model\.norm\.weight must be Float as the embedding"):
        model.save_prepacked(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="a readable file"):
        mistral_ext.MistralForCausalLM.load_prepacked(tmp_path / "none")


def test_parameters_loaded_in_inference_mode_can_be_trained(tmp_path):
    saved(tmp_path)
    with torch.inference_mode():
        model = mistral_ext.MistralForCausalLM.load_prepacked(tmp_path)
    ids = torch.tensor([[1, 2, 3]])
    model(input_ids=ids, labels=ids).loss.backward()
    assert model.lm_head.weight.grad is not None


def test_a_generation_config_that_cannot_be_saved_leaves_the_old_weights(tmp_path):
    model = saved(tmp_path)
    before = (tmp_path / FILE).read_bytes()
    model.generation_config.do_sample, model.generation_config.temperature = False, 0.3
    with torch.no_grad():
        model.lm_head.weight.add_(1)
    with pytest.raises(ValueError, match="temperature"):
        model.save_prepacked(tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


def test_no_generation_config_leaves_none_of_another_model(tmp_path):
    model = saved(tmp_path)
    model.generation_config = None
    model.save_prepacked(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
