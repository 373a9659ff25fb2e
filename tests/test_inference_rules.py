"""Every processor, alone and in pairs, against transformers' list of processors on the same logits and texts.

Transformers counts the padding of its batch in lengths and n-grams; here it counts for nothing. So each row is compared with
transformers' for that row alone.
"""

import functools
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.inference.rules import adjust
from jaxlm.inference.settings import make_settings

WORDS, MOST = 11, 5
PROMPTS, SOURCES = (1, 3, 5, 5), (6, 4, 2, 6)  # lengths
ENDS = [7, 9]
RULES = {
    "repetition": {"repetition_penalty": 1.7},
    "reward": {"repetition_penalty": 0.6},
    "encoder repetition": {"encoder_repetition_penalty": 1.4},
    "words": {"no_repeat_ngram_size": 1},
    "bigrams": {"no_repeat_ngram_size": 2},
    "trigrams": {"no_repeat_ngram_size": 3},
    "encoder words": {"encoder_no_repeat_ngram_size": 1},
    "encoder bigrams": {"encoder_no_repeat_ngram_size": 2},
    "a bad word": {"bad_words_ids": [[3], [7]]},  # an end is never a bad word
    "bad words": {"bad_words_ids": [[1, 4], [2, 5, 1], [0, 0]]},
    "a bias": {"sequence_bias": {(3,): 2.0, (4,): -1.5}},
    "biases": {"sequence_bias": {(3, 4): 2.0, (1, 2): -1.5, (0, 2, 5): 3.0, (6,): 0.5}},
    "length": {"min_length": 6},
    "new": {"min_new_tokens": 2},
    "begin": {"forced_bos_token_id": 2},
    "end": {"forced_eos_token_id": 9},
    "ends": {"forced_eos_token_id": [7, 9]},
    "suppressed": {"suppress_tokens": [0, 5]},
    "suppressed first": {"begin_suppress_tokens": [2, 8]},
}
PAIRS = [pair for pair in itertools.combinations(RULES, 2) if not RULES[pair[0]].keys() & RULES[pair[1]].keys()]
RANDOM = np.random.default_rng(2)
TEXTS = RANDOM.integers(0, 7, (4, max(PROMPTS) + MOST))
LOGITS = RANDOM.normal(0, 2, (MOST, 4, WORDS)).astype(np.float32)
SOURCE = RANDOM.integers(0, 7, (4, max(SOURCES)))


def state_at(new: int) -> dict:
    """Four texts, the prompts padded on the left, after so many new tokens; what comes later is not real."""
    first, slots = max(PROMPTS), np.arange(TEXTS.shape[1])
    real = (slots >= first - np.array(PROMPTS)[:, None]) & (slots < first + new)
    source = (jnp.asarray(SOURCE), jnp.asarray(np.arange(SOURCE.shape[1]) < np.array(SOURCES)[:, None]))
    numbers = {"first": jnp.int32(first), "now": jnp.int32(first + new), "most": jnp.int32(MOST)}
    return {"tokens": jnp.asarray(TEXTS), "real": jnp.asarray(real), "source": source, **numbers}


@functools.cache
def mixin():
    """The part of a model of transformers that makes its list of processors."""
    from transformers.generation.utils import GenerationMixin

    kind = type("Any", (GenerationMixin,), {"config": types.SimpleNamespace(is_encoder_decoder=True)})
    return kind()


def theirs(named: dict, new: int, row: int) -> np.ndarray:
    import torch
    from transformers import GenerationConfig

    text = torch.tensor(TEXTS[row : row + 1, max(PROMPTS) - PROMPTS[row] : max(PROMPTS) + new])
    config = GenerationConfig(eos_token_id=ENDS, max_length=PROMPTS[row] + MOST, **named)
    config._eos_token_tensor = torch.tensor(ENDS)
    source = torch.tensor(SOURCE[row : row + 1, : SOURCES[row]])
    made = mixin()._get_logits_processor(config, PROMPTS[row], source, device="cpu", model_kwargs={})
    return made(text, torch.tensor(LOGITS[new, row : row + 1]))[0].numpy()


def check(named: dict) -> np.ndarray:
    """Ours at all steps, compared."""
    settings = make_settings({"eos_token_id": ENDS, **named})
    ours = np.stack([adjust(jnp.asarray(LOGITS[new]), state_at(new), settings) for new in range(MOST)])
    want = np.stack([[theirs(named, new, row) for row in range(4)] for new in range(MOST)])
    np.testing.assert_allclose(ours, want, atol=1e-5, rtol=1e-5)
    return ours


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_alone_is_that_of_transformers(rule):
    assert (check(RULES[rule]) != LOGITS).any(), "the texts never meet the rule"


@pytest.mark.parametrize("rule", RULES)
def test_pairs_of_rules_are_those_of_transformers(rule):
    for one, other in PAIRS:
        if one == rule:
            check(RULES[one] | RULES[other])


def test_all_rules_at_once():
    many = {}
    for rule in ("repetition", "encoder repetition", "trigrams", "encoder bigrams", "bad words", "biases", "length", "new"):
        many |= RULES[rule]
    check(many | RULES["begin"] | RULES["end"] | RULES["suppressed"] | RULES["suppressed first"])


def test_what_has_been_written_is_held_against_a_token_and_the_prompt_is_not():
    named = {"presence_penalty": 0.7, "frequency_penalty": 0.3, "logit_bias": {5: 2.5, 1: -np.inf}}
    for new in range(MOST):
        want = LOGITS[new].copy()
        for row, text in zip(want, TEXTS[:, max(PROMPTS) : max(PROMPTS) + new].tolist(), strict=True):
            for token in range(WORDS):
                row[token] += {5: 2.5, 1: -np.inf}.get(token, 0) - 0.7 * (token in text) - 0.3 * text.count(token)
        got = adjust(jnp.asarray(LOGITS[new]), state_at(new), make_settings(named))
        np.testing.assert_allclose(got, want, atol=1e-5)


@functools.partial(jax.jit, static_argnums=2)
def compiled(logits, state, settings):
    return adjust(logits, state, settings)


def test_compiled_and_at_once_are_the_same():
    named = RULES["repetition"] | RULES["bigrams"] | RULES["biases"] | RULES["bad words"] | RULES["length"] | RULES["encoder bigrams"]
    settings = make_settings({"eos_token_id": ENDS, **named})
    got = compiled(jnp.asarray(LOGITS[3]), state_at(3), settings)
    np.testing.assert_allclose(got, adjust(jnp.asarray(LOGITS[3]), state_at(3), settings), atol=1e-6)


def test_nothing_asked_for_changes_nothing():
    np.testing.assert_array_equal(adjust(jnp.asarray(LOGITS[2]), state_at(2), make_settings({"eos_token_id": ENDS})), LOGITS[2])
