"""Classification and question answering over our backbone against Hugging Face's."""

import copy
import pickle

import pytest
import torch
import transformers
from helpers.checkpoint import byte_tokenizer
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.models import random_ids, small_config, small_model

import mistral_ext
from mistral_ext.hf.backbone import NativeBackbone

KINDS = ["ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"]
FAMILIES = ["window", "two_layer_types", "query_scale"]
OUTPUTS = ("logits", "start_logits", "end_logits")


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=FAMILIES)
def pair(request, kind, device):
    """(Hugging Face's model, ours around the same parameters)"""
    hf_model = small_model(request.param, device=device, kind=kind, num_labels=3)
    return hf_model, mistral_ext.from_hf(hf_model)


@pytest.fixture
def ids(device):
    return random_ids(2, 17).to(device)


def labels_for(kind, ids):
    if kind == "ForQuestionAnswering":
        places = torch.tensor([3, 9], device=ids.device)
        return {"start_positions": places, "end_positions": places + 2}
    if kind == "ForTokenClassification":
        return {"labels": ids % 3}
    return {"labels": torch.tensor([2, 0], device=ids.device)}


def padded(ids):
    """(ids, mask) with padding on the right of the first row, within every window from a token.

    The loss of question answering depends on what stands at the padding.
    """
    mask = torch.ones_like(ids)
    mask[0, 13:] = 0
    return ids.masked_fill(mask == 0, 0), mask


def assert_same_outputs(ours, theirs):
    assert type(ours) is type(theirs)
    found = [name for name in OUTPUTS if name in theirs]
    assert found
    for name in found:
        assert_close_to_scale(ours[name], theirs[name])


@pytest.mark.parametrize("path", ["native", "module"])
def test_logits_loss_and_gradients_equal_hugging_faces(pair, kind, path, ids):
    hf_model, model = pair
    ids, mask = padded(ids)
    parameters = dict(hf_model.named_parameters())
    gradients, outputs = [], []
    for each in (hf_model, model):
        hf_model.zero_grad()
        with mistral_ext.use_path(path):
            outputs.append(each(ids, attention_mask=mask, **labels_for(kind, ids)))
        outputs[-1].loss.backward()
        gradients.append({name: p.grad.clone() for name, p in parameters.items()})
    assert_same_outputs(outputs[1], outputs[0])
    assert_close_to_scale(outputs[1].loss, outputs[0].loss)
    for name, theirs in gradients[0].items():
        if name == "qa_outputs.bias":  # moves every logit alike, which softmax does not see
            assert gradients[1][name].abs().max() < 1e-5
            continue
        assert_close_to_scale(gradients[1][name], theirs, relative=1e-5)
    assert_ran(model, path)


def test_what_a_call_takes_keeps_the_native_path(pair, kind, ids):
    _, model = pair
    call = {"input_ids": ids, **labels_for(kind, ids), "output_hidden_states": True}
    assert mistral_ext.path_report(model, **call).path == "native"
    assert len(model(**call).hidden_states) == 4
    assert_ran(model, "native")
    assert len(model(**call, output_attentions=True).attentions) == 3
    assert_ran(model, "module")
    assert isinstance(model(ids, return_dict=False), tuple)


def test_from_hf_holds_the_very_parameters_and_leaves_the_given_model_alone(pair, ids):
    hf_model, model = pair
    assert isinstance(model, type(hf_model))
    assert type(model) is getattr(mistral_ext, type(hf_model).__name__)
    assert isinstance(model.base_model, NativeBackbone)
    assert not isinstance(hf_model.base_model, NativeBackbone)
    for theirs, ours in zip(hf_model.parameters(), model.parameters(), strict=True):
        assert ours is theirs
    assert hf_model.config._attn_implementation == "eager"
    assert model.base_model.config is model.config


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deep", "pickle"],
)
def test_a_copy_runs_from_its_own_weights(pair, copied, ids):
    _, model = pair
    before = model(ids)
    twin = copied(model)
    with torch.no_grad():
        twin.base_model.norm.weight.mul_(3)
    assert_same_outputs(model(ids), before)
    name = next(name for name in OUTPUTS if name in before)
    assert not torch.equal(twin(ids)[name], before[name])
    assert_ran(twin, "native")


def test_either_class_loads_what_the_other_saved(pair, kind, ids, tmp_path, device):
    hf_model, model = pair
    expected = hf_model(ids)
    hf_model.save_pretrained(tmp_path / "theirs")
    model.save_pretrained(tmp_path / "ours")
    for file in ("config.json", "model.safetensors"):
        ours, theirs = tmp_path / "ours" / file, tmp_path / "theirs" / file
        assert ours.read_bytes() == theirs.read_bytes()
    loaded = type(model).from_pretrained(tmp_path / "theirs").to(device)
    assert_same_outputs(loaded(ids), expected)
    assert_ran(loaded, "native")
    back = type(hf_model).from_pretrained(tmp_path / "ours").to(device)
    assert_same_outputs(back(ids), expected)
    with mistral_ext.patch():
        auto = getattr(transformers, f"AutoModel{kind}").from_pretrained(tmp_path / "theirs")
    assert type(auto) is type(model)


def test_a_head_put_on_a_language_model_runs_natively(kind, ids, tmp_path):
    small_model("window").save_pretrained(tmp_path)
    ours = getattr(mistral_ext, f"Mistral{kind}").from_pretrained(tmp_path)
    ours(ids.cpu())
    assert_ran(ours, "native")


def test_a_new_model_asks_for_our_attention(kind):
    config = small_config(num_labels=3)
    config._attn_implementation = None
    model = getattr(mistral_ext, f"Mistral{kind}")(config)
    assert type(model.model) is mistral_ext.MistralModel
    assert mistral_ext.path_report(model).path == "native"
    assert not model.can_generate()


def test_a_weight_changed_by_training_is_seen(pair, kind, ids):
    _, model = pair
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        torch.manual_seed(0)  # token classification drops some hidden states
        loss = model(ids, **labels_for(kind, ids)).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert_ran(model, "native")
    assert losses[2] < losses[0]


PIPELINES = {
    "feature-extraction": "Model",
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "zero-shot-classification": "ForSequenceClassification",
}


@pytest.mark.parametrize("task", PIPELINES)
def test_a_pipeline_gives_hugging_faces_results(task, device):
    tokenizer = byte_tokenizer()
    labels = {"label2id": {"contradiction": 0, "neutral": 1, "entailment": 2}}
    labels["id2label"] = {number: name for name, number in labels["label2id"].items()}
    hf_model = small_model(
        "window", device=device, kind=PIPELINES[task], vocab_size=len(tokenizer), **labels
    )
    model = mistral_ext.from_hf(hf_model)
    texts = ["One text", "and a longer one"]
    call = {"candidate_labels": ["a", "b"]} if task.startswith("zero") else {}
    ours, theirs = (
        transformers.pipeline(task, model=each, tokenizer=tokenizer, device=device)(texts, **call)
        for each in (model, hf_model)
    )
    assert_ran(model, "native")
    assert_same_tree(ours, theirs)


def assert_same_tree(ours, theirs):
    """Equal, but for rounding in the numbers."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert_same_tree(ours[key], value)
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for mine, reference in zip(ours, theirs, strict=True):
            assert_same_tree(mine, reference)
    elif isinstance(theirs, str):
        assert ours == theirs
    else:
        assert float(ours) == pytest.approx(float(theirs), rel=1e-3, abs=1e-4)
