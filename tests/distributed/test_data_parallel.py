"""Data parallelism over two processes gives the losses and the weights of one."""

import data_parallel
import pytest
import torch
from helpers.models import small_model
from processes import run_processes

# fp32 sums in another order: each process averages over its rows, then they are averaged.
RELATIVE = 1e-4


def assert_same(found, expected):
    torch.testing.assert_close(found["losses"], expected["losses"], rtol=RELATIVE, atol=0)
    assert found["losses"][-1] < found["losses"][0]
    for name, value in expected["weights"].items():
        mine = torch.from_numpy(found["weights"][name])
        reference = torch.from_numpy(value)
        assert (mine - reference).abs().max() <= RELATIVE * reference.abs().max(), name


@pytest.fixture(scope="module")
def found():
    """What each process found in each case."""
    return run_processes(data_parallel.every_case, 2)


@pytest.fixture(scope="module")
def expected():
    return {name: data_parallel.one_process(name) for name in ("window", "tied")}


@pytest.mark.parametrize("case", ["ddp window", "ddp tied", "ddp window checkpointed"])
def test_distributed_data_parallel(case, found, expected):
    for each in found:
        assert_same(each[case], expected[case.split()[1]])
        assert each[case]["path"] == "native"


@pytest.mark.parametrize("layers", ["", " by layers"])
@pytest.mark.parametrize("name", ["window", "tied"])
def test_fully_shard(name, layers, found, expected):
    for each in found:
        result = each[f"fsdp {name}{layers}"]
        assert_same(result, expected[name])
        assert result["path"] == "module", result["reason"]


def test_generates_while_sharded(found):
    ids = data_parallel.ROWS[:2]
    expected = small_model().generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0)
    for each in found:
        assert each["generate"] == expected.flatten().tolist()


def test_a_failing_process_is_an_error_with_its_traceback():
    with pytest.raises(RuntimeError, match=r"process 1 failed:(.|\n)*as it should"):
        run_processes(data_parallel.fails, 2)
