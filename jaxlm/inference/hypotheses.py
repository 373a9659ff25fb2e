"""Texts that are kept side by side by beam search: the best ways to go on, those that have ended, and those that run.

The rows of the loop's state stand in F families of m neighbours: the beams of one prompt, or of one group of them. Two entries more:

  finished   int32 [R, S], the ended texts of each family, best first, in the slots of `tokens`
  beams      "running" [F, m], the sums of the rows' log-probabilities; "scores", "lengths", "done" [F, m] of the ended texts: done is
             False where there is none; "hopeful" [F], whether one that runs can still be better

`state["ended"]` marks families that nothing changes any more. Read next: `inference/beam.py`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.inference.rules import State
from jaxlm.inference.settings import Settings
from jaxlm.layers.cache import reorder

NOTHING = -1e9  # the sum of a row that must not be chosen, and the score of a text that is not there


@dataclasses.dataclass(frozen=True)
class Found:
    """Ways to go on, best first: their sums of log-probabilities, which row of the family they continue, and with what."""

    sums: Float[Array, "F C"]
    parents: Int[Array, "F C"]
    tokens: Int[Array, "F C"]

    def at(self, places: Int[Array, "F n"], sums: Float[Array, "F n"] | None = None) -> "Found":
        """Those at these places."""
        take = lambda array: jnp.take_along_axis(array, places, axis=1)
        return Found(take(self.sums) if sums is None else sums, take(self.parents), take(self.tokens))


def open_families(state: State, size: int, none: float = NOTHING) -> State:
    """A state of equal rows in families of this size: only the first of each runs, so that they part at the first token."""
    shape = (len(state["tokens"]) // size, size)
    running = jnp.full(shape, NOTHING, jnp.float32).at[:, 0].set(0.0)
    beams = {"running": running, "scores": jnp.full(shape, none, jnp.float32), "lengths": jnp.zeros(shape, jnp.int32)}
    beams |= {"done": jnp.zeros(shape, bool), "hopeful": jnp.ones(shape[0], bool)}
    return {**state, "finished": jnp.zeros_like(state["tokens"]), "beams": beams}


def closed(state: State) -> Bool[Array, "F"]:
    """The families that nothing changes any more."""
    return state["ended"].reshape(state["beams"]["running"].shape)[:, 0]


def wanted(settings: Settings, size: int) -> int:
    """How many ways to go on a family looks at: `size` remain even where each row's likeliest tokens all end it."""
    return max(2, 1 + len(settings.eos_token_id)) * size


def find(scores: Float[Array, "R V"], running: Float[Array, "F m"], count: int, keys: Array | None = None) -> Found:
    """The `count` best tokens of a family's rows; with keys [F] as many drawn without replacement, in the order of the draw.

    A draw is the maximum of log-probabilities with Gumbel noise, several without replacement the largest (Kool et al. 2019, section 3).
    """
    F, m = running.shape
    V = scores.shape[-1]
    noise = None if keys is None else jax.vmap(lambda key: jax.random.gumbel(key, (m, V)))(keys).reshape(-1, V)
    drawn = scores if noise is None else scores + noise
    each = min(count, V)
    values, tokens = jax.lax.top_k(drawn, each)  # of each row first: no sort of all rows' vocabularies
    _, places = jax.lax.top_k((values.reshape(F, m, each) + running[..., None]).reshape(F, -1), count)
    parents, tokens = places // each, jnp.take_along_axis(tokens.reshape(F, -1), places, axis=1)
    chances = jnp.take_along_axis(scores.reshape(F, -1), parents * V + tokens, axis=1)
    return Found(chances + jnp.take_along_axis(running, parents, axis=1), parents, tokens)


def keep(state: State, found: Found, scores: Float[Array, "F C"], ends: Bool[Array, "F C"]) -> State:
    """The state with the best of the ended texts and these; `ends` says which of these have really ended."""
    beams, now = state["beams"], state["now"]
    F, m = beams["scores"].shape
    best, which = jax.lax.top_k(jnp.concatenate([beams["scores"], scores], axis=1), m)
    new, old = which >= m, jnp.minimum(which, m - 1)
    chosen = found.at(jnp.maximum(which - m, 0))
    texts = jnp.concatenate([state[name].reshape(F, m, -1) for name in ("finished", "tokens")], axis=1)
    texts = jnp.take_along_axis(texts, jnp.where(new, m + chosen.parents, which)[..., None], axis=1)
    here = jnp.where(new, chosen.tokens, jax.lax.dynamic_index_in_dim(texts, now, axis=2, keepdims=False))
    texts = jax.lax.dynamic_update_slice_in_dim(texts, here[..., None], now, axis=2)
    lengths = jnp.where(new, now - state["first"] + 1, jnp.take_along_axis(beams["lengths"], old, axis=1))
    done = jnp.take_along_axis(jnp.concatenate([beams["done"], ends], axis=1), which, axis=1)
    beams = {**beams, "scores": best, "lengths": lengths, "done": done}
    return {**state, "beams": beams, "finished": texts.reshape(F * m, -1)}


def go_on(state: State, chosen: Found) -> State:
    """The state whose rows continue the m chosen ways of each family."""
    F, m = chosen.parents.shape
    rows = (chosen.parents + m * jnp.arange(F)[:, None]).reshape(-1)
    now = state["now"]
    write = lambda array, column: jax.lax.dynamic_update_slice_in_dim(array, column.reshape(-1, 1), now, axis=1)
    tokens = write(state["tokens"][rows], chosen.tokens)
    cache = reorder(state["cache"], rows, state["first"], now)
    beams = {**state["beams"], "running": chosen.sums}
    return {**state, "tokens": tokens, "real": write(state["real"], jnp.ones(F * m, bool)), "cache": cache, "beams": beams, "now": now + 1}
