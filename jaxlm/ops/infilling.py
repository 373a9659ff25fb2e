"""BART's noise, on the host: sentences change places, spans become one mask each, and the decoder is to write the row as it was.

Lewis et al. 2020, section 2.2. Control tokens stay where they are and no span or sentence goes beyond one: they bound documents,
as segments do. Functions of the rows' draws alone; NumPy only. Read first: `noise.py`. Read next: `tasks/denoising.py`.
"""

import numpy as np

from jaxlm.config import Denoising
from jaxlm.ops.noise import Vocabulary, compact, sides, uniform


def infill(
    tokens: np.ndarray, segments: np.ndarray, vocabulary: Vocabulary, draws: np.ndarray, denoising: Denoising, sizes: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Rows under noise as sources, and the rows themselves as targets; both end with the end-of-text token.

    A noised row is never longer than it was: an inserted mask takes room that a span of several tokens has left.

    Args:
      tokens: int32 [B, L]. segments: int32 [B, L], 0 is padding, on the right; L is less than both sizes.
      draws: uint64 [B].
      sizes: S and T, tokens of the two sides.

    Returns "tokens", "segments" int32 [B, S], "targets", "target_segments" int32 [B, T] and "weights" float32 [B, T].
    """
    B, L = tokens.shape
    spans = most_spans(L, denoising)
    widths = (2 * L, spans, L + spans, L, 2 * L + 2)
    shuffle, length, place, single, kind = np.split(uniform(draws, sum(widths)), np.cumsum(widths)[:-1], axis=1)
    real = segments > 0
    edge = ~real | vocabulary.special[tokens] & (tokens != (-1 if vocabulary.unk_id is None else vocabulary.unk_id))  # unknown: a word
    noised = permute_sentences(tokens, segments, edge, vocabulary, shuffle, denoising.permute)
    taken, heads, inserted = draw_masks(~edge, segments, denoising, length, place)
    heads |= ~taken & ~edge & (single < denoising.masked)
    ends, last, eos = real.any(1), segments.max(1), np.full(B, vocabulary.eos_id or 0)
    own = _beside(np.where(real, segments, last[:, None]), last)
    both = lambda mask, other: np.stack([mask, other], -1).reshape(B, -1)  # at each place: an inserted mask, then what stands there
    masked, kept = both(inserted, _beside(heads, False)), both(inserted, _beside(real & (heads | ~taken), ends))
    ids = np.where(masked, _masks(kind, vocabulary, denoising.random), _beside(noised, eos).repeat(2, axis=1))
    whole = _beside(real, ends)
    source = compact(ids, kept, sizes[0]), compact(own.repeat(2, axis=1), kept, sizes[0])
    return sides(source, (compact(_beside(tokens, eos), whole, sizes[1]), compact(own, whole, sizes[1])))


def permute_sentences(
    tokens: np.ndarray, segments: np.ndarray, edge: np.ndarray, vocabulary: Vocabulary, chance: np.ndarray, share: float
) -> np.ndarray:
    """Rows in which a share of the sentences of each document change places at random.

    A sentence ends after a piece that ends with . ! ? or their like, where the next one begins a word (a tokenizer that does not
    tell so: wherever such a piece is), and with its document.

    Args:
      tokens, segments: int32 [B, L]. edge: bool [B, L], what stays in its place and bounds documents.
      chance: float64 [B, 2 L], uniform.

    Returns int32 [B, L].
    """
    new = np.ones(tokens.shape, bool)
    new[:, 1:] = edge[:, 1:] | edge[:, :-1] | (segments[:, 1:] != segments[:, :-1])
    begins = new.copy()
    if vocabulary.ends is not None:
        word = True if vocabulary.continues is None else ~vocabulary.continues[tokens[:, 1:]]
        begins[:, 1:] |= vocabulary.ends[tokens[:, :-1]] & word
    first = np.flatnonzero(begins)
    document, chosen, order = (np.cumsum(new.ravel())[first], *(part.ravel()[first] for part in np.split(chance, 2, axis=1)))
    places = np.flatnonzero(chosen < share)
    moved = np.arange(len(first))
    moved[places[np.lexsort((order[places], document[places]))]] = places
    return tokens.ravel()[np.argsort(moved[np.cumsum(begins.ravel()) - 1], kind="stable")].reshape(tokens.shape)


def draw_masks(
    free: np.ndarray, segments: np.ndarray, denoising: Denoising, length: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spans of Poisson lengths until density * n of a row's n free tokens are in one (the last is cut), laid at random.

    Every order of the spans and of the tokens outside is equally likely. Of a span that a bound runs through each part is one.

    Args:
      free: bool [B, L]. segments: int32 [B, L].
      length: float64 [B, D], place: float64 [B, L + D], uniform; D is `most_spans`.

    Returns bool: which tokens are in spans and which of these stand first, [B, L], and before which place a mask is inserted,
    [B, L + 1], by one or more spans of length 0; there are no more of them than tokens vanish.
    """
    n = free.sum(1, keepdims=True)
    sizes = np.searchsorted(poisson(denoising.span), length)
    noise, before = np.round(denoising.density * n).astype(int), np.cumsum(sizes, 1) - sizes
    used = before < noise
    sizes = np.where(used, np.minimum(sizes, noise - before), 0)
    width, spanned = _laid(n, sizes, used, place)
    owner = np.repeat(np.arange(width.size), width.ravel())  # of each free token, row by row
    slot, taken = np.full(free.shape, -1), np.zeros_like(free)
    slot[free], taken[free] = owner, spanned.ravel()[owner]
    heads = taken.copy()
    heads[:, 1:] &= (slot[:, 1:] != slot[:, :-1]) | (segments[:, 1:] != segments[:, :-1])
    empty = spanned & (width == 0)
    rank = np.argsort(np.argsort(np.where(empty, place, np.inf), axis=1), axis=1)
    empty &= rank < (taken & ~heads).sum(1, keepdims=True)  # where not all have room, any of them
    return taken, heads, _inserted(free, empty, np.cumsum(width, 1))


def most_spans(length: int, denoising: Denoising) -> int:
    """How many lengths are drawn for a row: twice as many as it takes on average, and more."""
    return int(2 * denoising.density * length / denoising.span) + 16


def poisson(mean: float) -> np.ndarray:
    """The probabilities of at most 0, 1, 2 ... under Poisson's distribution, up to far behind its mean.

    >>> poisson(1.0)[:3].round(4).tolist()
    [0.3679, 0.7358, 0.9197]
    """
    k = np.arange(1, int(mean + 12 * mean**0.5) + 30)
    return np.cumsum(np.exp(np.cumsum(np.concatenate([[-mean], np.log(mean / k)]))))


def _laid(n: np.ndarray, sizes: np.ndarray, used: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The spans and the other tokens in a random order: the width of each of these slots, and which are spans; [B, L + D]."""
    slots = n - sizes.sum(1, keepdims=True) + used.sum(1, keepdims=True)
    inside = np.arange(place.shape[1]) < slots
    where = np.argsort(np.where(inside, place, np.inf), axis=1, kind="stable")[:, : used.shape[1]]
    width, spanned = inside.astype(int), np.zeros_like(inside)
    np.put_along_axis(width, where, np.where(used, sizes, np.take_along_axis(width, where, 1)), 1)
    np.put_along_axis(spanned, where, used, 1)
    return width, spanned


def _inserted(free: np.ndarray, empty: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Before which places the empty slots insert a mask, bool [B, L + 1]; `ends`: the free tokens up to each slot's end."""
    n, found = free.sum(1), np.zeros((len(free), free.shape[1] + 1), bool)
    row, slot = np.nonzero(empty)
    token, columns = ends[row, slot], np.nonzero(free)[1]
    last = token == n[row]  # behind the last free token
    found[row, columns[(np.cumsum(n) - n)[row] + token - last] + last] = True
    return found


def _beside(rows: np.ndarray, last: object) -> np.ndarray:
    """[B, L + 1]: rows with one more column."""
    return np.concatenate([rows, np.broadcast_to(np.asarray(last, rows.dtype), len(rows))[:, None]], axis=1)


def _masks(chance: np.ndarray, vocabulary: Vocabulary, random: float) -> np.ndarray:
    """The mask token or, for this share, any ordinary one: int [B, N] from uniform numbers."""
    if not random:
        return np.full(chance.shape, vocabulary.mask_id or 0)
    pick = np.minimum(chance / random, 1 - 1e-9) * len(vocabulary.ordinary)
    return np.where(chance < random, vocabulary.ordinary[pick.astype(int)], vocabulary.mask_id or 0)
