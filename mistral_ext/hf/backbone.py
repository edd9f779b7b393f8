"""The backbones: Hugging Face's models without a head, run by the C++ model wherever it can."""

import copy
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.ministral import modeling_ministral as ministral
from transformers.models.ministral3 import modeling_ministral3 as ministral3
from transformers.models.mistral import modeling_mistral as mistral
from transformers.utils import can_return_tuple, logging, output_capturing

from mistral_ext.hf.attention import ATTENTION, OUR_ATTENTIONS
from mistral_ext.hf.bad_config import check_names
from mistral_ext.hf.cache import MistralCache
from mistral_ext.hf.checkpointing import turns_caching_off
from mistral_ext.hf.dynamic_cache import lent
from mistral_ext.hf.modules import install_modules, native_types
from mistral_ext.hf.native import (
    NativeModel,
    backbone_of,
    call_obstacle,
    model_obstacle,
    native_model,
    output_hidden_states,
    training_arguments,
)
from mistral_ext.hf.path import choose

logger = logging.get_logger(__name__)


class NativeModule:
    """What all our classes add to Hugging Face's: modules of ours inside.

    Parameters, configuration, loading, saving, tying and everything else are inherited. Attention
    is ours where transformers' default "sdpa" or "mistral_ext" is the attention implementation.
    Where another one is asked for (`attn_implementation` of from_pretrained,
    set_attn_implementation, or a configuration that names one), Hugging Face's modules run with it.
    """

    def __init__(self, config: PreTrainedConfig, *args: Any, **kwargs: Any) -> None:
        check_names(config)
        super().__init__(config, *args, **kwargs)
        self._take_over()

    def _take_over(self) -> None:
        """Makes ours what Hugging Face's constructor, or from_hf, has put together."""
        install_modules(self)
        backbone = backbone_of(self)
        backbone.__class__ = kind = BACKBONES.get(type(backbone), type(backbone))
        # What modules read from the configuration once, when they were made.
        backbone.__dict__.setdefault("_made_from", copy.deepcopy(backbone.config.to_dict()))
        # Where Hugging Face's constructor notes which outputs a class can record.
        output_capturing._CAN_RECORD_REGISTRY.setdefault(str(kind), kind._can_record_outputs)

    def get_correct_attn_implementation(self, requested: Any, *args: Any, **kwargs: Any) -> str:
        if requested == f"paged|{ATTENTION}":  # what generate_batch makes of it
            requested = "paged|sdpa"
        try:
            return super().get_correct_attn_implementation(requested, *args, **kwargs)
        except ValueError as error:
            if "only possible arguments" not in str(error):
                raise
            raise ValueError(f'{error} And "{ATTENTION}".') from None

    def _makes_caches(self) -> bool:
        """Whether a cache made for this model now is ours, or Hugging Face's own, or none."""
        return (
            self.config._attn_implementation in OUR_ATTENTIONS
            and self.config.num_hidden_layers > 0
            and not turns_caching_off(backbone_of(self))
        )

    def _warn_without_cache(self) -> None:
        """On the native path, where a cache was asked for; the module path has its own warning."""
        if turns_caching_off(backbone_of(self)):
            logger.warning_once("Gradient checkpointing is active: use_cache=True has no effect.")

    def _warn_beyond_training_length(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
        cache: Cache | None,
    ) -> None:
        tokens = input_ids if inputs_embeds is None else inputs_embeds
        longest = self.config.max_position_embeddings
        if type(cache) is not MistralCache and cache is not None:
            return  # another cache may have to wait for the device to know its length
        if not isinstance(tokens, torch.Tensor) or tokens.dim() < 2:
            return
        past = 0 if cache is None else cache.get_seq_length()
        if longest is not None and past + tokens.shape[1] > longest:
            logger.warning_once(
                f"The sequence goes beyond max_position_embeddings = {longest}, the longest that"
                " the model was made for; its predictions may be worse there."
            )


class NativeBackbone(NativeModule):
    """Embedding, decoder layers and last norm, run in C++ wherever nothing needs Python modules.

    Everything but forward is inherited, as in our causal language models.
    """

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """As Hugging Face's forward, in C++ where nothing needs Python modules.

        The arguments are those of our causal language models' forward, without labels and
        logits_to_keep.

        Returns last_hidden_state [batch, seq, hidden_size] in the model's dtype, past_key_values,
        hidden_states, attentions. Raises ValueError where an argument does not fit the others.
        """
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "inputs_embeds": inputs_embeds,
        }
        if torch.compiler.is_compiling():
            return super().forward(**inputs, use_cache=use_cache, **kwargs, return_dict=True)
        native = native_model(self)
        obstacle = model_obstacle(self, native) or call_obstacle(
            self, **inputs, use_cache=use_cache, **kwargs
        )
        native.last_forward = choice = choose(obstacle)
        keep_cache = self.config.use_cache if use_cache is None else use_cache
        if keep_cache and past_key_values is None and self._makes_caches():
            inputs["past_key_values"] = past_key_values = MistralCache(config=self.config)
        self._warn_beyond_training_length(input_ids, inputs_embeds, past_key_values)
        if choice.path == "module":
            return super().forward(**inputs, use_cache=use_cache, **kwargs, return_dict=True)
        if keep_cache:
            self._warn_without_cache()
        return self._native_forward(native, inputs, keep_cache, kwargs)

    def _native_forward(
        self,
        native: NativeModel,
        inputs: dict[str, Any],
        keep_cache: bool,
        kwargs: dict[str, Any],
    ) -> BaseModelOutputWithPast:
        cache: MistralCache | DynamicCache | None = inputs.pop("past_key_values")
        native.check_windows(cache)
        hidden_states = output_hidden_states(self.config, kwargs)
        with native.running() as cpp_model, lent(cache, native.windows) as kv:
            _, last_hidden_state, layers = cpp_model.forward(
                **inputs,
                cache=kv,
                compute_logits=False,
                output_hidden_states=hidden_states,
                **training_arguments(self),
            )
        return BaseModelOutputWithPast(
            last_hidden_state=last_hidden_state,
            past_key_values=cache if keep_cache else None,
            hidden_states=tuple(layers) if hidden_states else None,
        )


class MistralModel(NativeBackbone, mistral.MistralModel):
    __doc__ = NativeBackbone.__doc__
    _native_types = native_types(mistral, "Mistral")


class MinistralModel(NativeBackbone, ministral.MinistralModel):
    __doc__ = NativeBackbone.__doc__
    _native_types = native_types(ministral, "Ministral")


class Ministral3Model(NativeBackbone, ministral3.Ministral3Model):
    __doc__ = NativeBackbone.__doc__
    _native_types = native_types(ministral3, "Ministral3")


BACKBONES: dict[type[nn.Module], type[NativeBackbone]] = {
    mistral.MistralModel: MistralModel,
    ministral.MinistralModel: MinistralModel,
    ministral3.Ministral3Model: Ministral3Model,
}
for _theirs, _ours in BACKBONES.items():
    # What C++ takes for the backbone inside a causal language model.
    _ours._native_types["model"] += (_ours,)
