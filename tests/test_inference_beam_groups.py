"""Diverse beam search beside a plain statement of Vijayakumar et al. (2018), with the ends and scores of transformers up to version 4."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import sharding
from jaxlm.config import Mesh
from jaxlm.errors import ConfigError
from jaxlm.inference.generate import generate
from jaxlm.models import gpt2, init_params, make_model, t5

MODELS = {
    "gpt2": (gpt2.Config(vocab_size=32, n_positions=24, n_embd=16, n_layer=1, n_head=2, initializer_range=0.4), "causal-lm"),
    "t5": (t5.Config(vocab_size=32, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, initializer_factor=3.0), "seq2seq-lm"),
}
PROMPTS = [[3, 1, 4, 1, 5], [9, 2, 6], [7]]
WIDTH, NEW, PAD = 5, 6, 31


@functools.cache
def made(name):
    model = make_model(MODELS[name][0], task=MODELS[name][1])
    params = jax.jit(lambda: init_params(model, jax.random.key(2), rows=2))()
    run = lambda tokens, targets: model.apply({"params": params}, tokens, *targets).logits
    return model, params, jax.jit(run)


def next_chances(name, prompt, written):
    """Log-probabilities of what follows each of the texts `written` after the prompt: whole forward passes, [texts, V]."""
    run, width = made(name)[2], WIDTH + NEW
    fill = lambda rows: jnp.array([row + [0] * (width - len(row)) for row in rows], jnp.int32)
    if name == "t5":
        source = jnp.array([prompt] * len(written), jnp.int32)
        logits = run(source, (fill([[0, *text] for text in written]),))[:, len(written[0])]
    else:
        logits = run(fill([prompt + text for text in written]), ())[:, len(prompt) + len(written[0]) - 1]
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


class Group:
    """One group of beams: what runs and what has ended."""

    def __init__(self, size, ends, named):
        self.size, self.ends = size, ends
        self.penalty, self.early = named.get("length_penalty", 1.0), named.get("early_stopping", False)
        self.running, self.sums = [[] for _ in range(size)], [0.0] + [-1e9] * (size - 1)
        self.ended, self.done = [], False

    def add(self, total, text):
        self.ended = sorted([*self.ended, (total / len(text) ** self.penalty, text)], key=lambda pair: -pair[0])[: self.size]

    def step(self, chances):
        """Chooses by log-probabilities [size, V]; gives the tokens that were written."""
        if self.done:
            self.running = [[*text, PAD] for text in self.running]
            return [PAD] * self.size
        sums = np.array(self.sums)[:, None] + chances
        order = np.argsort(-sums, axis=None, kind="stable")[: max(2, 1 + len(self.ends)) * self.size]
        ways = [(sums.flat[place], [*self.running[place // sums.shape[1]], int(place % sums.shape[1])]) for place in order]
        for rank, (total, text) in enumerate(ways):
            if text[-1] in self.ends and rank < self.size:
                self.add(total, text)
        on = [way for way in ways if way[1][-1] not in self.ends][: self.size]
        self.sums, self.running = [total for total, _ in on], [text for _, text in on]
        self.done = len(self.ended) == self.size and self.is_settled(ways[0][0])
        return [text[-1] for text in self.running]

    def is_settled(self, best):
        length = NEW if self.early == "never" and self.penalty > 0 else len(self.running[0])
        return self.early is True or self.ended[-1][0] >= best / length**self.penalty


def adjusted(chances, written, repetition):
    """Keskar et al.'s penalty, on log-probabilities; the prompts of this test are held against nobody."""
    for row, text in zip(chances, written, strict=True):
        for token in set(text):
            row[token] *= repetition if row[token] < 0 else 1 / repetition
    return chances


def stated(name, prompt, beams, groups, strength, ends, named):
    """The best texts of one prompt with their scores, best first."""
    all_groups = [Group(beams // groups, ends, named) for _ in range(groups)]
    for _ in range(NEW):
        taken = np.zeros(MODELS[name][0].vocab_size)
        for group in all_groups:
            chances = next_chances(name, prompt, group.running) - strength * taken
            if "repetition_penalty" in named:
                seen = [[*([0] if name == "t5" else prompt), *text] for text in group.running]
                chances = adjusted(chances, seen, named["repetition_penalty"])
            np.add.at(taken, group.step(chances), 1)
        if all(group.done for group in all_groups):
            break
    for group in all_groups:
        for total, text in zip(group.sums, group.running, strict=True):
            if not group.done:
                group.add(total, text)
    best = sorted((pair for group in all_groups for pair in group.ended), key=lambda pair: -pair[0])
    return best[: named.get("num_return_sequences", 1)]


CASES = [
    ("gpt2", 4, 2, 0.7, (), {"num_return_sequences": 4}),
    ("gpt2", 6, 3, 1.5, (2, 9), {"num_return_sequences": 6, "length_penalty": 2.0}),
    ("gpt2", 4, 4, 0.4, (2, 9, 12), {"num_return_sequences": 3, "early_stopping": True}),
    ("gpt2", 4, 2, 0.9, (2, 5, 9), {"num_return_sequences": 4, "early_stopping": "never", "repetition_penalty": 1.5}),
    ("t5", 4, 2, 0.8, (4, 9), {"num_return_sequences": 4}),
    ("t5", 6, 2, 2.0, (1, 4, 9), {"num_return_sequences": 2, "early_stopping": True, "repetition_penalty": 1.3}),
    ("t5", 4, 2, 0.5, (1, 4, 5), {"length_penalty": -1.0}),
]


def ours(name, beams, groups, strength, ends, named):
    width = max(map(len, PROMPTS))
    fill = [[0] * (width - len(row)) for row in PROMPTS]
    left = name == "gpt2"
    tokens = np.array([(pad + row) if left else (row + pad) for row, pad in zip(PROMPTS, fill, strict=True)])
    mask = np.array([[False] * len(pad) + [True] * len(row) for row, pad in zip(PROMPTS, fill, strict=True)])
    mask = mask if left else mask[:, ::-1]
    more = {"num_beams": beams, "num_beam_groups": groups, "diversity_penalty": strength, "eos_token_id": ends, **named}
    return generate(*made(name)[:2], tokens, mask=mask, max_new_tokens=NEW, pad_token_id=PAD, **more)


@pytest.mark.parametrize(("name", "beams", "groups", "strength", "ends", "named"), CASES)
def test_diverse_beams_are_those_of_the_paper(name, beams, groups, strength, ends, named):
    want = [pair for row in PROMPTS for pair in stated(name, row, beams, groups, strength, ends, named)]
    found = ours(name, beams, groups, strength, ends, named)
    texts = [row[:length].tolist() for row, length in zip(found.tokens, found.lengths, strict=True)]
    assert texts == [text for _, text in want]
    np.testing.assert_allclose(found.scores, [score for score, _ in want], rtol=2e-5)


def test_groups_differ_more_the_more_they_are_held_apart():
    firsts = lambda strength: set(ours("gpt2", 4, 4, strength, (), {"num_return_sequences": 4}).tokens[:4, 0].tolist())
    assert len(firsts(0.0)) == 1 and len(firsts(50.0)) == 4


def test_a_mesh_changes_nothing():
    name, *case = CASES[1]
    alone = ours(name, *case)
    with sharding.use(sharding.make_mesh(Mesh(data=2, tensor=2), jax.devices()[:4])):
        made.cache_clear()
        meshed = ours(name, *case)
    made.cache_clear()
    assert meshed.tokens.tolist() == alone.tokens.tolist()


def test_what_groups_cannot_do_is_refused():
    for wrong in ({"num_beams": 4, "num_beam_groups": 3}, {"num_beams": 4, "diversity_penalty": 1.0}):
        with pytest.raises(ConfigError, match="must divide num_beams|set num_beam_groups"):
            generate(*made("gpt2")[:2], np.array([[3]]), max_new_tokens=2, **wrong)
