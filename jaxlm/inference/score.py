"""How likely a model finds given texts: the log-probability of each continuation of a context, by one compiled function.

Read next: `../harness_model.py`, which asks for it.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxlm.errors import DataError
from jaxlm.inference.prompts import start_token
from jaxlm.layers.embed import unembed
from jaxlm.models import has_decoder
from jaxlm.ops.output_layer import output_layer
from jaxlm.ops.positions import shift_right

Pair = tuple[Sequence[int], Sequence[int]]  # the ids of a context and of its continuation
STEP = 32  # lengths are multiples of it, so that few programs are compiled


def score_tokens(
    model: Any, params: Any, pairs: Sequence[Pair], *, length: int, batch_size: int = 16
) -> Iterator[tuple[int, tuple[float, bool]]]:
    """Score each pair: log p(continuation | context) in nats, and whether greedy decoding would have said just that.

    Args:
      pairs: an encoder-decoder's encoder reads the context, its decoder the continuation.
      length: the most tokens the model reads; a context that leaves no room is cut on the left.

    Yields: (the pair's number, (log-probability, greedy)), the longest first: a run that is out of memory is so at once.

    Raises:
      DataError: an empty or too long continuation, no context, an id outside the vocabulary.
    """
    for number, pair in enumerate(pairs):
        _check(model, number, pair, length)
    order = sorted(range(len(pairs)), key=lambda number: -sum(map(len, pairs[number])))
    fill, size = _both_sides if has_decoder(model) else _one_row, min(batch_size, len(pairs))
    for at in range(0, len(order), max(size, 1)):
        numbers = order[at : at + size]
        rows = [pairs[number] for number in numbers]
        totals, greedy = _score(model, params, *fill(rows + rows[-1:] * (size - len(rows)), length))
        answers = zip(np.asarray(totals).tolist(), np.asarray(greedy).tolist(), strict=True)
        yield from zip(numbers, answers, strict=False)


def _check(model: Any, number: int, pair: Pair, length: int) -> None:
    context, continuation = pair
    if not context or not continuation:
        raise DataError(f"request {number} has no {'continuation' if context else 'context'}: give at least one token")
    if len(continuation) > length:
        raise DataError(f"the continuation of request {number} has {len(continuation)} tokens and the model reads {length}: cut it")
    if max(max(context), max(continuation)) >= model.config.vocab_size:
        raise DataError(f"request {number} holds a token outside the vocabulary of {model.config.vocab_size}: is it of another tokenizer?")


def _one_row(pairs: Sequence[Pair], length: int) -> tuple[np.ndarray, ...]:
    """Tokens and mask [B, T], targets and which of them count [B, C], and the places [B, C] of the states that predict them."""
    lines = [[*context, *continuation][-length - 1 :] for context, continuation in pairs]
    tokens, mask = padded([line[:-1] for line in lines], length)
    targets, counted = padded([continuation for _, continuation in pairs], length)
    firsts = np.array([[len(line) - 1 - len(continuation)] for line, (_, continuation) in zip(lines, pairs, strict=True)])
    return tokens, mask, targets, counted, np.where(counted, firsts + np.arange(targets.shape[1]), 0)


def _both_sides(pairs: Sequence[Pair], length: int) -> tuple[np.ndarray, ...]:
    tokens, mask = padded([context[-length:] for context, _ in pairs], length)
    return tokens, mask, *padded([continuation for _, continuation in pairs], length)


def padded(rows: Sequence[Sequence[int]], length: int) -> tuple[Int[np.ndarray, "B T"], Bool[np.ndarray, "B T"]]:
    """Rows filled up on the right to a multiple of 32 tokens, `length` at most; and which tokens are real.

    >>> tokens, mask = padded([[5, 6], [7]], 3)
    >>> tokens.tolist(), mask.sum(1).tolist()
    ([[5, 6, 0], [7, 0, 0]], [2, 1])
    """
    width = min(-(-max(map(len, rows)) // STEP) * STEP, length)
    tokens, mask = np.zeros((len(rows), width), np.int32), np.zeros((len(rows), width), bool)
    for line, real, row in zip(tokens, mask, rows, strict=True):
        line[: len(row)], real[: len(row)] = row, True
    return tokens, mask


@functools.partial(jax.jit, static_argnums=0)
def _score(
    model: Any, params: Any, tokens: Array, mask: Array, targets: Array, counted: Array, places: Array | None = None
) -> tuple[Float[Array, "B"], Bool[Array, "B"]]:
    if places is None:
        logits = model.apply({"params": params}, tokens, shift_right(targets, start_token(model)), mask=mask).logits
    else:
        logits = _logits_at(model, params, tokens, mask, places)
    chances = jax.nn.log_softmax(logits.astype(jnp.float32))
    of_targets = jnp.take_along_axis(chances, targets[..., None], axis=-1)[..., 0]
    greedy = jnp.all((jnp.argmax(chances, -1) == targets) | ~counted, axis=1)
    return jnp.sum(jnp.where(counted, of_targets, 0.0), axis=1), greedy


def _logits_at(model, params, tokens, mask, places):
    """Only of the states that are asked for: those of a long context over a large vocabulary would fill the memory."""
    out = model.apply({"params": params}, tokens, mask=mask)
    if not getattr(model, "plain_logits", True):
        return jnp.take_along_axis(out.logits, places[..., None], axis=1)
    hidden = jnp.take_along_axis(out.hidden, places[..., None], axis=1)
    return unembed(hidden, **output_layer(model, params))
