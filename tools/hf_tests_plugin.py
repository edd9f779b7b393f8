"""A pytest plugin for run_hf_tests.py: our classes in the place of transformers' own.

With MISTRAL_EXT_HF_TESTS=ours it patches transformers before a test module is imported, and fails
every test that meets a class of transformers' own all the same. Otherwise it only imports
transformers, so that both runs test the installed one.
"""

import os
from collections.abc import Generator

import pytest
import transformers  # noqa: F401  the installed one, before a test puts another in its place

PATCHES = os.environ.get("MISTRAL_EXT_HF_TESTS") == "ours"
REPLACED: frozenset[type] = frozenset()

if PATCHES:
    import mistral_ext
    from mistral_ext.hf.convert import OURS

    mistral_ext.patch()
    REPLACED = frozenset(OURS)


def _patch_again() -> None:
    """Their helpers load transformers anew, which gives its own classes again."""
    if PATCHES:
        mistral_ext.patch()


def pytest_collectstart(collector: pytest.Collector) -> None:
    if isinstance(collector, pytest.Module):
        _patch_again()


def pytest_collection_finish() -> None:
    _patch_again()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    result = yield
    named = [value for value in vars(item.module).values() if isinstance(value, type)]
    tested = getattr(item.instance, "all_model_classes", None) or []
    left = {cls.__name__ for cls in (*named, *tested) if cls in REPLACED}
    if left:
        pytest.fail(f"transformers' own {', '.join(sorted(left))} would be tested, not ours")
    return result
