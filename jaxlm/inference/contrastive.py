"""Contrastive search (Su et al. 2022): likely tokens that do not say what the text has said before.

The k likeliest tokens are all read, in one call, and their hidden states compared with those of the text. The state is that of
`inference/loop.py`, but the cache has k rows for each of the text, alike up to the last slot, and

  logits   float32 [R, V], of the next token, which does not wait to be read

Read next: `inference/speculative.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxlm.inference import loop
from jaxlm.inference.quantize import dense
from jaxlm.inference.rules import State, adjust
from jaxlm.inference.settings import Settings
from jaxlm.layers.cache import reorder, repeat
from jaxlm.sharding import replicate


def begin(settings: Settings, state: State, logits: Float[Array, "R V"]) -> State:
    """The state before the first new token."""
    return {**state, "cache": _spread(state["cache"], _candidates(settings, logits)), "logits": logits}


_spread = jax.jit(repeat, static_argnums=1)


def _candidates(settings, logits):
    return min(settings.top_k, logits.shape[1])


def step(model: Any, params: Any, settings: Settings, state: State) -> State:
    """One token more, argmax over the k likeliest v of (1 - alpha) p(v | text) - alpha max_j cos(h_v, h_j) (equation 5)."""
    logits, at = adjust(state["logits"], state, settings), state["now"]
    best, candidates = jax.lax.top_k(logits, _candidates(settings, logits))
    read = loop.laid(candidates.reshape(-1, 1))
    out = model.apply({"params": dense(params)}, *((None, read) if "source" in state else (read,)), cache=state["cache"])
    hidden = replicate(out.hidden).reshape(*candidates.shape, -1)
    chances = jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), candidates, axis=1)
    score = (1 - settings.penalty_alpha) * chances - settings.penalty_alpha * similarity(hidden, state["hidden"], state["real"])
    chosen = jnp.where(jnp.isneginf(best), -jnp.inf, score).argmax(1)  # what is banned stays so, however new it is
    here, count = (jnp.arange(len(chosen)), chosen), candidates.shape[1]
    rows = jnp.repeat(here[0] * count + chosen, count)
    token, known = jnp.where(state["ended"], settings.pad, candidates[here]), state["logits"]
    state = {**state, "cache": reorder(out.cache, rows, out.cache["index"] - 1, out.cache["index"])}
    state["hidden"] = jax.lax.dynamic_update_slice_in_dim(state["hidden"], hidden[here][:, None], at, axis=1)
    state["logits"] = replicate(out.logits[:, -1].astype(jnp.float32)).reshape(*candidates.shape, -1)[here]
    if "details" in state:
        state["details"] = loop.with_details(state["details"], known, token, at, settings.logprobs)
    return loop.put(state, token, settings)


def similarity(new: Float[Array, "R k D"], old: Float[Array, "R S D"], real: Bool[Array, "R S"]) -> Float[Array, "R k"]:
    """The cosine of each new state with the nearest of the real old ones."""
    new, old = (states.astype(jnp.float32) for states in (new, old))
    unit = lambda states: states / jnp.maximum(jnp.linalg.norm(states, axis=-1, keepdims=True), 1e-12)
    cosines = jnp.einsum("rkd,rsd->rks", unit(new), unit(old), precision="highest")
    return jnp.where(real[:, None], cosines, -jnp.inf).max(-1)
