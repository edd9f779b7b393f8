"""The Mistral family of causal language models in C++ on LibTorch.

    model = mistral_ext.from_hf(hf_model)                              # a live transformers model
    model = mistral_ext.MistralForCausalLM.from_pretrained(folder)     # as transformers' class

What needs transformers is loaded when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mistral_ext._load import cmake_prefix_path, get_include, load

load()

# These exist, or can be imported, once load() has passed.
from mistral_ext import _backend, ops
from mistral_ext._build_info import version as __version__
from mistral_ext.functional import (
    convert_back_mistral_lm_params,
    convert_mistral_lm_params,
    create_mistral_lm_cache,
    forward_mistral_lm,
    shard_mistral_lm_params,
)

_backend.register()

if TYPE_CHECKING:
    from mistral_ext.hf import (
        Ministral3ForCausalLM,
        Ministral3ForQuestionAnswering,
        Ministral3ForSequenceClassification,
        Ministral3ForTokenClassification,
        Ministral3Model,
        MinistralForCausalLM,
        MinistralForQuestionAnswering,
        MinistralForSequenceClassification,
        MinistralForTokenClassification,
        MinistralModel,
        MistralCache,
        MistralForCausalLM,
        MistralForQuestionAnswering,
        MistralForSequenceClassification,
        MistralForTokenClassification,
        MistralModel,
        PathReport,
        clip_grad_norm_,
        from_hf,
        gather,
        patch,
        path_report,
        shard_,
        unpatch,
        use_path,
    )

__all__ = [
    "Ministral3ForCausalLM",
    "Ministral3ForQuestionAnswering",
    "Ministral3ForSequenceClassification",
    "Ministral3ForTokenClassification",
    "Ministral3Model",
    "MinistralForCausalLM",
    "MinistralForQuestionAnswering",
    "MinistralForSequenceClassification",
    "MinistralForTokenClassification",
    "MinistralModel",
    "MistralCache",
    "MistralForCausalLM",
    "MistralForQuestionAnswering",
    "MistralForSequenceClassification",
    "MistralForTokenClassification",
    "MistralModel",
    "PathReport",
    "__version__",
    "clip_grad_norm_",
    "cmake_prefix_path",
    "convert_back_mistral_lm_params",
    "convert_mistral_lm_params",
    "create_mistral_lm_cache",
    "forward_mistral_lm",
    "from_hf",
    "gather",
    "get_include",
    "ops",
    "patch",
    "path_report",
    "shard_",
    "shard_mistral_lm_params",
    "unpatch",
    "use_path",
]


def __getattr__(name: str) -> Any:
    if name in __all__:  # of those, the ones not imported above are Hugging Face's
        return getattr(importlib.import_module("mistral_ext.hf"), name)
    raise AttributeError(f"module 'mistral_ext' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
