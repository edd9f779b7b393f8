"""Fixtures of the tests of the Hugging Face classes."""

import pytest
from helpers.models import random_ids, small_model

import mistral_ext


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """For every test here."""


@pytest.fixture
def hf_model(device):
    return small_model(device=device)


@pytest.fixture
def model(hf_model):
    return mistral_ext.from_hf(hf_model)


@pytest.fixture
def ids(device):
    return random_ids(2, 9).to(device)
