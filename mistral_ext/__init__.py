"""The Mistral family of causal language models in C++ on LibTorch."""

from mistral_ext._load import cmake_prefix_path, get_include, load

load()

from mistral_ext._build_info import version as __version__  # noqa: E402  exists once load() passed

__all__ = ["__version__", "cmake_prefix_path", "get_include"]
