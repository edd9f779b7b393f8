"""The installed headers: each finds what it includes, the umbrella has those that programs call."""

import re
from pathlib import Path

import pytest

# By floor, the headers that mistral_ext.h leaves out: what those that programs call are made of.
LEFT_OUT = {
    "core": """
        check config_reader
    """,
    "generation": """
        beam_state beam_tree device_steps feeder growing_columns highest rank_agreement
        read_sequence_bias repeated_ngrams token_rows warpers
    """,
    "io": """
        checkpoint_index checksum folder_change json on_threads printable read_tensor
        safetensors_dtype
    """,
    "layers": """
        rope_init vocab_parallel_cross_entropy
    """,
    "models": """
        checkpoint_folder checkpointed_layer mistral_format packing_plan parameter_shapes
        parameter_shard read_part saved_config stored_config visibility_plan
    """,
    "ops": """
        attention_reference check_tensor linear_cross_entropy_logits
        linear_cross_entropy_parts
    """,
    "parallel": """
        collectives completed_work dense_tensor futex launch_environment store_wait
        tensor_parts
    """,
    "tokenizers": """
        base64 bpe_model byte_alphabet byte_pair_encoder case_folding characters
        instruction_messages merge_table pre_tokenizer protobuf_outline python_json python_json_text
        sentencepiece_model special_tokens tekken_file token_decoder tokenizer_components
        tokenizer_json_file tokenizer_settings utf8
    """,
}
UMBRELLA = "mistral_ext/mistral_ext.h"


@pytest.fixture(scope="module")
def headers(prefix) -> dict[str, set[str]]:
    """Which headers of ours each installed one includes."""
    root = prefix / "include"
    return {path.relative_to(root).as_posix(): includes(path) for path in root.rglob("*.h")}


def includes(path: Path) -> set[str]:
    return set(re.findall(r'^#include "([^"]+)"', path.read_text(), re.M))


def test_no_header_includes_one_that_is_not_installed(headers):
    missing = {
        (name, other) for name, others in headers.items() for other in others - headers.keys()
    }
    assert missing == set()


def test_the_umbrella_reaches_every_header_that_it_does_not_leave_out(headers):
    reached: set[str] = set()
    waiting = [UMBRELLA]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += headers[name]
    left_out = {
        f"mistral_ext/{floor}/{name}.h"
        for floor, names in LEFT_OUT.items()
        for name in names.split()
    }
    assert headers.keys() - reached == left_out
