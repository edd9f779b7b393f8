"""Mistral's own tokenizer files, as mistral-common brings them."""

from pathlib import Path

import mistral_common

FOLDER = Path(mistral_common.__file__).parent / "data"

SENTENCEPIECE = {
    "v1": FOLDER / "tokenizer.model.v1",
    "v2": FOLDER / "mistral_instruct_tokenizer_240216.model.v2",
    "v3": FOLDER / "mistral_instruct_tokenizer_240323.model.v3",
    "v7": FOLDER / "mistral_instruct_tokenizer_241114.model.v7",
}
TEKKEN = {"v3": FOLDER / "tekken_240718.json", "v3m": FOLDER / "tekken_240911.json"}
