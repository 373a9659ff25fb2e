"""How much is written where nobody says how much, and that a stream of text is the text."""

import functools

import jax
import numpy as np
import pytest

from jaxlm.inference.generate import generate_tokens
from jaxlm.inference.texts import generate_text, in_room, stream_text, texts_in_room
from jaxlm.models import gpt2, init_params, make_model
from jaxlm.text.tokenizers.bytes import Bytes
from jaxlm.text.training import train_tokenizer

BYTES = Bytes(0, None)


@functools.cache
def made(vocabulary, positions=100):
    sizes = {"n_positions": positions, "n_embd": 16, "n_layer": 1, "n_head": 2, "initializer_range": 0.3}
    model = make_model(gpt2.Config(vocab_size=vocabulary, **sizes))
    return model, jax.jit(lambda: init_params(model, jax.random.key(0)))()


def test_a_stream_shows_a_last_character_that_is_not_whole():
    tokenizer = train_tokenizer("bpe", ["abc abd"] * 3, 270)
    first, second = tokenizer.encode("é")
    parts = *made(tokenizer.vocab_size), tokenizer
    half = {"sequence_bias": {(first,): 1e4}, "max_new_tokens": 3}
    (text,) = generate_text(*parts, ["ab"], **half)
    assert text == "\N{REPLACEMENT CHARACTER}" * 3 == "".join(stream_text(*parts, "ab", **half))
    whole = {"sequence_bias": {(first,): 1e4, (first, second): 1e5}, "max_new_tokens": 5}  # é, é and half of one
    (text,) = generate_text(*parts, ["ab"], **whole)
    pieces = list(stream_text(*parts, "ab", **whole))
    assert "".join(pieces) == text and text.startswith("éé") and pieces[:2] == ["é", "é"]


def stream_count(prompt, **named):
    """Tokens of the stream, one byte each: no end, and bytes of ASCII alone."""
    only = {byte + 3: 1e4 for byte in range(97, 123)}
    return len("".join(stream_text(*made(BYTES.vocab_size), BYTES, prompt, logit_bias=only, **named)))


@pytest.mark.parametrize(
    ("named", "count"),
    [
        ({}, 64),
        ({"max_length": 84}, 80 - 1),  # the prompt is four bytes and an end
        ({"max_length": 1000}, 95),  # up to the context
        ({"max_new_tokens": 70}, 70),
        ({"max_new_tokens": 70, "max_length": 20}, 15),
        ({"max_new_tokens": None, "max_length": None}, 64),
    ],
)
def test_the_usual_length_is_for_those_who_set_none(named, count):
    assert stream_count("abcd", **named) == count


def test_in_room_there_are_as_many_as_fit_where_nothing_is_set():
    model, _ = made(BYTES.vocab_size)
    assert in_room(model, BYTES, "abcd", 200, {"seed": 1}) == {"seed": 1, "max_new_tokens": 95}
    assert in_room(model, BYTES, "abcd", 20, {}) == {"max_new_tokens": 20}
    for named in ({"max_new_tokens": 300}, {"max_length": 7}):
        assert in_room(model, BYTES, "abcd", 200, named) == named


def test_a_long_prompt_cuts_no_other_text():
    """Whatever stands beside it in the batch, a prompt gets its own room and its own draws."""
    parts = (*made(BYTES.vocab_size), BYTES)
    prompts, named = ["ab", "a" * 90, "cd", "b" * 95], {"do_sample": True, "eos_token_id": (), "num_return_sequences": 2}
    seeds = tuple(range(8))
    together, count = texts_in_room(parts, prompts, seeds, 30, named)
    alone = [texts_in_room(parts, [prompt], seeds[2 * i : 2 * i + 2], 30, named)[0] for i, prompt in enumerate(prompts)]
    assert together == [text for texts in alone for text in texts] and count == 2 * (30 + 9 + 30 + 4)
    limited = texts_in_room(parts, prompts[:1], (0, 1), 30, named | {"max_length": 10})[1]
    assert limited == 2 * 7


def test_the_whole_context_can_be_asked_for_by_either_name():
    model, params = made(BYTES.vocab_size)
    tokens = np.ones((1, 40), int) * 70
    assert generate_tokens(model, params, tokens, max_length=100, eos_token_id=()).shape == (1, 60)
    assert generate_tokens(model, params, tokens, max_new_tokens=60, eos_token_id=()).shape == (1, 60)
