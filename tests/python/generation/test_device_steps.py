"""Greedy generation that stays on the GPU: a graph a step, tokens chosen and fed back there."""

import copy

import pytest
import torch
import transformers
from helpers.twins import PAD, VOCAB_SIZE

import mistral_ext

NEW = 40


@pytest.fixture(autouse=True)
def _gpu(device: torch.device) -> None:
    if device.type != "cuda":
        pytest.skip("no steps on the device on a CPU")


@pytest.fixture(params=[torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def make_model(
    device: torch.device, dtype: torch.dtype, seed: int = 0, **overrides: object
) -> transformers.MistralForCausalLM:
    config = mistral_ext.MistralForCausalLM.config_class(
        **{
            "vocab_size": VOCAB_SIZE,
            "hidden_size": 128,
            "intermediate_size": 264,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 48,
            "max_position_embeddings": 4096,
            "sliding_window": None,
            **overrides,
        }
    )
    torch.manual_seed(seed)
    model = mistral_ext.MistralForCausalLM(config).eval()
    # Weights of the usual initialisation give nearly equal scores: here a prompt decides.
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(4)
    return model.to(device, dtype)


def ids_of(device: torch.device, rows: int, length: int = 7) -> torch.Tensor:
    return torch.randint(3, VOCAB_SIZE, (rows, length), device=device)


def generate(
    model: transformers.MistralForCausalLM, ids: torch.Tensor, **kwargs: object
) -> torch.Tensor:
    settings = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, **kwargs}
    return model.generate(ids, pad_token_id=PAD, **settings)


def launched(model: transformers.MistralForCausalLM, ids: torch.Tensor, **kwargs: object) -> int:
    """How many tokens were chosen on the device."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        generate(model, ids, **kwargs)
    return sum(event.count for event in profile.key_averages() if "step_token" in event.key)


def assert_likeliest(
    model: transformers.MistralForCausalLM,
    sequences: torch.Tensor,
    prompt: int,
    mask: torch.Tensor | None = None,
) -> None:
    """Each token is the likeliest of the model in fp32, or nearly."""
    seen: dict[str, torch.Tensor] = {}
    if mask is not None:
        made = torch.ones_like(sequences[:, prompt:])
        seen["attention_mask"] = torch.cat([mask, made], 1)
        seen["position_ids"] = (seen["attention_mask"].cumsum(1) - 1).clamp(min=0)
    exact = transformers.MistralForCausalLM(copy.deepcopy(model.config)).to(sequences.device).eval()
    exact.load_state_dict({k: v.float() for k, v in model.state_dict().items()})
    with torch.no_grad():
        logits = exact(sequences, **seen).logits[:, prompt - 1 : -1]
        own = model(sequences, **seen).logits[:, prompt - 1 : -1]
    chosen = logits.gather(2, sequences[:, prompt:, None])[..., 0]
    # One logit too high and another too low, each by what the model's own forward is off at most.
    allowed = 2 * (own - logits).abs().max()
    assert (logits.max(-1).values - chosen <= allowed).all()


@pytest.mark.parametrize("window", [None, 6, 16])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 17, 32])
def test_takes_the_likeliest_tokens(device, dtype, rows, window):
    model = make_model(device, dtype, sliding_window=window)
    ids = ids_of(device, rows)
    sequences = generate(model, ids)
    assert sequences.shape == (rows, ids.shape[1] + NEW)
    assert_likeliest(model, sequences, ids.shape[1])


@pytest.mark.parametrize("rows", [1, 8, 32])
def test_chooses_on_the_device(device, dtype, rows):
    # All but the first token, which comes of the prompt.
    assert launched(make_model(device, dtype), ids_of(device, rows)) >= NEW - 1


def padded(device: torch.device, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of these lengths and their mask."""
    ids = ids_of(device, len(lengths), max(lengths))
    mask = torch.ones_like(ids)
    for row, length in enumerate(lengths):
        ids[row, : max(lengths) - length] = PAD
        mask[row, : max(lengths) - length] = 0
    return ids, mask


@pytest.mark.parametrize("window", [None, 6, 16])
@pytest.mark.parametrize(
    "lengths", [[3, 11], [20, 1, 7], [1, 2, 3, 4, 5, 6, 7, 40], list(range(1, 21))]
)
def test_padding_on_the_left_is_not_seen(device, dtype, lengths, window):
    model = make_model(device, dtype, sliding_window=window)
    ids, mask = padded(device, lengths)
    sequences = generate(model, ids, attention_mask=mask)
    assert_likeliest(model, sequences, ids.shape[1], mask)
    # What stands there has no effect.
    other = torch.where(mask.bool(), ids, ids.flip(1).clamp(min=3))
    got = generate(model, other, attention_mask=mask)
    assert torch.equal(got[:, ids.shape[1] :], sequences[:, ids.shape[1] :])


def test_padded_prompts_go_on_on_the_device(device):
    model = make_model(device, torch.bfloat16)
    ids, mask = padded(device, [9, 4])
    assert launched(model, ids, attention_mask=mask) >= NEW - 1
    # Places hidden elsewhere are for the loop.
    mask[0, 5] = 0
    assert launched(model, ids, attention_mask=mask) == 0


def test_padded_rows_end_at_their_own_tokens(device):
    model = make_model(device, torch.bfloat16)
    ids, mask = padded(device, [9, 4, 1])
    free = generate(model, ids, attention_mask=mask)
    end = int(free[0, ids.shape[1] + 6])
    seen: list[torch.Tensor] = []

    class Watch(transformers.StoppingCriteria):
        def __call__(self, sequences: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
            seen.append(sequences.clone())
            return torch.zeros(len(sequences), dtype=torch.bool, device=sequences.device)

    got = generate(model, ids, attention_mask=mask, eos_token_id=end)
    one_by_one = generate(
        model, ids, attention_mask=mask, eos_token_id=end, stopping_criteria=[Watch()]
    )
    assert torch.equal(got, one_by_one)
    assert len(seen) == got.shape[1] - ids.shape[1]
    ended = (free[:, ids.shape[1] :] == end).int().cumsum(1) - (
        free[:, ids.shape[1] :] == end
    ).int()
    wanted = torch.where(ended > 0, PAD, free[:, ids.shape[1] :])
    assert torch.equal(got[:, ids.shape[1] :], wanted[:, : got.shape[1] - ids.shape[1]])


SAMPLING = {"do_sample": True, "temperature": 0.8, "top_k": 20, "top_p": 0.9}


def sample(
    model: transformers.MistralForCausalLM, ids: torch.Tensor, **kwargs: object
) -> torch.Tensor:
    torch.manual_seed(3)
    return generate(model, ids, **SAMPLING, **kwargs)


@pytest.mark.parametrize("lengths", [[9], [9, 4, 1], list(range(1, 13))])
def test_sampled_tokens_come_of_the_same_steps(device, dtype, lengths, monkeypatch):
    model = make_model(device, dtype, sliding_window=16)
    ids, mask = padded(device, lengths)
    assert launched(model, ids, attention_mask=mask, **SAMPLING) >= NEW - 1
    got = sample(model, ids, attention_mask=mask)
    assert torch.equal(got, sample(model, ids, attention_mask=mask))
    monkeypatch.setenv("MISTRAL_EXT_CUDA_GRAPHS", "0")
    assert torch.equal(got, sample(model, ids, attention_mask=mask))


def test_samples_on_for_long(device, monkeypatch):
    model = make_model(device, torch.bfloat16)
    ids = ids_of(device, 2)
    got = sample(model, ids, max_new_tokens=1500)
    monkeypatch.setenv("MISTRAL_EXT_CUDA_GRAPHS", "0")
    assert torch.equal(got, sample(model, ids, max_new_tokens=1500))


def test_streams_that_take_turns_do_not_meet(device):
    model = make_model(device, torch.bfloat16)
    prompts = [ids_of(device, 2) for _ in range(2)]
    wanted = [sample(model, ids) for ids in prompts]
    torch.cuda.synchronize(device)
    streams = [torch.cuda.Stream(device) for _ in prompts]
    got = []
    for _ in range(3):
        for ids, stream in zip(prompts, streams, strict=True):
            # Without an end-of-sequence token nobody waits for the device.
            with torch.cuda.stream(stream):
                got.append(sample(model, ids))
    torch.cuda.synchronize(device)
    for i, tokens in enumerate(got):
        assert torch.equal(tokens, wanted[i % 2])


@pytest.mark.parametrize("lengths", [[9], [9, 4, 1]])
@pytest.mark.parametrize("settings", [{}, SAMPLING, {"repetition_penalty": 1.3}])
def test_logits_are_the_models(device, dtype, lengths, settings):
    model = make_model(device, dtype)
    ids, mask = padded(device, lengths)
    out = generate(
        model,
        ids,
        attention_mask=mask,
        output_logits=True,
        return_dict_in_generate=True,
        **settings,
    )
    made = torch.ones_like(out.sequences[:, ids.shape[1] :])
    mask = torch.cat([mask, made], 1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    exact = transformers.MistralForCausalLM(copy.deepcopy(model.config)).to(device).eval()
    exact.load_state_dict({k: v.float() for k, v in model.state_dict().items()})
    with torch.no_grad():
        seen = {"attention_mask": mask, "position_ids": positions}
        logits = exact(out.sequences, **seen).logits[:, ids.shape[1] - 1 : -1]
        own = model(out.sequences, **seen).logits[:, ids.shape[1] - 1 : -1]
    got = torch.stack(out.logits, 1)
    assert got.shape == logits.shape
    # Of roundings that fall another way: twice the error of the operators one by one.
    assert (got - logits).abs().max() <= 2 * (own - logits).abs().max()


def test_beams_are_steps_on_the_device(device):
    model = make_model(device, torch.bfloat16)
    ids, mask = padded(device, [9, 4])
    settings = {"num_beams": 4, "attention_mask": mask, "eos_token_id": 5}
    assert launched(model, ids, **settings) > 0
    scored = generate(
        model,
        ids,
        return_dict_in_generate=True,
        output_scores=True,
        num_return_sequences=4,
        **settings,
    )
    assert (scored.sequences_scores.view(2, 4).diff(dim=1) <= 0).all()
    greedy = generate(model, ids, attention_mask=mask, eos_token_id=5)
    assert scored.sequences.shape[0] == 8
    assert greedy.shape[0] == 2


def test_larger_batches_take_the_loop(device):
    model = make_model(device, torch.bfloat16)
    ids = ids_of(device, 33)
    assert launched(model, ids) == 0
    assert_likeliest(model, generate(model, ids), ids.shape[1])


@pytest.mark.parametrize("window", [None, 50])
def test_graphs_and_single_launches_give_the_same(device, dtype, window, monkeypatch):
    # Long enough for the cache to grow.
    model = make_model(device, dtype, sliding_window=window)
    ids = ids_of(device, 2)
    as_graphs = generate(model, ids, max_new_tokens=1500)
    monkeypatch.setenv("MISTRAL_EXT_CUDA_GRAPHS", "0")
    assert torch.equal(generate(model, ids, max_new_tokens=1500), as_graphs)
    monkeypatch.delenv("MISTRAL_EXT_CUDA_GRAPHS")
    assert torch.equal(generate(model, ids, max_new_tokens=1500), as_graphs)


def test_rows_end_at_their_own_tokens(device):
    model = make_model(device, torch.bfloat16)
    ids = ids_of(device, 3)
    free = generate(model, ids)
    ends = [int(free[0, 12]), int(free[1, 20])]
    expected = free.clone()
    longest = 0
    for row in range(3):
        columns = range(ids.shape[1], free.shape[1])
        end = next((c for c in columns if int(free[row, c]) in ends), free.shape[1] - 1)
        expected[row, end + 1 :] = PAD
        longest = max(longest, end + 1)
    got = generate(model, ids, eos_token_id=ends)
    assert torch.equal(got, expected[:, :longest])


def test_follows_weights_that_are_replaced(device):
    model = make_model(device, torch.bfloat16)
    other = make_model(device, torch.bfloat16, seed=5)
    ids = ids_of(device, 1)
    before = generate(model, ids)
    wanted = generate(other, ids)
    assert not torch.equal(before, wanted)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        mine.data = theirs.data.clone()
    assert torch.equal(generate(model, ids), wanted)
    for mine in model.parameters():
        mine.data.zero_()  # in place
    assert (generate(model, ids)[:, ids.shape[1] :] == 0).all()


def test_models_take_turns(device):
    models = [make_model(device, torch.bfloat16, seed=seed) for seed in range(2)]
    prompts = [ids_of(device, rows) for rows in (1, 2, 4)]
    alone = [[generate(model, ids) for ids in prompts] for model in models]
    for _ in range(2):
        for i, ids in enumerate(prompts):
            for model, wanted in zip(models, alone, strict=True):
                assert torch.equal(generate(model, ids), wanted[i])


def test_a_streamer_sees_every_token(device):
    class Streamer(transformers.generation.streamers.BaseStreamer):
        def __init__(self) -> None:
            self.tokens: list[int] = []

        def put(self, value: torch.Tensor) -> None:
            self.tokens += value.flatten().tolist()

        def end(self) -> None:
            pass

    model = make_model(device, torch.bfloat16)
    ids = ids_of(device, 1)
    streamer = Streamer()
    sequences = generate(model, ids, streamer=streamer)
    assert streamer.tokens == sequences[0].tolist()
    assert torch.equal(sequences, generate(model, ids))


def test_goes_on_from_a_cache(device):
    model = make_model(device, torch.bfloat16)
    ids = ids_of(device, 2)
    whole = generate(model, ids)
    first = generate(model, ids, max_new_tokens=15, return_dict_in_generate=True)
    cache = first.past_key_values
    assert torch.equal(first.sequences, whole[:, : ids.shape[1] + 15])
    assert cache.get_seq_length() == first.sequences.shape[1] - 1
    # Its first token comes of the operators one by one: the last bits may differ. With a mask, or
    # generate would take a token of PAD's number for padding.
    rest = generate(
        model,
        first.sequences,
        attention_mask=torch.ones_like(first.sequences),
        max_new_tokens=NEW - 15,
        past_key_values=cache,
    )
    assert_likeliest(model, rest, ids.shape[1])


def test_works_on_another_stream(device):
    model = make_model(device, torch.bfloat16)
    ids = ids_of(device, 1)
    wanted = generate(model, ids)
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        got = generate(model, ids)
    stream.synchronize()
    assert torch.equal(got, wanted)
