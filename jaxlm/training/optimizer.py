"""Update rules by name, over Optax: one dict, one row each. Read next: `training/step.py`."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from jaxlm.config import Optimizer
from jaxlm.overrides import choose
from jaxlm.training.schedule import Schedule, make_schedule

UNDECAYED = {"bias", "scale"}


def make_optimizer(config: Optimizer, steps: int) -> tuple[optax.GradientTransformation, Schedule]:
    """The update rule with its schedule inside, and the schedule for the reports. Clipping is the step's."""
    choose("optimizer.name", config.name, OPTIMIZERS)
    schedule = make_schedule(config, steps)
    return OPTIMIZERS[config.name](config, schedule), schedule


def decays(params: Any) -> Any:
    """True on the matrices, which weight decay pulls to 0; False on biases and norms."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in UNDECAYED, params)


def _adamw(config: Optimizer, rate: Schedule) -> optax.GradientTransformation:
    return optax.adamw(rate, config.b1, config.b2, config.eps, weight_decay=config.weight_decay, mask=decays)


def _adam(config: Optimizer, rate: Schedule) -> optax.GradientTransformation:
    return optax.adam(rate, config.b1, config.b2, config.eps)


def _adadelta(config: Optimizer, rate: Schedule) -> optax.GradientTransformation:
    return optax.adadelta(rate, rho=config.b2, eps=config.eps, weight_decay=config.weight_decay, weight_decay_mask=decays)


def _rmsprop(config: Optimizer, rate: Schedule) -> optax.GradientTransformation:
    return optax.chain(optax.rmsprop(rate, decay=config.b2, eps=config.eps, momentum=config.momentum), *_decay(config, rate))


def _adafactor(config: Optimizer, rate: Schedule) -> optax.GradientTransformation:
    """Shazeer and Stern (2018), algorithm 4. Optax's own decay of it is a share of the weights at every update, whatever the rate."""
    rule = optax.adafactor(rate, multiply_by_parameter_scale=config.multiply_by_parameter_scale)
    return optax.chain(rule, *_decay(config, rate))


def _lion(config: Optimizer, rate: Schedule) -> optax.GradientTransformation:
    return optax.lion(rate, config.b1, config.b2, weight_decay=config.weight_decay, mask=decays)


def _sgd(config: Optimizer, rate: Schedule) -> optax.GradientTransformation:
    return optax.chain(optax.sgd(rate, momentum=config.momentum or None), *_decay(config, rate))


def _decay(config: Optimizer, rate: Schedule) -> list[optax.GradientTransformation]:
    """Decoupled weight decay after an update that has its learning rate already (Loshchilov and Hutter 2019)."""
    if not config.weight_decay:
        return []
    return [optax.add_decayed_weights(lambda count: -config.weight_decay * rate(count), mask=decays)]


def _muon(config: Optimizer, rate: Schedule) -> optax.GradientTransformation:
    """Orthogonalized momentum on the matrices of the layers, AdamW on everything else (Jordan et al. 2024).

    Updates are scaled to AdamW's root mean square of 0.2 (Liu et al. 2025, equation 4), so one learning rate serves both.
    """
    rule = optax.contrib.muon(
        rate,
        beta=config.momentum,
        adam_b1=config.b1,
        adam_b2=config.b2,
        eps=config.eps,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=matrices,
    )
    # Optax's own decay of the AdamW half knows no mask.
    return optax.chain(optax.GradientTransformation(rule.init, _laid_out_by_the_compiler(rule.update)), *_decay(config, rate))


def _laid_out_by_the_compiler(update: Callable) -> Callable:
    """The update with shardings inside left to XLA, because Optax reshapes divided kernels; what comes out lies as it came in."""

    def inside(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        if jax.sharding.get_abstract_mesh().empty:
            return update(grads, state, params)
        layouts = jax.tree.map(lambda leaf: jax.typeof(leaf).sharding.spec, (grads, state))
        return jax.sharding.auto_axes(update, out_sharding=layouts)(grads, state, params)

    return inside


def matrices(params: Any) -> Any:
    """Which axes of a layer's kernel are its inputs and its outputs; None: not a matrix between hidden states."""
    return jax.tree_util.tree_map_with_path(_matrix, params)


def _matrix(path: tuple, leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
    names = [entry.key for entry in path]
    if names[-1] != "kernel":
        return None
    lead, inputs = kernel_axes(names, leaf.ndim)
    axes = tuple(range(lead, leaf.ndim))
    return optax.contrib.MuonDimensionNumbers(axes[:inputs], axes[inputs:])


def kernel_axes(names: list[str], rank: int) -> tuple[int, int]:
    """How many leading axes of a kernel number layers, which are a batch of matrices, and how many of the next are inputs."""
    lead = 1 if "stacked" in names else 0
    return lead, rank - lead - 1 if names[-2] == "o" else 1  # heads and head size come in together


OPTIMIZERS = {
    "adamw": _adamw,
    "adam": _adam,
    "adadelta": _adadelta,
    "rmsprop": _rmsprop,
    "adafactor": _adafactor,
    "lion": _lion,
    "muon": _muon,
    "sgd": _sgd,
}
