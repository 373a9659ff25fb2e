"""Prompts on their way to the device: checked, pushed to one side, filled up to buckets so that near lengths share a program.

Read next: `inference/loop.py`.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int

from jaxlm.errors import ConfigError
from jaxlm.inference.settings import Settings
from jaxlm.models import dims, has_decoder
from jaxlm.ops.special_ids import start_id
from jaxlm.sharding import mesh_size

BUCKETS = tuple(sorted({int(round(32 * 2 ** (i / 2) / 8)) * 8 for i in range(24)}))
SLOTS = 128  # of the smallest cache; a larger one has twice as many, or four times ...
DEFAULT_NEW = 64
ANY = 2**30  # tokens: the context of a model without a limit
Rows = Int[np.ndarray, "B T"]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["tokens", "mask", "source", "source_mask"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Prompts:
    """What is read before the first new token.

    Attributes:
      tokens, mask: of the decoder, [B, T], real tokens on the right.
      source, source_mask: of the encoder, [B, S], real tokens on the left; None: there is no encoder.
    """

    tokens: Rows
    mask: Bool[np.ndarray, "B T"]
    source: Rows | None = None
    source_mask: Bool[np.ndarray, "B S"] | None = None


def bucket(length: int, limit: int) -> int:
    """The nearest bucket length at or above `length`, at most `limit`."""
    return min(next((size for size in BUCKETS if size >= length), limit), limit)


def bucket_rows(count: int) -> int:
    """How many rows are computed for `count`: 1, 2, 4, 8, 16, 24 ..., and a multiple of what the mesh divides them into.

    >>> [bucket_rows(n) for n in (1, 3, 5, 17)]
    [1, 4, 8, 24]
    """
    rows = next((size for size in (1, 2, 4, 8) if size >= count), -(-count // 8) * 8)
    mesh = jax.sharding.get_abstract_mesh()
    parts = 1 if mesh.empty else mesh_size(mesh, "batch")
    return -(-rows // parts) * parts


def capacity(slots: int) -> int:
    """The slots of the smallest cache with room for these.

    >>> capacity(100), capacity(129)
    (128, 256)
    """
    size = SLOTS
    while size < slots:
        size *= 2
    return size


def read_prompts(
    model: Any, tokens: Int[np.ndarray, "B T"], mask: Bool[np.ndarray, "B T"] | None, settings: Settings
) -> tuple[Prompts, int, int]:
    """Prompts for the device, how many rows of them are real, and how many new tokens there may be.

    Raises:
      ConfigError: an empty prompt, ids outside the vocabulary, a prompt and its continuation longer than the model, or
        seeds for another number of rows.
    """
    tokens, mask = _rows(tokens, mask)
    _check_ids(tokens[mask], model.config.vocab_size)
    wanted, seeds = len(tokens) * settings.num_return_sequences, settings.seed
    if isinstance(seeds, tuple) and len(seeds) != wanted:
        raise ConfigError(f"{len(seeds)} seeds for {wanted} rows: give one number, or one for each row of the result")
    limit, longest = dims(model.config).context or ANY, int(mask.sum(1).max())
    new, rows = new_tokens(model, settings, longest), bucket_rows(len(tokens))
    if not has_decoder(model):
        return Prompts(*_pushed(tokens, mask, rows, bucket(longest, limit), right=True)), len(tokens), new
    start = np.full((rows, 1), start_token(model, settings), np.int32)
    source = _pushed(tokens, mask, rows, bucket(longest, limit), right=False)
    return Prompts(start, np.ones_like(start, bool), *source), len(tokens), new


def _rows(tokens, mask):
    """Both as arrays of one shape; raises ConfigError where they are no rows of ids."""
    try:
        tokens = np.asarray(tokens)
    except ValueError as error:
        raise ConfigError("rows of unlike lengths: fill them up with any token, and say by mask= which tokens are real") from error
    mask = np.ones(tokens.shape, bool) if mask is None else np.asarray(mask, bool)
    if tokens.ndim != 2 or mask.shape != tokens.shape:
        raise ConfigError(f"tokens {list(tokens.shape)} and mask {list(mask.shape)}: both are [rows, length]")
    if 0 in tokens.shape or not mask.any(1).all():
        raise ConfigError("an empty prompt: give at least one token a row")
    if tokens.dtype.kind not in "iu":
        raise ConfigError(f"tokens are {tokens.dtype}: ids are integers; a text goes to generate_text")
    return tokens, mask


def _check_ids(ids, vocabulary):
    if ids.min() < 0 or ids.max() >= vocabulary:
        raise ConfigError(f"a prompt holds a token outside the vocabulary of {vocabulary}: is it of another tokenizer?")


def room(model: Any, length: int) -> int:
    """How many new tokens a model has room for after a prompt of so many; a decoder over an encoder begins afresh."""
    limit = dims(model.config).context
    return ANY if limit is None else limit if has_decoder(model) else limit - length


def new_tokens(model: Any, settings: Settings, longest: int) -> int:
    """New tokens at most after prompts whose longest has so many; asked for by number or by the length of the whole.

    Raises ConfigError where the model has not the room.
    """
    over, limit, free = has_decoder(model), dims(model.config).context or ANY, room(model, longest)
    if over and longest > limit:
        raise ConfigError(f"{longest} tokens of text exceed the encoder's {limit}: cut the text")
    asked = settings.max_new_tokens, _whole(settings, 1 if over else longest)
    new = min((number for number in asked if number is not None), default=min(DEFAULT_NEW, max(free, 1)))
    if new > free and over:
        name = "max_new_tokens" if new == asked[0] else "max_length"
        raise ConfigError(f"{new} new tokens exceed the decoder's {limit} positions: lower {name}")
    if new > free:
        raise ConfigError(f"{longest} tokens of prompt and {new} new ones exceed the model's {limit}: cut one of them")
    return new


def _whole(settings: Settings, before: int) -> int | None:
    """What `max_length` leaves after the tokens before; None: it is not set."""
    if settings.max_length is None:
        return None
    if settings.max_length < before:
        raise ConfigError(f"max_length={settings.max_length} is less than the {before} tokens of prompt: raise it, or cut the prompt")
    return settings.max_length - before


def _pushed(tokens, mask, rows, width, right):
    """Real tokens together on one side; rows that only fill up repeat the first."""
    padded, visible = np.zeros((rows, width), np.int32), np.zeros((rows, width), bool)
    for i in range(rows):
        kept = tokens[i][mask[i]] if i < len(tokens) else tokens[0][mask[0]]
        place = slice(width - len(kept), width) if right else slice(0, len(kept))
        padded[i, place], visible[i, place] = kept, True
    return padded, visible


def start_token(model: Any, settings: Settings = Settings()) -> int:
    """The token that a decoder over an encoder reads first. Raises ConfigError where nothing says which."""
    return start_id(model.config, settings.decoder_start_token_id)
