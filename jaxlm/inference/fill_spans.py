"""The gaps of a text, filled by an encoder-decoder that was trained to: what it writes for T5's sentinels, or BART's whole text.

Read first: `fill.py`, which does so with a masked language model; `texts.py`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxlm.errors import ConfigError, DataError
from jaxlm.inference.generate import generate
from jaxlm.inference.texts import ends_of, spelled, until
from jaxlm.models import dims, has_decoder
from jaxlm.ops.noise import find_sentinels

SPAN = 16  # tokens that are written for a gap, unless more or fewer are asked for


def fill_spans(model: Any, params: Any, tokenizer: Any, text: str, **named: Any) -> str:
    """The text with its gaps filled: "a <extra_id_0> day <extra_id_1>." (T5), or "a <mask> day." (BART, which writes all of it anew).

    What else is named is for `generate`, as in num_beams=4. Raises ConfigError for a model without a decoder, DataError for a text
    without gaps.
    """
    if not has_decoder(model):
        raise ConfigError(f"{model.config.model_type} has no decoder that writes spans: use fill_mask, or take a T5 or a BART")
    ids = list(tokenizer.encode(text, allow_special=True))
    ids += [tokenizer.eos_id] * (tokenizer.eos_id not in (None, *ids[-1:]))  # as every row ended in training
    sentinels = find_sentinels(tokenizer.controls)
    gaps = sum(token in sentinels for token in ids)
    if not gaps and (tokenizer.mask_id is None or tokenizer.mask_id not in ids):
        names = [name for name in ("<extra_id_0>" if sentinels else None, _mask(tokenizer)) if name]
        raise DataError(f"{text[:60]!r} has no gap: put {' or '.join(names) or 'a mask'} where text is to be found")
    ends = ends_of(model, tokenizer, named)
    room = min((SPAN + 1) * gaps + 1 if gaps else 2 * len(ids) + SPAN, dims(model.config).context or 2**30)
    named = {"max_new_tokens": room, **named, "eos_token_id": ends}
    new = generate(model, params, np.array([ids], np.int32), tokenizer=tokenizer, **named)
    written = until(new.tokens[0, : new.lengths[0]], ends)
    return tokenizer.decode(spelled(tokenizer, merge(ids, written, sentinels) if gaps else written))


def merge(source: Sequence[int], written: Sequence[int], sentinels: Sequence[int]) -> list[int]:
    """The source's ids with those written after each sentinel in its place; nothing is there for a sentinel that was not written.

    >>> merge([5, 99, 6, 98, 7], [99, 1, 2, 98, 3], (99, 98))
    [5, 1, 2, 6, 3, 7]
    """
    spans: dict[int, list[int]] = {}
    open_span: list[int] = []  # what comes before the first sentinel is of none
    for token in map(int, written):
        if token in sentinels:
            open_span = spans.setdefault(token, [])
        else:
            open_span.append(token)
    return [token for place in source for token in (spans.get(place, []) if place in sentinels else [place])]


def _mask(tokenizer: Any) -> str | None:
    return None if tokenizer.mask_id is None else tokenizer.piece(tokenizer.mask_id)
