"""The causal language models: Hugging Face's classes, run by the C++ model wherever it can."""

import functools
from collections.abc import Iterable
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    StoppingCriteriaList,
)
from transformers import (
    Ministral3ForCausalLM as HFMinistral3ForCausalLM,
)
from transformers import (
    MinistralForCausalLM as HFMinistralForCausalLM,
)
from transformers import (
    MistralForCausalLM as HFMistralForCausalLM,
)
from transformers.cache_utils import Cache, DynamicCache
from transformers.generation import GenerateBeamDecoderOnlyOutput, GenerateDecoderOnlyOutput
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from mistral_ext.hf.backbone import (
    Ministral3Model,
    MinistralModel,
    MistralModel,
    NativeBackbone,
    NativeModule,
)
from mistral_ext.hf.beam_search import BEAM_STEPS, plan_beam_search, run_beam_search
from mistral_ext.hf.cache import MistralCache
from mistral_ext.hf.dynamic_cache import lent
from mistral_ext.hf.generation import SAMPLING_STEPS, LoopPlan, plan_loop, run_loop
from mistral_ext.hf.loss import targets
from mistral_ext.hf.module_forward import module_forward
from mistral_ext.hf.native import (
    NativeModel,
    backbone_of,
    call_obstacle,
    model_obstacle,
    native_model,
    output_hidden_states,
    training_arguments,
)
from mistral_ext.hf.outputs import causal_lm_output
from mistral_ext.hf.parallel import context_of, local_key_value_heads, share_generator
from mistral_ext.hf.path import PathReport, choose, choose_loop
from mistral_ext.hf.pending_logits import deferred_logits
from mistral_ext.hf.prepacked import Prepacked
from mistral_ext.hf.sharded import Sharded
from mistral_ext.hf.tensors import kept_positions, records_gradients


class NativeCausalLM(Sharded, Prepacked, NativeModule):
    """What our classes add to Hugging Face's: forward and generate in C++.

    Parameters, configuration, loading, saving, tying and everything else are inherited. Attention
    is ours where transformers' default "sdpa" or "mistral_ext" is the attention implementation.
    Where another one is asked for (`attn_implementation` of from_pretrained,
    set_attn_implementation, or a configuration that names one), Hugging Face's modules run with it.
    """

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """As Hugging Face's forward, in C++ where nothing needs Python modules.

        input_ids: int64 or int32 [batch, seq]; or inputs_embeds: [batch, seq, hidden_size].
        attention_mask: [batch, cached + seq], nonzero where there is a token; or
            [batch or 1, heads or 1, seq, keys], bool or added to the scores, which then says alone
            what is visible.
        position_ids: int64 [batch or 1, seq]. Without them: the tokens in the cache, plus 0, 1, ...
        past_key_values: appended to. With use_cache and none given, a MistralCache is made.
        labels: int64 [batch, seq], -100 where there is no loss; keywords that Hugging Face's loss
            takes (num_items_in_batch) go to it.
        logits_to_keep: the last so many positions, 0 for all; or their indices [kept].
        kwargs: output_hidden_states, output_attentions, return_dict, and what else Hugging Face's
            forward takes: what C++ does not know runs the module path.

        Returns loss, logits [batch, kept, vocab_size] in the model's dtype (where gradients are
        recorded for a loss: computed once they are read), past_key_values, hidden_states,
        attentions. Raises ValueError where an argument does not fit the others.
        """
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "inputs_embeds": inputs_embeds,
            "logits_to_keep": logits_to_keep,
        }
        if torch.compiler.is_compiling():
            return super().forward(
                **inputs, labels=labels, use_cache=use_cache, **kwargs, return_dict=True
            )
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
            return module_forward(self, super().forward, inputs, labels, use_cache, kwargs)
        if keep_cache:
            self._warn_without_cache()
        return self._native_forward(native, inputs, labels, keep_cache, kwargs)

    def _native_forward(
        self,
        native: NativeModel,
        inputs: dict[str, Any],
        labels: torch.Tensor | None,
        keep_cache: bool,
        kwargs: dict[str, Any],
    ) -> CausalLMOutputWithPast:
        cache: MistralCache | DynamicCache | None = inputs.pop("past_key_values")
        native.check_windows(cache)
        tokens = inputs["input_ids"] if inputs["inputs_embeds"] is None else inputs["inputs_embeds"]
        keep = inputs["logits_to_keep"]
        if isinstance(keep, torch.Tensor):
            inputs["logits_to_keep"] = kept_positions(keep, tokens.shape[1])
        wanted = targets(self, tokens, keep, labels, **kwargs)
        defers = wanted is not None and records_gradients()
        ranks = context_of(self)
        hidden_states = output_hidden_states(self.config, kwargs)
        with native.running() as cpp_model, lent(cache, native.windows) as kv:
            logits, last_hidden_state, layers = cpp_model.forward(
                **inputs,
                cache=kv,
                # Of several ranks at once: who reads them later would wait for the others.
                compute_logits=not defers or ranks.size > 1,
                output_hidden_states=hidden_states,
                **training_arguments(self),
            )
        loss = None
        if defers:
            loss = wanted.of_hidden_states(last_hidden_state, self.lm_head.weight, ranks)
            if ranks.size == 1:
                logits = deferred_logits(loss, last_hidden_state, self.lm_head.weight)
        elif wanted is not None:
            loss = wanted.of_logits(logits)
        elif labels is not None:
            size = self.config.vocab_size
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=size, **kwargs)
        return causal_lm_output(
            loss=loss,
            logits=logits,
            past_key_values=cache if keep_cache else None,
            hidden_states=tuple(layers) if hidden_states else None,
        )

    def create_cache(
        self, batch_size: int | None = None, max_length: int | None = None
    ) -> MistralCache:
        """An empty cache for this model.

        max_length: tokens to make room for, so that appending them allocates nothing.
        batch_size: rows; with max_length the memory is taken now, otherwise when the first tokens
            enter, with their batch size.
        """
        for name, value in (("batch_size", batch_size), ("max_length", max_length)):
            if value is not None and value <= 0:
                raise ValueError(f"create_cache: {name} must be positive, got {value}")
        cache = MistralCache(config=self.config)
        if max_length is not None:
            cache.reserve(max_length)
            if batch_size is not None:
                config = self.config
                cache.allocate(
                    batch_size,
                    local_key_value_heads(self),
                    config.head_dim,
                    self.dtype,
                    self.device,
                )
        return cache

    @torch.no_grad()
    def decode(
        self,
        input_ids: torch.Tensor,
        cache: MistralCache,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Appends tokens to the cache and returns the logits of the next: [batch, vocab_size].

        input_ids: int64 [batch, seq], the prompt, a part of it, or one token. The other arguments
        are forward's. Records no gradient.
        """
        output = self(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            return_dict=True,
        )
        return output.logits[:, -1]

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        given = model_kwargs.get("past_key_values")
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)
        made = model_kwargs.get("past_key_values")
        if made is given or type(made) is not DynamicCache or made.offloading:
            return
        if self._makes_caches():
            model_kwargs["past_key_values"] = cache = self.create_cache()
            if generation_config.is_assistant:
                cache.activate_past_recording()

    def _sample(
        self,
        input_ids: torch.LongTensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        streamer: Any = None,
        **model_kwargs: Any,
    ) -> GenerateDecoderOnlyOutput | torch.LongTensor:
        """Greedy decoding and sampling in C++ where everything asked for is known there.

        Otherwise Hugging Face's loop over forward, or where the native path is forced RuntimeError.
        `path_report(model).generation` says which ran last, and why not the C++ loop.
        """
        native = native_model(self)
        plan = plan_loop(
            input_ids,
            logits_processor,
            stopping_criteria,
            generation_config,
            synced_gpus,
            model_kwargs,
            self.config.vocab_size,
        )
        if not self._takes_cpp_loop(native, plan, model_kwargs, SAMPLING_STEPS):
            share_generator(input_ids.device, context_of(self))
            return super()._sample(
                input_ids,
                logits_processor,
                stopping_criteria,
                generation_config,
                synced_gpus,
                streamer,
                **model_kwargs,
            )
        with native.running() as cpp_model:
            return run_loop(cpp_model, plan, input_ids, generation_config, streamer, model_kwargs)

    def _beam_search(
        self,
        input_ids: torch.LongTensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        **model_kwargs: Any,
    ) -> GenerateBeamDecoderOnlyOutput | torch.LongTensor:
        """Beam search and beam sampling in C++ where everything asked for is known there.

        Otherwise Hugging Face's loop over forward; see _sample.
        """
        native = native_model(self)
        plan = plan_beam_search(
            input_ids,
            logits_processor,
            stopping_criteria,
            generation_config,
            synced_gpus,
            model_kwargs,
            self.config.vocab_size,
        )
        if not self._takes_cpp_loop(native, plan, model_kwargs, BEAM_STEPS):
            share_generator(input_ids.device, context_of(self))
            return super()._beam_search(
                input_ids,
                logits_processor,
                stopping_criteria,
                generation_config,
                synced_gpus,
                **model_kwargs,
            )
        with native.running() as cpp_model:
            return run_beam_search(cpp_model, plan, input_ids, generation_config, model_kwargs)

    # wraps keeps the signature, which generate reads.
    @functools.wraps(GenerationMixin._assisted_decoding)
    def _assisted_decoding(self, *args: Any, **kwargs: Any) -> Any:
        native_model(self).last_generation = choose_loop("assisted decoding is asked for")
        return super()._assisted_decoding(*args, **kwargs)

    def _takes_cpp_loop(
        self, native: NativeModel, plan: LoopPlan, model_kwargs: dict[str, Any], steps: Any
    ) -> bool:
        """Notes in `native` which loop runs, and why. steps: the methods it calls at each step."""
        cache = model_kwargs.get("past_key_values")
        obstacle = (
            plan.obstacle
            or model_obstacle(self, native)
            or call_obstacle(self, past_key_values=cache)
        )
        if not obstacle and self._has_own_steps(steps):
            obstacle = "a method that generate calls at each step is overridden"
        if not obstacle and type(cache) is MistralCache and cache.windows != native.windows:
            obstacle = "past_key_values keeps other windows than the layers have"
        pad = plan.arguments.get("pad_token_id")
        if not obstacle and pad is not None and not 0 <= pad < native.vocab_size:
            obstacle = "pad_token_id is no token of the model"
        native.last_generation = choice = choose_loop(obstacle)
        return choice.path == "native"

    def _has_own_steps(self, steps: Iterable[str]) -> bool:
        """Whether what generate calls at each step is a subclass's or put on the object itself.

        PEFT does the latter for learnt prompts.
        """
        inherited = {name: _function(GenerationMixin, name) for name in steps}
        inherited |= {"forward": NativeCausalLM.forward, "__call__": torch.nn.Module.__call__}
        return any(_function(self, name) is not step for name, step in inherited.items())

    def _valid_auto_compile_criteria(
        self, model_kwargs: dict[str, Any], generation_config: GenerationConfig
    ) -> bool:
        # generate compiles what has a static cache on an accelerator without being told to. The
        # native path needs no compilation: that is left to who asks for it.
        if generation_config.compile_config is None:
            return False
        return super()._valid_auto_compile_criteria(model_kwargs, generation_config)


class MistralForCausalLM(NativeCausalLM, HFMistralForCausalLM, GenerationMixin):
    __doc__ = NativeCausalLM.__doc__
    _native_types = MistralModel._native_types


class MinistralForCausalLM(NativeCausalLM, HFMinistralForCausalLM, GenerationMixin):
    __doc__ = NativeCausalLM.__doc__
    _native_types = MinistralModel._native_types


class Ministral3ForCausalLM(NativeCausalLM, HFMinistral3ForCausalLM, GenerationMixin):
    __doc__ = NativeCausalLM.__doc__
    _native_types = Ministral3Model._native_types


def _function(owner: Any, name: str) -> Any:
    method = getattr(owner, name, None)
    return getattr(method, "__func__", method)


def path_report(model: torch.nn.Module, **call: Any) -> PathReport:
    """Which path the next call of forward takes and why, and what the last calls took.

    call: the arguments of that call; without them, what holds for a plain call with input_ids.
    Raises TypeError where the model is not one of ours; RuntimeError where the native path is
    forced and cannot be taken.
    """
    if not isinstance(model, NativeModule):
        raise TypeError(
            "path_report: model must be a mistral_ext model (MistralForCausalLM, MistralModel,"
            " MistralForSequenceClassification, ..., or Ministral's, Ministral3's), got"
            f" {type(model).__name__}"
        )
    if not isinstance(model, NativeCausalLM | NativeBackbone):
        model = backbone_of(model)  # a head is Python, whatever runs below it
    native = native_model(model)
    choice = choose(model_obstacle(model, native) or call_obstacle(model, **call))
    return PathReport(choice.path, choice.reason, native.last_forward, native.last_generation)
