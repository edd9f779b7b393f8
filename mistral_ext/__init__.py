"""The Mistral family of causal language models in C++ on LibTorch."""

from mistral_ext._load import cmake_prefix_path, get_include, load

load()

# These exist, or can be imported, once load() has passed.
from mistral_ext._build_info import version as __version__
from mistral_ext.functional import (
    convert_back_mistral_lm_params,
    convert_mistral_lm_params,
    create_mistral_lm_cache,
    forward_mistral_lm,
    shard_mistral_lm_params,
)

__all__ = [
    "__version__",
    "cmake_prefix_path",
    "convert_back_mistral_lm_params",
    "convert_mistral_lm_params",
    "create_mistral_lm_cache",
    "forward_mistral_lm",
    "get_include",
    "shard_mistral_lm_params",
]
