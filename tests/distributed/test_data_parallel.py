"""Two processes train our class as one process trains Hugging Face's, and as two train that."""

import data_parallel
import numpy as np
import pytest
import torch
from batches import everything, targets
from cases import CASES, Case
from helpers.models import small_model
from processes import run_processes
from with_trainer import trained

# fp32 sums in another order, through three steps: over each process's rows, then over processes.
RELATIVE = 1e-4
# Of one step's gradients, by their norms.
OF_GRADIENTS = 1e-5
EXACT = {name: case for name, case in CASES.items() if not case.bf16}


@pytest.fixture(scope="module")
def found():
    """What each process found in each case."""
    return run_processes(data_parallel.every_case, 2)


@pytest.fixture(scope="module")
def one_process():
    """Hugging Face's class over all rows, by case; many cases are the same to it."""
    known = {}

    def get(case: Case):
        key = case.model, case.rows, case.lora, case.logits == "used"
        if key not in known:
            logits = "used" if case.logits == "used" else "after"
            known[key] = data_parallel.one_process(Case("", *key[:2], lora=key[2], logits=logits))
        return known[key]

    return get


def relative_error(found, expected):
    """Of all tensors together, the error's norm by the norm."""
    assert found.keys() == expected.keys()
    error = sum(np.square(found[name] - value).sum() for name, value in expected.items())
    return float(np.sqrt(error / sum(np.square(value).sum() for value in expected.values())))


def assert_same(mine, expected):
    torch.testing.assert_close(mine["losses"], expected["losses"], rtol=RELATIVE, atol=0)
    for name, value in expected["gradients"].items():
        error = relative_error({name: mine["gradients"][name]}, {name: value})
        assert error <= OF_GRADIENTS, f"the gradient of {name} is off by {error:.3g}"
    for name, value in expected["weights"].items():
        assert np.abs(mine["weights"][name] - value).max() <= RELATIVE * np.abs(value).max(), name


@pytest.mark.parametrize("name", EXACT)
def test_trains_as_one_process_and_as_hugging_faces_class(name, found, one_process):
    case = CASES[name]
    for each in found:
        ours = each[name]["ours"]
        assert_same(ours, each[name]["theirs"])
        assert_same(ours, one_process(case))
        assert ours["losses"][-1] < ours["losses"][0]


@pytest.mark.parametrize("name", CASES)
def test_takes_the_path(name, found):
    for each in found:
        ours = each[name]["ours"]
        assert ours["path"] == CASES[name].expected_path, ours["reason"]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.bf16])
def test_bf16_is_as_near_to_fp32_as_hugging_faces(name, found, one_process):
    exact = one_process(CASES[name])
    for each in found:
        errors = {
            whose: relative_error(each[name][whose]["gradients"], exact["gradients"])
            for whose in ("ours", "theirs")
        }
        # 1.1 is the contract's; the rest is what so few numbers leave to chance.
        assert errors["ours"] <= 1.25 * errors["theirs"], errors
        assert errors["theirs"] < 0.1  # it is rounding, not another loss
        # bf16's own 2^-8, on a mean of labels whose rounding partly cancels.
        torch.testing.assert_close(
            each[name]["ours"]["losses"], exact["losses"], rtol=2**-6, atol=0
        )


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.logits])
def test_logits_can_be_read(name, found, one_process):
    case = CASES[name]
    whole = one_process(case)["logits"][0]
    row = 0
    for each in found:
        (ours,), (theirs,) = each[name]["ours"]["logits"], each[name]["theirs"]["logits"]
        assert np.abs(ours - theirs).max() <= RELATIVE * np.abs(theirs).max()
        count, length = ours.shape[:2]
        mask = everything(case.rows)[0].get("attention_mask")
        seen = np.ones((count, length), bool)
        if mask is not None:
            seen = mask[row : row + count, :length].bool().numpy()
        expected = whole[row : row + count, :length]
        assert np.abs(ours - expected)[seen].max() <= RELATIVE * np.abs(expected).max()
        row += count
    assert row == len(whole)


def test_the_shares_of_ragged_rows_differ_in_all_that_may_differ():
    (first,), (second,) = (data_parallel.share("ragged", rank, 1) for rank in (0, 1))
    assert first["input_ids"].shape[0] != second["input_ids"].shape[0]
    assert first["input_ids"].shape[1] != second["input_ids"].shape[1]
    assert targets(first) > 2 * targets(second)


@pytest.mark.parametrize("parts", [1, 2])
def test_trainer_weights_ragged_shares_as_one_process_does(parts, found):
    expected = trained(ours=False, world=1, accumulation=1)
    for each in found:
        ours, theirs = each[f"trainer {parts}"]
        # Adam's steps have the size of the learning rate, also where a gradient is all rounding.
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=0)
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=0)
        assert ours[-1] < ours[0]


def test_generates_while_sharded(found):
    ids = data_parallel.ROWS[:2]
    expected = small_model().generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0)
    for each in found:
        assert each["generate"] == expected.flatten().tolist()


def test_a_failing_process_is_an_error_with_its_traceback():
    with pytest.raises(RuntimeError, match=r"process 1 failed:(.|\n)*as it should"):
        run_processes(data_parallel.fails, 2)
