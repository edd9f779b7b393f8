"""examples/train, a C++ program, beside the same loop in Python with Hugging Face's class."""

import json
import shutil
import subprocess

import pytest
import torch
import transformers
from helpers import smollm2
from helpers.checkpoint import save_small_checkpoint
from helpers.cpp_programs import build, run
from helpers.mistral_files import SENTENCEPIECE
from helpers.models import small_model

from benchmarks import mistral_format

STEPS, BATCH, TOKENS, RATE = 3, 2, 24, 1e-5


def train_in_python(ids: torch.Tensor) -> tuple[list[float], transformers.PreTrainedModel]:
    model = smollm2.hf_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    losses = []
    for rows in ids.view(STEPS, BATCH, TOKENS):
        loss = model(rows, labels=rows, use_cache=False).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses, model


def test_it_trains_as_a_loop_in_python_and_saves_what_hugging_face_loads(tmp_path):
    ids = smollm2.text_ids(STEPS * BATCH * TOKENS)
    (tmp_path / "text.ids").write_text(" ".join(map(str, ids.flatten().tolist())))
    program = build("examples/train", tmp_path / "build")
    output = tmp_path / "trained"
    sizes = [str(number) for number in (STEPS, BATCH, TOKENS, RATE)]
    printed = run(program, smollm2.folder(), tmp_path / "text.ids", output, *sizes)
    losses = [float(line) for line in printed.split()]

    expected_losses, expected = train_in_python(ids)
    # fp32 through 30 layers, summed in another order; the second and third step start from weights
    # that differ by rounding too.
    torch.testing.assert_close(
        torch.tensor(losses), torch.tensor(expected_losses), rtol=1e-4, atol=0
    )

    model = transformers.AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32)
    assert type(model) is transformers.MistralForCausalLM
    assert model.generation_config.eos_token_id == expected.generation_config.eos_token_id
    transformers.AutoTokenizer.from_pretrained(output)
    original = smollm2.hf_model().state_dict()
    trained = model.state_dict()
    assert model.lm_head.weight is model.model.embed_tokens.weight
    # AdamW's first steps are the gradients' signs times the rate: where a gradient is not larger
    # than its rounding error the sign is chance, and the weight may differ by all the rate, twice,
    # in each step. Such elements are few: in root mean square the weights differ by little of what
    # they have moved.
    difference = moved = 0.0
    for name, weight in expected.state_dict().items():
        assert (trained[name] - weight).abs().max() <= 2 * STEPS * RATE + 1e-7, name
        difference += (trained[name] - weight).double().pow(2).sum().item()
        moved += (weight - original[name]).double().pow(2).sum().item()
    assert moved > 0
    assert (difference / moved) ** 0.5 < 0.05


def test_it_trains_on_a_text_as_on_its_ids(tmp_path):
    program = build("examples/train", tmp_path / "build")
    folder = save_small_checkpoint(tmp_path)
    text = "Once upon a time there was a model that read its own story. " * 4
    (tmp_path / "story.txt").write_text(text)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    (tmp_path / "story.ids").write_text(" ".join(map(str, tokenizer(text).input_ids)))
    sizes = ("2", "1", "8", "1e-5")
    of_text, of_ids = (
        run(program, folder, tmp_path / f"story.{kind}", tmp_path / f"trained_on_{kind}", *sizes)
        for kind in ("txt", "ids")
    )
    assert of_text == of_ids
    assert len(of_text.split()) == 2


@pytest.mark.parametrize("own_file", [True, False])
def test_what_it_saves_generates_as_what_it_was_given(own_file, tmp_path):
    program = build("examples/train", tmp_path / "build")
    output = tmp_path / "trained"
    save_small_checkpoint(output)  # another model's, whose files are replaced
    folder = save_small_checkpoint(tmp_path / "source", chat_template="{{ messages }}")
    ends = {"bos_token_id": 5, "eos_token_id": [9, 33, 70], "pad_token_id": 4}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | ends))
    settings = folder / "generation_config.json"
    if own_file:
        ends = {"eos_token_id": [40, 41], "pad_token_id": 3, "do_sample": True, "top_k": 3}
        settings.write_text(json.dumps(ends | {"max_new_tokens": 12, "temperature": 0.7}))
    else:
        settings.unlink()
    (tmp_path / "text.ids").write_text("1 2 3 4")
    run(program, folder, tmp_path / "text.ids", output, "1", "1", "4", "0")

    given, saved = (
        transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        for path in (folder, output)
    )
    expected, found = given.generation_config.to_dict(), saved.generation_config.to_dict()
    assert found["eos_token_id"] == ends["eos_token_id"]
    for fields in (expected, found):
        fields.pop("transformers_version", None)
    assert found == expected
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(saved.config, name) == getattr(given.config, name)
    sequences = []
    for model in (given, saved):
        torch.manual_seed(0)
        prompt = torch.tensor([[6, 7, 8], [11, 12, 13]])
        sequences.append(model.generate(prompt, max_new_tokens=40))
    assert torch.equal(*sequences)
    tokenizers = [transformers.AutoTokenizer.from_pretrained(path) for path in (folder, output)]
    assert tokenizers[0].chat_template == tokenizers[1].chat_template == "{{ messages }}"


def test_of_mistrals_format_it_saves_the_tokenizer_and_the_end(tmp_path):
    program = build("examples/train", tmp_path / "build")
    mistral_format.save(small_model(), tmp_path / "source")
    shutil.copy(SENTENCEPIECE["v3"], tmp_path / "source" / "tokenizer.model.v3")
    (tmp_path / "text.ids").write_text("1 2 3 4")
    output = tmp_path / "trained"
    run(program, tmp_path / "source", tmp_path / "text.ids", output, "1", "1", "4", "0")
    assert (output / "tokenizer.model.v3").read_bytes() == SENTENCEPIECE["v3"].read_bytes()
    config = json.loads((output / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (1, 2)


def test_what_it_cannot_read_is_said_in_one_line(tmp_path):
    program = build("examples/train", tmp_path / "build")

    def error(*arguments) -> str:
        command = [str(part) for part in (program, *arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode in (1, 2)
        return done.stderr.strip()

    ids = tmp_path / "text.ids"
    ids.write_text("1 2 three")
    numbers = ("1", "1", "2", "1e-5")
    assert error().startswith("usage: train ")
    assert error(tmp_path, ids, tmp_path / "out", *numbers).endswith("must hold integers alone")
    none = tmp_path / "none.txt"
    assert error(tmp_path, none, tmp_path / "out", *numbers).endswith("none.txt: cannot be read")
    ids.write_text("1")
    assert error(tmp_path, ids, tmp_path / "out", *numbers).endswith("must have 2 tokens, got 1")
    ids.write_text("1 2")
    assert "load: " in error(tmp_path / "none", ids, tmp_path / "out", *numbers)
