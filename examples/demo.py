"""A live Hugging Face model and its C++ twin write the same text; prints how close and how fast.

Run it with `make demo`. Exits with 1 where the tokens differ.
"""

import sys
import time

import torch
import transformers

import mistral_ext
from mistral_ext.cli import smollm2
from mistral_ext.cli.errors import UsageError

PROMPT = "Once upon a time, a cat"
NEW_TOKENS = 128
ROUNDS = 2


def main() -> int:
    try:
        folder = smollm2.checkpoint_folder()
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    hf_model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = mistral_ext.from_hf(hf_model)
    print(f"{smollm2.NAME}, fp32, {torch.get_num_threads()} threads")
    print(f"Hugging Face: {type(hf_model).__module__}.{type(hf_model).__qualname__}")
    print(f"mistral_ext:  {type(model).__module__}.{type(model).__qualname__}, same parameters\n")

    prompt = tokenizer(PROMPT, return_tensors="pt")
    models = {"hugging_face": hf_model, "mistral_ext": model}
    tokens, rates = generate_in_turns(models, prompt)
    same = torch.equal(tokens["hugging_face"], tokens["mistral_ext"])
    for name in models if not same else ("mistral_ext",):
        print(tokenizer.decode(tokens[name][0]), "\n")
    verdict = "the same" if same else "DIFFERENT"
    print(f"greedy tokens:     {verdict} ({tokens['mistral_ext'].shape[1]} with the prompt)")

    difference, scale = logit_difference(hf_model, model, tokens["hugging_face"])
    print(f"logit difference:  at most {difference:.1e}, {difference / scale:.1e} of their scale")
    for name, rate in rates.items():
        print(f"{name + ':':<18} {rate:.1f} tokens/s")
    print(f"ratio:             {rates['mistral_ext'] / rates['hugging_face']:.2f}")
    print(mistral_ext.path_report(model))
    return 0 if same else 1


def generate_in_turns(
    models: dict[str, transformers.PreTrainedModel], prompt: transformers.BatchEncoding
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """(the greedy tokens int64 [1, tokens], new tokens per second of the best round) of each."""
    tokens, rates = {}, dict.fromkeys(models, 0.0)
    for model in models.values():
        model.generate(**prompt, max_new_tokens=4, do_sample=False)  # warms up
    for _ in range(ROUNDS):
        for name, model in models.items():
            started = time.perf_counter()
            tokens[name] = model.generate(**prompt, max_new_tokens=NEW_TOKENS, do_sample=False)
            seconds = time.perf_counter() - started
            new = tokens[name].shape[1] - prompt.input_ids.shape[1]
            rates[name] = max(rates[name], new / seconds)
    return tokens, rates


def logit_difference(
    hf_model: transformers.PreTrainedModel, model: transformers.PreTrainedModel, ids: torch.Tensor
) -> tuple[float, float]:
    """(largest absolute difference, largest absolute logit) over a text, int64 [1, tokens]."""
    with torch.no_grad():
        theirs, ours = hf_model(ids).logits, model(ids).logits
    return (ours - theirs).abs().max().item(), theirs.abs().max().item()


if __name__ == "__main__":
    sys.exit(main())
