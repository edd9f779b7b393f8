"""Fixtures of the generation tests."""

from collections.abc import Iterator

import pytest
import torch
from helpers.twins import Twins, make_twins


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """In models this small threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=[None, 5], ids=["full", "window5"])
def twins(request: pytest.FixtureRequest, device: torch.device) -> Twins:
    """With full attention, and with a window shorter than the prompts."""
    return make_twins(device, sliding_window=request.param)


@pytest.fixture
def full_twins(device: torch.device) -> Twins:
    return make_twins(device)
