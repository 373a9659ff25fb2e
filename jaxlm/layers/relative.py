"""A learned bias of attention logits by relative position (Raffel et al. 2020, section 2.1)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.layers.linear import Normal
from jaxlm.ops.relative import buckets
from jaxlm.sharding import replicate, spec


class RelativeBias(nn.Module):
    """A table [count, N]: a number for each bucket of distances and each head; all layers of a side share it."""

    heads: int
    count: int
    max_distance: int
    bidirectional: bool
    init_table: Any = Normal(0.02)

    @nn.compact
    def __call__(self, queries: int, keys: int, offset: Any = None) -> Float[Array, "1 N T S"]:
        """For T queries, the first of them at `offset` (None: 0), and S keys."""
        table = self.param("table", self.init_table, (self.count, self.heads), jnp.float32, (None, "heads"))
        sizes = {"count": self.count, "max_distance": self.max_distance, "bidirectional": self.bidirectional}
        near = buckets(queries, keys, 0 if offset is None else offset, **sizes)
        bias = jnp.asarray(replicate(table)).at[near].get(out_sharding=spec(None, None, "heads"))
        return bias.transpose(2, 0, 1)[None]
