"""patch() changes what docs/hugging-face.md lists, and nothing else."""

import sys
from pathlib import Path

import pytest
import transformers
from helpers.models import small_config, small_model

import mistral_ext
from mistral_ext.hf.convert import OURS

PAGE = Path(__file__).parents[3] / "docs" / "hugging-face.md"
NAMES = {theirs.__name__ for theirs in OURS}


@pytest.fixture(autouse=True)
def _unpatched():
    yield
    mistral_ext.unpatch()


def loaded():
    """{(module, attribute): value} of every module of transformers that has been imported."""
    return {
        (name, attribute): value
        for name, module in list(sys.modules.items())
        if module is not None and name.split(".")[0] == "transformers"
        for attribute, value in list(vars(module).items())
    }


def changes():
    """The attributes that patch() changes."""
    for theirs in OURS:
        for module in ("transformers", theirs.__module__.rpartition(".")[0]):
            getattr(sys.modules[module], theirs.__name__)  # which comes at the first use
    before = loaded()
    mistral_ext.patch()
    after = loaded()
    changed = {key for key in before if after.get(key) is not before[key]}
    mistral_ext.unpatch()
    restored = loaded()
    assert [key for key in before if restored.get(key) is not before[key]] == []
    return changed


def test_only_the_names_of_our_classes_change_and_in_two_places():
    expected = set()
    for theirs in OURS:
        package = theirs.__module__.rpartition(".")[0]
        expected |= {("transformers", theirs.__name__), (package, theirs.__name__)}
    assert changes() == expected


def test_the_page_names_every_class():
    page = PAGE.read_text()
    for name in NAMES:
        prefix = next(p for p in ("Ministral3", "Ministral", "Mistral") if name.startswith(p))
        assert name in page or name.replace(prefix, "Mistral", 1) in page
    assert {prefix for prefix in ("Ministral", "Ministral3") if prefix in page} == {
        "Ministral",
        "Ministral3",
    }


def test_what_was_imported_before_stays_what_it_was():
    from transformers import MistralForCausalLM
    from transformers.models.mistral.modeling_mistral import MistralModel

    model = small_model()
    mistral_ext.patch()
    assert transformers.MistralForCausalLM is mistral_ext.MistralForCausalLM
    assert type(model) is MistralForCausalLM
    assert MistralModel.__module__ == "transformers.models.mistral.modeling_mistral"


def test_an_error_inside_the_context_puts_the_classes_back():
    theirs = transformers.MistralForCausalLM
    with pytest.raises(KeyError), mistral_ext.patch():
        raise KeyError
    assert transformers.MistralForCausalLM is theirs


def test_a_context_may_be_entered_again_and_inside_another():
    theirs = transformers.MistralForCausalLM
    context = mistral_ext.patch()
    for _ in range(2):
        with context:
            with mistral_ext.patch():
                mistral_ext.unpatch()
                assert transformers.MistralForCausalLM is theirs
            assert transformers.MistralForCausalLM is mistral_ext.MistralForCausalLM
        assert transformers.MistralForCausalLM is theirs


@pytest.mark.parametrize("theirs", OURS, ids=lambda theirs: theirs.__name__)
def test_auto_classes_give_ours(theirs):
    name = theirs.__name__
    prefix = next(p for p in ("Ministral3", "Ministral", "Mistral") if name.startswith(p))
    family = {"Mistral": "gqa", "Ministral": "two_layer_types", "Ministral3": "query_scale"}
    task = name.removeprefix(prefix).removeprefix("Model")
    auto = getattr(transformers, f"AutoModel{task}")
    with mistral_ext.patch():
        assert type(auto.from_config(small_config(family[prefix]))) is OURS[theirs]
    assert type(auto.from_config(small_config(family[prefix]))) is theirs
