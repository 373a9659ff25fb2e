"""Mixtures of labelled examples: shares, epochs of their own, and no history."""

import collections

import numpy as np
import pytest

from jaxlm.data.batches import BLOCK
from jaxlm.data.example_batches import ExampleBatches, plan
from jaxlm.data.examples import in_memory
from jaxlm.data.mixed_batches import mix
from jaxlm.errors import ConfigError


def source(count, first, seed, packing="padded"):
    """Examples of 3 to 20 tokens; example i's tokens are all first + i."""
    lengths = np.random.default_rng(first).integers(3, 21, count)
    made = [(i, {"tokens": [first + i] * int(n), "whole": {"labels": i, "weights": 1.0}, "cut": 0}) for i, n in enumerate(lengths)]
    examples = in_memory(made)
    return ExampleBatches(examples, plan(examples, packing, 24, seed), 4, seed)


def mixture(weights=(3, 1), seed=5, packing="buckets"):
    return mix([source(30, 1000, seed, packing), source(11, 5000, seed + 1)], weights, seed)


@pytest.mark.parametrize("weights", [(3, 1), (0.1, 0.9)])
def test_every_block_has_the_shares_that_are_asked_for(weights):
    made = mixture(weights)
    for block in range(2):
        owners = [made.locate(step)[0] for step in range(block * BLOCK, (block + 1) * BLOCK)]
        assert owners.count(0) == round(BLOCK * weights[0] / sum(weights))
    first, second = ([made.locate(block * BLOCK + i)[0] for i in range(BLOCK)] for block in range(2))
    assert first != second and 10 < sum(a != b for a, b in zip(first, first[1:], strict=False))  # no runs of one source


def test_every_source_goes_through_its_examples_once_an_epoch():
    made, numbers, seen = mixture(), collections.defaultdict(list), [collections.Counter(), collections.Counter()]
    for step in range(BLOCK, 2 * BLOCK):
        k, number = made.locate(step)
        numbers[k].append(number)
        seen[k].update(example for row in made.members(step)[0] for example in row)
    for k, part in enumerate(made.parts):
        assert numbers[k] == list(range(numbers[k][0], numbers[k][0] + len(numbers[k])))  # none is left out, none comes twice
        assert numbers[k][0] == made.quotas[k]
        fewest, most = min(seen[k].values()), max(seen[k].values())
        assert len(seen[k]) == len(part.examples) and most - fewest <= 2
    whole = [row for n in range(made.parts[1].count) for row in made.parts[1].members(n)[0] if row]
    assert sorted(whole) == [(i,) for i in range(11)]


def test_a_batch_is_of_one_source_and_says_which():
    made = mixture()
    for step in (0, 7, 1500):
        k, number = made.locate(step)
        rows = made.rows(step, 0, 4)
        found = np.unique(rows["tokens"][rows["segments"] > 0])
        assert ((found >= 5000) == k).all() and rows["tokens"].shape == (made.rows_of(step), made.members(step)[1].length)
        np.testing.assert_array_equal(rows["tokens"], made.parts[k].rows(number, 0, 4)["tokens"])
        assert made.example_ids(step)[0].startswith(f"source {k} ") and len(made.example_ids(step, 1, 3)) == 2
    assert made.batch_size == 4 and made.count == made.parts[0].count + 3 and made.epoch(2 * made.count) == 2


def test_it_has_no_history_and_hosts_agree():
    made, again = mixture(), mixture()
    other = mixture(seed=6)
    for step in (1030, 3):
        whole, parts = made.rows(step, 0, 4), [again.rows(step, at, at + 2) for at in (0, 2)]
        assert all((np.concatenate([part[name] for part in parts]) == whole[name]).all() for name in whole)
    assert any(made.locate(step) != other.locate(step) for step in range(20))


def test_weights_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="must all be positive"):
        mixture((1, -1))
    with pytest.raises(ConfigError, match="leave one out"):
        mixture((1, 1e-9))
