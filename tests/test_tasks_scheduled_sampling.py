"""Scheduled sampling: how the share of predicted inputs grows, and rows with rates of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import Loss
from jaxlm.errors import ConfigError
from jaxlm.tasks.scheduled_sampling import KEPT, rate, sampled_inputs


def curve(name, steps=200, end=0.4):
    return np.array([rate(step, steps, Loss(scheduled_sampling=end, sampling_schedule=name)) for step in range(steps + 1)])


@pytest.mark.parametrize("name", KEPT)
def test_the_rate_rises_from_nothing_to_what_is_asked_for(name):
    found = curve(name)
    assert found[0] == 0 and found[-1] == pytest.approx(0.4, abs=1e-12) and (np.diff(found) > 0).all()
    more = Loss(scheduled_sampling=0.4, sampling_schedule=name)
    assert rate(500, 200, more) == rate(200, 200, more) and rate(0, 200, Loss()) == rate(200, 200, Loss()) == 0


def test_the_curves_are_the_papers():
    """Written out with the paper's own i and k, where a run of each curve is as long as its formula makes it."""
    stretched = lambda kept: 0.4 * (kept[0] - kept) / (kept[0] - kept[-1])
    i = np.arange(201)
    np.testing.assert_allclose(curve("linear"), 0.4 * i / 200, atol=1e-12)
    k = 0.01 ** (1 / 200)  # k ** 200 = 0.01
    np.testing.assert_allclose(curve("exponential"), stretched(k**i), atol=1e-12)
    k, i = 100, np.linspace(0, 2 * 100 * np.log(100), 201)  # half of the inputs at i = k log k, the middle of the run
    np.testing.assert_allclose(curve("sigmoid"), stretched(k / (k + np.exp(i / k))), atol=1e-12)
    assert curve("exponential")[100] > curve("linear")[100] == pytest.approx(curve("sigmoid")[100])


def test_an_unknown_schedule_has_a_nearest():
    with pytest.raises(ConfigError, match="loss.sampling_schedule='sigmoidal'.*did you mean 'sigmoid'"):
        rate(1, 2, Loss(sampling_schedule="sigmoidal"))


class Next:
    """A model that predicts, at every place, its input plus one."""

    def apply(self, variables, targets, key=None, **inputs):
        return type("Output", (), {"logits": jax.nn.one_hot(targets + 1, 50)})


def test_every_row_may_have_its_own_rate():
    targets = jnp.tile(jnp.arange(0, 40, 2), (3, 1))
    made = np.asarray(sampled_inputs(Next(), {}, {"targets": targets}, jnp.array([[0.0], [0.5], [1.0]]), jax.random.key(0)))
    changed = (made != targets).mean(1)
    assert changed[0] == 0 and 0.2 < changed[1] < 0.8 and changed[2] == 19 / 20  # nothing predicts the first
    np.testing.assert_array_equal(made[2, 1:], np.asarray(targets)[2, :-1] + 1)
