"""Guesses without a second model: what followed the last few tokens where they stood before (Saxena 2023, prompt look-up decoding).

Texts often repeat what they were given: names, quotations, code. Read next: `inference/speculative.py`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from jaxlm.inference.rules import State
from jaxlm.inference.settings import Settings
from jaxlm.ops import penalties


def look_up(state: State, settings: Settings) -> tuple[Int[Array, "R k"], Bool[Array, "R k"]]:
    """The `prompt_lookup_num_tokens` tokens that may follow each row, and which of them were found.

    The longest end of the row that stood before decides, `max_matching_ngram_size` tokens at most; of several places the first. A
    decoder over an encoder looks in the encoder's text too, and there first.
    """
    tokens, real = state["tokens"], state["real"]
    ends, sought = state["now"] - 1, settings.prompt_lookup_num_tokens
    if "source" in state:
        source, there = state["source"]
        tokens, real = jnp.concatenate([source, tokens], axis=1), jnp.concatenate([there, real], axis=1)
        ends = ends + source.shape[1]
    start = jnp.full(len(tokens), tokens.shape[1])
    for size in range(1, settings.max_matching_ngram_size + 1):
        after, found = _place_after(tokens, real, ends, size)
        start = jnp.where(found, after, start)  # a longer end that is found is the better one
    slots = start[:, None] + jnp.arange(sought)
    take = lambda array: jnp.take_along_axis(array, jnp.clip(slots, 0, tokens.shape[1] - 1), axis=1)
    # Up to the first slot that is not text: beyond it stands another text, or nothing.
    return take(tokens), jnp.cumprod(take(real) & (slots <= ends[:, None]), axis=1).astype(bool)


def _place_after(tokens, real, ends, size):
    """The slot after the first place where each row's last `size` tokens stand, with text in it; and whether there is one."""
    prefix, known = penalties.last(tokens, real, ends, size)
    starts = max(tokens.shape[1] - size, 0)
    same = known.all(1)[:, None] & real[:, size:] & (jnp.arange(starts) + size <= ends[:, None])
    for i in range(size):
        same = same & real[:, i : i + starts] & (tokens[:, i : i + starts] == prefix[:, i, None])
    return same.argmax(1) + size, same.any(1)
