"""The likeliest tokens in the place of every mask of a text."""

import functools
from typing import Any

import jax
import numpy as np

from jaxlm.errors import ConfigError, DataError
from jaxlm.models import dims


def fill_mask(model: Any, params: Any, tokenizer: Any, text: str, k: int = 5) -> list[list[tuple[str, float]]]:
    """For each mask token in the text, as in "a [MASK] day", the k likeliest tokens as text with their probabilities, best first.

    Raises ConfigError for a tokenizer without a mask token, DataError for a text without one, or longer than the model.
    """
    if tokenizer.mask_id is None:
        raise ConfigError("the tokenizer has no mask token: take a model that was trained on masked text")
    ids = tokenizer.encode(text, allow_special=True)
    places = [place for place, token in enumerate(ids) if token == tokenizer.mask_id]
    if not places:
        raise DataError(f"{text[:60]!r} holds no {tokenizer.piece(tokenizer.mask_id)}: put it where a token is to be found")
    limit = dims(model.config).context
    if limit is not None and len(ids) > limit:
        raise DataError(f"{text[:60]!r} has {len(ids)} tokens and the model reads {limit}: cut it")
    probabilities = _probabilities(model, params, *_padded(ids, places, limit or len(ids) + 31))[0, : len(places)]
    best = np.argsort(-np.asarray(probabilities)[:, : tokenizer.vocab_size], axis=1, kind="stable")[:, :k]
    return [[(tokenizer.decode([int(i)]).strip(), float(row[i])) for i in top] for row, top in zip(probabilities, best, strict=True)]


def _padded(ids: list[int], places: list[int], limit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens, mask and places of one row, filled up to a multiple of 32 tokens and 4 places: few programs serve many texts."""
    length, count = min(-(-len(ids) // 32) * 32, limit), -(-len(places) // 4) * 4
    row = np.zeros((1, length), np.int32)
    row[0, : len(ids)] = ids
    return row, np.arange(length)[None] < len(ids), np.array([places + [0] * (count - len(places))], np.int32)


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(model, params, tokens, mask, places):
    return jax.nn.softmax(model.apply({"params": params}, tokens, mask=mask, places=places).logits)
