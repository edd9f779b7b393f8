# ruff: noqa: E501, RUF001, SIM905  (tables of odd characters)
"""Text in more than twenty scripts to compare tokenizers on. The same at each call: no line depends
on anything but this file and the pinned release of babel.

The words are CLDR's, out of babel: what languages, territories, currencies, months and days are
called in each language.
"""

import random
import unicodedata
from collections.abc import Iterator
from functools import cache

from babel import Locale

# One or more languages for each script.
LOCALES = """
en fr de es pt pl cs tr vi is cy yo ha haw ru uk bg sr kk mn el hy ka he yi ar fa ur ug ps hi mr ne bn
as pa gu or ta te kn ml si th lo my km bo dz am ti zh zh_Hant ja ko chr ii vai zgh ff_Adlm sat
""".split()

# What no vocabulary of words has: each is a line of its own, and is mixed into others.
ODD = [
    "", " ", "  ", "\n", "\r", "\r\n", "\n\r\n\r\n\n", "\t \t", "\v\f\x1c\x1d\x1e\x1f",
    "\x00", "a\x00b\x00", "\x01\x02\x7f\x80\x9f", "\x85", "\u2028\u2029",
    "\xa0", "\xa0\xa0a\xa0", "\u1680\u2000\u2001\u200a\u202f\u205f\u3000", " \u3000 x \u3000",
    "\u180e", "\u200b\u200c\u200d\u2060", "\ufeff", "\ufefftext\ufeff", "a\u00adb",
    "\u202eright to left\u202c", "\ufffd", "\ufffe\uffff", "\U0001fffe\U0010ffff", "\ufdd0\ufdef",
    "\ue000\uf8ff", "\U000f0000\U00100000\U0010fffd", "\U00010000", "\U000e0001\U000e0041",
    "😀", "👩‍👩‍👧‍👦", "👩🏽‍💻👍🏿", "🏴󠁧󠁢󠁳󠁣󠁴󠁿🇩🇪🇯🇵", "❤️‍🔥☠︎☠️", "1️⃣#️⃣*⃣", "🫠🫱🏻‍🫲🏿", "😀😀😀 😀",
    "e\u0301", "\u0301", "\u0301\u0302\u0303", "Z̸͑̀a̷̍lgo̶͐", "क्ष् त्रि", "நி", "각\u1100\u1161\u11a8", "ﷺﷻ", "ﬃﬆ",
    "Ⅷ ⑨ ½ ² ٣ ४ 百 𝟘𝟙 ①②", "1234567890", "12 345,678.90", "0x1F 1e-9 3.14159", "٠١٢٣٤٥٦٧٨٩",
    "𝕳𝖊𝖑𝖑𝖔 𝓌ℴ𝓇𝓁𝒹", "𐍈𐌰𐌹 𒀀𒁀 𓀀𓂀 𐤀𐤁", "İIıi ẞß Σσς Ǆǅǆ Å ſ", "ᾳ ᾼ ŉ ǰ",
    "don't I'll WE'VE you'Re they’d 'S 'ſ 'T", "HTTPServer iPhone camelCaseWord SNAKE_CASE",
    "def f(x: int) -> str:\n    return f\"{x!r:>10}\"  # ok\n", "\tif (a[i] != b->c && !d) { ++i; }\n\n",
    "<html><body class=\"x\">&amp;</body></html>", "SELECT * FROM t WHERE a <> 'b''c';", "C:\\a\\b /usr/lib",
    "https://example.org/a?b=c&d=%20e#f", "a@b.co", "#hash @at ~tilde `tick` ^ | \\ {}[]()<>", "!?.,;:…—–-_",
    "«guillemets» „quotes“ “these” ‘too’ 「鉤」『二重』", "...", "?!?!?!", "--------", "________",
    "▁", "▁▁ ▁a", "a▁b", " ▁ ", "Ġ", "Ġa Ċ", "<0x0A>", "<0x", "<0xE2><0x96><0x81>",
    "<s>", "</s>", "<unk>", "<s>text</s>", "a <s> b", "a<s>b</s>c", "<s", "</s", "</s > < /s>", "<S>",
    "[INST] hello [/INST]", "[INST]hi[/INST]</s>[INST] again", "[INST", "[/INST", "[TOOL_CALLS]",
    "[AVAILABLE_TOOLS] [ ] [/AVAILABLE_TOOLS]", "<<SYS>>x<</SYS>>", "<|im_start|>user\nhi<|im_end|>\n",
    "<|im_start|", "<|im_start", "<|endoftext|>", "<|endoftext|><|endoftext|>", "<pad>", "<special_20>",
    " <s> ", "\n</s>\n", "  [INST]  ", "\u3000</s>\xa0", "é<s>é", "<s><s><s>", "<s></s><unk>",
]  # fmt: skip


@cache
def words(locale: str) -> list[str]:
    """What CLDR has in a language, sorted and each once."""
    data = Locale.parse(locale)
    found: set[str] = set()
    for names in (data.languages, data.territories, data.currencies, data.scripts):
        found.update(str(name) for name in names.values())
    for calendar in (data.months, data.days):
        for widths in calendar.values():
            for names in widths.values():
                found.update(str(name) for name in names.values())
    return sorted(found)


def _mixed(source: random.Random, own: list[str]) -> str:
    parts = []
    for _ in range(source.randint(1, 12)):
        kind = source.random()
        if kind < 0.75:
            parts.append(source.choice(own))
        elif kind < 0.83:
            parts.append(str(source.randint(0, 10 ** source.randint(1, 12))))
        elif kind < 0.90:
            parts.append(source.choice(ODD))
        else:
            parts.append(source.choice(words(source.choice(LOCALES))))
    separators = [" "] * 12 + [", ", ". ", "\n", "\t", "  ", "", "\xa0", "-", "'", " (", "\r\n"]
    line = parts[0]
    for part in parts[1:]:
        line += source.choice(separators) + part
    return source.choice(["", "", "", " ", "\n"]) + line + source.choice(["", "", ".", " ", "\n"])


def _characters(source: random.Random, planes: int = 0x110000) -> str:
    """Characters of all planes; those that Python's Unicode does not know yet are left out."""
    result = []
    while len(result) < 24:
        character = chr(source.randrange(planes))
        category = unicodedata.category(character)
        if category != "Cs" and (category != "Cn" or ord(character) & 0xFFFE == 0xFFFE):
            result.append(character)
    return "".join(result)


@cache
def multilingual_lines(count: int = 12_000) -> tuple[str, ...]:
    """`count` different texts: every odd one, then lines of words in each language, with digits, odd
    ones and words of other languages in between, and of characters out of all of Unicode."""
    source = random.Random(20240917)
    lines = dict.fromkeys(ODD)
    for text in ODD:
        lines[f"x{text}"] = lines[f"{text}y"] = lines[f" {text} {text}\n"] = None
    while len(lines) < count:
        for locale in LOCALES:
            lines[_mixed(source, words(locale))] = None
        lines[_characters(source)] = None
        lines[_characters(source, 0x3000)] = None
    return tuple(lines)[:count]


def long_lines(characters: int = 100_000) -> Iterator[str]:
    """Lines of at least so many characters, those that tokenizers are slow with first."""
    for unit in [
        "a",
        "A",
        " ",
        "\n",
        "\t ",
        "漢",
        "1",
        "!",
        "e\u0301",
        "😀",
        "\x00",
        "ab",
        "aB",
        "a ",
        "か゚",
    ]:
        yield unit * (characters // len(unit) + 1)
    source = random.Random(7)
    yield " ".join(source.choice(words(source.choice(LOCALES))) for _ in range(characters // 8))
    yield "".join(source.choice(words("zh")) for _ in range(characters // 3))
    yield "".join(source.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(characters))


def scripts(lines: tuple[str, ...]) -> set[str]:
    """The scripts whose letters occur, as the first word of their characters' names."""
    letters = {character for line in lines for character in line if character.isalpha()}
    return {unicodedata.name(letter, "UNNAMED").split()[0] for letter in letters}
