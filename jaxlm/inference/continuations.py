"""Greedy continuations of texts up to a stop string, by a decoder or by a decoder over an encoder. Read next: `generate.py`."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from jaxlm.errors import ConfigError
from jaxlm.inference import generate
from jaxlm.inference.score import decoder_start, padded
from jaxlm.layers.cache import make_cache
from jaxlm.models import dims, has_decoder

LOOK = 16  # tokens between two looks at the texts made so far


@dataclasses.dataclass(frozen=True)
class Greedy:
    """At most `new` tokens, and the text before the first of the strings `until`."""

    new: int
    until: tuple[str, ...] = ()


def continue_rows(model: Any, params: Any, tokenizer: Any, rows: Sequence[Sequence[int]], wanted: Greedy) -> list[str]:
    """The text that greedy decoding adds to each row of ids, or makes of it; it ends before the model's or tokenizer's end of text too."""
    known = model.config.extra.get("eos_token_id")
    ends = tokenizer.eos_id if known is None else known
    make, made = _decoded if has_decoder(model) else _continued, []
    for column in make(model, params, rows, wanted.new, ends):
        made.append(column)
        if len(made) % LOOK == 0 and wanted.until and all(_stopped(tokenizer, row, ends, wanted.until) for row in np.stack(made, 1)):
            break
    return [_before(tokenizer.decode(generate.until(row, ends)), wanted.until) for row in (np.stack(made, 1) if made else [[]] * len(rows))]


def _stopped(tokenizer, row, ends, until):
    kept = generate.until(row, ends)
    return len(kept) < len(row) or any(stop in tokenizer.decode(kept) for stop in until)


def _before(text: str, until: Sequence[str]) -> str:
    """The text before the first place of any of the strings.

    >>> _before("four. Q: two", ["Q:", "."])
    'four'
    """
    return text[: min((place for place in map(text.find, until) if place >= 0), default=None)]


def _continued(model, params, rows, new, ends):
    tokens, mask = padded(rows, max(map(len, rows)))
    return generate.stream_tokens(model, params, tokens, mask=mask, max_new_tokens=new, eos_id=ends)


def _decoded(model: Any, params: Any, rows: Sequence[Sequence[int]], new: int, ends: generate.Ends) -> Iterator[Int[np.ndarray, "B"]]:
    """The decoder's tokens, one column at a time; the cache remembers the encoder's states."""
    known = dims(model.config)
    if known.context is not None and new > known.context:
        raise ConfigError(f"{new} new tokens exceed the decoder's {known.context}: ask for fewer")
    tokens, mask = padded(rows, known.context or 2**30)
    shape = (len(rows), generate.bucket(new, 2**30), known.kv_heads, known.head_size)
    cache = make_cache(known.layers, shape, model.compute.dtype, model.compute.layout, cross=True)
    column, ended = np.full(len(rows), decoder_start(model), np.int32), np.zeros(len(rows), bool)
    for _ in range(new):
        column, cache = _step(model, params, cache, column, tokens, mask)
        tokens = mask = None
        yield np.asarray(column)
        ended = ended | np.isin(np.asarray(column), [] if ends is None else ends)
        if ended.all():
            return


@functools.partial(jax.jit, static_argnums=0)
def _step(model: Any, params: Any, cache: Any, column: Any, tokens: Any, mask: Bool[Any, "B S"] | None) -> tuple[Any, Any]:
    out = model.apply({"params": params}, tokens, column[:, None], mask=mask, cache=cache)
    return jnp.argmax(out.logits[:, -1], axis=-1).astype(jnp.int32), out.cache
