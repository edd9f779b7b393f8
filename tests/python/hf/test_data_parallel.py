"""Our class inside torch's DistributedDataParallel and FSDP2, one process."""

import pytest
import torch
from helpers.compare import assert_close_to_scale, assert_ran
from helpers.models import random_ids, small_model
from helpers.training import assert_equal_steps, gradients, models
from torch import distributed, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import mistral_ext
from mistral_ext.hf.outputs import DeferredLogitsOutput


@pytest.fixture(scope="module")
def _group(tmp_path_factory):
    file = tmp_path_factory.mktemp("group") / "store"
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("_group")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["plain", "find_unused_parameters", "static_graph"])
@pytest.mark.parametrize("name", ["gqa", "tied"])
def test_gradients_are_reduced_and_are_hugging_faces(name, kind, checkpointing, device):
    hf_model, model = models(name, device)
    if checkpointing:
        model.gradient_checkpointing_enable()
    flags = {} if kind == "plain" else {kind: True}
    parallel = DistributedDataParallel(model, **flags)
    for seed in range(3):
        ids = random_ids(2, 9, seed=seed).to(device)
        hf_model.zero_grad(set_to_none=True)
        hf_model(ids, labels=ids).loss.backward()
        exact = gradients(hf_model)
        hf_model.zero_grad(set_to_none=True)
        output = parallel(ids, labels=ids)
        if kind == "plain":
            assert type(output) is DeferredLogitsOutput
        output.loss.backward()
        assert_equal_steps(gradients(hf_model), exact)
    assert_ran(model, "native")


class Parent(nn.Module):
    """A module around the model that hands its output on."""

    def __init__(self, model):
        super().__init__()
        self.inner = model

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


class OnlyLoss(Parent):
    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs).loss


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@pytest.mark.usefixtures("_group")
@pytest.mark.parametrize("reshard", [None, True, False])
@pytest.mark.parametrize("kind", ["root", "layers", "parent", "parent_of_layers", "only_loss"])
@pytest.mark.parametrize("name", ["gqa", "tied"])
def test_sharded_models_have_hugging_faces_gradients_and_logits(name, kind, reshard, device):
    hf_model = small_model(name, device=device).train()
    model = mistral_ext.from_hf(small_model(name, device=device)).train()
    outer = {"only_loss": OnlyLoss, "parent": Parent, "parent_of_layers": Parent}.get(kind)
    outer = model if outer is None else outer(model)
    mesh = distributed.init_device_mesh(device.type, (1,))
    if "layers" in kind:
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh, reshard_after_forward=reshard)
    fully_shard(outer, mesh=mesh, reshard_after_forward=reshard)
    for seed in range(2):
        ids = random_ids(2, 9, seed=seed).to(device)
        hf_model.zero_grad()
        theirs = hf_model(ids, labels=ids)
        theirs.loss.backward()
        outer.zero_grad()
        ours = outer(ids, labels=ids)
        (ours if kind == "only_loss" else ours.loss).backward()
        found = {n: whole(g) for n, g in gradients(model).items()}
        assert_equal_steps(found, gradients(hf_model))
        if kind != "only_loss":
            assert_close_to_scale(ours.logits, theirs.logits)


@pytest.mark.usefixtures("_group")
def test_sharded_models_train_in_other_dtypes(device):
    """FSDP's own mixed precision, and autocast around it."""
    ids = random_ids(2, 9).to(device)
    mesh = distributed.init_device_mesh(device.type, (1,))
    for policy, autocast in ((torch.bfloat16, False), (None, True)):
        found = []
        for make in (lambda model: model, mistral_ext.from_hf):
            model = make(small_model(device=device)).train()
            mixed = MixedPrecisionPolicy(param_dtype=policy)
            fully_shard(model, mesh=mesh, reshard_after_forward=True, mp_policy=mixed)
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                output = model(ids, labels=ids)
            output.loss.backward()
            found.append(output)
            assert {p.grad.dtype for p in model.parameters()} == {torch.float32}
        theirs, ours = found
        assert ours.logits.dtype == theirs.logits.dtype == torch.bfloat16
        assert ours.loss.dtype == theirs.loss.dtype
        torch.testing.assert_close(ours.loss, theirs.loss, rtol=2e-2, atol=0)  # two in bf16


@pytest.mark.usefixtures("_group")
def test_without_a_wrapper_the_logits_are_there_at_once(device):
    """Nothing tells then whether the weight stays."""
    ids = random_ids(2, 9).to(device)
    for path in ("native", "module"):
        hf_model, model = models("gqa", device)
        with mistral_ext.use_path(path):
            output = model(ids, labels=ids)
        assert type(output) is not DeferredLogitsOutput
        assert_close_to_scale(output.logits, hf_model(ids).logits)
