"""Training on the module path: the loss without whole logits wherever the head is a plain product.

Loss, gradients and every entry of the output are Hugging Face's, fp32, eager attention.
"""

from types import MethodType

import pytest
import torch
import transformers
from accelerate.utils import convert_outputs_to_fp32
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.models import in_dtype, random_ids
from helpers.module_path import CASES, OF_LOGITS, VOCABULARY, Notes, hook, lora, nothing, prepared
from helpers.training import assert_equal_steps, calls, gradients, relative_errors, rms, step

from mistral_ext.hf.outputs import DeferredLogitsOutput


@pytest.fixture
def ids(device):
    return random_ids(2, 17).to(device)


@pytest.mark.parametrize(
    ("name", "case"),
    [("gqa", case) for case in CASES]
    + [
        (name, case)
        for name in ("two_layer_types", "query_scale", "tied")
        for case in ("lora", "hook_on_a_layer", "output_attentions")
    ],
)
def test_steps_are_hugging_faces_and_outputs_too(name, case, ids, device):
    prepare, call, fused = CASES[case]
    hf_model, model = prepared(prepare, name, device)
    exact, found = {}, {}
    labels = ids.masked_fill(ids > 80, -100)
    for each, entries in ((hf_model, exact), (model, found)):
        output = each(ids, labels=labels, **call)
        output.loss.backward()
        entries |= {"loss": output.loss.detach(), **gradients(each)}
        entries["output"] = output
    assert_ran(model, "module")
    ours, theirs = found.pop("output"), exact.pop("output")
    assert (type(ours) is DeferredLogitsOutput) == fused
    assert_equal_steps(found, exact)
    assert list(ours) == list(theirs)
    assert_close_to_scale(ours.logits, theirs.logits)
    for key in call:
        entry = key.removeprefix("output_")
        for mine, reference in zip(ours[entry], theirs[entry], strict=True):
            assert_close_to_scale(mine, reference)
    if case != "checkpointing_of_ones_own":  # which turns caching off
        for mine, reference in zip(
            ours.past_key_values.layers, theirs.past_key_values.layers, strict=True
        ):
            assert_close_to_scale(mine.keys, reference.keys)


@pytest.mark.parametrize("call", calls(torch.device("cpu")))
def test_every_kind_of_labels_has_hugging_faces_loss(call, device):
    hf_model, model = prepared(lora(), "window", device)
    arguments = calls(device)[call]
    assert_equal_steps(step(model, **arguments), step(hf_model, **arguments))


@pytest.mark.parametrize("case", CASES)
def test_no_logits_in_fp32_come_to_be_where_the_head_is_plain(case, ids, device):
    prepare, call, fused = CASES[case]
    _, model = prepared(prepare, "gqa", device)
    with Notes() as notes:
        model(ids, labels=ids, **call).loss.backward()
    assert notes.fused() == fused
    assert (notes.widest == 0) == fused


def test_a_dispatch_mode_would_see_logits(ids, device):
    """What the test before rests on."""
    hf_model, _ = prepared(nothing, "gqa", device)
    with Notes() as notes:
        hf_model(ids, labels=ids).loss.backward()
    assert notes.widest >= ids.numel() * VOCABULARY


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", ["lora", "lora_of_the_head", "hook_on_the_head"])
def test_without_gradients_the_loss_is_taken_of_the_logits(case, dtype, ids, device):
    hf_model, model = prepared(CASES[case][0], "gqa", device, dtype=dtype)
    with torch.no_grad():
        exact = hf_model(ids, labels=ids)
        with Notes() as notes:
            found = model(ids, labels=ids)
    assert OF_LOGITS in notes.operators
    if dtype != torch.float32 and case != "lora_of_the_head":  # whose adapter is fp32
        assert notes.widest == 0
    # bf16 logits differ by a rounding here and there, and the loss is a mean over few of them.
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(found.loss, exact.loss, rtol=tolerance, atol=0)
    assert type(found) is type(exact)
    assert found.logits.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weights", ["float32", "the same"])
@pytest.mark.parametrize("case", ["plain", "lora", "frozen_head", "tied"])
def test_under_autocast_gradients_are_as_near_to_fp32_as_hugging_faces(
    case, weights, dtype, device
):
    prepare = CASES[case][0] if case in CASES else nothing
    name = "tied" if case == "tied" else "gqa"
    kept = torch.float32 if weights == "float32" else dtype
    hf_model, model = prepared(prepare, name, device, dtype=kept)
    exact_model = in_dtype(prepared(prepare, name, device, dtype=kept)[0], torch.float32)
    found = {"ours": [], "theirs": []}
    # One input's errors are chance; what counts is their mean over inputs and parameters.
    for seed in range(8):
        for call in ("plain", "right_padding"):
            arguments = calls(device, seed)[call]
            exact = step(exact_model, **arguments)
            with torch.autocast(device.type, dtype):
                steps = {
                    "ours": step(model, **arguments),
                    "theirs": step(hf_model, **arguments),
                }
            for whose, entries in steps.items():
                found[whose] += relative_errors(entries, exact).values()
    assert_ran(model, "module")
    assert rms(found["ours"]) <= 1.1 * rms(found["theirs"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_dtypes_are_hugging_faces(dtype, ids, device):
    hf_model, model = prepared(nothing, "gqa", device)
    outputs = []
    for each in (hf_model, model):
        with torch.autocast(device.type, dtype), Notes() as notes:
            outputs.append(each(ids, labels=ids))
        outputs[-1].loss.backward()
        assert {p.grad.dtype for p in each.parameters()} == {torch.float32}
    assert notes.fused() == 1
    assert notes.widest == 0
    theirs, ours = outputs
    assert type(ours) is DeferredLogitsOutput
    assert ours.loss.dtype == theirs.loss.dtype == torch.float32
    assert ours.logits.dtype == theirs.logits.dtype == dtype  # read after autocast is over
    error = (ours.logits - theirs.logits).abs().max()
    assert error <= 0.1 * theirs.logits.abs().max()  # two results in 16 bits


def test_under_autocast_the_logits_outlive_every_change_of_the_weight(ids, device):
    _, model = prepared(nothing, "gqa", device)
    with torch.autocast(device.type, torch.bfloat16):
        first, second = model(ids, labels=ids), model(ids, labels=ids)
    expected = first.logits
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert torch.equal(second.logits, expected)


def test_prepared_by_accelerate_outputs_are_fp32(ids, device):
    """As Trainer(bf16=True) has it; it reads the logits, which the loss does without."""
    found = []
    for each in prepared(nothing, "gqa", device):
        autocast = torch.autocast(device.type, torch.bfloat16)
        each.forward = MethodType(convert_outputs_to_fp32(autocast(type(each).forward)), each)
        with Notes() as notes:
            output = each(ids, labels=ids)
        output.loss.backward()
        found.append((output, gradients(each)))
    assert notes.fused() == 1
    assert notes.operators.count("mistral_ext.linear.default") == 1
    (theirs, their_gradients), (ours, our_gradients) = found
    assert ours.logits.dtype == theirs.logits.dtype == torch.float32
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-2, atol=0)  # two results in bf16
    assert our_gradients.keys() == their_gradients.keys()


def test_autocast_leaves_fp64_alone(ids, device):
    hf_model, model = prepared(nothing, "gqa", device, dtype=torch.float64)
    with torch.autocast(device.type, torch.bfloat16):
        ours, theirs = model(ids, labels=ids), hf_model(ids, labels=ids)
    assert ours.logits.dtype == theirs.logits.dtype == torch.float64
    torch.testing.assert_close(ours.loss, theirs.loss)


def test_other_dtypes_are_left_to_the_linear_module(ids, device):
    for each in prepared(hook("model.layers.1"), "gqa", device):
        each.lm_head.double()
        with pytest.raises(RuntimeError, match="dtype"):
            each(ids, labels=ids)


@pytest.mark.parametrize("kind", ["DynamicCache", "StaticCache"])
def test_a_cache_of_transformers_own_is_filled_and_trained_through(kind, ids, device):
    found = []
    for each in prepared(nothing, "gqa", device):
        length = {"max_cache_len": 20} if kind == "StaticCache" else {}
        cache = getattr(transformers, kind)(config=each.config, **length)
        with torch.no_grad():
            each(ids[:, :3], past_key_values=cache)
        output = each(ids[:, 3:], labels=ids[:, 3:], past_key_values=cache)
        assert output.past_key_values is cache
        output.loss.backward()
        found.append({"loss": output.loss.detach(), **gradients(each)})
    assert_equal_steps(found[1], found[0])


@pytest.mark.parametrize("attention", ["sdpa", "mistral_ext"])
@pytest.mark.parametrize("window", [None, 3, 30])
@pytest.mark.parametrize("weights", [False, True], ids=["", "output_attentions"])
def test_the_first_tokens_see_no_empty_places_of_a_static_cache(
    attention, window, weights, ids, device
):
    theirs, ours = prepared(nothing, "gqa", device, sliding_window=window)
    theirs.set_attn_implementation("eager")
    ours.set_attn_implementation(attention)
    found = []
    for each in (theirs, ours):
        cache = transformers.StaticCache(config=each.config, max_cache_len=20)
        parts = ids[:, :4], ids[:, 4:5], ids[:, 5:]
        outputs = [each(x, past_key_values=cache, output_attentions=weights) for x in parts]
        found.append([y for out in outputs for y in (out.logits, *(out.attentions or ()))])
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)


def test_attention_dropout_with_the_same_seed_is_hugging_faces(ids, device):
    found = []
    for each in prepared(nothing, "gqa", device, attention="eager", attention_dropout=0.3):
        torch.manual_seed(5)
        found.append(step(each, input_ids=ids, labels=ids))
    assert_equal_steps(found[1], found[0])


def test_without_a_label_that_counts_the_loss_is_nan_and_gradients_are_zero(ids, device):
    labels = torch.full_like(ids, -100)
    for each in prepared(lora(), "gqa", device):
        loss = each(ids, labels=labels).loss
        loss.backward()
        assert loss.isnan()
        assert not any(gradient.any() for gradient in gradients(each).values())


def test_steps_accumulate_under_one_autocast(device):
    found = []
    for each in prepared(nothing, "tied", device):
        with torch.autocast(device.type, torch.bfloat16):
            for seed in range(3):
                each(**calls(device, seed)["right_padding"]).loss.backward()
        found.append(gradients(each))
    for key, error in relative_errors(found[1], found[0]).items():
        assert error < 0.1, key  # two results in bf16


def test_layers_and_backbone_run_once(ids, device):
    counts = []
    for each in prepared(nothing, "gqa", device):
        seen: list[str] = []
        for place in ("model", "model.embed_tokens", "model.layers.1", "model.norm"):
            each.get_submodule(place).register_forward_hook(
                lambda *_, seen=seen, place=place: seen.append(place)
            )
        output = each(ids, labels=ids, output_attentions=True, output_hidden_states=True)
        counts.append((seen, len(output.attentions), len(output.hidden_states)))
    assert counts[0] == counts[1]


def test_a_replaced_forward_of_hugging_faces_class_runs(ids, device, monkeypatch):
    _, model = prepared(hook("model.layers.1"), "gqa", device)
    original = transformers.MistralForCausalLM.forward
    called = []

    def forward(self, *args, **kwargs):
        called.append(1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(transformers.MistralForCausalLM, "forward", forward)
    model(ids, labels=ids)
    assert called


def test_a_loss_of_ones_own_gets_the_logits(ids, device):
    _, model = prepared(lora(), "gqa", device)
    model.loss_function = lambda logits, labels, vocab_size, **_: logits.sum() * 0 + vocab_size
    assert model(ids, labels=ids).loss == VOCABULARY


def test_tuples_hold_the_logits(ids, device):
    call = {"labels": ids, "return_dict": False, "output_attentions": True}
    theirs, ours = (each(ids, **call) for each in prepared(nothing, "gqa", device))
    assert isinstance(ours, tuple)
    assert len(ours) == len(theirs)
    assert_close_to_scale(ours[1], theirs[1])
