"""Diverse beam search: groups of beams, each held back from the tokens of those before it (Vijayakumar et al. 2018).

In every step the groups choose in order; a token loses `diversity_penalty` for each beam of an earlier group that has just taken it
(Hamming diversity, equation 6). Every group keeps its own ended texts, as Hugging Face's `generate` did up to version 4: a group is
done when no running text can be better than the worst of as many ended ones as it has beams. Read next: `inference/hypotheses.py`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.inference.hypotheses import Found, closed, find, go_on, keep, open_families, wanted
from jaxlm.inference.rules import State, adjust
from jaxlm.inference.settings import Settings


def open_groups(state: State, settings: Settings) -> State:
    """A state of equal rows as families, one a group: rows are those of prompt 0 group 0, prompt 0 group 1 ..."""
    return open_families(state, settings.num_beams // settings.num_beam_groups, -jnp.inf)


def choose(logits: Float[Array, "R V"], state: State, settings: Settings) -> State:
    """The state with a token more in every beam of every group; what ends is kept, if it is good enough."""
    shut, size = closed(state), state["beams"]["running"].shape[1]
    found, chosen = _in_order(jax.nn.log_softmax(logits, axis=-1), state, settings)
    new = (state["now"] - state["first"] + 1).astype(jnp.float32)
    kept = _is_end(found.tokens, settings) & (jnp.arange(found.tokens.shape[1]) < size) & ~shut[:, None]
    state = keep(state, found, jnp.where(kept, found.sums / new**settings.length_penalty, -jnp.inf), kept)
    state = go_on(state, chosen)
    done = shut | _is_done(state, found.sums[:, 0], settings)
    return {**state, "ended": jnp.repeat(done, size)}


def _in_order(chances: Float[Array, "R V"], state: State, settings: Settings) -> tuple[Found, Found]:
    """What the groups find, one after the other, and what they go on with; a group that is done writes padding, which counts too."""
    groups, (families, size), V = settings.num_beam_groups, state["beams"]["running"].shape, chances.shape[-1]
    beams, taken, steps = state["beams"]["running"], jnp.zeros((families // groups, V), jnp.float32), []
    for group in range(groups):
        of = functools.partial(_of_group, families // groups, groups, group)
        rows = {name: jax.tree.map(of, state[name]) for name in ("tokens", "real", "source") if name in state}
        held = of(chances) - settings.diversity_penalty * jnp.repeat(taken, size, axis=0)
        running, shut = of(beams), of(closed(state))
        found = find(adjust(held, {**state, **rows}, settings), running, wanted(settings, size))
        chosen = _without_ends(found, shut, size, settings)
        taken = taken + _counts(chosen.tokens, V)
        steps.append((found, chosen))
    return tuple(_side_by_side(several) for several in zip(*steps, strict=True))


def _of_group(prompts: int, groups: int, group: int, array: Array) -> Array:
    """The rows, or the families, of one group of every prompt."""
    return array.reshape(prompts, groups, -1, *array.shape[1:])[:, group].reshape(-1, *array.shape[1:])


def _without_ends(found: Found, shut: Bool[Array, "B"], size: int, settings: Settings) -> Found:
    """The first of what is found that goes on."""
    _, places = jax.lax.top_k(-_is_end(found.tokens, settings).astype(jnp.int32), size)  # of equals the first comes first
    chosen = found.at(places)
    shut = shut[:, None]
    return Found(chosen.sums, jnp.where(shut, jnp.arange(size), chosen.parents), jnp.where(shut, settings.pad, chosen.tokens))


def _is_end(tokens, settings):
    return jnp.isin(tokens, jnp.array(settings.eos_token_id, jnp.int32))


def _counts(tokens: Int[Array, "B m"], vocabulary: int) -> Float[Array, "B V"]:
    return jax.vmap(lambda ids: jnp.zeros(vocabulary, jnp.float32).at[ids].add(1.0))(tokens)


def _side_by_side(several: tuple[Found, ...]) -> Found:
    """Group after group of each prompt: [B, C] of each group -> [B * groups, C]."""
    join = lambda *arrays: jnp.stack(arrays, axis=1).reshape(-1, arrays[0].shape[1])
    return Found(*(join(*(getattr(one, field.name) for one in several)) for field in dataclasses.fields(Found)))


def _is_done(state: State, best: Float[Array, "F"], settings: Settings) -> Bool[Array, "F"]:
    """Whether all ended texts are there, and none that runs could be better; `best` is the best sum of this step."""
    beams = state["beams"]
    full = beams["done"].all(1)
    if settings.early_stopping is True:
        return full
    longest = settings.early_stopping == "never" and settings.length_penalty > 0
    length = state["most"] if longest else state["now"] - state["first"]
    return full & (beams["scores"].min(1) >= best / length.astype(jnp.float32) ** settings.length_penalty)


@functools.partial(jax.jit, static_argnums=1)
def close(state: State, settings: Settings) -> State:
    """The state in which the running texts of groups that are not done have ended too."""
    F, m = state["beams"]["running"].shape
    now, running = state["now"] - 1, state["beams"]["running"]
    last = jax.lax.dynamic_index_in_dim(state["tokens"], now, axis=1, keepdims=False).reshape(F, m)
    found = Found(running, jnp.broadcast_to(jnp.arange(m), (F, m)), last)
    length = (state["now"] - state["first"]).astype(jnp.float32)
    scores = jnp.where(closed(state)[:, None], -jnp.inf, running / length**settings.length_penalty)
    return keep({**state, "now": now}, found, scores, jnp.ones((F, m), bool))
