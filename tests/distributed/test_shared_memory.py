"""torch.distributed over the backend mistral_shm, beside gloo."""

import re

import numpy as np
import pytest
import shared_memory
import torch
from processes import run_processes


@pytest.fixture(scope="module")
def found():
    """What each process found, by backend and part."""
    return run_processes(shared_memory.beside_gloo, 3)


def assert_same(ours, theirs):
    if isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for mine, expected in zip(ours, theirs, strict=True):
            assert_same(mine, expected)
    else:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("part", ["reduced", "moved", "objects", "functional"])
def test_gives_the_bits_that_gloo_gives(part, found):
    for each in found:
        assert_same(each["mistral_shm"][part], each["gloo"][part])


def test_data_parallel_training_is_as_over_gloo(found):
    for each in found:
        for ours, theirs in zip(
            each["mistral_shm"]["trained"], each["gloo"]["trained"], strict=True
        ):
            # The gradients of three ranks are summed in another order.
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    first, *others = (each["mistral_shm"]["trained"] for each in found)
    for other in others:
        assert_same(other, first)


def test_is_the_default_group_with_groups_and_meshes_of_it(tmp_path):
    matrix = torch.arange(24.0).view(4, 6)
    for rank, each in enumerate(run_processes(shared_memory.as_default, 4, tmp_path, backend="")):
        assert each["backend"] == "mistral_shm"
        assert each["pair"] == [2.0 if rank < 2 else 1.0] * 3
        assert each["tp"] == [[1.0, 1.0], [1.0, 1.0], [5.0, 5.0], [5.0, 5.0]][rank]
        assert each["product"] == (matrix @ matrix.t()).tolist()


def test_a_killed_rank_is_named_long_before_the_timeout(tmp_path):
    errors = run_processes(shared_memory.error_where_one_is_killed, 2, tmp_path, backend="")
    for message, seconds in errors:
        assert re.match(r"all_reduce: rank 2 \(pid \d+\) of group 0 has ended", message)
        assert seconds < 30  # of the time-out's 60
