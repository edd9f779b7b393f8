"""kv_cache_update_ against writing slot by slot."""

import re

import pytest
import torch

import mistral_ext  # noqa: F401  registers the operators

update = torch.ops.mistral_ext.kv_cache_update_
update_backward = torch.ops.mistral_ext.kv_cache_update_backward

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
BATCH, HEADS, CAPACITY, HEAD_DIM = 2, 3, 7, 5


def make_inputs(device, dtype, length):
    cache = (BATCH, HEADS, CAPACITY, HEAD_DIM)
    tokens = (BATCH, length, HEADS, HEAD_DIM)
    return [torch.randn(s, device=device).to(dtype) for s in (cache, cache, tokens, tokens)]


def written(cache, tokens, start):
    cache = cache.clone()
    for i in range(tokens.shape[1]):
        cache[:, :, (start + i) % cache.shape[2]] = tokens[:, i]
    return cache


def assert_writes(key_cache, value_cache, key, value, start):
    expected = written(key_cache, key, start), written(value_cache, value, start)
    assert update(key_cache, value_cache, key, value, start) is None
    assert torch.equal(key_cache, expected[0])
    assert torch.equal(value_cache, expected[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [0, 1, 3, 7])
@pytest.mark.parametrize("start", [0, 4, 6, 7, 9, 7 * 10**12 + 5])
def test_token_goes_to_its_slot_modulo_the_capacity(dtype, length, start, device):
    assert_writes(*make_inputs(device, dtype, length), start)


@pytest.mark.parametrize("dtype", DTYPES)
def test_writes_into_a_part_of_a_buffer_and_nothing_beside_it(dtype, device):
    buffer = torch.randn(2, BATCH, HEADS + 2, 2 * CAPACITY, HEAD_DIM + 4, device=device).to(dtype)
    before = buffer.clone()
    part = buffer[:, :, 1:-1, ::2, 2:-2]
    assert not part.is_contiguous()
    tokens = torch.randn(BATCH, HEADS, 4, HEAD_DIM, device=device).to(dtype).transpose(1, 2)
    assert_writes(*part.unbind(), tokens, tokens * 2, 5)
    part.copy_(before[:, :, 1:-1, ::2, 2:-2])
    assert torch.equal(buffer, before)


def test_elements_of_a_head_may_lie_apart(device):
    cache = torch.zeros(2, BATCH, HEADS, HEAD_DIM, CAPACITY, device=device).transpose(3, 4)
    tokens = torch.randn(2, BATCH, HEAD_DIM, HEADS, 4, device=device).permute(0, 1, 4, 3, 2)
    assert_writes(*cache.unbind(), *tokens.unbind(), 5)


@pytest.mark.parametrize("shape", [(0, 3, 7, 5), (2, 0, 7, 5), (2, 3, 0, 5), (2, 3, 7, 0)])
def test_empty_caches_are_left_alone(shape, device):
    cache = torch.randn(shape, device=device)
    length = min(2, shape[2])
    tokens = torch.randn(shape[0], length, shape[1], shape[3], device=device)
    assert_writes(cache, cache.clone(), tokens, tokens, 3)


def test_many_tokens(device):
    cache = torch.zeros(2, 2, 4, 900, 64, device=device)
    tokens = torch.randn(2, 2, 800, 4, 64, device=device)
    assert_writes(*cache.unbind(), *tokens.unbind(), 500)


@pytest.mark.parametrize("start", [0, 5])
def test_gradients_flow_to_the_tokens_and_to_the_slots_left_alone(start, device):
    inputs = make_inputs(device, torch.float64, 4)
    leaves = [x.requires_grad_() for x in inputs]

    def caches(key_cache, value_cache, key, value):
        key_cache, value_cache = key_cache.clone(), value_cache.clone()
        update(key_cache, value_cache, key, value, start)
        return key_cache, value_cache

    assert torch.autograd.gradcheck(caches, leaves)


def test_gradients_flow_through_views_of_one_buffer(device):
    base = torch.randn(2, BATCH, HEADS, CAPACITY, HEAD_DIM, device=device, requires_grad=True)
    tokens = torch.randn(2, BATCH, 3, HEADS, HEAD_DIM, device=device, requires_grad=True)
    buffer = base.clone()
    update(buffer[0], buffer[1], tokens[0], tokens[1], 6)
    weights = torch.randn_like(buffer)
    (buffer * weights).sum().backward()
    slots = [6, 0, 1]
    kept = torch.ones(CAPACITY, device=device).index_fill(0, torch.tensor(slots, device=device), 0)
    assert torch.equal(base.grad, weights * kept[:, None])
    assert torch.equal(tokens.grad, weights[:, :, :, slots].transpose(2, 3))


def test_tokens_alone_may_need_a_gradient(device):
    key_cache, value_cache, key, value = make_inputs(device, torch.float32, 3)
    key.requires_grad_()
    update(key_cache, value_cache, key, value, 0)
    assert key_cache.requires_grad
    assert not value_cache.requires_grad
    key_cache.sum().backward()
    assert torch.equal(key.grad, torch.ones_like(key))


def test_backward_that_needs_the_old_contents_says_so(device):
    key_cache, value_cache, key, value = make_inputs(device, torch.float32, 3)
    weight = torch.ones_like(key_cache, requires_grad=True)
    product = (weight * key_cache).sum()
    with torch.no_grad():
        update(key_cache, value_cache, key, value, 0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_leaf_that_needs_a_gradient_is_not_overwritten(device):
    inputs = make_inputs(device, torch.float32, 3)
    inputs[0].requires_grad_()
    before = inputs[0].detach().clone()
    with pytest.raises(RuntimeError, match="leaf Variable"):
        update(*inputs, 0)
    assert torch.equal(inputs[0], before)


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("start", [0, 5])
def test_registration_is_sound(requires_grad, start, device):
    key_cache, value_cache, key, value = make_inputs(device, torch.float32, 4)
    tokens = [x.requires_grad_(requires_grad) for x in (key, value)]
    torch.library.opcheck(update, (key_cache, value_cache, *tokens, start))
    torch.library.opcheck(update_backward, (key_cache, start, 4))


BAD = {
    "key_cache must have 4 dimensions, got shape [3, 7, 5]": {"key_cache": (3, 7, 5)},
    "value_cache must have key_cache's shape [2, 3, 7, 5], got [2, 3, 8, 5]": {
        "value_cache": (2, 3, 8, 5)
    },
    "value_cache must have key_cache's dtype Float, got Half": {"value_cache": torch.float16},
    "key must have key_cache's dtype Float, got Double": {"key": torch.float64},
    "value must have key_cache's dtype Float, got Double": {"value": torch.float64},
    "key must have shape [2, length, 3, 5], got [2, 4, 3, 6]": {"key": (2, 4, 3, 6)},
    "key must have shape [2, length, 3, 5], got [1, 4, 3, 5]": {"key": (1, 4, 3, 5)},
    "key must have shape [2, length, 3, 5], got [4, 3, 5]": {"key": (4, 3, 5)},
    "value must have key's shape [2, 4, 3, 5], got [2, 3, 3, 5]": {"value": (2, 3, 3, 5)},
    "key must have at most the cache's capacity 7 of tokens, got 8": {
        "key": (2, 8, 3, 5),
        "value": (2, 8, 3, 5),
    },
    "start must be >= 0, got -1": {"start": -1},
}


@pytest.mark.parametrize("where", ["device", "meta"])
@pytest.mark.parametrize("message", BAD)
def test_bad_argument_is_named_and_nothing_written(message, where, device):
    device = torch.device("meta") if where == "meta" else device
    names = ["key_cache", "value_cache", "key", "value"]
    arguments = dict(zip(names, make_inputs(device, torch.float32, 4), strict=True), start=0)
    for name, change in BAD[message].items():
        if isinstance(change, tuple):
            change = torch.randn(change, device=device)
        elif isinstance(change, torch.dtype):
            change = arguments[name].to(change)
        arguments[name] = change
    before = arguments["key_cache"].clone()
    with pytest.raises(ValueError, match="^kv_cache_update_: " + re.escape(message)):
        update(**arguments)
    if where == "device":
        assert torch.equal(arguments["key_cache"], before)


def test_cache_of_overlapping_elements_is_refused(device):
    _, value_cache, key, value = make_inputs(device, torch.float32, 4)
    key_cache = torch.zeros(1, HEADS, CAPACITY, HEAD_DIM, device=device).expand(BATCH, -1, -1, -1)
    with pytest.raises(ValueError, match="key_cache must have one place in memory"):
        update(key_cache, value_cache, key, value, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 2), "start must be >= 0, got -1"),
        ((0, 8), "length must be within 0 and the capacity 7, got 8"),
        ((0, -1), "length must be within 0 and the capacity 7, got -1"),
    ],
)
def test_bad_argument_of_the_backward_is_named(arguments, message, device):
    cache = torch.zeros(BATCH, HEADS, CAPACITY, HEAD_DIM, device=device)
    with pytest.raises(ValueError, match="kv_cache_update_backward: " + message):
        update_backward(cache, *arguments)


def test_refuses_tokens_that_lie_in_the_cache(device):
    key_cache, value_cache, key, value = make_inputs(device, torch.float32, 2)
    inside = key_cache[:, :, :2].transpose(1, 2)
    with pytest.raises(ValueError, match="key must not lie in the caches' memory"):
        update(key_cache, value_cache, inside, value, 1)
    with pytest.raises(ValueError, match="value_cache must not share key_cache's memory"):
        update(key_cache, key_cache, key, value, 1)


def test_a_second_derivative_is_refused_and_not_wrong(device):
    grad_cache = torch.randn(BATCH, HEADS, CAPACITY, HEAD_DIM, device=device, requires_grad=True)
    gradients = update_backward(grad_cache, 1, 2)
    with pytest.raises(RuntimeError, match="kv_cache_update_backward is not implemented"):
        gradients[1].sum().backward()
