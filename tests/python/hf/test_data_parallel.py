"""Our class inside torch's DistributedDataParallel, one process."""

import pytest
from helpers.compare import assert_ran
from helpers.models import random_ids
from helpers.training import assert_equal_steps, gradients, models
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

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
