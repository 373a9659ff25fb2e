"""What BERT and its descendants share: their sight, a layer's parts, the pooler, and the end of the head over the vocabulary.

All are called inside a model. Read next: `models/bert.py`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.config import Compute
from jaxlm.layers.attention import Attention
from jaxlm.layers.heads import Transform, VocabularyLogits, first_token
from jaxlm.layers.mlp import Mlp
from jaxlm.layers.norm import LayerNorm
from jaxlm.layers.sight import Cache, Sight, decoder_sight, encoder_sight, refuse


def either_sight(
    decoder: bool,
    tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"] | None,
    segments: Int[Array, "B T"] | None,
    positions: Int[Array, "B T"] | None,
    cache: Cache | None,
) -> tuple[Sight, Int[Array, "B T"], Cache | None]:
    """`decoder_sight` of a BERT that is one (`is_decoder`), else `encoder_sight`. Raises ValueError for an encoder's cache."""
    if decoder:
        return decoder_sight(tokens, mask, segments, positions, cache)
    refuse("an encoder (is_decoder=False)", cache=cache)
    return *encoder_sight(tokens, mask, segments, positions), None


def layer_parts(
    sizes: Any, activation: str, epsilon: float, attention_dropout: float, init_kernel: Any, compute: Compute
) -> tuple[Attention, LayerNorm, Mlp, LayerNorm]:
    """What a layer is made of, in a `PostBlock`'s order.

    Args:
      sizes: the model's `Dims`.
      epsilon: of both norms.
    """
    free = {"dtype": jnp.dtype(compute.dtype), "parent": None}
    parts = {"dropout": attention_dropout, "init_kernel": init_kernel, "implementation": compute.attention}
    attn = Attention(sizes.heads, sizes.head_size, **parts, **free)
    mlp = Mlp(sizes.mlp, activation, init_kernel, **free)
    return attn, LayerNorm(epsilon, **free), mlp, LayerNorm(epsilon, **free)


def pool(
    model: nn.Module, tasks: tuple[str, ...], hidden: Float[Array, "B T D"], init_kernel: Any, segments: Int[Array, "B T"] | None = None
) -> Float[Array, "..."] | None:
    """tanh(first token W + b) (Devlin et al. 2019, section 3.2), [B, D]; of packed rows [B, T, D], for every token its own text's.

    None where the task is not one of `tasks`, which read it.

    A checkpoint may come without a pooler: then there is none, as its parameters tell.
    """
    if model.task not in tasks or not (model.is_initializing() or model.has_variable("params", "pooler")):
        return None
    return Transform(hidden.shape[-1], "tanh", None, init_kernel, hidden.dtype, name="pooler")(first_token(hidden, segments))


def tied_or_own_table(model: nn.Module, params: dict) -> Float[Array, "V E"]:
    """The output embedding, a model's `output_table`: logits are transform(hidden) @ table^T + bias."""
    return params["word"] if model.config.tie_word_embeddings else params["decoder"]["table"]


def chosen(hidden: Float[Array, "B T D"], places: Int[Array, "B P"] | None) -> Float[Array, "B P D"]:
    """The states at some places of every row, where a masked language model's head is to work; None: at all."""
    if places is None:
        return hidden
    return jax.vmap(lambda row, at: row[at])(hidden, places)


def vocabulary_logits(
    x: Float[Array, "B T E"], word: Float[Array, "V E"], tied: bool, init_table: Any, bias: bool = True, spare: bool = False
) -> Float[Array, "B T V"]:
    """x table^T + bias, by the table of words where the two are tied, else by one of its own.

    Args:
      spare: see `VocabularyLogits`; of an own table only.
    """
    if tied:
        return VocabularyLogits(bias=bias, name="vocabulary")(x, word)
    return VocabularyLogits(word.shape[0], init_table, bias, spare, name="decoder")(x)
