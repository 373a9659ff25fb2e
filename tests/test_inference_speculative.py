"""Speculative decoding: what is guessed changes the speed alone, in greedy decoding and in draws, whatever the model and the rows."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from jaxlm import sharding
from jaxlm.config import Mesh
from jaxlm.errors import ConfigError
from jaxlm.inference import loop, speculative
from jaxlm.inference.generate import generate, generate_tokens, stream_tokens
from jaxlm.models import bart, gpt2, has_decoder, make_model, mistral, t5

GPT2 = gpt2.Config(vocab_size=29, n_positions=64, n_embd=32, n_layer=1, n_head=4, initializer_range=0.3)
BART = {"vocab_size": 29, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "init_std": 0.3}
BART |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 64}
MISTRAL = {"vocab_size": 29, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
MISTRAL |= {"intermediate_size": 24, "max_position_embeddings": 64, "sliding_window": 4, "initializer_range": 0.4}
MODELS = {
    "gpt2": GPT2,
    "even": dataclasses.replace(GPT2, vocab_size=32),  # a mesh can divide it
    "mistral": mistral.Config(**MISTRAL),
    "t5": t5.Config(
        29, 16, 8, 24, 1, None, 2, relative_attention_num_buckets=8, relative_attention_max_distance=10, tie_word_embeddings=False
    ),
    "bart": bart.Config(**BART, eos_token_id=None),
}


@functools.cache
def made(name, noise=0.0):
    """A model, or one that is near to it: what it guesses is sometimes right."""
    model = make_model(MODELS[name])
    tokens = jnp.zeros((1, 4), jnp.int32)
    inputs = (tokens, tokens) if has_decoder(model) else (tokens,)
    params = jax.jit(model.init)(jax.random.key(3), *inputs)["params"]
    draw = np.random.default_rng(0)
    near = lambda leaf: (leaf + noise * leaf.std() * draw.standard_normal(leaf.shape)).astype(np.float32)
    return model, jax.tree.map(near, jax.tree.map(np.asarray, params))


ROWS = [[3, 1, 4, 1, 5], [9, 2], [6], [5, 3, 5, 3, 5]]
TOKENS = np.array([[0] * (5 - len(row)) + row for row in ROWS])
MASK = np.array([[False] * (5 - len(row)) + [True] * len(row) for row in ROWS])
LOOKUP = {"prompt_lookup_num_tokens": 3}


def assisted(name):
    return {"assistant": made(name, 0.1), "num_assistant_tokens": 3}


def both(name, more, **settings):
    """Plain and speculative decoding of the same rows."""
    plain, fast = (generate(*made(name), TOKENS, mask=MASK, **settings, **extra) for extra in ({}, more))
    assert plain.tokens.tolist() == fast.tokens.tolist() and plain.lengths.tolist() == fast.lengths.tolist()
    return plain, fast


@pytest.mark.parametrize("name", ["gpt2", "mistral", "t5", "bart"])
def test_rows_that_accept_unlike_numbers_have_the_tokens_of_greedy_decoding(name):
    plain, fast = both(name, assisted(name), max_new_tokens=24)
    assert plain.accepted is None and 0.05 < fast.accepted < 0.95
    assert both(name, LOOKUP, max_new_tokens=24)[1].accepted >= 0


def test_a_perfect_assistant_is_always_right_and_the_stream_says_the_same():
    model, params = made("gpt2")
    settings = {"assistant": (model, params), "max_new_tokens": 22}
    found = generate(model, params, TOKENS, mask=MASK, **settings)
    assert found.accepted == 1
    assert [column.tolist() for column in stream_tokens(model, params, TOKENS, mask=MASK, **settings)] == found.tokens.T.tolist()


RULES = [
    {"repetition_penalty": 1.7, "no_repeat_ngram_size": 2},
    {"presence_penalty": 0.8, "frequency_penalty": 0.6, "min_new_tokens": 6, "eos_token_id": [7, 11, 20, 21]},
    {"bad_words_ids": [[4], [9, 2]], "forced_eos_token_id": 7, "begin_suppress_tokens": [5], "sequence_bias": {(3, 1): 4.0}},
]


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: next(iter(rules)))
def test_rules_hold_for_guesses_one_by_one(rules):
    for more in (assisted("gpt2"), LOOKUP):
        both("gpt2", more, max_new_tokens=20, **rules)


def test_rows_end_unlike_early_and_the_count_of_new_tokens_holds():
    whole = generate_tokens(*made("gpt2"), TOKENS, mask=MASK, max_new_tokens=24)
    ends = [int(whole[0, 4]), int(whole[1, 9])]
    for more in (assisted("gpt2"), LOOKUP):
        both("gpt2", more, max_new_tokens=24, eos_token_id=ends, pad_token_id=0)
        for count in (0, 1, 2):
            assert both("gpt2", more, max_new_tokens=count)[1].tokens.shape == (4, count)
    full = np.array([[1] * 40])  # the last guesses would stand outside the context
    plain = generate_tokens(*made("gpt2"), full, max_new_tokens=24)
    assert plain.tolist() == generate_tokens(*made("gpt2"), full, max_new_tokens=24, **assisted("gpt2")).tolist()
    far = {"prompt_lookup_num_tokens": 8, "max_matching_ngram_size": 1}
    assert plain.tolist() == generate_tokens(*made("gpt2"), full, max_new_tokens=24, **far).tolist()


def test_log_probabilities_are_those_of_plain_decoding():
    for more in (assisted("gpt2"), LOOKUP):
        plain, fast = both("gpt2", more, max_new_tokens=12, logprobs=2, eos_token_id=7)
        np.testing.assert_allclose(plain.logprobs, fast.logprobs, atol=1e-4)
        np.testing.assert_allclose(plain.top_logprobs, fast.top_logprobs, atol=1e-4)


def test_draws_with_looked_up_guesses_are_the_plain_draws():
    both("gpt2", LOOKUP, max_new_tokens=20, do_sample=True, temperature=0.7, top_p=0.9, seed=5, num_return_sequences=2)
    both("t5", LOOKUP, max_new_tokens=20, do_sample=True, temperature=0.7, seed=(5, 6, 7, 8))


def test_a_row_depends_on_its_seed_and_not_on_the_other_rows():
    draw = lambda rows, seed: generate_tokens(
        *made("gpt2"), TOKENS[rows], mask=MASK[rows], seed=seed, max_new_tokens=16, do_sample=True, **assisted("gpt2")
    )
    assert draw([0, 1, 2, 3], (4, 5, 6, 7))[1].tolist() == draw([1], (5,))[0].tolist()


TINY = gpt2.Config(vocab_size=5, n_positions=8, n_embd=8, n_layer=1, n_head=2, initializer_range=0.4)
FILTERS = [
    {"temperature": 1.3},
    {"temperature": 0.8, "top_k": 3},
    {"top_p": 0.8, "repetition_penalty": 1.5},
    {"min_p": 0.2},
    {"typical_p": 0.7},
]


@functools.cache
def tiny(seed):
    model = make_model(TINY)
    return model, jax.jit(model.init)(jax.random.key(seed), jnp.zeros((1, 4), jnp.int32))["params"]


def kept(logits, filters, text):
    """Probabilities of the next token: the filters' papers in NumPy, ties apart."""
    penalty = filters.get("repetition_penalty", 1.0)
    said = np.isin(np.arange(5), text)
    logits = np.where(said, np.where(logits > 0, logits / penalty, logits * penalty), logits) / filters.get("temperature", 1.0)
    p = np.exp(logits - logits.max())
    p, order = p / p.sum(), np.argsort(-p)
    if "top_k" in filters:
        p = np.where(np.isin(np.arange(5), order[: filters["top_k"]]), p, 0)
    if "min_p" in filters:
        p = np.where(p >= filters["min_p"] * p.max(), p, 0)
    if "typical_p" in filters:
        order = np.argsort(np.abs(-np.log(p) + (p * np.log(p)).sum()))
    if "top_p" in filters or "typical_p" in filters:
        needed = int(np.searchsorted(np.cumsum(p[order]), filters.get("top_p", filters.get("typical_p")))) + 1
        p = np.where(np.isin(np.arange(5), order[:needed]), p, 0)
    return p / p.sum()


def chances(model, params, prompt, count, filters):
    """Of every continuation of `count` tokens, by enumeration."""
    forward = jax.jit(lambda tokens: model.apply({"params": params}, tokens).logits)
    texts = np.array([[*prompt, *new] for new in itertools.product(range(5), repeat=count)])
    logits, found = np.asarray(forward(texts), np.float64), []
    for text, row in zip(texts, logits, strict=True):
        places = range(len(prompt), len(text))
        found.append(np.prod([kept(row[at - 1], filters, text[:at])[text[at]] for at in places]))
    return np.array(found)


def surprise(seen, expected):
    """The chi-square statistic in units of its limit at 1e-4: above 1 the draws are of another distribution. Rare cells are joined."""
    assert (seen[expected == 0] == 0).all()
    seen, expected = seen[expected > 0], expected[expected > 0]
    order = np.argsort(expected)
    groups = np.searchsorted(np.cumsum(expected[order]), np.arange(10, expected.sum(), 10))
    cells = [np.add.reduceat(array[order], np.unique(np.append(0, groups[:-1]))) for array in (seen, expected)]
    assert len(cells[0]) >= 5
    return ((cells[0] - cells[1]) ** 2 / cells[1]).sum() / chi2.ppf(1 - 1e-4, len(cells[0]) - 1)


@pytest.mark.parametrize("filters", FILTERS, ids=lambda filters: next(reversed(filters)))
def test_drawn_texts_have_the_distribution_of_the_model(filters):
    count, prompt = 4096, [1, 3]
    guess = {"assistant": tiny(1), "num_assistant_tokens": 2}
    settings = {"max_new_tokens": 3, "do_sample": True, "num_return_sequences": count, "seed": 0, **filters}
    drawn = generate(*tiny(0), np.array([prompt]), **settings, **guess)
    seen = np.bincount(drawn.tokens @ [25, 5, 1], minlength=125)
    assert 0.1 < drawn.accepted < 0.9
    assert surprise(seen, count * chances(*tiny(0), prompt, 3, filters)) < 1
    assert filters.keys() - {"temperature"} or surprise(seen, count * chances(*tiny(1), prompt, 3, filters)) > 3


def test_rows_that_keep_step_draw_from_the_same_distribution():
    model, params = made("t5")
    settings = {"max_new_tokens": 2, "do_sample": True, "num_return_sequences": 1024, "seed": 1, "top_k": 5, "temperature": 0.7}
    drawn = generate(model, params, TOKENS[:1], assistant=made("t5", 0.3), num_assistant_tokens=1, **settings)
    plain = generate(model, params, TOKENS[:1], **settings | {"seed": 2, "num_return_sequences": 4096})
    pairs, cells = [tokens @ [29, 1] for tokens in (drawn.tokens, plain.tokens)], 29 * 29
    seen, wanted = (np.bincount(pair, minlength=cells) for pair in pairs)
    share = (seen + wanted) / (1024 + 4096)
    expected = [share * count for count in (1024, 4096)]
    often = expected[0] > 2
    statistic = sum(((have - want)[often] ** 2 / want[often]).sum() for have, want in zip((seen, wanted), expected, strict=True))
    assert statistic < chi2.ppf(1 - 1e-4, often.sum())


def test_another_length_of_the_bucket_compiles_nothing():
    for more in (assisted("gpt2"), LOOKUP):
        run = lambda width, count, more=more: generate_tokens(*made("gpt2"), np.ones((1, width)).astype(int), max_new_tokens=count, **more)
        run(5, 9)
        compiled = [one._cache_size() for one in (speculative._round, speculative._start, loop._read, loop.first)]
        run(7, 12)
        assert compiled == [one._cache_size() for one in (speculative._round, speculative._start, loop._read, loop.first)]


def test_caches_grow_and_rounds_without_the_host_say_the_same(monkeypatch):
    config = gpt2.Config(vocab_size=29, n_positions=256, n_embd=16, n_layer=1, n_head=2, initializer_range=0.3)
    model = make_model(config)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    near = jax.tree.map(lambda leaf: leaf * 1.05, params)
    run = lambda **more: generate_tokens(model, params, TOKENS, mask=MASK, max_new_tokens=150, repetition_penalty=1.1, **more).tolist()
    plain, slow = run(), run(assistant=(model, near))
    monkeypatch.setattr(speculative, "_round", speculative._rounds)
    assert plain == slow == run(assistant=(model, near))


def test_under_a_mesh_the_tokens_are_the_same():
    ways = [{"assistant": made("even", 0.1), "num_assistant_tokens": 3, "do_sample": True}, LOOKUP]
    run = lambda: [generate_tokens(*made("even"), TOKENS, mask=MASK, max_new_tokens=12, **way).tolist() for way in ways]
    wanted = run()
    with sharding.use(sharding.make_mesh(Mesh(data=2, fsdp=2, tensor=2))):
        assert run() == wanted


REFUSED = [
    ({"assistant": "other"}, "a vocabulary of 5, not 29"),
    ({"assistant": "t5"}, "gpt2 and t5 one alone has an encoder"),
    ({"num_assistant_tokens": 3}, "nothing guesses"),
    ({"assistant": "gpt2", "num_beams": 2}, "num_beams=2: an assistant guesses for greedy"),
    ({"assistant": "gpt2", **LOOKUP}, "leave one of them out"),
    ({"assistant": "gpt2", "regex": "a+"}, "regex, .* are for a model alone"),
    ({"assistant": "gpt2", "num_assistant_tokens": 0}, "num_assistant_tokens=0: at least 1"),
]


@pytest.mark.parametrize(("more", "said"), REFUSED)
def test_what_cannot_be_is_refused(more, said):
    if "assistant" in more:
        more = {**more, "assistant": tiny(0) if more["assistant"] == "other" else made(more["assistant"])}
    with pytest.raises(ConfigError, match=said):
        generate(*made("gpt2"), TOKENS, mask=MASK, max_new_tokens=4, **more)


def test_an_assistant_with_a_shorter_context_is_refused_in_time():
    short = make_model(gpt2.Config(vocab_size=29, n_positions=32, n_embd=32, n_layer=1, n_head=4))
    with pytest.raises(ConfigError, match="45 tokens exceed its 32"):
        generate(*made("gpt2"), TOKENS, mask=MASK, max_new_tokens=40, assistant=(short, {}))
