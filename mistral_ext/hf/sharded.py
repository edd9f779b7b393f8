"""What of our causal language models is another thing where their weights are spread over ranks."""

from typing import Any

from torch import nn

from mistral_ext._ranks import as_context
from mistral_ext.hf.load_shards import load_shards
from mistral_ext.hf.parallel import context_of, gather_weights, on_first_rank


class Sharded:
    """Loading by parts, saving the whole."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *args: Any, tp_group: Any = None, **kwargs: Any
    ) -> Any:
        """As transformers' from_pretrained; with tp_group, this rank's part of the model.

        tp_group: a ProcessGroup, or a DeviceMesh of one dimension, over whose ranks the weights are
            spread. All of them call this; each maps or reads its part of the files. The other
            arguments are then dtype, device (or device_map), attn_implementation and the hub's.
        """
        if tp_group is None:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        context = as_context(tp_group, "from_pretrained")
        return load_shards(cls, pretrained_model_name_or_path, context, *args, **kwargs)

    def save_pretrained(
        self,
        save_directory: Any,
        is_main_process: bool = True,
        state_dict: Any = None,
        **kwargs: Any,
    ) -> None:
        """As transformers' save_pretrained. A sharded model is gathered, and rank 0 writes."""
        if context_of(self).size == 1:
            super().save_pretrained(save_directory, is_main_process, state_dict, **kwargs)
            return
        if state_dict is None:
            state_dict = gather_weights(self)
        with on_first_rank(self) as writes:
            if writes:
                super().save_pretrained(save_directory, is_main_process, state_dict, **kwargs)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Module:
        if context_of(self).size > 1:
            raise ValueError("resize_token_embeddings: model must be whole, got a sharded one")
        return super().resize_token_embeddings(*args, **kwargs)
