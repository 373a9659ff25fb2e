"""Span corruption, on the host: spans of a row are taken out, and the decoder is to say what they were (Raffel et al. 2020).

A sentinel stands in the place of each span, and before it on the target side. Beside it the prefix variant, which takes out the
end of a row. Functions of the rows' draws alone; NumPy only. Read first: `noise.py`. Read next: `tasks/span_corruption.py`.
"""

import numpy as np

from jaxlm.config import Denoising
from jaxlm.errors import ConfigError
from jaxlm.ops.noise import Vocabulary, compact, sides, uniform


def counts(n: np.ndarray, denoising: Denoising) -> tuple[np.ndarray, np.ndarray]:
    """How many of a row's n tokens are taken out, and in how many spans; fewer than two tokens stay all.

    density * n, rounded, but at least one and not all; spans of `denoising.span` tokens on average, each after one token that stays.

    >>> counts(np.array([568]), Denoising(density=0.15, span=3.0))
    (array([85]), array([28]))
    """
    n = np.asarray(n)
    noise = np.maximum(np.minimum(np.maximum(np.round(denoising.density * n).astype(int), 1), n - 1), 0)
    wanted = np.maximum(np.round(noise / denoising.span).astype(int), 1)
    return noise, np.minimum(wanted, np.minimum(noise, n - noise))


def lengths(n: np.ndarray, denoising: Denoising) -> tuple[np.ndarray, np.ndarray]:
    """Tokens on both sides of n raw ones: what stays, and what is taken out, each with a sentinel a span, and the end.

    >>> lengths(np.array([568]), Denoising(density=0.15, span=3.0))
    (array([512]), array([114]))
    """
    noise, spans = counts(n, denoising)
    return n - noise + spans + 1, noise + spans + 1


def raw_length(length: int, denoising: Denoising) -> int:
    """The most raw tokens whose source side has at most `length`.

    One more raw token makes the source side longer by one or not at all, so that it is then `length` exactly (but where so much
    is taken out that the tokens which stay must bound the spans). Raises ConfigError for what leaves no room, or takes out nothing.
    """
    if not (0 < denoising.density < 1 and denoising.span >= 1):
        raise ConfigError(f"denoising.density={denoising.density} is above 0 and below 1, and denoising.span={denoising.span} at least 1")
    n = np.arange(2, int(length / (1 - denoising.density)) + 3)
    fits = n[lengths(n, denoising)[0] <= length]
    if not len(fits):
        raise ConfigError(f"data.sequence_length={length} has no room for a token, a sentinel and the end: make it 3 or more")
    return int(fits[-1])


def corrupt_spans(
    tokens: np.ndarray, real: np.ndarray, vocabulary: Vocabulary, draws: np.ndarray, denoising: Denoising, sizes: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Rows whose spans are taken out (section 3.1.4).

    Args:
      tokens: int32 [B, L]. real: bool [B, L], padding on the right; L is at most `raw_length` of S.
      draws: uint64 [B].
      sizes: S and T, tokens of the two sides.

    Returns "tokens", "segments" int32 [B, S], "targets", "target_segments" int32 [B, T] and "weights" float32 [B, T]; a row of fewer
    than two tokens has no targets. Raises ConfigError for more spans than there are sentinels.
    """
    noise, spans = counts(real.sum(1), denoising)
    if spans.max(initial=0) > len(vocabulary.sentinels):
        raise ConfigError(
            f"a row has {spans.max()} spans and the tokenizer {len(vocabulary.sentinels)} sentinels: lower data.sequence_length, "
            "or raise denoising.span"
        )
    taken, number = draw_spans(real.sum(1), noise, spans, uniform(draws, tokens.shape[1]))
    first = taken & ~np.pad(taken, ((0, 0), (1, 0)))[:, :-1]
    values = np.stack([np.array(vocabulary.sentinels or (0,))[number], tokens], -1)
    source = _ended(values, np.stack([first, real & ~taken], -1), real.any(1), vocabulary.eos_id, sizes[0])
    return sides(source, _ended(values, np.stack([first, taken], -1), spans > 0, vocabulary.eos_id, sizes[1]))


def cut_prefix(
    tokens: np.ndarray, real: np.ndarray, vocabulary: Vocabulary, draws: np.ndarray, sizes: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Rows cut in two at a place of which each is equally likely: the second part is the target ("prefix LM", section 3.1.1).

    Arguments and columns are those of `corrupt_spans`; L is at most S and T.
    """
    n = real.sum(1, keepdims=True)
    cut = np.minimum(1 + (uniform(draws, 1) * (n - 1)).astype(int), n)
    before = np.arange(tokens.shape[1]) < cut
    source = _ended(tokens, real & before, real.any(1), vocabulary.eos_id, sizes[0])
    return sides(source, _ended(tokens, real & ~before, n[:, 0] > 1, vocabulary.eos_id, sizes[1]))


def draw_spans(n: np.ndarray, noise: np.ndarray, spans: np.ndarray, chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens are taken out, bool [B, L], and the number of the span in or before which each stands, int [B, L].

    A row is: tokens that stay, a span, tokens that stay, a span ... Both the lengths of the spans and those of the parts between
    them are drawn from all ways to write their sums as so many positive numbers, each equally likely.

    Args:
      n, noise, spans: int [B]. chance: float64 [B, L], uniform.
    """
    place = np.arange(chance.shape[1])
    n, noise, spans = (value[:, None] for value in (n, noise, spans))
    out = place >= n - noise  # the tokens that stay are numbered first, those taken out after them
    part = _parts(chance, 0, n - noise, spans) + _parts(chance, n - noise, n, spans)
    order = np.sort(np.where(place < n, 2 * part + out, 2 * chance.shape[1]), axis=1)
    return (order % 2 == 1) & (place < n), np.minimum(order // 2, np.maximum(spans - 1, 0))


def _parts(chance: np.ndarray, start: np.ndarray | int, stop: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The numbers 0 ... count - 1 of the parts that columns start ... stop - 1 of a row are cut into, 0 in all other columns."""
    place = np.arange(chance.shape[1])
    order = np.argsort(np.where((place > start) & (place < stop), chance, np.inf), axis=1, kind="stable")
    cuts = np.zeros(chance.shape, int)
    np.put_along_axis(cuts, order, (place < count - 1).astype(int), 1)
    return np.cumsum(cuts, 1) * ((place >= start) & (place < stop))


def _ended(values: np.ndarray, kept: np.ndarray, ends: np.ndarray, eos_id: int | None, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The kept values of [B, ...] and, where a row `ends`, the end: ids and segments int32 [B, width]."""
    rows = lambda array, last: np.concatenate([array.reshape(len(array), -1), last[:, None]], axis=1)
    kept = rows(kept, ends)
    ids = compact(rows(values, np.full(len(values), eos_id or 0)), kept, width)
    return ids, (np.arange(width) < kept.sum(1, keepdims=True)).astype(np.int32)
