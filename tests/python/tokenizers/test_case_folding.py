"""Patterns that do not count case, beside the library that tokenizer.json files are written for."""

import random
import re

import pytest
from tokenizers import Regex, Tokenizer, normalizers
from tokenizers.models import BPE

from mistral_ext import _C

# Characters of several foldings, the parts that they fold to, and K and S of other scripts.
LETTERS = [
    "s",
    "S",
    "t",
    "f",
    "i",
    "k",
    "ß",
    "ﬁ",
    "ﬆ",
    "\u017f",
    "\u212a",
    "İ",
    "\u0131",
    "\u0307",
    "x",
]
CASED = [c for c in map(chr, range(0x1E944)) if len({c, c.lower(), c.upper(), c.casefold()}) > 1]
LONG = [c for c in CASED if len(c.casefold()) > 1]
GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def replaced(pattern: str, text: str) -> tuple[list[int], list[int]]:
    """Ids of the text's characters, 0 in the place of each match: the oracle's, then ours."""
    characters = ["#", *sorted(set(text) - {"#"})]
    oracle = Tokenizer(BPE({c: i for i, c in enumerate(characters)}, []))
    oracle.normalizer = normalizers.Replace(Regex(pattern), "#")
    expected = oracle.encode(text, add_special_tokens=False).ids
    return expected, _C.parse_tokenizer_json(oracle.to_str()).encode(text)


@pytest.mark.parametrize("seed", range(8))
def test_a_pattern_finds_what_the_oracles_does_or_is_refused(seed):
    source = random.Random(seed)

    def piece(depth: int) -> str:
        letters = "".join(source.choices(LETTERS, k=source.randint(1, 2)))
        kind = source.random()
        if depth == 0 or kind < 0.5:
            return letters
        if kind < 0.65:
            return f"[{source.choice(['', '', '^'])}{letters}]"
        if kind < 0.8:
            return letters + source.choice(["*", "+", "?", "{1}", "{2}"])
        inside = source.choice(["", "|"]).join(piece(depth - 1) for _ in range(2))
        if kind < 0.85:
            return f"({source.choice(['?=', '?!'])}{inside})"
        # Most of these lie within a string.
        kinds = ["", "?:", "?:", "?:", "?>", "?i:", "?-i:"]
        repeated = not re.search(r"[*+}=!]", inside) and source.random() < 0.5
        return f"({source.choice(kinds)}{inside})" + repeated * source.choice("+?")

    messages = []
    for _ in range(100):
        pattern = source.choice(["(?i)", ""]) + "".join(piece(2) for _ in range(2))
        text = "".join(source.choices(LETTERS, k=200)) + "ssSTfifffi\u017fsi\u0307ﬁﬃßẞﬅ"
        try:
            expected, found = replaced(pattern, text)
        except ValueError as error:
            messages.append(str(error))
        else:
            assert found == expected, pattern
    assert 0 < len(messages) < 80
    field = re.compile(r"text: normalizer: pattern\.Regex: must .* under \(\?i\)")
    assert [message for message in messages if not field.match(message)] == []


@pytest.mark.parametrize(
    "character", ["'", "s", "\u017f", "k", "\u212a", "å", "\u212b", *CASED[::29]]
)
def test_a_character_finds_its_other_cases(character):
    if character in LONG:
        pytest.skip("refused")
    cases = {c for c in CASED if c.casefold() == character.casefold()}
    text = "".join(sorted(cases | {character, "-", *CASED[::9]}))
    for pattern in (character, f"[{character}]", f"[^{character}]", f"'{character}|{character}-"):
        expected, found = replaced(f"(?i){pattern}", text + f"'{text}")
        assert found == expected, pattern


def test_whatever_folds_to_several_characters_is_refused():
    for character in LONG:
        for pattern in (character, f"[{character}]", character.casefold()):
            with pytest.raises(ValueError, match=r"pattern\.Regex: must .* under \(\?i\)"):
                replaced(f"(?i:a{pattern}b)", "a")


def test_what_real_tokenizers_write_goes_on_working():
    text = "It's IT'S it'\u017f 'LL 'rE we'Ve \u212a'S Straße'S 'ﬆ ﬁ'D 123\r\n"
    expected, found = replaced(GPT4, text)
    assert found == expected
    for line in ("'s|'t", "(?:'s|'t)", "'[st]"):
        expected, found = replaced(f"(?i:{line})", text)
        assert found == expected
