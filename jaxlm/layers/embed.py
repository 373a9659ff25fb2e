"""Embedding tables, read by index on the way in and multiplied on the way out."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.sharding import gather, replicate, spec


def lookup(table: Float[Array, "V D"], ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """table[ids]; an id outside [0, V) gives NaN, never another row.

    The table is made whole first: XLA gathers badly from a divided one.
    """
    inside = jnp.where(ids < 0, table.shape[0], ids)  # a negative index would wrap around
    return jnp.asarray(replicate(table)).at[inside].get(mode="fill", fill_value=jnp.nan, out_sharding=spec("batch", None, None))


def unembed(hidden: Float[Array, "B T D"], table: Float[Array, "V D"]) -> Float[Array, "B T V"]:
    """Logits in float32: the products of every hidden state with every row of the output embedding."""
    table = gather(table.astype(hidden.dtype), "vocab", "embed")
    return jnp.einsum("btd,vd->btv", hidden, table, preferred_element_type=jnp.float32, out_sharding=spec("batch", None, "vocab"))


def check_length(tokens: Int[Array, "B T"], limit: int, key: str) -> None:
    """Refuse a row longer than the table of positions: its tail would be NaN."""
    if tokens.shape[1] > limit:
        raise ValueError(f"{tokens.shape[1]} tokens a row and the model has {key}={limit}: cut the rows or raise {key}")
