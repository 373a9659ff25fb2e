"""Decoding on the device: prompts are read once, then one compiled step a token over a cache that grows by buckets.

A state is a dict of arrays, one row a sequence, that every step takes and gives back (its memory is reused):

  cache    keys and values (`layers.cache`)
  tokens   int32 [R, S], in the cache's slots and one ahead of it: the chosen token waits in slot `now - 1` to be read
  real     bool [R, S], which of them belong to the text
  first, now, most    slot of the first new token, slot of the next one, new tokens at most
  ended    bool [R]
  keys     of the draws, [R]
  source   (tokens, real) of the encoder
  finished, beams    of beam search (`inference/hypotheses.py`)
  hidden   the last layer's states [R, S, D], for contrastive search
  details  of every chosen token, by its slot: "logprob", "entropy" [R, S], "top_ids", "top_logprobs" [R, S, k]

Read next: `inference/generate.py`, `inference/beam.py`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.inference.prompts import Prompts, capacity
from jaxlm.inference.quantize import dense
from jaxlm.inference.rules import State, adjust
from jaxlm.inference.settings import Settings
from jaxlm.layers.cache import extend, make_cache, repeat
from jaxlm.layers.embed import unembed
from jaxlm.layers.ring import Windows, fold_windows
from jaxlm.models import dims
from jaxlm.ops.output_layer import output_layer
from jaxlm.ops.sampling import sample
from jaxlm.sharding import replicate, spec

BLOCK = 32  # tokens that a device writes between two looks of the host
Step = Callable[[Any, Any, Settings, State], State]


def begin(
    model: Any, params: Any, settings: Settings, prompts: Prompts, most: int, copies: int, count: int
) -> tuple[State, Float[Array, "R V"]]:
    """The state after the prompts, each `copies` times; and the logits of the first new token. Rows after `count` prompts have ended."""
    read = {"model": model, "slots": capacity(prompts.tokens.shape[1] + 1), "copies": copies, "details": settings.logprobs}
    read |= {"hidden": settings.penalty_alpha is not None, "dtype": settings.cache_dtype or model.compute.dtype}
    state, logits = _read(params=params, prompts=prompts, **read)
    ended = jnp.arange(len(logits)) >= count * copies
    return {**state, "most": jnp.int32(most), "ended": ended, "keys": _keys(settings.seed, len(logits))}, logits


@functools.partial(jax.jit, static_argnames=("model", "slots", "copies", "details", "hidden", "dtype"))
def _read(model, params, prompts, slots, copies, details, hidden, dtype):
    known, over = dims(model.config), prompts.source is not None
    shape = (len(prompts.tokens), slots, known.kv_heads, known.head_size)
    cache, params = make_cache(known.layers, shape, dtype, model.compute.layout, cross=over), dense(params)
    if over:
        out = model.apply({"params": params}, *map(laid, (prompts.source, prompts.tokens)), mask=laid(prompts.source_mask), cache=cache)
    else:
        out = model.apply({"params": params}, laid(prompts.tokens), mask=laid(prompts.mask), cache=cache)
    many = lambda array: jnp.repeat(replicate(array), copies, axis=0)
    wide = lambda array: jnp.pad(many(array), ((0, 0), (0, slots - array.shape[1])))
    first, rows = prompts.tokens.shape[1], len(prompts.tokens) * copies
    state = {"cache": repeat(out.cache, copies), "tokens": wide(prompts.tokens), "real": wide(prompts.mask)}
    state |= {"first": jnp.int32(first), "now": jnp.int32(first)}
    if over:
        state["source"] = (many(prompts.source), many(prompts.source_mask))
    if details is not None:
        state["details"] = no_details(rows, slots, details)
    if hidden:
        state["hidden"] = jnp.pad(many(out.hidden), ((0, 0), (0, slots - first), (0, 0)))
    return state, many(_last_logits(model, params, out))


def laid(array: Array) -> Array:
    """An array [R, n] of the host's, or a whole one, with its rows where the mesh has the batch."""
    return array if spec("batch") is None else jax.reshard(jnp.asarray(array), spec("batch", None))


def no_details(rows: int, slots: int, count: int | None) -> dict[str, Array]:
    """What is kept of every chosen token, before there is one; nothing where `count`, of alternatives, is None."""
    if count is None:
        return {}
    plain = {name: jnp.zeros((rows, slots), jnp.float32) for name in ("logprob", "entropy")}
    many = {"top_ids": jnp.zeros((rows, slots, count), jnp.int32), "top_logprobs": jnp.zeros((rows, slots, count), jnp.float32)}
    return plain | many if count else plain


def _last_logits(model: Any, params: Any, out: Any) -> Float[Array, "R V"]:
    """Float32 logits of the last token, without those of the tokens before."""
    if out.hidden.shape[1] > 1 and getattr(model, "plain_logits", True):
        return unembed(out.hidden[:, -1:], **output_layer(model, params))[:, 0]
    return out.logits[:, -1].astype(jnp.float32)


def _keys(seed: int | tuple[int, ...], rows: int) -> Array:
    """A key a row, which is the same whatever the other rows are."""
    if isinstance(seed, int):
        return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(rows))
    return jnp.stack([jax.random.key(one) for one in (*seed, *[0] * (rows - len(seed)))])


def forward(model: Any, params: Any, state: State) -> tuple[State, Float[Array, "R V"]]:
    """Reads the token that waits; the logits of what follows it."""
    token = jax.lax.dynamic_slice_in_dim(state["tokens"], state["now"] - 1, 1, axis=1)
    inputs = (None, laid(token)) if "source" in state else (laid(token),)
    out = model.apply({"params": dense(params)}, *inputs, cache=state["cache"])
    return {**state, "cache": out.cache}, replicate(out.logits[:, -1].astype(jnp.float32))


def choose(logits: Float[Array, "R V"], state: State, settings: Settings) -> State:
    """The state with the next token of each row, drawn or the likeliest; rows that have ended get the padding."""
    new = state["now"] - state["first"]
    keys = jax.vmap(jax.random.fold_in, (0, None))(state["keys"], new)
    token = sample(adjust(logits, state, settings), settings.sampling, keys)
    if "details" in state:
        state = {**state, "details": with_details(state["details"], logits, token, state["now"], settings.logprobs)}
    return put(state, jnp.where(state["ended"], settings.pad, token), settings)


def put(state: State, token: Int[Array, "R"], settings: Settings) -> State:
    """The state with a token more."""
    at, ended = state["now"], state["ended"]
    write = lambda array, column: jax.lax.dynamic_update_slice_in_dim(array, column[:, None], at, axis=1)
    over = ended | jnp.isin(token, jnp.array(settings.eos_token_id, jnp.int32)) if settings.eos_token_id else ended
    return {**state, "tokens": write(state["tokens"], token), "real": write(state["real"], ~ended), "ended": over, "now": at + 1}


def with_details(details: dict[str, Array], logits: Float[Array, "R V"], token: Int[Array, "R"], at: Array, count: int) -> dict[str, Array]:
    """The details with those of a token that was chosen for slot `at`."""
    seen = describe(logits, token, count)
    return {name: jax.lax.dynamic_update_slice_in_dim(array, seen[name][:, None], at, axis=1) for name, array in details.items()}


def describe(logits: Float[Array, "R V"], token: Int[Array, "R"], count: int) -> dict[str, Array]:
    """What is told of a chosen token: of it, of its distribution, and of `count` alternatives."""
    chances = jax.nn.log_softmax(logits, axis=-1)
    seen = {"logprob": jnp.take_along_axis(chances, token[:, None], axis=1)[:, 0]}
    seen["entropy"] = -jnp.where(jnp.isfinite(chances), jnp.exp(chances) * chances, 0.0).sum(-1)
    if count:
        seen["top_logprobs"], seen["top_ids"] = jax.lax.top_k(chances, count)
    return seen


def step(model: Any, params: Any, settings: Settings, state: State) -> State:
    """One token more: the one that waits is read, the next one chosen."""
    state, logits = forward(model, params, state)
    return choose(logits, state, settings)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def first(settings: Settings, state: State, logits: Float[Array, "R V"]) -> State:
    """The state with the first new token."""
    return choose(logits, state, settings)


@jax.jit
def seen(state: State) -> tuple[Int[Array, "R"], Array]:
    """The last token of each row, and whether all rows have ended."""
    return jax.lax.dynamic_index_in_dim(state["tokens"], state["now"] - 1, axis=1, keepdims=False), state["ended"].all()


@functools.partial(jax.jit, static_argnums=(0, 1, 3), donate_argnums=4)
def advance(step: Step, model: Any, params: Any, settings: Settings, state: State) -> tuple[State, Int[Array, "R"], Array]:
    """One step; what the host wants to see stands outside the state, whose memory the next step takes."""
    state = step(model, params, settings, state)
    return state, *seen(state)


@functools.partial(jax.jit, static_argnums=(0, 1, 3), donate_argnums=4)
def advance_many(step: Step, model: Any, params: Any, settings: Settings, state: State, stop: Int[Array, ""]) -> State:
    """Steps up to slot `stop`, or until all rows have ended, without the host."""
    going = lambda state: (state["now"] < stop) & ~state["ended"].all()
    return jax.lax.while_loop(going, lambda state: step(model, params, settings, state), state)


@functools.partial(jax.jit, static_argnums=1)
def fold(state: State, windows: Windows) -> State:
    """The state with the caches of layers that see a window no longer than it (`layers/ring.py`)."""
    return {**state, "cache": fold_windows(state["cache"], windows)}


@functools.partial(jax.jit, static_argnums=(1, 2))
def grow(state: State, slots: int, windows: Windows) -> State:
    """The same state with room for `slots`."""
    wide = lambda array: jnp.pad(array, [(0, 0), (0, slots - array.shape[1])] + [(0, 0)] * (array.ndim - 2))
    names = [name for name in ("tokens", "real", "hidden", "finished", "details") if name in state]
    cache = fold_windows(extend(state["cache"], slots), windows)
    return {**state, "cache": cache, **{name: jax.tree.map(wide, state[name]) for name in names}}


def roomy(state: State, slots: int, windows: Windows = ()) -> State:
    """The state, with more room where it is needed."""
    return state if slots <= state["tokens"].shape[1] else grow(state, capacity(slots), windows)
