"""A C++ program's tokens and logits beside Python's and Hugging Face's, of a real model in fp32."""

import torch
from helpers import smollm2
from helpers.cpp_programs import build, run
from safetensors.torch import load_file

import mistral_ext

NEW = 128


def test_128_greedy_tokens_of_smollm2_and_their_logits_are_hugging_faces(tmp_path):
    prompt = smollm2.text_ids(32)
    program = build("tests/packaging/logits", tmp_path / "build")
    ids = [str(token) for token in prompt[0].tolist()]
    run(program, smollm2.folder(), str(NEW), tmp_path / "output.safetensors", *ids)
    ours = load_file(tmp_path / "output.safetensors")
    assert ours["tokens"].shape == (NEW,)

    hf = smollm2.hf_model()
    # Without an end, so that there are as many tokens as asked for.
    options = {
        "max_new_tokens": NEW,
        "do_sample": False,
        "eos_token_id": None,
        "return_dict_in_generate": True,
        "output_logits": True,
    }
    expected = hf.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
    logits = torch.cat(expected.logits)
    assert torch.equal(ours["tokens"], expected.sequences[0, prompt.shape[1] :])
    # The contract of docs/numerics.md: 1e-4 of the logits' scale.
    assert (ours["logits"] - logits).abs().max() <= 1e-4 * logits.abs().max()

    python = mistral_ext.from_hf(hf).generate(
        prompt, attention_mask=torch.ones_like(prompt), **options
    )
    assert torch.equal(ours["tokens"], python.sequences[0, prompt.shape[1] :])
    assert (ours["logits"] - torch.cat(python.logits)).abs().max() <= 1e-4 * logits.abs().max()
