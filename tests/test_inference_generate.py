"""Generation: the cached loop says what the whole forward pass says, whatever the padding; and its limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.errors import ConfigError
from jaxlm.inference.generate import generate_tokens
from jaxlm.inference.prompts import bucket
from jaxlm.inference.texts import generate_text, sample_texts, stream_text, until
from jaxlm.models import bert, electra, gpt2, make_model
from jaxlm.tasks import causal_lm
from jaxlm.text.tokenizers.characters import train as train_characters

CONFIG = gpt2.Config(vocab_size=29, n_positions=24, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3)


@functools.cache
def made():
    model = make_model(CONFIG)
    return model, jax.jit(model.init)(jax.random.key(3), jnp.zeros((1, 4), jnp.int32))["params"]


def by_hand(prompt: list[int], count: int) -> list[int]:
    """Greedy decoding with a whole forward pass for each token."""
    model, params = made()
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model.apply({"params": params}, jnp.array([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_greedy_is_the_whole_forward_pass_token_by_token():
    assert generate_tokens(*made(), np.array([[3, 1, 4, 1, 5]]), max_new_tokens=8).tolist() == [by_hand([3, 1, 4, 1, 5], 8)]


SMALL = {"vocab_size": 29, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
BERTS = [kind(**SMALL, max_position_embeddings=24, is_decoder=True, initializer_range=0.3) for kind in (bert.Config, electra.Config)]


@functools.cache
def made_bert(config):
    """With biases that matter: they begin at 0."""
    model = make_model(config, task="causal-lm")
    params = jax.jit(model.init)(jax.random.key(3), jnp.zeros((1, 4), jnp.int32))["params"]
    params["vocabulary"]["bias"] += jax.random.normal(jax.random.key(4), (29,))
    return model, params


@pytest.mark.parametrize("config", BERTS, ids=lambda config: config.model_type)
def test_a_decoder_with_a_transform_in_its_head_goes_by_its_logits(config):
    (model, params), ids = made_bert(config), [3, 1, 4, 1, 5]
    whole = jax.jit(lambda tokens: model.apply({"params": params}, tokens).logits.argmax(-1))
    for place in range(4, 10):
        ids.append(int(whole(jnp.array([ids + [0] * (11 - len(ids))]))[0, place]))
    assert generate_tokens(model, params, np.array([ids[:5]]), max_new_tokens=6).tolist() == [ids[5:]]


@pytest.mark.parametrize("config", BERTS, ids=lambda config: config.model_type)
def test_the_loss_of_such_a_decoder_is_that_of_its_logits(config):
    model, params = made_bert(config)
    tokens, weights = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]], np.int32), np.ones((2, 4), np.float32)
    batch = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "weights": weights}
    log_p = jax.nn.log_softmax(model.apply({"params": params}, batch["tokens"]).logits)
    want = -np.take_along_axis(np.asarray(log_p), tokens[:, 1:, None], -1).sum()
    np.testing.assert_allclose(causal_lm.loss(model, params, batch, None)[0], want, rtol=1e-5)


def test_prompts_of_unlike_lengths_share_a_batch():
    rows = [[3, 1, 4, 1, 5], [9, 2], [6]]
    tokens = np.array([[0] * (5 - len(row)) + row for row in rows])
    mask = np.array([[False] * (5 - len(row)) + [True] * len(row) for row in rows])
    assert generate_tokens(*made(), tokens, mask=mask, max_new_tokens=6).tolist() == [by_hand(row, 6) for row in rows]


def test_a_row_ends_at_its_end_token():
    whole = by_hand([3, 1], 8)
    end = whole[3]
    cut = generate_tokens(*made(), np.array([[3, 1]]), max_new_tokens=8, eos_token_id=end)[0]
    assert until(cut, end) == whole[: whole.index(end)]
    assert len(cut) == whole.index(end) + 1  # the loop stops when all rows have ended


def test_sampling_depends_on_the_seed_and_stays_inside_top_k():
    draw = lambda seed, **more: generate_tokens(*made(), np.array([[3, 1]] * 4), max_new_tokens=8, do_sample=True, seed=seed, **more)
    assert (draw(0) == draw(0)).all() and (draw(0) != draw(1)).any()
    assert draw(5, top_k=1).tolist() == [by_hand([3, 1], 8)] * 4


def test_the_context_can_be_filled_and_not_exceeded():
    prompt = np.array([[1] * 20])
    assert generate_tokens(*made(), prompt, max_new_tokens=4).tolist() == [by_hand([1] * 20, 4)]
    with pytest.raises(ConfigError, match="20 tokens of prompt and 5 new ones exceed the model's 24"):
        generate_tokens(*made(), prompt, max_new_tokens=5)


BAD = [([[29]], "outside the vocabulary of 29"), ([[-1]], "outside"), (np.zeros((1, 0)), "empty prompt")]


@pytest.mark.parametrize(("tokens", "said"), BAD)
def test_bad_prompts_are_refused(tokens, said):
    with pytest.raises(ConfigError, match=said):
        generate_tokens(*made(), np.array(tokens), max_new_tokens=2)


def test_no_new_tokens_and_unknown_arguments():
    assert generate_tokens(*made(), np.array([[1]]), max_new_tokens=0).shape == (1, 0)
    with pytest.raises(ConfigError, match="num_beam is not supported: did you mean num_beams"):
        generate_tokens(*made(), np.array([[1]]), num_beam=4)


def test_text_in_text_out_and_the_stream_says_the_same():
    tokenizer = train_characters(["abcdefghijklmnopqrstuvwxyz \n."])
    model, params = made()
    assert tokenizer.vocab_size == CONFIG.vocab_size
    (text,) = generate_text(model, params, tokenizer, ["the "], max_new_tokens=10)
    assert "".join(stream_text(model, params, tokenizer, "the ", max_new_tokens=10)) == text and len(text) == 10
    long = stream_text(model, params, tokenizer, "the ", max_new_tokens=10_000, do_sample=True, top_p=0.9)
    assert len("".join(long)) == 20  # up to the context
    assert len(sample_texts(model, params, tokenizer, 2)) == 2
    with pytest.raises(ConfigError, match="empty prompt"):
        generate_text(model, params, tokenizer, [""])


def test_near_lengths_share_a_bucket():
    assert bucket(33, 1000) == bucket(40, 1000) == 48 and bucket(33, 40) == 40 and bucket(5, 1000) == 32
