"""tokenizer.json files to test with: of real models, and small ones for one component each."""

import contextlib
import io
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from helpers.mistral_files import SENTENCEPIECE, TEKKEN
from helpers.multilingual import LOCALES, words
from mistral_ext import _C

REAL = ["smollm2", "v1", "v3 metaspace", "tekken v3"]


@cache
def real(name: str) -> Tokenizer:
    """SmolLM2's; or one of Mistral's, converted as transformers does. The one called metaspace is
    as newer files have it, with a pre-tokenizer in place of the normalizer."""
    if name == "smollm2":
        from helpers.smollm2 import folder

        return Tokenizer.from_file(str(folder() / "tokenizer.json"))
    if name.startswith("tekken"):
        from transformers.integrations.mistral.tokenizer import MistralConverter

        tokenizer = MistralConverter(str(TEKKEN[name.split()[1]])).converted()
        tokenizer.post_processor = around(tokenizer, "<s>")
        return tokenizer
    from transformers.tokenization_utils_sentencepiece import SentencePieceExtractor

    version, *form = name.split()
    # It prints how far it is.
    with contextlib.redirect_stdout(io.StringIO()):
        extractor = SentencePieceExtractor(str(SENTENCEPIECE[version]))
        vocab, _, merges = extractor.extract()
    tokenizer = Tokenizer(BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if form:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = [piece for i, piece in enumerate(vocab) if extractor.sp.IsControl(i)]
    tokenizer.add_special_tokens(
        [AddedToken(piece, normalized=False, special=True) for piece in ["<unk>", *special]]
    )
    tokenizer.post_processor = around(tokenizer, "<s>")
    return tokenizer


def around(
    tokenizer: Tokenizer, before: str, after: str | None = None
) -> processors.TemplateProcessing:
    """Puts one token before a text, and may put one behind."""
    names = [name for name in (before, after) if name]
    single = " ".join([before, "$A", after] if after else [before, "$A"])
    return processors.TemplateProcessing(
        single=single,
        pair=f"{single} $B",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in names],
    )


def trained(
    normalizer: normalizers.Normalizer | None = None,
    pre_tokenizer: pre_tokenizers.PreTokenizer | None = None,
    decoder: decoders.Decoder | None = None,
    size: int = 600,
    added: Sequence[AddedToken] = (),
    **model: object,
) -> Tokenizer:
    """A tokenizer of the parts, trained on a few words of each language."""
    tokenizer = Tokenizer(BPE(**model))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    if decoder is not None:
        tokenizer.decoder = decoder
    trainer = BpeTrainer(
        vocab_size=size,
        show_progress=False,
        special_tokens=["<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if model == {} else [],
        limit_alphabet=300,
        **{
            k: v
            for k, v in model.items()
            if k in ("continuing_subword_prefix", "end_of_word_suffix")
        },
    )
    lines = [" ".join(words(locale)[::40]) + " 12 345, (it's).\n" for locale in LOCALES]
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.add_tokens(list(added))
    return tokenizer


def with_byte_tokens(tokenizer: Tokenizer) -> Tokenizer:
    """The same with the 256 tokens that byte_fallback looks for."""
    data = json.loads(tokenizer.to_str())
    vocab = data["model"]["vocab"]
    for byte in range(256):
        vocab.setdefault(f"<0x{byte:02X}>", len(vocab))
    data["model"]["byte_fallback"] = True
    return Tokenizer.from_str(json.dumps(data))


def ours(tokenizer: Tokenizer, folder: Path) -> _C.Tokenizer:
    """The same tokenizer of ours, through the file."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return _C.load_tokenizer(folder)
