"""transformers' text-generation pipeline and streamers over our class."""

import copy
from pathlib import Path
from threading import Thread

import pytest
import torch
import transformers
from helpers import smollm2
from helpers.checkpoint import byte_tokenizer, save_small_checkpoint
from helpers.generation import PLAIN, messages
from helpers.models import small_model
from transformers import TextIteratorStreamer, TextStreamer

import mistral_ext

GREEDY = {"max_new_tokens": 12, "do_sample": False}
TEXTS = ["One", "A somewhat longer beginning of a text", "Two words"]
QUESTION = [{"role": "user", "content": "Name three colours."}]
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def models():
    """{class: model} around the same small weights."""
    hf_model = small_model(vocab_size=259, max_position_embeddings=512)
    hf_model.generation_config.eos_token_id = 5  # a letter: rows end at different lengths
    return {"theirs": hf_model, "ours": mistral_ext.from_hf(hf_model)}


@pytest.fixture
def pipelines(models):
    made = {}
    for name, model in models.items():
        tokenizer = byte_tokenizer()
        tokenizer.chat_template = TEMPLATE
        made[name] = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
    return made


def same(pipelines, inputs, **call):
    """What both pipelines return, from the same seed; ours with no message of its own."""
    outputs, said = {}, {}
    for name, pipeline in pipelines.items():
        torch.manual_seed(0)
        with messages() as said[name]:
            outputs[name] = pipeline(inputs, **call)
    assert outputs["ours"] == outputs["theirs"]
    assert said["ours"] <= said["theirs"]
    return outputs["ours"]


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_batches_of_unequal_length(pipelines, models, batch_size):
    outputs = same(pipelines, TEXTS, batch_size=batch_size, **GREEDY)
    assert [text[0]["generated_text"].startswith(t) for text, t in zip(outputs, TEXTS, strict=True)]
    assert mistral_ext.path_report(models["ours"]).generation.path == "native"


@pytest.mark.parametrize("full", [True, False])
def test_returns_the_full_text_or_what_is_new(pipelines, full):
    outputs = same(pipelines, TEXTS[1], return_full_text=full, **GREEDY)
    assert outputs[0]["generated_text"].startswith(TEXTS[1]) == full


def test_returns_token_ids(pipelines):
    outputs = same(pipelines, TEXTS, return_tensors=True, batch_size=3, **GREEDY)
    assert isinstance(outputs[0][0]["generated_token_ids"][0], int)


def test_samples_several_sequences_with_the_same_seed(pipelines, models):
    call = {"do_sample": True, "num_return_sequences": 3, "top_p": 0.9, "max_new_tokens": 12}
    outputs = same(pipelines, TEXTS, batch_size=2, **call)
    assert [len(texts) for texts in outputs] == [3, 3, 3]
    assert len({text["generated_text"] for text in outputs[0]}) > 1
    assert mistral_ext.path_report(models["ours"]).generation.path == "native"


def test_its_own_defaults_sample(pipelines, models):
    same(pipelines, TEXTS[0])
    assert mistral_ext.path_report(models["ours"]).generation.path == "native"


def test_several_beams(pipelines):
    same(pipelines, TEXTS, batch_size=3, num_beams=3, num_return_sequences=2, **GREEDY)


def test_stops_at_a_sequence_of_the_callers(pipelines):
    same(pipelines, TEXTS, stop_sequence="e", **GREEDY)


def test_stops_at_strings(models):
    outputs = []
    for model in models.values():
        tokenizer = byte_tokenizer()
        pipeline = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
        outputs.append(
            pipeline(TEXTS, stop_strings=["e", "a"], tokenizer=tokenizer, batch_size=3, **GREEDY)
        )
    assert outputs[0] == outputs[1]
    assert mistral_ext.path_report(models["ours"]).generation.path == "native"


@pytest.mark.parametrize("last", ["user", "assistant"])
def test_chats_go_on(pipelines, last):
    chat = [*QUESTION, {"role": "assistant", "content": "They are"}][: 1 + (last == "assistant")]
    outputs = same(pipelines, [chat, [*QUESTION]], batch_size=2, **GREEDY)
    answer = outputs[0][0]["generated_text"][-1]
    assert answer["role"] == "assistant"
    assert answer["content"].startswith("They are") == (last == "assistant")


def test_an_empty_prompt(pipelines):
    same(pipelines, "", **GREEDY)


def test_is_made_from_a_folder_after_patch(tmp_path, pipelines):
    save_small_checkpoint(tmp_path)
    with mistral_ext.patch():
        ours = transformers.pipeline("text-generation", model=str(tmp_path))
    assert type(ours.model) is mistral_ext.MistralForCausalLM
    theirs = transformers.pipeline("text-generation", model=str(tmp_path))
    assert type(theirs.model) is not mistral_ext.MistralForCausalLM
    same({"ours": ours, "theirs": theirs}, TEXTS, batch_size=2, **GREEDY)


@pytest.mark.parametrize("skip_prompt", [False, True])
def test_text_streams_word_by_word(models, skip_prompt, capsys):
    tokenizer = byte_tokenizer()
    ids = tokenizer(TEXTS[1], return_tensors="pt").input_ids
    printed = {}
    for name, model in models.items():
        model.generate(ids, streamer=TextStreamer(tokenizer, skip_prompt=skip_prompt), **PLAIN)
        printed[name] = capsys.readouterr().out
    assert printed["ours"] == printed["theirs"]
    assert TEXTS[1] in printed["ours"] or skip_prompt
    assert mistral_ext.path_report(models["ours"]).generation.path == "native"


def test_text_streams_to_another_thread(models):
    tokenizer = byte_tokenizer()
    ids = tokenizer(TEXTS[1], return_tensors="pt").input_ids
    pieces = {}
    for name, model in models.items():
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60)
        thread = Thread(target=model.generate, args=(ids,), kwargs={"streamer": streamer, **PLAIN})
        thread.start()
        pieces[name] = list(streamer)
        thread.join()
    assert pieces["ours"] == pieces["theirs"]


def test_a_streamer_takes_one_row_alone(models):
    tokenizer = byte_tokenizer()
    for model in models.values():
        with pytest.raises(ValueError, match="batch size 1"):
            model.generate(torch.ones(2, 3).long(), streamer=TextStreamer(tokenizer), **PLAIN)


def test_mistrals_own_tokenizer_and_its_template():
    common = pytest.importorskip("mistral_common")
    from transformers.tokenization_mistral_common import MistralCommonBackend

    file = Path(common.__file__).parent / "data" / "mistral_instruct_tokenizer_240323.model.v3"
    tokenizer = MistralCommonBackend(tokenizer_path=str(file))
    hf_model = small_model(vocab_size=tokenizer.vocab_size, hidden_size=32)
    pair = {"theirs": hf_model, "ours": mistral_ext.from_hf(hf_model)}
    inputs = tokenizer.apply_chat_template(QUESTION, return_tensors="pt", return_dict=True)
    ids = [m.generate(**inputs, max_new_tokens=8, do_sample=False) for m in pair.values()]
    assert torch.equal(*ids)
    assert mistral_ext.path_report(pair["ours"]).generation.path == "native"
    text = tokenizer.decode(ids[0][0], skip_special_tokens=True)
    assert text.startswith("Name three colours.")


@pytest.fixture(scope="module")
def trained():
    """The pipelines of a trained model, whose answers make sense."""
    hf_model = smollm2.hf_model()
    tokenizer = smollm2.tokenizer()
    return {
        name: transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
        for name, model in (("theirs", hf_model), ("ours", mistral_ext.from_hf(hf_model)))
    }


def test_a_trained_model_answers_in_a_chat(trained):
    outputs = same(trained, QUESTION, **GREEDY)
    assert "red" in outputs[0]["generated_text"][-1]["content"].lower()
    assert mistral_ext.path_report(trained["ours"].model).generation.path == "native"


def test_a_trained_model_completes_a_batch(trained):
    call = {"max_new_tokens": 8, "do_sample": False, "return_full_text": False}
    outputs = same(trained, ["The capital of France is", "2, 4, 6,"], batch_size=2, **call)
    assert "Paris" in outputs[0][0]["generated_text"]
    assert "8" in outputs[1][0]["generated_text"]


def test_without_a_pad_token_single_texts_run_and_batches_are_refused_alike(models):
    outputs, said = {}, {}
    for name, model in models.items():
        tokenizer = byte_tokenizer()
        tokenizer.pad_token = None
        model = copy.deepcopy(model)
        model.generation_config.pad_token_id = model.config.pad_token_id = None
        pipeline = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
        with messages() as said[name]:
            outputs[name] = pipeline(TEXTS, **GREEDY)
        with pytest.raises(ValueError, match="without pad_token cannot do batching"):
            pipeline(TEXTS, batch_size=2, **GREEDY)
    assert outputs["ours"] == outputs["theirs"]
    assert said["ours"] <= said["theirs"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_is_made_from_a_folder_with_a_dtype_and_a_device_map(dtype, tmp_path):
    save_small_checkpoint(tmp_path)
    settings = {"model": str(tmp_path), "dtype": dtype, "device_map": "auto"}
    theirs = transformers.pipeline("text-generation", **settings)
    with mistral_ext.patch(), mistral_ext.patch():
        ours = transformers.pipeline("text-generation", **settings)
    assert type(ours.model) is mistral_ext.MistralForCausalLM
    assert ours.model.dtype == theirs.model.dtype == dtype
    if dtype == torch.float32:
        same({"ours": ours, "theirs": theirs}, TEXTS, **GREEDY)
    else:
        # Of a model of random weights many a token's rival is within bf16's rounding.
        outputs = ours(TEXTS, **GREEDY)
        pairs = zip(outputs, TEXTS, strict=True)
        assert all(output[0]["generated_text"].startswith(text) for output, text in pairs)
    assert mistral_ext.path_report(ours.model).generation.path == "native"
