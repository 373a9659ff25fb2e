"""Embedding tables, read by index on the way in and multiplied on the way out."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.errors import DataError
from jaxlm.ops.turned import by_rows, pays
from jaxlm.sharding import gather, replicate, spec


def lookup(table: Float[Array, "V D"], ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """table[ids]; an id outside [0, V) is refused where ids are at hand, and gives NaN inside jit: never another row.

    The table is made whole first: XLA gathers badly from a divided one.

    Raises DataError outside jit, with the first such id and its place.
    """
    _check_ids(ids, table.shape[0])
    inside = jnp.where(ids < 0, table.shape[0], ids)  # a negative index would wrap around
    return jnp.asarray(replicate(table)).at[inside].get(mode="fill", fill_value=jnp.nan, out_sharding=spec("batch", None, None))


def _check_ids(ids: Int[Array, "B T"], rows: int) -> None:
    if isinstance(ids, jax.core.Tracer) or not getattr(ids, "is_fully_addressable", True):
        return
    ids = np.asarray(ids)
    wrong = np.argwhere((ids < 0) | (ids >= rows))
    if len(wrong):
        place = ", ".join(map(str, wrong[0]))
        raise DataError(f"id {ids[tuple(wrong[0])]} at [{place}] is outside the {rows} rows of its table: is it of another tokenizer?")


def unembed(
    hidden: Float[Array, "B T D"], table: Float[Array, "V D"], softcap: float | None = None, bias: Float[Array, "V"] | None = None
) -> Float[Array, "B T V"]:
    """Logits in float32: the products of every hidden state with every row of the output embedding.

    Args:
      softcap: logits become softcap * tanh(logits / softcap) (Gemma 2).
      bias: is added to the products.
    """
    table = gather(table.astype(hidden.dtype), "vocab", "embed")
    if pays(hidden.shape[0] * hidden.shape[1], hidden.dtype):
        logits = by_rows(hidden.reshape(-1, hidden.shape[2]), table).reshape(*hidden.shape[:2], -1)
    else:
        logits = jnp.einsum("btd,vd->btv", hidden, table, preferred_element_type=jnp.float32, out_sharding=spec("batch", None, "vocab"))
    logits = logits if bias is None else logits + gather(bias, "vocab").astype(jnp.float32)
    return logits if softcap is None else softcap * jnp.tanh(logits / softcap)


def check_length(tokens: Int[Array, "B T"], limit: int, key: str) -> None:
    """Refuse a row longer than the table of positions: its tail would be NaN."""
    if tokens.shape[1] > limit:
        raise ValueError(f"{tokens.shape[1]} tokens a row and the model has {key}={limit}: cut the rows or raise {key}")
