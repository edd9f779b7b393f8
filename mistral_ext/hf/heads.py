"""Classification and question answering: Hugging Face's heads over our backbones.

Their forward is Hugging Face's own; the backbone inside, `base_model`, is ours and runs in C++.
"""

from torch import nn
from transformers.models.ministral import modeling_ministral as ministral
from transformers.models.ministral3 import modeling_ministral3 as ministral3
from transformers.models.mistral import modeling_mistral as mistral

from mistral_ext.hf.backbone import Ministral3Model, MinistralModel, MistralModel, NativeModule


class NativeHead(NativeModule):
    """Hugging Face's head over our backbone, which runs in C++ wherever it can.

    Everything is inherited, as in our causal language models; `path_report` is the backbone's.
    """


def _types(backbone: type[nn.Module]) -> dict[str, tuple[type, ...]]:
    return {**backbone._native_types, "dropout": (nn.Dropout,)}


class MistralForSequenceClassification(NativeHead, mistral.MistralForSequenceClassification):
    __doc__ = NativeHead.__doc__
    _native_types = _types(MistralModel)


class MistralForTokenClassification(NativeHead, mistral.MistralForTokenClassification):
    __doc__ = NativeHead.__doc__
    _native_types = _types(MistralModel)


class MistralForQuestionAnswering(NativeHead, mistral.MistralForQuestionAnswering):
    __doc__ = NativeHead.__doc__
    _native_types = _types(MistralModel)


class MinistralForSequenceClassification(NativeHead, ministral.MinistralForSequenceClassification):
    __doc__ = NativeHead.__doc__
    _native_types = _types(MinistralModel)


class MinistralForTokenClassification(NativeHead, ministral.MinistralForTokenClassification):
    __doc__ = NativeHead.__doc__
    _native_types = _types(MinistralModel)


class MinistralForQuestionAnswering(NativeHead, ministral.MinistralForQuestionAnswering):
    __doc__ = NativeHead.__doc__
    _native_types = _types(MinistralModel)


class Ministral3ForSequenceClassification(
    NativeHead, ministral3.Ministral3ForSequenceClassification
):
    __doc__ = NativeHead.__doc__
    _native_types = _types(Ministral3Model)


class Ministral3ForTokenClassification(NativeHead, ministral3.Ministral3ForTokenClassification):
    __doc__ = NativeHead.__doc__
    _native_types = _types(Ministral3Model)


class Ministral3ForQuestionAnswering(NativeHead, ministral3.Ministral3ForQuestionAnswering):
    __doc__ = NativeHead.__doc__
    _native_types = _types(Ministral3Model)
