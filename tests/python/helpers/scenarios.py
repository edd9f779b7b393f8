"""What Hugging Face programs do with a model, each as a function that does it: docs/paths.md.

The calls of forward and the training; generate_scenarios.py adds those of generate.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers
from torch import nn

import mistral_ext
from helpers.generation import left_padded
from helpers.models import ROPE, random_ids, small_model
from mistral_ext.hf import Choice

Model = transformers.PreTrainedModel
SCENARIOS: dict[str, dict[str, Callable[[], Model | tuple[Model, Choice]]]] = {}


def scenario(group: str, title: str) -> Callable[[Any], Any]:
    """Adds a function that makes a model, runs it and returns it.

    It may return (model, choice) where no report can say what ran: under a tracer.
    """

    def add(run: Callable[[], Any]) -> Callable[[], Any]:
        SCENARIOS.setdefault(group, {})[title] = run
        return run

    return add


def ours(name: str = "window", **changes: Any) -> Model:
    return mistral_ext.from_hf(small_model(name, **changes))


def called(
    title: str, group: str = "forward", make: Callable[[], Model] = ours, **call: Any
) -> None:
    """forward with these arguments."""

    def run() -> Model:
        model = make()
        with torch.no_grad():
            model(**{"input_ids": random_ids(2, 9), **call})
        return model

    scenario(group, title)(run)


MASK = left_padded(random_ids(2, 9), 3, 0)[1]
PACKED = torch.cat([torch.arange(5), torch.arange(4)])[None]

called("a batch of ids")
called("left or right padding", attention_mask=MASK)
called("a mask of 4 dimensions", attention_mask=torch.ones(2, 1, 9, 9).tril().bool())
called("packed sequences (`position_ids`)", position_ids=PACKED, use_cache=False)
called("`inputs_embeds`", input_ids=None, inputs_embeds=torch.randn(2, 9, 64))
called("`logits_to_keep`, a number or indices", logits_to_keep=torch.tensor([3, 8]))
called("`output_hidden_states`", output_hidden_states=True)
called("`MistralModel`, and `.model` called directly", make=partial(ours, kind="Model"))
for _kind in ("SequenceClassification", "TokenClassification", "QuestionAnswering"):
    called(f"`MistralFor{_kind}`, its backbone", make=partial(ours, kind=f"For{_kind}"))
called("`output_attentions`", output_attentions=True)
called("`is_causal=False`", is_causal=False, use_cache=False)


@scenario("forward", "a `MistralCache`, over several calls")
def _() -> Model:
    model = ours()
    with torch.no_grad():
        cache = model(random_ids(2, 5)).past_key_values
        model(random_ids(2, 1), past_key_values=cache)
    return model


def with_cache(make: Callable[[Model], Any]) -> Callable[[], Model]:
    def run() -> Model:
        model = ours()
        with torch.no_grad():
            model(random_ids(2, 5), past_key_values=make(model))
        return model

    return run


scenario("forward", "a `DynamicCache` made by the caller")(
    with_cache(lambda model: transformers.DynamicCache(config=model.config))
)
scenario("forward", "a `StaticCache` made by the caller")(
    with_cache(lambda model: transformers.StaticCache(config=model.config, max_cache_len=12))
)


@scenario("forward", "`torch.inference_mode`")
def _() -> Model:
    model = ours()
    with torch.inference_mode():
        model(random_ids(2, 5))
    return model


@scenario("forward", "`torch.autocast`")
def _() -> Model:
    model = ours()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(random_ids(2, 5))
    return model


@scenario("forward", "`model.half()`, `.bfloat16()`, `.double()`")
def _() -> Model:
    model = ours().half()
    model(random_ids(2, 5))
    return model


@scenario("forward", "`resize_token_embeddings`, tied or replaced weights")
def _() -> Model:
    model = ours("tied")
    model.resize_token_embeddings(120)
    model(random_ids(2, 5))
    return model


@scenario("forward", "a forward hook on a layer")
def _() -> Model:
    model = ours()
    model.model.layers[1].register_forward_hook(lambda *_: None)
    model(random_ids(2, 5))
    return model


@scenario("forward", "a forward pre-hook on a linear module")
def _() -> Model:
    model = ours()
    model.lm_head.register_forward_pre_hook(lambda *_: None)
    model(random_ids(2, 5))
    return model


@scenario("forward", "a replaced module")
def _() -> Model:
    model = ours()
    model.lm_head = nn.Sequential(model.lm_head)
    model(random_ids(2, 5))
    return model


def attended(implementation: str) -> Model:
    model = ours()
    model.set_attn_implementation(implementation)
    return model


called('`attn_implementation="sdpa"`, the default', make=partial(attended, "sdpa"))
called('`attn_implementation="eager"`', make=partial(attended, "eager"))
called("an activation other than SiLU", make=partial(ours, hidden_act="gelu"))


LONGROPE = {"rope_type": "longrope", "factor": 2.0, "original_max_position_embeddings": 32}
LONGROPE |= {**ROPE, **LONGROPE, "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
called("rope type longrope", make=partial(ours, rope_parameters=LONGROPE))

TRACED = "the tracer has to see operators"


@scenario("forward", "`torch.compile(model)`")
def _() -> tuple[Model, Choice]:
    model = ours()
    torch.compiler.reset()
    torch.compile(model, backend="eager", fullgraph=True)(random_ids(2, 5), use_cache=False)
    torch.compiler.reset()
    return model, Choice("module", TRACED)


@scenario("forward", "`torch.export`")
def _() -> tuple[Model, Choice]:
    model = ours()
    with torch.no_grad():
        torch.export.export(model, (random_ids(2, 5),), {"use_cache": False}, strict=False)
    return model, Choice("module", TRACED)


@scenario("forward", "`torch.func.functional_call` with other weights")
def _() -> Model:
    model = ours()
    torch.func.functional_call(model, dict(model.named_parameters()), (random_ids(2, 5),))
    return model


@scenario("forward", "`torch.func.grad`")
def _() -> Model:
    model, ids = ours(), random_ids(2, 5)

    def loss(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(model, weights, (ids,), {"labels": ids}).loss

    torch.func.grad(loss)({name: p.detach() for name, p in model.named_parameters()})
    return model


def trained(
    title: str, prepare: Callable[[Model], Any] = lambda model: None, **changes: Any
) -> None:
    """One training step."""

    def run() -> Model:
        model = ours(**changes).train()
        if prepare:
            prepare(model)
        ids = random_ids(2, 9)
        model(ids, labels=ids).loss.backward()
        return model

    scenario("training", title)(run)


def lora(model: Model) -> Any:
    import peft

    settings = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"])
    return peft.get_peft_model(model, settings)


trained("loss and gradients")
trained("gradient checkpointing", lambda model: model.gradient_checkpointing_enable())


def checkpointing_by_hand(model: Model) -> None:
    model._set_gradient_checkpointing(gradient_checkpointing_func=lambda layer, *x: layer(*x))


trained("gradient checkpointing by a function of one's own", checkpointing_by_hand)
trained("attention dropout", attention_dropout=0.1)
trained("hooks on parameters", lambda m: m.lm_head.weight.register_hook(lambda gradient: None))
trained("LoRA (PEFT)", lora)
trained("LoRA, merged and unloaded", lambda model: lora(model).merge_and_unload().requires_grad_())


def fitted(title: str, **settings: Any) -> None:
    """transformers.Trainer."""

    def run() -> Model:
        model = ours()
        rows = [{"input_ids": row, "labels": row} for row in random_ids(2, 9)]
        with tempfile.TemporaryDirectory() as folder:
            arguments = transformers.TrainingArguments(
                output_dir=folder,
                max_steps=1,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                use_cpu=True,
                **settings,
            )
            trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows)
            trainer.train()
        return model

    scenario("training", title)(run)


fitted("`Trainer`")
fitted("`Trainer` with `bf16=True`", bf16=True)
