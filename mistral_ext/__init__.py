"""The Mistral family of causal language models in C++ on LibTorch."""

from pathlib import Path

import torch

torch.ops.load_library(Path(__file__).parent / "lib" / "libmistral_ext.so")
