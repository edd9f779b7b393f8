"""examples/cpp_app, built against what `cmake --install` lays out, and the installed programs."""

import subprocess
from pathlib import Path

import pytest
import torch
import transformers
from helpers import smollm2
from helpers.checkpoint import save_small_checkpoint
from helpers.cpp_programs import ROOT, build, run
from helpers.programs import call

import mistral_ext

PROMPT = "Once upon a time, in a land far away, "


@pytest.fixture(scope="module")
def cpp_app(prefix, tmp_path_factory) -> Path:
    return build("examples/cpp_app", tmp_path_factory.mktemp("build"), prefix)


def greedy(model: transformers.PreTrainedModel, ids: torch.Tensor, count: int) -> list[int]:
    """All tokens, those of the prompt too."""
    return model.generate(ids, max_new_tokens=count, do_sample=False)[0].tolist()


def test_it_writes_what_python_makes(cpp_app, tmp_path):
    folder = save_small_checkpoint(tmp_path)
    model = mistral_ext.MistralForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = greedy(model, tokenizer(PROMPT, return_tensors="pt").input_ids, 128)
    printed = run(cpp_app, folder, PROMPT)
    assert printed == tokenizer.decode(ids, skip_special_tokens=True) + "\n"
    assert printed.startswith(PROMPT)


def test_what_is_wrong_is_one_line(cpp_app, tmp_path):
    folder = save_small_checkpoint(tmp_path)
    for arguments, message in (
        ((tmp_path / "none", PROMPT), "load: "),
        ((folder, ""), "generate: "),
    ):
        done = subprocess.run([cpp_app, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith(message)
        assert done.stderr.count("\n") == 1


def test_its_128_tokens_of_a_trained_model_are_pythons_and_hugging_faces(cpp_app, device):
    if device.type != "cpu":
        pytest.skip("the app runs on the CPU")
    hf_model = smollm2.hf_model()
    hf_model.generation_config.eos_token_id = None  # so that there are 128
    tokenizer = smollm2.tokenizer()
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    theirs = greedy(hf_model, ids, 128)
    with mistral_ext.use_path("native"):
        assert greedy(mistral_ext.from_hf(hf_model), ids, 128) == theirs
    new = theirs[ids.shape[1] :]
    ends = smollm2.hf_model().generation_config.eos_token_id
    # As the programs stop at an end, this text must have none for the comparison to be of all.
    assert ends not in new
    text = tokenizer.decode(theirs, skip_special_tokens=True)
    assert run(cpp_app, smollm2.folder(), PROMPT) == text + "\n"


def test_the_readme_shows_it_whole():
    code = (ROOT / "examples" / "cpp_app" / "main.cpp").read_text()
    assert len(code.splitlines()) < 30
    readme = (ROOT / "README.md").read_text()
    assert f"```cpp\n{code}```\n" in readme
    for line in (ROOT / "examples" / "cpp_app" / "CMakeLists.txt").read_text().splitlines()[2:]:
        assert line in readme


def test_installed_programs_find_their_libraries(prefix):
    call("mistral_ext_generate", "--version")  # skips where they are not built
    for name in ("mistral_ext_generate", "mistral_ext_bench"):
        assert run(prefix / "bin" / name, "--version") == mistral_ext.__version__ + "\n"


def test_the_licences_of_what_is_compiled_in_are_installed(prefix):
    files = {path.name: path for path in (ROOT / "licenses").glob("*.txt")}
    if (prefix / "bin").exists():
        files |= {path.name: path for path in (ROOT / "licenses" / "programs").glob("*.txt")}
        assert "cli11.txt" in files
    files["LICENSE"] = ROOT / "LICENSE"
    folder = prefix / "share" / "licenses" / "mistral_ext"
    assert {path.name for path in folder.iterdir()} == files.keys()
    for name, path in files.items():
        assert (folder / name).read_bytes() == path.read_bytes()
