"""What the processes of the tensor-parallel tests do; imported by each of them."""

import copy
import datetime
import functools
import io
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from helpers.models import random_ids, small_model
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from transformers import StoppingCriteria

import mistral_ext
from mistral_ext.hf.backbone import NativeModule

# Eight heads, and sizes that eight ranks divide.
SIZES = {
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "intermediate_size": 112,
}
# The changes of each model in which its sharding differs.
MODELS: dict[str, dict[str, Any]] = {
    "gqa": {},
    "mha": {"num_key_value_heads": 8},
    "mqa": {"num_key_value_heads": 1},
    "tied": {"tie_word_embeddings": True},
    "window": {"sliding_window": 5},
    "two_layer_types": {},
    "query_scale": {},
    "dynamic": {},
}
SAMPLING = {"do_sample": True, "temperature": 0.9, "top_k": 20, "top_p": 0.95}


def reference(name: str) -> Any:
    """Hugging Face's model, whole."""
    base = name if name in ("two_layer_types", "query_scale", "dynamic") else "gqa"
    return small_model(base, **{**SIZES, **MODELS[name]})


def ids() -> Tensor:
    return random_ids(2, 11, vocab_size=96)


def padded() -> dict[str, Tensor]:
    mask = torch.ones(2, 11, dtype=torch.long)
    mask[1, :4] = 0
    return {"input_ids": ids() * mask, "attention_mask": mask}


def per_head_mask() -> Tensor:
    """fp32 [2, 8, 11, 11], added: causal, and each head sees no further back than its number."""
    q, k = torch.arange(11)[:, None], torch.arange(11)[None, :]
    heads = torch.arange(8)[:, None, None]
    visible = (k <= q) & (k + heads + 1 > q)
    hidden = torch.full((8, 11, 11), torch.finfo(torch.float32).min)
    return hidden.masked_fill(visible, 0.0).expand(2, 8, 11, 11)


def results(model: Any, path: str) -> dict[str, Any]:
    """Everything that is compared, of Hugging Face's model or of ours."""
    generate = {"max_new_tokens": 8, "eos_token_id": None, "pad_token_id": 0}
    found: dict[str, Any] = {}
    with torch.no_grad():
        found["logits"] = model(ids()).logits.numpy()
        # What a padded position computes is nobody's business.
        batch = padded()
        found["padded"] = model(**batch).logits[batch["attention_mask"].bool()].numpy()
        found["per_head"] = model(ids(), attention_mask=per_head_mask()).logits.numpy()
        found["kept"] = model(ids(), logits_to_keep=1).logits.numpy()
        found["hidden"] = model(ids(), output_hidden_states=True).hidden_states[2].numpy()
    found["greedy"] = model.generate(ids(), do_sample=False, **generate).tolist()
    found["padded_greedy"] = model.generate(**padded(), do_sample=False, **generate).tolist()
    found["beams"] = model.generate(ids(), do_sample=False, num_beams=3, **generate).tolist()
    found |= gradients(model)
    return found


def gradients(model: Any) -> dict[str, Any]:
    model.train()
    labels = ids().clone()
    labels[0, :3] = -100
    labels[1, :5] = -100  # padding, and what follows it
    output = model(**padded(), labels=labels)
    output.loss.backward()
    model.eval()
    if isinstance(model, NativeModule):
        norm = mistral_ext.clip_grad_norm_(model, 1e9)
    else:
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
    whole = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    return {"loss": output.loss.item(), "norm": norm.item(), "gradients": whole}


def whole_gradients(model: Any, found: dict[str, Any]) -> dict[str, Any]:
    """A sharded model's gradients, put together from all ranks."""
    from mistral_ext import _C
    from mistral_ext.hf.parallel import context_of, sharded_weights

    shards = {f"{name}.weight": module._shard for name, module in sharded_weights(model)}
    context = context_of(model)
    return {
        name: _C.gather_shards(gradient, shards.get(name, _C.ShardSpec()), context).numpy()
        for name, gradient in found.items()
    }


def every_model(rank: int, world: int, names: list[str], path: str) -> dict[str, Any]:
    """What each sharded model computes, its weights again, and the path it took."""
    found: dict[str, Any] = {}
    with mistral_ext.use_path(path):
        for name in names:
            model = mistral_ext.shard_(mistral_ext.from_hf(reference(name)))
            mine = results(model, path)
            mine["gradients"] = whole_gradients(model, mine["gradients"])
            mine["path"] = mistral_ext.path_report(model).path
            # Another seed on every rank: the tokens are rank 0's all the same.
            torch.manual_seed(rank)
            mine["sampled"] = model.generate(ids(), max_new_tokens=8, **SAMPLING).tolist()
            mine["elements"] = sum(p.numel() for p in model.parameters())
            whole = mistral_ext.gather(model)
            expected = reference(name).state_dict()
            mine["gathered"] = whole.keys() == expected.keys() and all(
                torch.equal(whole[key], expected[key]) for key in expected
            )
            found[name] = mine
    return found


def one_rank_samples(name: str) -> list[list[int]]:
    """What rank 0's seed draws without ranks."""
    model = mistral_ext.from_hf(reference(name))
    torch.manual_seed(0)
    return model.generate(ids(), max_new_tokens=8, **SAMPLING).tolist()


def checkpoints(rank: int, world: int, folder: str) -> dict[str, Any]:
    """Loads the folder's checkpoints by parts, and writes them again."""
    group = dist.group.WORLD
    ours = mistral_ext.MistralForCausalLM
    found: dict[str, Any] = {}
    with torch.no_grad():
        loaded = ours.from_pretrained(folder, tp_group=group)
        found["from_pretrained"] = loaded(ids()).logits.numpy()
        found["prepacked"] = ours.load_prepacked(folder, tp_group=group)(ids()).logits.numpy()
        half = ours.from_pretrained(folder, tp_group=group, dtype=torch.bfloat16)
        found["bf16"] = half(ids()).logits.float().numpy()
        found["dtype"] = str(half.dtype)
        params = mistral_ext.convert_mistral_lm_params(reference("gqa"))
        mine = mistral_ext.shard_mistral_lm_params(params)
        found["functional"] = mistral_ext.forward_mistral_lm(mine, ids()).numpy()
        back = mistral_ext.convert_back_mistral_lm_params(mine)
        found["back"] = all(
            torch.equal(back[k], v) for k, v in reference("gqa").state_dict().items()
        )
    loaded.save_pretrained(Path(folder) / f"saved{world}")
    loaded.save_prepacked(Path(folder) / f"saved{world}")
    dist.barrier()
    again = ours.from_pretrained(Path(folder) / f"saved{world}")
    with torch.no_grad():
        found["saved"] = again(ids()).logits.numpy()
        found["saved_prepacked"] = ours.load_prepacked(Path(folder) / f"saved{world}")(
            ids()
        ).logits.numpy()
    return found


def refusals(rank: int, world: int) -> dict[str, str]:
    """The messages of calls that must fail on every rank, without a hang."""
    found: dict[str, str] = {}

    def refused(name: str, call: Any) -> None:
        try:
            call()
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"

    odd = small_model("gqa", num_attention_heads=6, num_key_value_heads=3, vocab_size=96)
    refused("count", lambda: mistral_ext.shard_(odd))
    model = mistral_ext.shard_(mistral_ext.from_hf(reference("gqa")))
    refused("twice", lambda: mistral_ext.shard_(model))
    refused("resize", lambda: model.resize_token_embeddings(128))
    others = small_model("gqa", seed=rank, **SIZES)
    refused("weights", lambda: mistral_ext.shard_(others))
    config = small_model("gqa", **SIZES, rms_norm_eps=1e-5 * (1 + rank))
    refused("config", lambda: mistral_ext.shard_(config))
    other = ids().clone()
    other[0, 5] += rank
    refused("input", lambda: model(other))
    refused("range", lambda: model(ids() + 90 * rank))
    refused("kept", lambda: model(ids(), logits_to_keep=1 + rank))
    refused("call", lambda: model(ids()) if rank else model.generate(ids(), max_new_tokens=2))
    refused("prompt", lambda: model.generate(ids() + 90 * rank, max_new_tokens=2))
    refused("options", lambda: model.generate(ids(), max_new_tokens=2 + rank))
    beams = {"num_beams": 2, "length_penalty": 1.0 + rank, "max_new_tokens": 2}
    refused("beams", lambda: model.generate(ids(), **beams))
    with mistral_ext.use_path("module"):
        refused("vocabulary", lambda: model(ids() + 90))
    refused("labels", lambda: model(ids(), labels=other))
    from peft import LoraConfig, get_peft_model

    refused("peft", lambda: get_peft_model(model, LoraConfig(target_modules=["o_proj"])))
    with tempfile.TemporaryDirectory() as folder:
        ours = mistral_ext.MistralForCausalLM
        load = functools.partial(ours.from_pretrained, folder, tp_group=dist.group.WORLD)
        other_model = small_model("gqa", seed=rank, **SIZES)
        # By hand: transformers saves on the first rank alone.
        save_file(other_model.state_dict(), Path(folder) / "model.safetensors")
        if rank == 0:
            Path(folder, "config.json").write_text(other_model.config.to_json_string())
        refused("missing", load)
        Path(folder, "config.json").write_text(other_model.config.to_json_string())
        refused("files", load)
    with torch.no_grad():
        found["works"] = str(model(ids()).logits.shape)
    return found


def with_data_parallelism(rank: int, world: int) -> dict[str, Any]:
    """Two replicas of two ranks each: the gradients of two shares of the rows, averaged."""
    mesh = dist.init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    model = mistral_ext.shard_(mistral_ext.from_hf(reference("gqa")), mesh["tp"])
    replica = DistributedDataParallel(model.train(), process_group=mesh.get_group("dp"))
    rows = ids()[mesh.get_local_rank("dp")][None]
    loss = replica(input_ids=rows, labels=rows).loss
    loss.backward()
    whole = {name: p.grad for name, p in model.named_parameters()}
    return {"loss": loss.item(), "gradients": whole_gradients(model, whole)}


def one_process_gradients() -> dict[str, Any]:
    model = reference("gqa")
    model(input_ids=ids(), labels=ids()).loss.backward()
    return {name: p.grad.numpy() for name, p in model.named_parameters()}


def copied(rank: int, world: int) -> dict[str, bool]:
    """Whether copies of a sharded model, and one that was pickled, compute the same."""
    model = mistral_ext.shard_(mistral_ext.from_hf(reference("tied")))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    others = {"copy": copy.deepcopy(model), "pickle": torch.load(file, weights_only=False)}
    with torch.no_grad():
        logits = model(ids()).logits
        return {name: torch.equal(other(ids()).logits, logits) for name, other in others.items()}


def error_where_one_is_killed(
    rank: int, world: int, backend: str, folder: str
) -> tuple[str, float]:
    """What rank 0 is told, and after how many seconds; rank 1 is a child killed in mid-text."""
    child = os.fork()
    rank = 1 if child == 0 else 0
    dist.init_process_group(
        backend,
        init_method=f"file://{folder}/{backend}",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=60),
    )
    model = mistral_ext.shard_(mistral_ext.from_hf(reference("gqa")))
    start = time.monotonic()

    class Streamer:
        seen = 0

        def put(self, tokens: Tensor) -> None:
            nonlocal start
            self.seen += 1
            if self.seen == 4 and rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            start = time.monotonic()

        def end(self) -> None:
            pass

    try:
        model.generate(ids()[:1], max_new_tokens=40, eos_token_id=None, streamer=Streamer())
        return "no error", 0.0
    except RuntimeError as error:
        return str(error), time.monotonic() - start
    finally:
        os.waitpid(child, 0)


def classified(rank: int, world: int) -> Any:
    """The logits of a head that stands on a sharded backbone, and its weight's gradient."""
    theirs = small_model("gqa", kind="ForSequenceClassification", **SIZES)
    model = mistral_ext.shard_(theirs) if world > 1 else theirs
    output = model(**padded(), labels=torch.tensor([0, 1]))
    output.loss.backward()
    return output.logits.detach().numpy(), model.score.weight.grad.numpy()


def alone(rank: int, world: int, folder: str) -> dict[str, str]:
    """The path of models given a group of one rank."""
    ours, group = mistral_ext.MistralForCausalLM, dist.group.WORLD
    models = {
        "from_pretrained": ours.from_pretrained(folder, tp_group=group),
        "load_prepacked": ours.load_prepacked(folder, tp_group=group),
        "shard_": mistral_ext.shard_(mistral_ext.from_hf(reference("gqa")), group),
    }
    return {name: mistral_ext.path_report(model).path for name, model in models.items()}


def stopped_by_one(rank: int, world: int) -> tuple[int, int]:
    """How many tokens there are where rank 1 alone stops, and what rank 0 alone streams."""

    class AfterFour(StoppingCriteria):
        def __call__(self, sequences: Tensor, scores: Any, **_: Any) -> Tensor:
            return torch.full((len(sequences),), sequences.shape[1] >= 15)

    class Streamer:
        tokens = 0

        def put(self, tokens: Tensor) -> None:
            self.tokens += tokens.numel()

        def end(self) -> None:
            pass

    model = mistral_ext.shard_(mistral_ext.from_hf(reference("gqa")))
    streamer = Streamer()
    own = {"stopping_criteria": [AfterFour()]} if rank == 1 else {"streamer": streamer}
    with mistral_ext.use_path("native"):
        found = model.generate(ids()[:1], max_new_tokens=20, eos_token_id=None, **own)
    return found.shape[1], streamer.tokens
