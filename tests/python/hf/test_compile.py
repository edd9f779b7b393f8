"""torch.compile and torch.export over shapes that change, and generate of a compiled model."""

import pytest
import torch
import transformers
from helpers.compare import assert_close_to_scale
from helpers.generation import PLAIN, PYTHON_LOOP
from helpers.models import random_ids, small_model
from torch._dynamo.testing import CompileCounterWithBackend

import mistral_ext


@pytest.fixture(autouse=True)
def _fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.parametrize("name", ["gqa", "window"])
def test_lengths_that_change_compile_no_more_than_hugging_faces(name, device):
    hf_model = small_model(name, num_hidden_layers=1, device=device)
    hf_model.set_attn_implementation("sdpa")
    frames = {}
    for key, model in (("theirs", hf_model), ("ours", mistral_ext.from_hf(hf_model))):
        torch.compiler.reset()
        counter = CompileCounterWithBackend("eager")
        compiled = torch.compile(model, backend=counter, fullgraph=True)
        with torch.no_grad():
            for length in (5, 9, 17):
                ids = random_ids(2, length).to(device)
                logits = compiled(ids, use_cache=False).logits
                assert_close_to_scale(logits, hf_model(ids, use_cache=False).logits)
        frames[key] = counter.frame_count
    assert frames["ours"] <= frames["theirs"]


def test_our_operators_are_opaque_to_the_compiler(device):
    model = mistral_ext.from_hf(small_model(num_hidden_layers=1, device=device))
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    with torch.no_grad():
        compiled(random_ids(2, 9).to(device), use_cache=False)
    (graph,) = counter.graphs
    targets = {str(node.target) for node in graph.graph.nodes if node.op == "call_function"}
    assert {"mistral_ext.rms_norm", "mistral_ext.attention", "mistral_ext.silu_mul"} <= targets


def test_exports_with_a_length_that_changes(device):
    hf_model = small_model(num_hidden_layers=1, device=device)
    model = mistral_ext.from_hf(hf_model)
    length = torch.export.Dim("length", min=2, max=60)
    with torch.no_grad():
        program = torch.export.export(
            model,
            (random_ids(2, 9).to(device),),
            {"use_cache": False},
            dynamic_shapes={"input_ids": {1: length}, "use_cache": None},
            strict=False,
        )
        for count in (4, 9, 23):
            ids = random_ids(2, count).to(device)
            logits = program.module()(ids, use_cache=False).logits
            assert_close_to_scale(logits, hf_model(ids).logits)


def test_generate_of_a_compiled_model_gives_the_same_tokens(device):
    ids = random_ids(2, 7).to(device)
    hf_model = small_model("window", num_hidden_layers=1, device=device)
    expected = hf_model.generate(ids, **PLAIN)
    model = mistral_ext.from_hf(hf_model)
    compiled = torch.compile(model, backend="eager")
    assert torch.equal(compiled.generate(ids, **PLAIN), expected)
    assert mistral_ext.path_report(model).generation.path == "native"
    model.compile(backend="eager")
    assert torch.equal(model.generate(ids, **PLAIN), expected)
    assert torch.equal(model.generate(ids, **PYTHON_LOOP, **PLAIN), expected)
    other = mistral_ext.from_hf(hf_model)
    other.forward = torch.compile(other.forward, backend="eager")
    assert torch.equal(other.generate(ids, **PLAIN), expected)


def test_inductors_code_gives_the_same_loss_and_gradients(device):
    hf_model = small_model("window", num_hidden_layers=1, device=device)
    model = mistral_ext.from_hf(hf_model)
    ids = random_ids(2, 9).to(device)
    found = []
    for each in (torch.compile(model, fullgraph=True), hf_model):
        hf_model.zero_grad()
        loss = each(ids, labels=ids, use_cache=False).loss
        loss.backward()
        gradients = {name: p.grad.clone() for name, p in hf_model.named_parameters()}
        found.append({"loss": loss.detach(), **gradients})
    for name, theirs in found[1].items():
        assert_close_to_scale(found[0][name], theirs, relative=1e-5)


@pytest.mark.parametrize("asked", [False, True])
def test_generate_compiles_where_it_is_told_how_to(asked, device):
    hf_model = small_model("window", device=device)
    model = mistral_ext.from_hf(hf_model)
    ids = random_ids(2, 7).to(device)
    call = {**PLAIN, "cache_implementation": "static"}
    if asked:
        call["compile_config"] = transformers.CompileConfig(backend="eager", fullgraph=True)
        call["compile_config"]._compile_all_devices = True  # on a CPU too
    ours = model.generate(ids, **call)
    assert hasattr(model, "_compiled_call") == asked
    assert torch.equal(ours, hf_model.generate(ids, **PLAIN))


@pytest.mark.parametrize("name", ["window", "two_layer_types", "query_scale"])
def test_dynamic_shapes_with_padding_compile_once(name, device):
    hf_model = small_model(name, num_hidden_layers=2, layer_types=None, device=device)
    model = mistral_ext.from_hf(hf_model)
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(model, backend=counter, dynamic=True, fullgraph=True)
    with torch.no_grad():
        for batch, length in ((2, 4), (3, 9), (4, 21)):
            ids = random_ids(batch, length).to(device)
            mask = torch.ones_like(ids)
            mask[0, :2] = 0
            call = {"attention_mask": mask, "use_cache": False}
            ours, theirs = compiled(ids, **call).logits, hf_model(ids, **call).logits
            assert_close_to_scale(ours, theirs, mask.bool())
    assert counter.frame_count == 1


@pytest.mark.parametrize("strict", [False, True])
def test_exports_with_batch_mask_and_length_that_change_and_is_saved(strict, tmp_path, device):
    hf_model = small_model("window", num_hidden_layers=1, device=device)
    model = mistral_ext.from_hf(hf_model)
    ids = random_ids(2, 9).to(device)
    sizes = {0: torch.export.Dim("batch", max=8), 1: torch.export.Dim("length", min=2, max=60)}
    with torch.no_grad():
        program = torch.export.export(
            model,
            (),
            {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False},
            dynamic_shapes={"input_ids": sizes, "attention_mask": sizes, "use_cache": None},
            strict=strict,
        )
        torch.export.save(program, tmp_path / "model.pt2")
        loaded = torch.export.load(tmp_path / "model.pt2").module()
        ids = random_ids(3, 14).to(device)
        mask = torch.ones_like(ids)
        mask[1, :4] = 0
        ours = loaded(input_ids=ids, attention_mask=mask, use_cache=False).logits
        assert_close_to_scale(ours, hf_model(ids, attention_mask=mask).logits, mask.bool())


def test_a_compiled_model_goes_on_with_a_cache(device):
    hf_model = small_model("window", num_hidden_layers=1, device=device)
    compiled = torch.compile(mistral_ext.from_hf(hf_model), backend="eager", dynamic=True)
    ids = random_ids(2, 9).to(device)
    with torch.no_grad():
        first = compiled(ids[:, :6], use_cache=True)
        second = compiled(ids[:, 6:], past_key_values=first.past_key_values, use_cache=True)
        assert_close_to_scale(second.logits, hf_model(ids).logits[:, 6:])
