"""What the layers of one call may look at: one value that goes from the model to every attention.

`decoder_sight` and `encoder_sight` make it from the arguments that every family takes. Read next: `layers/attention.py`.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.ops import positions as place
from jaxlm.ops.attention import Mask

Cache = dict[str, Any]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["mask", "rotation", "bias", "memory", "memory_mask", "ring"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class Sight:
    """Attributes:
    mask: which keys a query sees.
    rotation: cosines and sines of rotary positions, each [B, T, R / 2] (`ops.rotary`).
    bias: added to the attention logits (T5's relative positions).
    memory: the encoder's hidden states, for cross-attention; None: its keys and values lie in the cache.
    memory_mask: which of them are seen.
    ring: which slots a windowed layer sees, where its cache is folded (`layers/ring.py`).
    """

    mask: Mask = Mask()
    rotation: tuple[Float[Array, "B T half"], Float[Array, "B T half"]] | None = None
    bias: Float[Array, "#B #N T S"] | None = None
    memory: Float[Array, "B S D"] | None = None
    memory_mask: Mask = Mask()
    ring: Mask | None = None

    def but(self, window: int | None = None, **changes: Any) -> "Sight":
        """The same with some parts replaced; `window` replaces the mask's."""
        mask = dataclasses.replace(self.mask, window=window) if window is None or self.ring is None else self.ring
        return dataclasses.replace(self, **{"mask": mask, **changes})


def refuse(family: str, **given: Any) -> None:
    """Refuse arguments that a family has no use for; None is not given. Raises ValueError, naming the first."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{family} has no use for {name}: leave it out")


def encoder_sight(
    tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"] | None,
    segments: Int[Array, "B T"] | None,
    positions: Int[Array, "B T"] | None,
) -> tuple[Sight, Int[Array, "B T"]]:
    """Everyone sees every real token of the own segment; where each token stands, counted over the real ones."""
    if positions is None:
        positions = _positions(tokens, mask, segments)
    return Sight(Mask(keys=mask, segments=segments)), positions


def decoder_sight(
    tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"] | None,
    segments: Int[Array, "B T"] | None,
    positions: Int[Array, "B T"] | None,
    cache: Cache | None,
) -> tuple[Sight, Int[Array, "B T"], Cache | None]:
    """Everyone sees what stands before; where each token stands; and the cache, its slots marked."""
    if cache is None:
        if positions is None:
            positions = _positions(tokens, mask, segments)
        return Sight(Mask(causal=True, keys=mask, segments=segments)), positions, None
    if segments is not None:
        raise ValueError("a cache holds one text a row: packed segments cannot be continued")
    real = jnp.ones_like(tokens, bool) if mask is None else mask
    if positions is None:
        positions = cache["valid"].sum(1, dtype=jnp.int32)[:, None] + place.from_mask(real)
    valid = jax.lax.dynamic_update_slice_in_dim(cache["valid"], real, cache["index"], axis=1)
    sight, cache = Sight(Mask(causal=True, keys=valid, offset=cache["index"])), {**cache, "valid": valid}
    sight, cache = (sight, cache) if "ring" not in cache else _with_ring(sight, real, cache)
    return sight, positions, cache


def _with_ring(sight, real, cache):
    if real.shape[1] > 1:
        raise ValueError("a cache whose windows are folded takes one token at a time")
    slot = cache["index"] % cache["ring"].shape[1]
    ring = jax.lax.dynamic_update_slice_in_dim(cache["ring"], real, slot, axis=1)
    return dataclasses.replace(sight, ring=Mask(keys=ring, offset=slot)), {**cache, "ring": ring}


def _positions(tokens, mask, segments):
    if segments is not None:
        return place.from_segments(segments)
    if mask is not None:
        return place.from_mask(mask)
    return jnp.zeros_like(tokens) + jnp.arange(tokens.shape[1], dtype=tokens.dtype)
