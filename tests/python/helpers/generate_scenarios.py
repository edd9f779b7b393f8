"""What Hugging Face programs do with generate, each as a function that does it: docs/paths.md."""

from typing import Any

import torch
import transformers
from transformers import LogitsProcessor, StoppingCriteria, StoppingCriteriaList

from helpers.checkpoint import byte_tokenizer
from helpers.generation import PLAIN, left_padded
from helpers.models import random_ids
from helpers.scenarios import Model, lora, ours, scenario


def generated(title: str, ids: torch.Tensor | None = None, **call: Any) -> None:
    """generate with these arguments."""

    def run() -> Model:
        model = ours()
        model.generate(random_ids(2, 7) if ids is None else ids, **{**PLAIN, **call})
        return model

    scenario("generate", title)(run)


class OwnProcessor(LogitsProcessor):
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores


class OwnCriterion(StoppingCriteria):
    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.zeros(len(input_ids), dtype=torch.bool)


class Streamer(transformers.generation.BaseStreamer):
    def put(self, value: torch.Tensor) -> None:
        pass

    def end(self) -> None:
        pass


ONE = random_ids(1, 7)

generated("greedy")
generated("sampling: temperature, top-k, top-p, min-p", do_sample=True, top_p=0.9, min_p=0.01)
generated("`num_return_sequences`", do_sample=True, num_return_sequences=2)
generated("`repetition_penalty`, `min_new_tokens`", repetition_penalty=1.2, min_new_tokens=2)
generated("left-padded batch", attention_mask=left_padded(random_ids(2, 7), 3, 0)[1])
generated("a streamer", ids=ONE, streamer=Streamer())
generated(
    "a stopping criterion of the caller's own, `stop_strings`, `max_time`",
    stopping_criteria=StoppingCriteriaList([OwnCriterion()]),
    eos_token_id=2,
)
generated("the same without an end token, several rows", max_time=1000.0)
generated("`prefill_chunk_size`", prefill_chunk_size=3)
generated(
    "`output_scores`, `output_logits`",
    return_dict_in_generate=True,
    output_scores=True,
    output_logits=True,
)
generated("`output_hidden_states`", return_dict_in_generate=True, output_hidden_states=True)
generated("`output_attentions`", return_dict_in_generate=True, output_attentions=True)
generated("`no_repeat_ngram_size`", no_repeat_ngram_size=3)
generated("`bad_words_ids`", bad_words_ids=[[5, 6]])
generated("`suppress_tokens`", suppress_tokens=[5])
generated("`renormalize_logits`", do_sample=True, renormalize_logits=True)
generated("`begin_suppress_tokens`", begin_suppress_tokens=[5])
generated("`sequence_bias`", sequence_bias={(5, 6): 1.5})
generated(
    "`forced_bos_token_id`, `forced_eos_token_id`", forced_bos_token_id=3, forced_eos_token_id=2
)
generated(
    "`exponential_decay_length_penalty`",
    exponential_decay_length_penalty=(1, 1.1),
    eos_token_id=2,
)
generated("`remove_invalid_values`", remove_invalid_values=True)
generated("`typical_p`", do_sample=True, typical_p=0.9)
generated("`epsilon_cutoff`, `eta_cutoff`", do_sample=True, epsilon_cutoff=1e-3, eta_cutoff=1e-3)
generated("`top_h`", do_sample=True, top_h=0.9)
generated("`prefix_allowed_tokens_fn`", prefix_allowed_tokens_fn=lambda row, ids: [5, 6, 7])
generated("`watermarking_config`", watermarking_config=transformers.WatermarkingConfig())
generated("`guidance_scale`", guidance_scale=1.5)
generated("a logits processor of the caller's own", logits_processor=[OwnProcessor()])
generated("beam search", num_beams=2)
generated("beam sampling", num_beams=2, do_sample=True)
generated("prompt lookup", ids=ONE, prompt_lookup_num_tokens=2)
generated('`cache_implementation="static"`', cache_implementation="static")
generated("`use_cache=False`", use_cache=False)


@scenario("generate", "`inputs_embeds`")
def _() -> Model:
    model = ours()
    model.generate(inputs_embeds=torch.randn(2, 7, 64), **PLAIN)
    return model


@scenario("generate", "`past_key_values` of an earlier turn")
def _() -> Model:
    model = ours()
    first = model.generate(ONE, return_dict_in_generate=True, **PLAIN)
    model.generate(
        torch.cat([first.sequences, ONE], 1), past_key_values=first.past_key_values, **PLAIN
    )
    return model


@scenario("generate", "a `DynamicCache` made by the caller")
def _() -> Model:
    model = ours()
    cache = transformers.DynamicCache(config=model.config)
    model.generate(ONE, past_key_values=cache, **PLAIN)
    return model


@scenario("generate", "assisted decoding, the model")
def _() -> Model:
    model = ours()
    model.generate(ONE, assistant_model=ours(seed=1), **PLAIN)
    return model


@scenario("generate", "assisted decoding, the draft model")
def _() -> Model:
    draft = ours(seed=1)
    ours().generate(ONE, assistant_model=draft, **PLAIN)
    return draft


@scenario("generate", "`pipeline`, a batch of texts or a chat")
def _() -> Model:
    model = ours(vocab_size=259, max_position_embeddings=512)
    pipeline = transformers.pipeline("text-generation", model=model, tokenizer=byte_tokenizer())
    pipeline(["One", "Two words"], batch_size=2, max_new_tokens=4)
    return model


@scenario("generate", "`generate_batch`, transformers' continuous batching")
def _() -> Model:
    model = ours("gqa")
    model.generate_batch(
        ONE.tolist(),
        generation_config=transformers.GenerationConfig(max_new_tokens=2, eos_token_id=2),
        continuous_batching_config=transformers.ContinuousBatchingConfig(
            num_blocks=4, block_size=16, max_batch_tokens=32
        ),
    )
    return model


@scenario("generate", "a forward hook on a layer")
def _() -> Model:
    model = ours()
    model.model.layers[1].register_forward_hook(lambda *_: None)
    model.generate(ONE, **PLAIN)
    return model


@scenario("generate", "LoRA (PEFT)")
def _() -> Model:
    model = ours()
    lora(model).generate(ONE, **PLAIN)
    return model


@scenario("generate", "prompt tuning (PEFT)")
def _() -> Model:
    import peft

    model = ours()
    settings = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    wrapped = peft.get_peft_model(model, settings)
    wrapped.generate(input_ids=ONE, attention_mask=torch.ones_like(ONE), **PLAIN)
    return model


@scenario("generate", "`torch.autocast`")
def _() -> Model:
    model = ours()
    with torch.autocast("cpu", torch.bfloat16):
        model.generate(ONE, **PLAIN)
    return model
