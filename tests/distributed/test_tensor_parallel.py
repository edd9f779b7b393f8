"""A model spread over 2, 4 and 8 processes computes what one process computes."""

import numpy as np
import pytest
import tensor_parallel
import torch
from processes import run_processes

# fp32 sums in another order: the bound of the design.
RELATIVE = 1e-5
SHARDED = list(tensor_parallel.MODELS)
# World size and path; eight processes share a machine's few cores, so they try less.
RUNS = {
    (2, "native"): SHARDED,
    (4, "native"): SHARDED,
    (8, "native"): ["gqa", "mqa"],
    (2, "module"): ["gqa", "tied", "two_layer_types"],
    (4, "module"): ["mqa"],
}
EACH = [(world, path, name) for (world, path), names in RUNS.items() for name in names]


@pytest.fixture(scope="module")
def found():
    """What every rank found, by world size and path."""
    known = {}

    def get(world, path):
        if (world, path) not in known:
            names = RUNS[world, path]
            known[world, path] = run_processes(tensor_parallel.every_model, world, names, path)
        return known[world, path]

    return get


@pytest.fixture(scope="module")
def expected():
    """Hugging Face's class in one process."""
    known = {}

    def get(name):
        if name not in known:
            known[name] = tensor_parallel.results(tensor_parallel.reference(name), "")
        return known[name]

    return get


def assert_near(mine, theirs, relative=RELATIVE):
    scale = np.abs(theirs).max()
    assert mine.shape == theirs.shape
    assert np.abs(mine - theirs).max() <= relative * scale, np.abs(mine - theirs).max() / scale


@pytest.mark.parametrize(("world", "path", "name"), EACH)
def test_logits_are_one_processs(world, path, name, found, expected):
    for each in found(world, path):
        for what in ("logits", "padded", "per_head", "kept", "hidden"):
            assert_near(each[name][what], expected(name)[what])


@pytest.mark.parametrize(("world", "path", "name"), EACH)
def test_tokens_are_one_processs(world, path, name, found, expected):
    for each in found(world, path):
        for what in ("greedy", "padded_greedy", "beams"):
            assert each[name][what] == expected(name)[what]


@pytest.mark.parametrize(("world", "path", "name"), EACH)
def test_every_rank_samples_the_same_tokens(world, path, name, found):
    tokens = tensor_parallel.one_rank_samples(name)
    for each in found(world, path):
        assert each[name]["sampled"] == tokens


@pytest.mark.parametrize(("world", "path", "name"), EACH)
def test_gradients_are_one_processs(world, path, name, found, expected):
    theirs = expected(name)
    for each in found(world, path):
        mine = each[name]
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=RELATIVE)
        assert mine["norm"] == pytest.approx(theirs["norm"], rel=RELATIVE)
        assert mine["gradients"].keys() == theirs["gradients"].keys()
        for key, gradient in theirs["gradients"].items():
            assert_near(mine["gradients"][key], gradient.numpy())


@pytest.mark.parametrize(("world", "path", "name"), EACH)
def test_takes_the_path_and_holds_its_part(world, path, name, found):
    whole = sum(p.numel() for p in tensor_parallel.reference(name).parameters())
    for each in found(world, path):
        mine = each[name]
        assert mine["path"] == path
        assert mine["gathered"]
        # Norms, and key/value heads where there are fewer than ranks, are on every rank.
        assert mine["elements"] < whole * (1.0 / world + 0.12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    model = tensor_parallel.reference("gqa")
    model.save_pretrained(path)
    tensor_parallel.mistral_ext.from_hf(model).save_prepacked(path)
    return path


@pytest.mark.parametrize("world", [2, 4])
def test_checkpoints_are_loaded_by_parts_and_saved_whole(world, folder, expected):
    theirs = expected("gqa")["logits"]
    for each in run_processes(tensor_parallel.checkpoints, world, str(folder)):
        for what in ("from_pretrained", "prepacked", "functional", "saved", "saved_prepacked"):
            assert_near(each[what], theirs)
        # bf16's 2^-8, through three layers.
        assert_near(each["bf16"], theirs, relative=0.05)
        assert each["dtype"] == "torch.bfloat16"
        assert each["back"]


def test_what_cannot_work_is_refused_on_every_rank():
    for rank, each in enumerate(run_processes(tensor_parallel.refusals, 2)):
        assert "1, 3, 6 work, got 2" in each["count"]
        assert "spread over 2 ranks" in each["twice"]
        assert "must be whole" in each["resize"]
        assert "the weights must be the same on all ranks" in each["weights"]
        assert "the configuration must be the same on all ranks" in each["config"]
        assert "the input must be the same on all ranks" in each["input"]
        assert "the input must be the same on all ranks" in each["range"]
        assert "logits_to_keep must be the same on all ranks" in each["kept"]
        assert "must make the same calls" in each["call"]
        assert "the prompt must be the same on all ranks" in each["prompt"]
        assert "the generation config must be the same on all ranks" in each["options"]
        assert "the generation config must be the same on all ranks" in each["beams"]
        assert "input_ids must be in [0, 96)" in each["vocabulary"]
        assert "labels must be the same on all ranks" in each["labels"]
        assert "RowParallelLinear() is not supported" in each["peft"]
        what = (
            "got an error on another one" if rank == 0 else "config.json: must be a readable file"
        )
        assert what in each["missing"]
        assert "the checkpoint must be the same on all ranks" in each["files"]
        assert each["works"] == str(torch.Size([2, 11, 96])), rank


def test_a_mesh_carries_data_parallelism_beside():
    expected = tensor_parallel.one_process_gradients()
    for each in run_processes(tensor_parallel.with_data_parallelism, 4):
        assert each["gradients"].keys() == expected.keys()
        for name, gradient in expected.items():
            assert_near(each["gradients"][name], gradient)


def test_copies_belong_to_the_same_ranks():
    for each in run_processes(tensor_parallel.copied, 2):
        assert each == {"copy": True, "pickle": True}


@pytest.mark.parametrize("backend", ["mistral_shm", "gloo"])
def test_a_rank_killed_while_generating_is_named(backend, tmp_path):
    arguments = (backend, str(tmp_path))
    (found,) = run_processes(tensor_parallel.error_where_one_is_killed, 1, *arguments, backend="")
    message, seconds = found
    assert "rank 1" in message, message
    assert seconds < 30  # of the time-out's 60


def test_a_head_in_python_stands_on_a_sharded_backbone():
    logits, gradient = tensor_parallel.classified(0, 1)
    for mine, my_gradient in run_processes(tensor_parallel.classified, 2):
        assert_near(mine, logits)
        assert_near(my_gradient, gradient)


def test_a_group_of_one_rank_is_no_group(folder):
    (found,) = run_processes(tensor_parallel.alone, 1, str(folder))
    assert set(found.values()) == {"native"}, found


def test_one_ranks_stop_is_all_ranks_and_one_may_stream():
    (length, streamed), (other, _) = run_processes(tensor_parallel.stopped_by_one, 2)
    assert length == other == 15
    assert streamed == 15
