"""The two sides of an encoder-decoder: a pile of layers between two norms, and how the decoder looks at the encoder.

Read next: `models/transformer.py`.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.layers.block import HIDDEN, Layers
from jaxlm.layers.cache import layers_of
from jaxlm.layers.sight import Cache, Sight
from jaxlm.ops.attention import Mask
from jaxlm.ops.dropout import dropout, split


class Side(nn.Module):
    """Encoder or decoder: embedded tokens [B, T, D] to hidden states.

    Attributes:
      ln_in: norm of the embeddings, before their dropout; None: there is none.
      ln_out: norm of the last layer's states; None: there is none.
      dropout: of the embeddings.
      relative: the bias of relative positions, which all layers share (`layers/relative.py`).
      last_dropout: of the states that come out.
    """

    layers: Layers
    ln_in: nn.Module | None = None
    ln_out: nn.Module | None = None
    dropout: float = 0.0
    relative: nn.Module | None = None
    last_dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], sight: Sight, cache: Cache | None = None, key: Array | None = None):
        """Returns hidden states [B, T, D] and the layers of the cache."""
        keys = split(key, 3)
        x = x if self.ln_in is None else self.ln_in(x)
        x = dropout(x, self.dropout, keys[0], HIDDEN)
        if self.relative is not None:
            slots = x.shape[1] if cache is None else cache["valid"].shape[1]
            sight = dataclasses.replace(sight, bias=self.relative(x.shape[1], slots, sight.mask.offset))
        params = self.param("layers", self.layers.init, x, Sight(memory=x))
        x, layer_caches = self.layers.apply(params, x, sight, layers_of(cache), keys[1])
        x = x if self.ln_out is None else self.ln_out(x)
        return dropout(x, self.last_dropout, keys[2], HIDDEN), layer_caches


def see_memory(
    sight: Sight,
    cache: Cache | None,
    memory: Float[Array, "B S D"] | None,
    mask: Bool[Array, "B S"] | None,
    segments: Int[Array, "B S"] | None,
    target_segments: Int[Array, "B T"] | None,
) -> tuple[Sight, Cache | None]:
    """The decoder's sight with the encoder's states in it, and the cache, which remembers which of them are real.

    Raises ValueError where there are neither states nor a cache that has them, and where one side alone is packed.
    """
    if memory is None:
        if cache is None or "memory_mask" not in cache:
            raise ValueError("the decoder has no encoder's states: give tokens, memory=, or a cache that an earlier call has filled")
        return dataclasses.replace(sight, memory_mask=Mask(keys=cache["memory_mask"])), cache
    if (segments is None) != (target_segments is None):
        raise ValueError("packed rows need both segments and target_segments: which target belongs to which text?")
    if cache is not None:
        cache = {**cache, "memory_mask": jnp.ones_like(memory[..., 0], bool) if mask is None else mask}
    seen = Mask(keys=mask, segments=target_segments, key_segments=segments)
    return dataclasses.replace(sight, memory=memory, memory_mask=seen), cache
