"""Hugging Face's classes over the C++ model."""

import transformers

MINIMUM_TRANSFORMERS = (5, 15)

if tuple(int(part) for part in transformers.__version__.split(".")[:2]) < MINIMUM_TRANSFORMERS:
    raise ImportError(
        "mistral_ext needs transformers 5.15 or later for its Hugging Face classes, and this is"
        f" {transformers.__version__}"
    )

# After the check (E402): what these import is not there in an older transformers.
from mistral_ext.hf.backbone import Ministral3Model, MinistralModel, MistralModel  # noqa: E402
from mistral_ext.hf.cache import MistralCache, MistralCacheLayer  # noqa: E402
from mistral_ext.hf.convert import from_hf  # noqa: E402
from mistral_ext.hf.heads import (  # noqa: E402
    Ministral3ForQuestionAnswering,
    Ministral3ForSequenceClassification,
    Ministral3ForTokenClassification,
    MinistralForQuestionAnswering,
    MinistralForSequenceClassification,
    MinistralForTokenClassification,
    MistralForQuestionAnswering,
    MistralForSequenceClassification,
    MistralForTokenClassification,
)
from mistral_ext.hf.modeling import (  # noqa: E402
    Ministral3ForCausalLM,
    MinistralForCausalLM,
    MistralForCausalLM,
    path_report,
)
from mistral_ext.hf.patch import patch, unpatch  # noqa: E402
from mistral_ext.hf.path import Choice, PathReport, use_path  # noqa: E402
from mistral_ext.hf.shard import clip_grad_norm_, gather, shard_  # noqa: E402

__all__ = [
    "Choice",
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
    "MistralCacheLayer",
    "MistralForCausalLM",
    "MistralForQuestionAnswering",
    "MistralForSequenceClassification",
    "MistralForTokenClassification",
    "MistralModel",
    "PathReport",
    "clip_grad_norm_",
    "from_hf",
    "gather",
    "patch",
    "path_report",
    "shard_",
    "unpatch",
    "use_path",
]
