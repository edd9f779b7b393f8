"""Run by the Python of a fresh environment, outside the checkout, with the wheel installed."""

import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import torch

import mistral_ext
from mistral_ext import _C

package = Path(mistral_ext.__file__).parent
assert package.is_relative_to(sys.prefix), f"{package} is not the installed package"
assert mistral_ext.__version__ == version("mistral_ext") == _C.version
assert _C.torch_version == torch.__version__.split("+")[0]
assert f"torch=={_C.torch_version}" in requires("mistral_ext")

x = torch.tensor([[3.0, 3.0]])
y = torch.ops.mistral_ext.rms_norm(x, torch.tensor([0.5, 2.0]), 0.0)
assert y.tolist() == [[0.5, 2.0]], y

assert (Path(mistral_ext.get_include()) / "mistral_ext/ops/rms_norm.h").is_file()
config = Path(mistral_ext.cmake_prefix_path) / "mistral_ext/mistral_extConfig.cmake"
assert config.is_file(), config

# What was built for another torch says so, and does not load.
info = package / "_build_info.py"
text = info.read_text()
info.write_text(text.replace(_C.torch_version, "2.11.7"))
other = subprocess.run(
    [sys.executable, "-c", "import mistral_ext"], capture_output=True, text=True, check=False
)
info.write_text(text)
assert other.returncode == 1
sentence = other.stderr.strip().splitlines()[-1]
assert sentence.startswith(
    f"ImportError: mistral_ext was built for torch 2.11.7 and this is torch {torch.__version__}: "
), sentence
print(f"mistral_ext {mistral_ext.__version__} with torch {torch.__version__}: imports and computes")
