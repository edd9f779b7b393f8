"""What the data-parallel tests try; read by the processes and by the tests."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One way to train a small model in two processes."""

    wrap: str  # "ddp", "fsdp", or "fsdp by layers": each layer and the rest
    model: str = "window"  # of helpers.models.CONFIGS
    rows: str = "equal"  # or "ragged", of batches.py
    # How the shares' losses become the mean over all labels: by "num_items", which the model is
    # told as transformers' Trainer does it, or by the "weights" of the shares' own means.
    mean: str = "weights"
    parts: int = 1  # micro-batches that a step accumulates, synchronised at the last
    checkpointing: bool = False
    lora: bool = False
    # "": fp32; "model": bf16 parameters; "policy", "policy reducing fp32": FSDP2's, over fp32.
    bf16: str = ""
    logits: str = ""  # read "before" or "after" backward, "stepped": after the step; or "used"
    path: str = ""  # that ours takes; "": native under DDP, module under FSDP2

    @property
    def expected_path(self) -> str:
        return self.path or ("native" if self.wrap == "ddp" else "module")


RAGGED = {"rows": "ragged", "mean": "num_items"}
FSDP = "fsdp by layers"

CASES = {
    "ddp": Case("ddp"),
    "ddp tied": Case("ddp", "tied"),
    "ddp two layer types": Case("ddp", "two_layer_types"),
    "ddp ragged": Case("ddp", **RAGGED),
    "ddp ragged weighted": Case("ddp", rows="ragged"),
    "ddp accumulates": Case("ddp", parts=2, **RAGGED),
    "ddp checkpointed": Case("ddp", checkpointing=True),
    "ddp checkpointed ragged accumulates": Case("ddp", checkpointing=True, parts=2, **RAGGED),
    "ddp lora": Case("ddp", lora=True, path="module", **RAGGED),
    "ddp lora accumulates": Case("ddp", lora=True, path="module", parts=2),
    "ddp lora checkpointed": Case("ddp", lora=True, path="module", checkpointing=True),
    "ddp bf16": Case("ddp", bf16="model", **RAGGED),
    "ddp logits before": Case("ddp", logits="before", **RAGGED),
    "ddp logits after": Case("ddp", logits="after", **RAGGED),
    "ddp logits after the step": Case("ddp", "tied", logits="stepped", **RAGGED),
    "ddp logits used": Case("ddp", logits="used"),
    "fsdp": Case("fsdp"),
    "fsdp tied": Case("fsdp", "tied"),
    "fsdp by layers": Case(FSDP),
    "fsdp by layers tied": Case(FSDP, "tied"),
    "fsdp query scale": Case(FSDP, "query_scale"),
    "fsdp ragged": Case(FSDP, **RAGGED),
    "fsdp ragged weighted": Case(FSDP, rows="ragged"),
    "fsdp accumulates": Case(FSDP, parts=2, **RAGGED),
    "fsdp checkpointed": Case(FSDP, checkpointing=True),
    "fsdp checkpointed ragged accumulates": Case(FSDP, checkpointing=True, parts=2, **RAGGED),
    "fsdp lora": Case(FSDP, lora=True, **RAGGED),
    "fsdp bf16": Case(FSDP, bf16="model", **RAGGED),
    "fsdp bf16 policy": Case(FSDP, bf16="policy", **RAGGED),
    "fsdp bf16 policy reducing fp32": Case(FSDP, bf16="policy reducing fp32", **RAGGED),
    "fsdp logits before": Case(FSDP, logits="before", **RAGGED),
    "fsdp logits after": Case(FSDP, logits="after", **RAGGED),
    "fsdp logits after the step": Case(FSDP, logits="stepped", **RAGGED),
    "fsdp logits used": Case(FSDP, logits="used"),
}
