"""Learning rates as functions of the update's number."""

from collections.abc import Callable

import jax.numpy as jnp
import optax

from jaxlm.config import Optimizer
from jaxlm.overrides import choose

Schedule = Callable[[int], float]


def make_schedule(config: Optimizer, steps: int) -> Schedule:
    """Linear warm-up to `learning_rate` over `warmup` updates, then the named curve.

    Args:
      steps: updates of the run; the curve ends there unless `config.decay` says where.
    """
    choose("optimizer.schedule", config.schedule, SCHEDULES)
    warmup = min(config.warmup, max(steps - 1, 0))
    after = max((config.decay or steps) - warmup, 1)
    curve = SCHEDULES[config.schedule](config, after)
    # The first update already moves: it is number 1 of `warmup`.
    rise = optax.linear_schedule(config.learning_rate / max(warmup, 1), config.learning_rate, max(warmup - 1, 1))
    return optax.join_schedules([rise, curve], [warmup]) if warmup else curve


def _constant(config: Optimizer, steps: int) -> Schedule:
    return optax.constant_schedule(config.learning_rate)


def _linear(config: Optimizer, steps: int) -> Schedule:
    return optax.linear_schedule(config.learning_rate, config.learning_rate * config.end, steps)


def _cosine(config: Optimizer, steps: int) -> Schedule:
    return optax.cosine_decay_schedule(config.learning_rate, steps, config.end)


def _inverse_sqrt(config: Optimizer, steps: int) -> Schedule:
    """rate * sqrt(warmup / update) (Vaswani et al. 2017, section 5.3, scaled so that the peak is the learning rate)."""
    scale = max(config.warmup, 1)
    # During the warm-up Optax asks for updates below 0 and throws the answers away.
    return lambda update: config.learning_rate * (scale / (scale + jnp.maximum(update, 0))) ** 0.5


def _warmup_stable_decay(config: Optimizer, steps: int) -> Schedule:
    """Constant, then linear to the end over the last `cooldown` share (Hu et al. 2024, section 4)."""
    cool = max(int(steps * config.cooldown), 1)
    down = optax.linear_schedule(config.learning_rate, config.learning_rate * config.end, cool)
    return optax.join_schedules([optax.constant_schedule(config.learning_rate), down], [steps - cool])


SCHEDULES = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "inverse_sqrt": _inverse_sqrt,
    "wsd": _warmup_stable_decay,
}
