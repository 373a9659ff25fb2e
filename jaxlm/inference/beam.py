"""Beam search and beam sampling: the best whole texts, not the likeliest next token.

It does what Hugging Face's `generate` does from version 5 on, ties and all its large negative numbers included, since they decide
when it stops and what it returns. Read next: `inference/hypotheses.py`, `inference/beam_groups.py`.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.errors import ConfigError
from jaxlm.inference import beam_groups, loop
from jaxlm.inference.hypotheses import NOTHING, Found, closed, find, go_on, keep, open_families, wanted
from jaxlm.inference.prompts import Prompts
from jaxlm.inference.rules import State, adjust
from jaxlm.inference.settings import Settings
from jaxlm.inference.turn import turn_for
from jaxlm.ops.sampling import filter_logits


def search(
    model: Any, params: Any, settings: Settings, prompts: Prompts, count: int, most: int
) -> tuple[Int[np.ndarray, "R N"], Int[np.ndarray, "R"], Float[np.ndarray, "R"]]:
    """num_return_sequences texts for each of `count` prompts, best first, padded after their ends; their lengths; and their scores.

    A score is the sum of log-probabilities, after all rules and filters, divided by (new tokens) ** length_penalty.

    Raises:
      ConfigError: what beams cannot do.
    """
    for name in ("logprobs", "stop_strings"):
        if getattr(settings, name) not in (None, ()):
            raise ConfigError(f"{name} is of texts that grow token by token: leave it out with num_beams, or set num_beams=1")
    if most == 0:
        rows = count * settings.num_return_sequences
        return np.zeros((rows, 0), np.int32), np.zeros(rows, np.int32), np.zeros(rows, np.float32)
    state, logits = loop.begin(model, params, _seeded(settings), prompts, most, settings.num_beams, count)
    shared = settings.shared
    state = _first(shared, state, logits)
    weights = turn_for(model, params, len(logits), most)
    state = _run(model, weights, shared, state, prompts.tokens.shape[1], most)
    state = beam_groups.close(state, shared) if settings.num_beam_groups > 1 else state
    return _best(state, settings, prompts.tokens.shape[1], count)


def _seeded(settings: Settings) -> Settings:
    """A prompt's texts are drawn together: by the seed of its first."""
    if isinstance(settings.seed, int):
        return settings
    return dataclasses.replace(
        settings, seed=tuple(np.repeat(settings.seed[:: settings.num_return_sequences], settings.num_beams).tolist())
    )


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _first(settings: Settings, state: State, logits: Float[Array, "R V"]) -> State:
    """The state with the first new token of every beam."""
    if settings.num_beam_groups > 1:
        return beam_groups.choose(logits, beam_groups.open_groups(state, settings), settings)
    return choose(logits, open_families(state, settings.num_beams), settings)


def step(model: Any, params: Any, settings: Settings, state: State) -> State:
    """One token more for every beam."""
    state, logits = loop.forward(model, params, state)
    return (beam_groups.choose if settings.num_beam_groups > 1 else choose)(logits, state, settings)


def _run(model, params, settings, state, first, most):
    """Steps until nothing better can come. On a CPU the host starts each, and asks a step late whether it was the last."""
    if jax.default_backend() != "cpu":
        made = 1
        while made < most and not bool(state["ended"].all()):
            state = loop.roomy(state, first + made + 1)
            stop = min(first + made + loop.BLOCK, first + most, state["tokens"].shape[1])
            state, made = loop.advance_many(step, model, params, settings, state, jnp.int32(stop)), stop - first
        return state
    over = loop.seen(state)[1]
    for made in range(1, most):
        state, before = loop.roomy(state, first + made + 1), over
        state, _, over = loop.advance(step, model, params, settings, state)
        if before:
            break
    return state


def choose(logits: Float[Array, "R V"], state: State, settings: Settings) -> State:
    """The state with a token more in every beam; what ends is kept, if it is good enough."""
    beams, n = state["beams"], settings.num_beams
    new = state["now"] - state["first"] + 1
    found = _find(logits, state, settings)
    ends = jnp.isin(found.tokens, jnp.array(settings.eos_token_id, jnp.int32)) | (new == state["most"])
    sums, places = jax.lax.top_k(found.sums + jnp.where(ends, NOTHING, 0.0), n)
    scores, kept = _ended(found, ends, state, settings)
    state = go_on(keep(state, found, scores, kept), found.at(places, sums))
    hopeful = beams["hopeful"] & _hope(state, settings)
    shut = state["ended"].reshape(-1, n)[:, 0]
    over = ~(hopeful & ~shut).any() | (ends.all(1) | shut).all()
    if settings.early_stopping is True:
        over = over | (state["beams"]["done"].all(1) | shut).all()
    return {**state, "beams": {**state["beams"], "hopeful": hopeful}, "ended": state["ended"] | over}


def _find(logits, state, settings) -> Found:
    chances = adjust(jax.nn.log_softmax(logits, axis=-1), state, settings)
    count = wanted(settings, settings.num_beams)
    if not settings.sampling.temperature:
        return find(chances, state["beams"]["running"], count)
    # A row must be able to go on where every end is likely: as many tokens stay as there are ends, and one.
    least = len(settings.eos_token_id) + 1 if settings.eos_token_id else 2
    chances = filter_logits(chances, dataclasses.replace(settings.sampling, least=least))
    keys = jax.vmap(jax.random.fold_in, (0, None))(state["keys"][:: settings.num_beams], state["now"] - state["first"])
    return find(chances, state["beams"]["running"], count, keys)


def _ended(found, ends, state, settings):
    """The scores of what ends here, and which of it may be kept: of the first num_beams, where there is still hope."""
    beams, new = state["beams"], (state["now"] - state["first"] + 1).astype(jnp.float32)
    kept = ends & (jnp.arange(ends.shape[1]) < settings.num_beams)
    scores = found.sums / new**settings.length_penalty
    if settings.early_stopping is True:
        scores = scores + jnp.where(beams["done"].all(1, keepdims=True), NOTHING, 0.0)
    scores = scores + jnp.where(beams["hopeful"], 0.0, NOTHING)[:, None] + jnp.where(kept, 0.0, NOTHING)
    return jnp.where(closed(state)[:, None], -jnp.inf, scores), kept


def _hope(state, settings):
    """Whether the best running text could be better than the worst that has ended, were its sum to stay as it is."""
    beams = state["beams"]
    longest = settings.early_stopping == "never" and settings.length_penalty > 0
    length = state["most"] if longest else state["now"] - state["first"]
    best = beams["running"][:, :1] / length.astype(jnp.float32) ** settings.length_penalty
    worst = jnp.where(beams["done"], beams["scores"].min(1, keepdims=True), NOTHING)
    return (best > worst).any(1)


def _best(state, settings, first, count):
    """The best texts of each prompt, from the device to the host."""
    beams, n = jax.device_get(state["beams"]), settings.num_beams
    scores, lengths = (beams[name].reshape(-1, n)[:count] for name in ("scores", "lengths"))
    order = np.argsort(-scores, axis=1, kind="stable")[:, : settings.num_return_sequences]
    lengths, scores = (np.take_along_axis(array, order, axis=1).reshape(-1) for array in (lengths, scores))
    rows = (order + n * np.arange(count)[:, None]).reshape(-1)
    tokens = np.asarray(state["finished"])[rows, first : first + max(lengths)]
    return np.where(np.arange(tokens.shape[1]) < lengths[:, None], tokens, settings.pad), lengths, scores
