"""Conversations as token ids against mistral-common's MistralTokenizer."""

import json
import random

import pytest
from helpers.mistral_files import SENTENCEPIECE, TEKKEN
from helpers.multilingual import ODD, multilingual_lines
from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.messages import (
    AssistantMessage,
    SystemMessage,
    ToolMessage,
    UserMessage,
)
from mistral_common.protocol.instruct.normalize import get_normalizer
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.tool_calls import Function, FunctionCall, Tool, ToolCall
from mistral_common.protocol.instruct.validator import ValidationMode, get_validator
from mistral_common.tokens.tokenizers.base import TokenizerVersion
from mistral_common.tokens.tokenizers.instruct import (
    InstructTokenizerV3,
    InstructTokenizerV7,
    InstructTokenizerV11,
    InstructTokenizerV13,
)
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from mistral_ext import _C

CASES = ["v1", "v2", "v3", "v7", "v3-tekken", "v7-tekken", "v11-tekken", "v13-tekken"]


@pytest.fixture(scope="module")
def tekken_file(tmp_path_factory):
    """The file of v3 with the control tokens that v11 and v13 add, under their names."""
    data = json.loads(TEKKEN["v3"].read_text())
    names = [token["token_str"] for token in Tekkenizer.DEPRECATED_SPECIAL_TOKENS]
    names += ["[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]"]
    data["special_tokens"] = [
        {"rank": rank, "token_str": str(name), "is_control": True}
        for rank, name in enumerate(names)
    ]
    data["config"]["version"] = "v13"
    file = tmp_path_factory.mktemp("tekken") / "tekken.json"
    file.write_text(json.dumps(data))
    return file


@pytest.fixture(scope="module")
def tekken(tekken_file):
    return _C.load_tekken(tekken_file), Tekkenizer.from_file(tekken_file)


@pytest.fixture(scope="module", params=CASES)
def case(request, tekken):
    """Our tokenizer, the version, and mistral-common's tokenizer of conversations."""
    version, *kind = request.param.split("-")
    if not kind:
        oracle = MistralTokenizer.from_file(str(SENTENCEPIECE[version]))
        return _C.load_sentencepiece(SENTENCEPIECE[version]), version, oracle
    tokenizer, inner = tekken
    encoder = {
        "v3": InstructTokenizerV3,
        "v7": InstructTokenizerV7,
        "v11": InstructTokenizerV11,
        "v13": InstructTokenizerV13,
    }[version]
    number = TokenizerVersion(version)
    oracle = MistralTokenizer(
        encoder(inner), get_validator(number, ValidationMode.test), get_normalizer(number)
    )
    return tokenizer, version, oracle


def expected(oracle, messages, tools=()):
    """messages: (role, content, prefix), or (role, content, tool calls, id, name)."""
    made = []
    for role, content, *more in messages:
        if role == "system":
            made.append(SystemMessage(content=content))
        elif role == "user":
            made.append(UserMessage(content=content))
        elif role == "tool":
            made.append(ToolMessage(content=content, tool_call_id=more[1] or None, name=more[2]))
        elif len(more) == 1:
            made.append(AssistantMessage(content=content, prefix=more[0]))
        else:
            calls = [
                ToolCall(id=i, function=FunctionCall(name=name, arguments=arguments))
                for i, name, arguments in more[0]
            ]
            made.append(AssistantMessage(content=content, tool_calls=calls or None))
    functions = [
        Tool(function=Function(name=name, description=about, parameters=json.loads(parameters)))
        for name, about, parameters in tools
    ]
    request = ChatCompletionRequest(messages=made, tools=functions or None)
    return oracle.encode_chat_completion(request).tokens


def encode(tokenizer, version, messages, tools=()):
    made = []
    for role, content, *more in messages:
        if len(more) == 1:
            made.append(_C.Message(role, content, more[0]))
        else:
            made.append(_C.Message(role, content, False, *more))
    return _C.encode_conversation(tokenizer, version, made, list(tools))


def conversation(source):
    """Mostly an order that is taken, with texts of all scripts, spaces around them, and control
    tokens written out."""
    lines = multilingual_lines()
    messages = []
    for _ in range(source.randint(1, 7)):
        role = source.choice(["system", "user", "user", "assistant"])
        if source.random() < 0.7 and messages:
            role = {"system": "user", "user": "assistant", "assistant": "user"}[messages[-1][0]]
        text = source.choice(ODD) if source.random() < 0.3 else source.choice(lines)
        text = source.choice(["", "", " ", "\n"]) + text + source.choice(["", "", "   ", " \n"])
        messages.append((role, "" if source.random() < 0.04 else text, False))
    role, text, _ = messages[-1]
    if role == "assistant" and source.random() < 0.9:
        messages[-1] = (role, text, True)
    return messages


def test_ids_are_mistral_commons(case):
    tokenizer, version, oracle = case
    source = random.Random(3)
    taken = refused = 0
    for _ in range(400):
        messages = conversation(source)
        try:
            ids = expected(oracle, messages)
        except MistralCommonException:
            refused += 1
            with pytest.raises(ValueError, match="encode_conversation: "):
                encode(tokenizer, version, messages)
        else:
            taken += 1
            assert encode(tokenizer, version, messages) == ids, messages
    print(f"{version}: {taken} conversations with the same ids, {refused} that both refuse")
    assert taken > 200
    assert refused > 20


@pytest.mark.parametrize(
    "messages",
    [
        [("user", "hi", False)],
        [("system", "Be brief.", False)],
        [("system", "Be brief.", False), ("user", "hi", False)],
        [("system", "", False), ("user", "hi", False)],
        [("system", "a", False), ("system", "", False), ("system", "b", False)],
        [("user", "a", False), ("system", "b", False), ("user", "c", False)],
        [("user", "", False), ("user", "", False), ("user", "c", False)],
        [("system", "s", False), ("assistant", "a", False), ("user", "u", False)],
        [("assistant", "a", False), ("user", "u", False)],
        [("assistant", "a", False), ("assistant", "b  ", True)],
        [("user", "u", False), ("assistant", "   ", True)],
        [("user", "1", False), ("assistant", " 2 ", False), ("user", " 3 ", False)],
        [("system", "s", False), ("user", "1", False), ("assistant", "2", False),
         ("user", "3", False), ("assistant", "Sure: ", True)],
        [("user", "u", False), ("system", "s", False)],
    ],
)  # fmt: skip
def test_a_conversation_of_note_has_mistral_commons_ids(case, messages):
    tokenizer, version, oracle = case
    assert encode(tokenizer, version, messages) == expected(oracle, messages)


REFUSED = [
    ([], "messages must not be empty"),
    (
        [("assistant", "a", True)],
        "a single message must be a user's or the system's, got assistant",
    ),
    ([("user", "u", False), ("assistant", "a", False)], "the last message must be"),
    ([("user", "u", False), ("assistant", "", True)], "an assistant's message must have content"),
    (
        [("user", "u", False), ("assistant", "a", True), ("user", "u", False)],
        "prefix must be set on the last message only",
    ),
    (
        [("user", "u", False), ("assistant", "a", False), ("system", "s", False)],
        "message 2 must have a role that can follow assistant, got system",
    ),
]


@pytest.mark.parametrize(("messages", "message"), REFUSED)
def test_a_wrong_conversation_is_refused_as_by_mistral_common(case, messages, message):
    tokenizer, version, oracle = case
    with pytest.raises(MistralCommonException):
        expected(oracle, messages)
    with pytest.raises(ValueError, match=f"encode_conversation: {message}"):
        encode(tokenizer, version, messages)


USER = ("user", "u", False)

JSON = [
    "{}", "", "null", "not JSON", "[1,2 , 3]", '{"a":1,"b":[true,false,null,{"c":-0.0}],"a":2}',
    '{"city": "Z\\u00fcrich \\ud83c\\udf0d", "text": "\\"\\\\\\n\\t\\u0001/"}', "12", "1.50",
    "1e5", "1e-7", "123456789012345680.0", "1e22", "-0", "0.1",
    '"</s>[INST]"', '{"ü": "世界"}', " [ ] ", "{", "1 2",
    '{"x": 9007199254740993}', "9223372036854775808", "[-12345678901234567890123]",
    "12345678901234567890.5", "1e999", "-1e999", "1e-999", "0e999", "-0.0", "1E+2", "Infinity",
    "[NaN,-Infinity , Infinity]", "--Infinity", "1Infinity", "Infinity1", '{Infinity: 1}', "nan",
    "01", "1.", ".5", "-", "+1", "1e", "2.e3", "1-2", '"Infinity 1e999 \\" 1e999"', "[1 2]",
    '"\\ud83c"x', "[" * 63 + "7" + "]" * 63, "[" * 30 + "}",
    '{"deep": [[[[[]]]]]}', "\ufeff{}", "\x00",
]  # fmt: skip

TOOLS = [
    (
        "get_weather",
        "The weather, now: é",
        '{"type":"object","properties":{"city":{"type":"string"}}}',
    ),
    ("now", "", "{}"),
    (
        "sum-2",
        "1 + 1 </s>",
        '{"type":"object","required":["a"],"properties":{"a":{"minimum":0.5}}}',
    ),
]


def tool_conversation(source):
    """Turns with calls and results, of which some do not fit each other."""
    messages = [("system", "Use [TOOL_CALLS].", False)] if source.random() < 0.5 else []
    for turn in range(source.randint(1, 3)):
        messages.append(("user", f"question {turn} </s>", False))
        for _ in range(source.randint(0, 2)):
            calls = [
                (
                    "".join(source.choices("abcXYZ019", k=9)),
                    source.choice(TOOLS)[0],
                    source.choice(JSON),
                )
                for _ in range(source.choice([1, 1, 1, 2, 3]))
            ]
            text = "Let me see.  " if source.random() < 0.2 else ""
            messages.append(("assistant", text, calls, "", None))
            results = [
                ("tool", source.choice(JSON), [], i, source.choice([None, name]))
                for i, name, _ in calls
            ]
            if source.random() < 0.3:
                source.shuffle(results)
            if source.random() < 0.1:
                results.pop()
            messages += results
        if turn < 2 or source.random() < 0.3:
            messages.append(("assistant", f" answer {turn}  ", False))
    if source.random() < 0.9 and messages[-1][0] == "assistant" and len(messages[-1]) == 3:
        messages.append(("user", "thanks", False))
    return messages


def test_ids_with_tools_are_mistral_commons(case):
    tokenizer, version, oracle = case
    if version == "v1":
        with pytest.raises(ValueError, match="v1 must have no tools, got some"):
            encode(tokenizer, version, [USER], TOOLS)
        return
    source = random.Random(4)
    taken = refused = 0
    for _ in range(600):
        messages = tool_conversation(source)
        tools = source.sample(TOOLS, source.randint(0, 3))
        try:
            ids = expected(oracle, messages, tools)
        except (MistralCommonException, ValueError):
            refused += 1
            with pytest.raises(ValueError, match="encode_conversation: "):
                encode(tokenizer, version, messages, tools)
        else:
            taken += 1
            assert encode(tokenizer, version, messages, tools) == ids, messages
    print(f"{version}: {taken} conversations with the same ids, {refused} that both refuse")
    assert taken > 100
    assert refused > 20


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (
            [USER, ("assistant", "", [("abcdefgh", "f", "{}")], "", None), USER],
            "nine letters or digits",
        ),
        (
            [USER, ("assistant", "", [("null", "f", "{}")], "", None), USER],
            "nine letters or digits",
        ),
        (
            [USER, ("assistant", "", [("abcdefghi", "f g", "{}")], "", None), USER],
            "1 to 64 letters",
        ),
        ([USER, ("tool", "{}", [], "abcdefghi", None)], "must have a role that can follow user"),
        (
            [
                USER,
                ("assistant", "", [("abcdefghi", "f", "{}")], "", None),
                ("tool", "", [], "", None),
            ],
            "nine letters or digits, got none",
        ),
        (
            [
                USER,
                ("assistant", "", [("abcdefghi", "f", "{}")], "", None),
                USER,
                ("assistant", "a", False),
                USER,
            ],
            "must be a tool's message for each call, got 1 too few",
        ),
    ],
)
def test_calls_and_results_that_do_not_fit_are_refused(messages, message):
    tokenizer = _C.load_sentencepiece(SENTENCEPIECE["v3"])
    with pytest.raises(MistralCommonException):
        expected(MistralTokenizer.v3(), messages)
    with pytest.raises(ValueError, match=message):
        encode(tokenizer, "v3", messages)


@pytest.mark.parametrize("text", JSON)
def test_each_json_has_mistral_commons_ids(text):
    tokenizer = _C.load_sentencepiece(SENTENCEPIECE["v3"])
    messages = [
        USER,
        ("assistant", "", [("abcdefghi", "f", text)], "", None),
        ("tool", text, [], "abcdefghi", "f"),
    ]
    assert encode(tokenizer, "v3", messages) == expected(MistralTokenizer.v3(), messages)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 65 + "]" * 65, "JSON must have at most 64 levels, got more"),
        ('{"a":' * 2000 + "1" + "}" * 2000, "JSON must have at most 64 levels, got more"),
        ("[1" + "0" * 4300 + "]", "integers in JSON must have at most 4300 digits, got more"),
        ('["\\ud83c"]', "JSON must have no half of a surrogate pair, got one"),
        ('["\\udf0d\\ud83c"]', "JSON must have no half of a surrogate pair, got one"),
    ],
)
def test_json_that_is_not_read_as_in_python_is_refused(text, message):
    tokenizer = _C.load_sentencepiece(SENTENCEPIECE["v3"])
    for messages in (
        [USER, ("assistant", "", [("abcdefghi", "f", text)], "", None), USER],
        [
            USER,
            ("assistant", "", [("abcdefghi", "f", "{}")], "", None),
            ("tool", text, [], "abcdefghi", "f"),
        ],
    ):
        with pytest.raises(ValueError, match=f"encode_conversation: {message}"):
            encode(tokenizer, "v3", messages)


def test_an_object_of_many_members_keeps_the_last_value_of_each():
    """Looked for one by one, so many keys would take minutes."""
    tokenizer = _C.load_sentencepiece(SENTENCEPIECE["v3"])
    members = {f"k{i}": i for i in range(100_000)}
    text = json.dumps(members)[:-1] + ', "k7": 0}'
    call = [("abcdefghi", "f", "{}")]
    before = [USER, ("assistant", "", call, "", None)]
    last, plain = (
        encode(tokenizer, "v3", [*before, ("tool", content, [], "abcdefghi", "f")])
        for content in (text, json.dumps(members | {"k7": 0}))
    )
    assert last == plain


def test_what_a_user_writes_never_becomes_a_control_token(case):
    tokenizer, version, _ = case
    control = [tokenizer.id_to_token(i) for i in range(1000) if tokenizer.is_special(i)]
    plain = encode(tokenizer, version, [("user", "x", False)])
    count = sum(map(tokenizer.is_special, plain))
    for text in ("".join(control), " ".join(control[:20]), "</s><s>[INST][/INST]"):
        ids = encode(tokenizer, version, [("user", text, False)])
        assert sum(map(tokenizer.is_special, ids)) == count


def test_a_tokenizer_without_the_control_tokens_is_refused():
    tokenizer = _C.load_sentencepiece(SENTENCEPIECE["v1"])
    with pytest.raises(ValueError, match=r"the tokenizer must have the control token \[INST\]"):
        encode(tokenizer, "v3", [("user", "u", False)])
