"""Each component of tokenizer.json and each of its settings against Hugging Face's tokenizers, on
small tokenizers trained here."""

import json
import random

import pytest
from helpers.multilingual import ODD, multilingual_lines
from helpers.tokenizer_json import around, ours, trained, with_byte_tokens
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, processors
from tokenizers import pre_tokenizers as pre
from tokenizers.models import BPE

from mistral_ext import _C

# cl100k's words, which need look-ahead and possessive quantifiers.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+"
)
BEHAVIORS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
SPACE = AddedToken("<x>", lstrip=True, rstrip=True)

CASES = {
    "nothing": lambda: trained(),
    "no unknown token, characters are left out": lambda: trained(size=200),
    "unk": lambda: trained(unk_token="<unk>"),
    "unk fused": lambda: trained(unk_token="<unk>", fuse_unk=True),
    "byte fallback": lambda: with_byte_tokens(trained(size=120)),
    "byte fallback and unk": lambda: with_byte_tokens(trained(size=120, unk_token="<unk>")),
    "ignore_merges": lambda: trained(
        pre_tokenizer=pre.ByteLevel(), decoder=decoders.ByteLevel(), ignore_merges=True
    ),
    "prefix of subwords": lambda: trained(
        pre_tokenizer=pre.WhitespaceSplit(), unk_token="<unk>", continuing_subword_prefix="##"
    ),
    "suffix of words": lambda: trained(
        pre_tokenizer=pre.Whitespace(), unk_token="<unk>", end_of_word_suffix="</w>"
    ),
    "prefix and suffix": lambda: trained(
        pre_tokenizer=pre.WhitespaceSplit(),
        continuing_subword_prefix="~",
        end_of_word_suffix="$",
        unk_token="<unk>",
        fuse_unk=True,
    ),
    "Prepend and Replace": lambda: trained(
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        decoder=decoders.Sequence([decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)]),
        unk_token="<unk>",
    ),
    "Replace by a pattern": lambda: trained(
        normalizers.Replace(Regex(r"\s{2,}|\p{N}+"), "#"), unk_token="<unk>"
    ),
    "Replace by nothing": lambda: trained(normalizers.Replace("a", ""), unk_token="<unk>"),
    "Strip": lambda: trained(normalizers.Strip(), pre.Metaspace(), unk_token="<unk>"),
    "Strip left, and Metaspace first": lambda: trained(
        normalizers.Strip(left=True, right=False),
        pre.Metaspace(prepend_scheme="first"),
        unk_token="<unk>",
        added=[AddedToken("<s>", normalized=False)],
    ),
    "Strip right": lambda: trained(normalizers.Strip(left=False, right=True), unk_token="<unk>"),
    "Replace, and Metaspace first": lambda: trained(
        normalizers.Sequence([normalizers.Replace("  ", "_"), normalizers.Replace("\n", "")]),
        pre.Metaspace(prepend_scheme="first"),
        unk_token="<unk>",
        added=[AddedToken("<s>", normalized=False)],
    ),
    "ByteLevel": lambda: trained(
        pre_tokenizer=pre.ByteLevel(add_prefix_space=False), decoder=decoders.ByteLevel()
    ),
    "ByteLevel with a space before": lambda: trained(
        pre_tokenizer=pre.ByteLevel(add_prefix_space=True),
        decoder=decoders.ByteLevel(),
        added=[AddedToken("<s>", special=True)],
    ),
    "ByteLevel without words": lambda: trained(
        pre_tokenizer=pre.ByteLevel(use_regex=False), decoder=decoders.ByteLevel()
    ),
    "Digits and ByteLevel": lambda: trained(
        pre_tokenizer=pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(False)]),
        decoder=decoders.ByteLevel(),
    ),
    "Digits together": lambda: trained(pre_tokenizer=pre.Digits(False), unk_token="<unk>"),
    "Whitespace": lambda: trained(pre_tokenizer=pre.Whitespace(), unk_token="<unk>"),
    "WhitespaceSplit": lambda: trained(pre_tokenizer=pre.WhitespaceSplit(), unk_token="<unk>"),
    "Split at words, and ByteLevel": lambda: trained(
        pre_tokenizer=pre.Sequence(
            [pre.Split(Regex(WORDS), "isolated"), pre.ByteLevel(False, use_regex=False)]
        ),
        decoder=decoders.ByteLevel(),
    ),
    **{
        f"Metaspace {scheme}{'' if split else ', not split'}": lambda scheme=scheme, split=split: (
            trained(
                pre_tokenizer=pre.Metaspace(prepend_scheme=scheme, split=split),
                decoder=decoders.Metaspace(prepend_scheme=scheme),
                unk_token="<unk>",
                added=[AddedToken("<s>", special=True), AddedToken("[INST]", normalized=False)],
            )
        )
        for scheme in ("always", "first", "never")
        for split in (True, False)
    },
    **{
        f"Split {behavior}{' inverted' if invert else ''}, at {name}": (
            lambda pattern=pattern, behavior=behavior, invert=invert: trained(
                pre_tokenizer=pre.Split(pattern, behavior, invert), unk_token="<unk>"
            )
        )
        for behavior in BEHAVIORS
        for invert in (False, True)
        for name, pattern in {"a string": " ", "a pattern": Regex(r"\s|\p{P}|(?=a)")}.items()
    },
    "added tokens": lambda: trained(
        pre_tokenizer=pre.Metaspace(),
        unk_token="<unk>",
        added=[
            AddedToken("<s>", special=True, normalized=False),
            AddedToken("</s>", special=True),
            AddedToken("<s", normalized=False),
            AddedToken("[INST]", lstrip=True, special=True),
            AddedToken("[/INST]", rstrip=True, normalized=False),
            AddedToken("<pad>", lstrip=True, rstrip=True),
            AddedToken("text", single_word=True),
            AddedToken("x", single_word=True, normalized=False, lstrip=True),
            AddedToken("é", single_word=True),
            AddedToken(" \n", rstrip=True, normalized=False),
        ],
    ),
    "added tokens that are normalised": lambda: trained(
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        decoder=decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        ),
        unk_token="<unk>",
        added=[AddedToken("<s>", special=True), AddedToken("a b"), AddedToken("</s>", lstrip=True)],
    ),
}


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    oracle = CASES[request.param]()
    return ours(oracle, tmp_path_factory.mktemp("tokenizer")), oracle


def check(tokenizer, oracle, text):
    ids = oracle.encode(text).ids
    assert tokenizer.encode(text) == ids, text
    for skip in (False, True):
        assert tokenizer.decode(ids, skip) == oracle.decode(ids, skip_special_tokens=skip), text


def test_ids_and_texts_are_the_oracles(pair):
    for line in [*ODD, *multilingual_lines()[300:12_000:40]]:
        check(*pair, line)


def test_random_texts_over_the_alphabet_are_the_oracles(pair):
    _, oracle = pair
    source = random.Random(11)
    alphabet = sorted({character for token in oracle.get_vocab() for character in token})
    alphabet = [
        *source.sample(alphabet, min(40, len(alphabet))),
        " ",
        " ",
        "\n",
        "a",
        "x",
        "1",
        "▁",
    ]
    alphabet += ["<s>", "</s>", "[INST]", "text", "é", "😀", "\u0301", "'s", "<pad>", "  "]
    for _ in range(400):
        check(*pair, "".join(source.choices(alphabet, k=source.randint(1, 30))))


def test_an_added_token_that_the_one_before_has_taken_as_its_space_is_left_out(tmp_path):
    oracle = trained(added=[AddedToken("_", rstrip=True), AddedToken("\n", lstrip=True)])
    tokenizer = ours(oracle, tmp_path)
    check(tokenizer, oracle, "a_\nb")
    check(tokenizer, oracle, "a _\n_\n")
    # The oracle panics here.
    assert tokenizer.encode("a_ \n\nb") == tokenizer.encode("a_b")


def test_long_words_are_merged_as_short_ones_are(pair):
    source = random.Random(5)
    for length in (47, 48, 49, 50, 3000):
        check(*pair, "".join(source.choices("aeiourstn", k=length)))


@pytest.mark.parametrize("after", [None, "</s>"])
@pytest.mark.parametrize("with_byte_level", [False, True])
def test_a_template_puts_tokens_around_a_text(after, with_byte_level, tmp_path):
    oracle = trained(
        pre_tokenizer=pre.ByteLevel(),
        decoder=decoders.ByteLevel(),
        added=[AddedToken("<s>", special=True), AddedToken("</s>", special=True)],
    )
    template = around(oracle, "<s>", after)
    oracle.post_processor = (
        processors.Sequence([processors.ByteLevel(), template]) if with_byte_level else template
    )
    tokenizer = ours(oracle, tmp_path)
    for text in ["", "a", "<s>a</s>"]:
        for add in (False, True):
            expected = oracle.encode(text, add_special_tokens=add).ids
            assert tokenizer.encode(text, add_special_tokens=add) == expected


DECODERS = {
    "none": None,
    "Fuse, Replace": decoders.Sequence([decoders.Fuse(), decoders.Replace("aa", "b")]),
    "ByteFallback": decoders.ByteFallback(),
    "ByteFallback, Fuse, ByteLevel": decoders.Sequence(
        [decoders.ByteFallback(), decoders.Fuse(), decoders.ByteLevel()]
    ),
    "ByteFallback, Fuse, Replace, ByteLevel": decoders.Sequence(
        [
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Replace("▁", " "),
            decoders.ByteLevel(),
        ]
    ),
    "Fuse, Replace, ByteLevel": decoders.Sequence(
        [decoders.Fuse(), decoders.Replace("aĠ", "▁"), decoders.ByteLevel()]
    ),
    "Replace, ByteFallback, ByteLevel": decoders.Sequence(
        [decoders.Replace("a", "<0x41>"), decoders.ByteFallback(), decoders.ByteLevel()]
    ),
    "Fuse, Replace of a part that repeats": decoders.Sequence(
        [decoders.Fuse(), decoders.Replace("aab", "é"), decoders.Replace("aé", "")]
    ),
    "Fuse, Replace by a pattern": decoders.Sequence(
        [decoders.Fuse(), decoders.Replace(Regex("aa+"), "b")]
    ),
    "Fuse, Metaspace, ByteLevel": decoders.Sequence(
        [decoders.Fuse(), decoders.Metaspace(prepend_scheme="never"), decoders.ByteLevel()]
    ),
    "Fuse, ByteFallback": decoders.Sequence([decoders.Fuse(), decoders.ByteFallback()]),
    "Metaspace": decoders.Metaspace(),
    "Metaspace never": decoders.Metaspace(prepend_scheme="never"),
    "Fuse, Metaspace": decoders.Sequence([decoders.Fuse(), decoders.Metaspace()]),
    "Replace by a pattern": decoders.Replace(Regex("a|▁+"), "<>"),
    "Strip at both ends": decoders.Sequence([decoders.Replace("b", "aab"), decoders.Strip("a", 2)]),
    "ByteLevel, Strip": decoders.Sequence([decoders.ByteLevel(), decoders.Strip("a", 3, 0)]),
    "Sequence of nothing": decoders.Sequence([]),
}


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_makes_the_oracles_text_at_once_and_one_by_one(name, tmp_path):
    tokens = [
        "a",
        "aa",
        "b",
        "▁",
        "▁a",
        "a▁",
        "é",
        "Ġ",
        "Ã",
        "©",
        "Ċ漢",
        "😀",
        "<s>",
        "<0xZZ>",
        "<0x+1>",
    ]
    tokens += [f"<0x{byte:02X}>" for byte in (0x41, 0xC3, 0xA9, 0xF0, 0x9F, 0x98, 0x80, 0xFF)]
    oracle = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, []))
    oracle.add_special_tokens(["<s>"])
    if DECODERS[name] is not None:
        oracle.decoder = DECODERS[name]
    tokenizer = ours(oracle, tmp_path)
    source = random.Random(2)
    stream = tokenizer.text_stream()
    for _ in range(3000):
        ids = source.choices(range(len(tokens)), k=source.randint(0, 9))
        for skip in (False, True):
            expected = oracle.decode(ids, skip_special_tokens=skip)
            assert tokenizer.decode(ids, skip) == expected, [tokens[i] for i in ids]
        text = "".join([*(stream.put(i) for i in ids), stream.finish()])
        assert text == oracle.decode(ids, skip_special_tokens=False), [tokens[i] for i in ids]


# Those whose text no later token changes, where each token is of ByteLevel's alphabet.
STREAMED = [
    "ByteFallback, Fuse, ByteLevel",
    "ByteFallback, Fuse, Replace, ByteLevel",
    "Fuse, Metaspace, ByteLevel",
]


@pytest.mark.parametrize("special", ["<s>", "<漢>"])
@pytest.mark.parametrize("name", DECODERS)
def test_tokens_of_the_byte_alphabet_are_the_oracles_text(name, special, tmp_path):
    tokens = ["a", "aa", "b", "<", "0x41", ">", "Ġ", "Ġa", "Ã", "©", "Ã©", "Ċ", "ð", "Ł", "ĺ", "Ģ"]
    oracle = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, []))
    oracle.add_special_tokens([special])
    if DECODERS[name] is not None:
        oracle.decoder = DECODERS[name]
    tokenizer = ours(oracle, tmp_path)
    source = random.Random(2)
    for _ in range(2000):
        ids = source.choices(range(len(tokens) + 1), k=source.randint(0, 9))
        for skip in (False, True):
            stream = tokenizer.text_stream(skip)
            pieces = [*(stream.put(i) for i in ids), stream.finish()]
            expected = oracle.decode(ids, skip_special_tokens=skip)
            assert "".join(pieces) == expected, [tokens[i] for i in ids if i < len(tokens)]
            assert tokenizer.decode(ids, skip) == expected
    if name in STREAMED:
        stream = tokenizer.text_stream(True)
        ids = source.choices([tokens.index(token) for token in ("a", "Ġa", "Ã©", "Ċ")], k=50)
        assert all(stream.put(i) for i in ids)
        assert stream.finish() == ""


def test_a_text_that_a_later_token_may_change_is_held(tmp_path):
    tokens = ["a", "Ã©", "é", "漢"]
    oracle = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, []))
    oracle.decoder = decoders.Sequence([decoders.Fuse(), decoders.ByteLevel()])
    stream = ours(oracle, tmp_path).text_stream()
    # Visible ASCII is the same in both readings; from 漢 on there is but one.
    assert [stream.put(i) for i in (0, 1, 0, 3, 1)] == ["a", "", "", "Ã©a漢", "Ã©"]
    assert stream.finish() == ""
    assert [stream.put(i) for i in (0, 1, 0)] == ["a", "", ""]
    assert stream.finish() == "éa"


@pytest.mark.parametrize(("start", "stop"), [(0, 2), (1, 1), (3, 5)])
def test_strip_takes_the_ends_of_the_one_text(start, stop, tmp_path):
    """Not against the oracle, which ends the process where the text is shorter than the strip."""
    tokens = ["a", "aa", "b", "ab", "ba", "aaaaaa"]
    oracle = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, []))
    oracle.decoder = decoders.Sequence([decoders.Fuse(), decoders.Strip("a", start, stop)])
    tokenizer = ours(oracle, tmp_path)
    source = random.Random(2)
    for _ in range(500):
        ids = source.choices(range(len(tokens)), k=source.randint(0, 6))
        expected = "".join(tokens[i] for i in ids)
        for _ in range(start):
            expected = expected.removeprefix("a")
        for _ in range(stop):
            expected = expected.removesuffix("a")
        stream = tokenizer.text_stream()
        assert "".join([*(stream.put(i) for i in ids), stream.finish()]) == expected
        assert tokenizer.decode(ids) == expected


def test_merges_are_read_in_both_forms(tmp_path):
    oracle = trained(pre_tokenizer=pre.ByteLevel())
    tokenizer = ours(oracle, tmp_path)
    data = json.loads(oracle.to_str())
    data["model"]["merges"] = [" ".join(merge) for merge in data["model"]["merges"]]
    other = _C.parse_tokenizer_json(json.dumps(data))
    for line in multilingual_lines()[::200]:
        assert other.encode(line) == tokenizer.encode(line)


REFUSED = {
    "a normalizer": ("normalizer", {"type": "NFC"}),
    "a pre-tokenizer": ("pre_tokenizer", {"type": "BertPreTokenizer"}),
    "a part of a Sequence": (
        "pre_tokenizer",
        {"type": "Sequence", "pretokenizers": [{"type": "UnicodeScripts"}]},
    ),
    "a decoder": ("decoder", {"type": "WordPiece", "prefix": "##", "cleanup": True}),
    "a post-processor": ("post_processor", {"type": "BertProcessing"}),
}


@pytest.mark.parametrize("part", REFUSED)
def test_other_components_are_refused_by_name(part):
    field, component = REFUSED[part]
    data = json.loads(trained().to_str())
    data[field] = component
    name = component.get("pretokenizers", [component])[0]["type"]
    with pytest.raises(ValueError, match=rf"text: {field}.*type must be .*, got {name}"):
        _C.parse_tokenizer_json(json.dumps(data))
