"""Speculative decoding: several tokens are guessed, the model reads them in one call, and those that it would have written stay.

Guesses come from a smaller model (Leviathan et al. 2023; Chen et al. 2023) or from the text itself (`inference/lookup.py`). What is
written does not depend on them: the likeliest tokens are those of plain greedy decoding, drawn ones have the model's own
distribution. A round of k guesses reads k + 1 tokens. The state is that of `inference/loop.py`, but

  now               int32 [R]: rows accept unlike numbers, and each has its tokens without gaps
  cache             has gaps, slots that are not `valid`, in rows that accept less than the best; `index` goes on by the best
  draft             the cache of the model that guesses, slot by slot the same
  guessed, accepted   int32, how many guesses were read, and how many of them stayed

A model that measures distances by slots (windows, relative positions) can have no gaps: there the rows keep step with the slowest.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxlm.errors import ConfigError
from jaxlm.inference import loop
from jaxlm.inference.lookup import look_up
from jaxlm.inference.prompts import Prompts
from jaxlm.inference.quantize import dense
from jaxlm.inference.rules import State, adjust
from jaxlm.inference.settings import CONSTRAINTS, Settings
from jaxlm.layers.cache import Cache, extend
from jaxlm.models import dims, has_decoder
from jaxlm.ops.sampling import filter_logits, sample
from jaxlm.ops.special_ids import vocabulary
from jaxlm.sharding import replicate

Models = tuple[Any, ...]  # the model and, where one guesses, its assistant
CACHES = ("cache", "draft")
GUESS, ACCEPT, REPLACE = 1, 2, 3  # draws of one token that must not share their randomness


@functools.partial(jax.tree_util.register_dataclass, data_fields=["tokens", "known", "chances"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Guesses:
    """Attributes:
    tokens: guesses 1 to k + 1 of what follows each row; the last is never read.
    known: whether there is a token 0 (the one that waits) to k to read.
    chances: of all tokens at each guess under the distribution it was drawn from; None: nothing was drawn.
    """

    tokens: Int[Array, "R k+1"]
    known: Bool[Array, "R k+1"]
    chances: Float[Array, "R k+1 V"] | None = None


def guesses_of(settings: Settings) -> int:
    """How many tokens are guessed in a round."""
    return settings.prompt_lookup_num_tokens or settings.num_assistant_tokens or 5


def check(model: Any, assistant: tuple[Any, Any] | None, settings: Settings, prompts: Prompts, most: int) -> None:
    """Refuse an assistant that cannot guess for the model, and settings that need one: ConfigError."""
    context = dims(model.config).context
    for name in ("prompt_lookup_num_tokens", "num_assistant_tokens"):
        if context is not None and (getattr(settings, name) or 0) >= context:
            raise ConfigError(f"{name}={getattr(settings, name)}: the model reads {context} tokens, guesses among them: guess fewer")
    if assistant is not None and not (isinstance(assistant, (tuple, list)) and len(assistant) == 2 and hasattr(assistant[0], "config")):
        raise ConfigError(f"assistant is a {type(assistant).__name__}, no pair: give assistant=(model, params)")
    if assistant is None:
        if settings.num_assistant_tokens is not None:
            raise ConfigError(f"num_assistant_tokens={settings.num_assistant_tokens}: nothing guesses: give assistant=(model, params)")
        return
    for name, default in (("num_beams", 1), ("penalty_alpha", None), ("prompt_lookup_num_tokens", None)):
        if getattr(settings, name) != default:
            raise ConfigError(
                f"{name}={getattr(settings, name)}: an assistant guesses for greedy decoding and draws: leave one of them out"
            )
    if any(getattr(settings, name) is not None for name in CONSTRAINTS):
        raise ConfigError(f"{', '.join(CONSTRAINTS)} are for a model alone: leave out the assistant")
    mine, other = model.config, assistant[0].config
    sizes = [(config.vocab_size, vocabulary(config)) for config in (mine, other)]
    if sizes[0] != sizes[1]:
        raise ConfigError(f"assistant: a vocabulary of {other.vocab_size}, not {mine.vocab_size}: take one with the model's own tokenizer")
    if has_decoder(model) != has_decoder(assistant[0]):
        raise ConfigError(f"assistant: of {mine.model_type} and {other.model_type} one alone has an encoder: take one of the model's kind")
    sides = [int(prompts.mask.sum(1).max()) + most, prompts.tokens.shape[1], 0 if prompts.source is None else prompts.source.shape[1]]
    limit = dims(other).context
    if limit is not None and max(sides) > limit:
        raise ConfigError(f"assistant: {max(sides)} tokens exceed its {limit}: cut the prompt or max_new_tokens, or leave it out")


def by_slots(model: Any) -> bool:
    """Whether the model measures distances by slots of its cache."""
    config = model.config
    return hasattr(config, "relative_attention_num_buckets") or getattr(config, "sliding_window", None) is not None


def accepted(state: State) -> float | None:
    """The share of guesses that stayed; None where nothing was guessed."""
    return int(state["accepted"]) / int(state["guessed"]) if int(state.get("guessed", 0)) else None


def blocks(
    target: tuple[Any, Any], assistant: tuple[Any, Any] | None, settings: Settings, state: State, read: tuple[Prompts, int, int]
) -> Iterator[tuple[Int[np.ndarray, "R 1"], State]]:
    """Columns of new tokens as soon as all rows have them, and the state.

    Args:
      target, assistant: each (model, params).
      state: with the first new token. read: the prompts, how many of them are real, new tokens at most.
    """
    prompts, count, most = read
    models, params = zip(*[pair for pair in (target, assistant) if pair is not None], strict=True)
    draft = None
    if assistant is not None:
        copies = len(state["ended"]) // len(prompts.tokens)
        draft = loop.begin(*assistant, settings, prompts, most, copies, count)[0]["cache"]
    guesses, many = guesses_of(settings), jax.default_backend() != "cpu"
    state, view = _start(settings, state, draft)
    made = int(state["first"])
    while True:
        tokens, reached, index, over = jax.device_get(view)
        for at in range(made, reached):
            yield tokens[:, at, None], state
        made = max(made, int(reached))
        if over:
            return
        state = _roomy(state, int(index) + guesses + 2)
        stop = min(int(index) + max(loop.BLOCK, guesses + 2), state["tokens"].shape[1])
        state, view = (_rounds if many else _round)(models, params, settings, state, jnp.int32(stop))


def _roomy(state: State, slots: int) -> State:
    """The state, with more room in both caches where it is needed."""
    state = loop.roomy(state, slots)
    slots = state["tokens"].shape[1]
    short = "draft" in state and state["draft"]["valid"].shape[1] < slots
    return {**state, "draft": _grow(state["draft"], slots)} if short else state


_grow = jax.jit(extend, static_argnums=1)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=(1, 2))
def _start(settings: Settings, state: State, draft: Cache | None) -> tuple[State, Any]:
    ended = state["ended"] | (state["most"] <= 1)
    state = {**state, "now": jnp.full(len(ended), state["now"]), "ended": ended, "guessed": jnp.int32(0), "accepted": jnp.int32(0)}
    state = state if draft is None else {**state, "draft": draft}
    return state, _view(state, settings)


def _view(state: State, settings: Settings) -> tuple[Array, ...]:
    """What the host looks at: tokens, the slot that all rows have reached, slots filled, whether all is over."""
    over = state["ended"].all()
    slowest = jnp.where(state["ended"], state["tokens"].shape[1], state["now"]).min()
    reached = jnp.where(over, state["now"].max(), slowest)
    return jnp.where(state["real"], state["tokens"], settings.pad), reached, state["cache"]["index"], over


@functools.partial(jax.jit, static_argnums=(0, 2), donate_argnums=3)
def _round(models: Models, params: Any, settings: Settings, state: State, stop: Int[Array, ""]) -> tuple[State, Any]:
    state = step(models, params, settings, state)
    return state, _view(state, settings)


@functools.partial(jax.jit, static_argnums=(0, 2), donate_argnums=3)
def _rounds(models: Models, params: Any, settings: Settings, state: State, stop: Int[Array, ""]) -> tuple[State, Any]:
    """Rounds without the host, while they fit below slot `stop`."""
    going = lambda state: ~state["ended"].all() & (state["cache"]["index"] + guesses_of(settings) + 2 <= stop)
    state = jax.lax.while_loop(going, lambda state: step(models, params, settings, state), state)
    return state, _view(state, settings)


def step(models: Models, params: tuple[Any, ...], settings: Settings, state: State) -> State:
    """One round: guesses, one call of the model, and in every row the tokens that it would have written, at least one."""
    text, start = {name: value for name, value in state.items() if name not in CACHES}, state["cache"]["index"]
    caches = {}
    if "draft" in state:
        guesses, caches["draft"] = _draft(models[1], params[1], settings, text, state["draft"])
    else:
        guesses = _found(text, settings, vocabulary(models[0].config))
    read = jnp.concatenate([_waiting(text), guesses.tokens[:, :-1]], axis=1)
    logits, caches["cache"] = _read((models[0], params[0]), read, guesses.known, state["cache"], "source" in state)
    after = _verify(text, logits, guesses, settings, in_step=any(map(by_slots, models)))
    count = after["now"] - text["now"]
    caches = {name: _keep(cache, start, count) for name, cache in caches.items()}
    guessed, accepted = guesses.known[:, 1:].sum(dtype=jnp.int32), jnp.maximum(count - 1, 0).sum(dtype=jnp.int32)
    return {**after, **caches, "guessed": state["guessed"] + guessed, "accepted": state["accepted"] + accepted}


def _waiting(text):
    return jnp.take_along_axis(text["tokens"], text["now"][:, None] - 1, axis=1)


def _read(model, tokens, real, cache, over):
    """Logits [R, T, V] after each token, and the cache; what is not real leaves no trace."""
    module, params = model
    tokens, real = loop.laid(tokens), loop.laid(real)
    inputs, mask = ((None, tokens), {"target_mask": real}) if over else ((tokens,), {"mask": real})
    out = module.apply({"params": dense(params)}, *inputs, **mask, cache=cache)
    return replicate(out.logits.astype(jnp.float32)), out.cache


def _keep(cache, start, count):
    """The cache with the first `count` [R] of the tokens that were read from slot `start` on."""
    inside = jnp.arange(cache["valid"].shape[1]) < start + loop.laid(count[:, None])
    return {**cache, "index": start + count.max(), "valid": cache["valid"] & inside}


def _found(text, settings, size):
    tokens, found = look_up(text, settings)
    found = found & (tokens < size)  # an encoder may have a vocabulary of its own
    places = text["now"][:, None] + jnp.arange(tokens.shape[1] + 1)  # of what each token that is read leads to
    room = ~text["ended"][:, None] & (places < text["first"] + text["most"])
    return Guesses(jnp.pad(tokens, ((0, 0), (0, 1))), room & jnp.pad(found, ((0, 0), (1, 0)), constant_values=True))


def _draft(model, params, settings, text, cache):
    """What the assistant would write, under the rules of the text; a row's guesses stop at its end."""

    def one(carry, _):
        text, cache = carry
        known = ~text["ended"]
        logits, cache = _read((model, params), _waiting(text), known[:, None], cache, "source" in text)
        logits = adjust(logits[:, 0], text, settings)
        token = sample(logits, settings.sampling, _keys(text, GUESS))
        return (_put(text, token, known, settings), cache), Guesses(token, known, _chances(logits, settings))

    text = {name: value for name, value in text.items() if name != "details"}
    (_, cache), guesses = jax.lax.scan(one, (text, cache), length=guesses_of(settings) + 1)
    return jax.tree.map(lambda array: jnp.moveaxis(array, 0, 1), guesses), cache


def _chances(logits, settings):
    return jax.nn.softmax(filter_logits(logits, settings.sampling), axis=-1) if settings.sampling.temperature else None


def _keys(text, use=None):
    """A key a row for the token that comes next, as in plain decoding; `use` makes another of it."""
    fold = jax.vmap(jax.random.fold_in)
    keys = fold(text["keys"], text["now"] - text["first"])
    return keys if use is None else fold(keys, jnp.full(len(keys), use))


def _verify(text, logits, guesses, settings, in_step):
    """The text with the tokens that the model writes in place of the guesses, up to the first that differs from its guess."""

    def one(carry, at):
        text, going = carry
        logits, guess, further = at
        token, same = _judge(adjust(logits, text, settings), text, guess, settings)
        text = _put(text, token, going, settings, logits)
        going = going & same & further & ~text["ended"]
        going = going & (going | text["ended"]).all() if in_step else going
        return (text, going), None

    further = jnp.pad(guesses.known[:, 1:], ((0, 0), (0, 1)))  # is there a next one?
    by_place = jax.tree.map(lambda array: jnp.moveaxis(array, 1, 0), (logits, guesses, further))
    return jax.lax.scan(one, (text, guesses.known[:, 0]), by_place)[0][0]


def _judge(logits, text, guess, settings):
    """The model's token and whether it is the guess.

    A drawn guess is accepted with probability min(1, p / q); else the token comes from what is left of p, max(0, p - q)
    (Leviathan et al. 2023, section 2.3). So the last token of a round needs no draw of its own kind, and a row's
    draws do not depend on where rounds begin. A guess that was not drawn is compared with the plain draw, which is the same rule for q = 1.
    """
    if guess.chances is None:
        token = sample(logits, settings.sampling, _keys(text))
        return token, token == guess.tokens
    p, q = _chances(logits, settings), guess.chances
    here = lambda chances: jnp.take_along_axis(chances, guess.tokens[:, None], axis=1)[:, 0]
    same = jax.vmap(jax.random.uniform)(_keys(text, ACCEPT)) * here(q) < here(p)
    left = jnp.maximum(p - q, 0)
    left = jnp.where(left.sum(1, keepdims=True) > 0, left, p)  # equal but for rounding
    other = jax.vmap(jax.random.categorical)(_keys(text, REPLACE), jnp.log(left))
    return jnp.where(same, guess.tokens, other).astype(jnp.int32), same


def _put(text, token, going, settings, logits=None):
    """The text with a token more in the rows that are going; they end at an end token and at their last token."""
    rows, now = jnp.arange(len(token)), text["now"]
    at = jnp.where(going, now, text["tokens"].shape[1])
    write = lambda array, column: array.at[rows, at].set(column, mode="drop")
    over = jnp.isin(token, jnp.array(settings.eos_token_id, jnp.int32)) | (now + 1 >= text["first"] + text["most"])
    put = {"tokens": write(text["tokens"], token), "real": write(text["real"], True), "now": now + going}
    if "details" in text:
        seen = loop.describe(logits, token, settings.logprobs)
        put["details"] = {name: write(array, seen[name]) for name, array in text["details"].items()}
    return {**text, **put, "ended": text["ended"] | (going & over)}
