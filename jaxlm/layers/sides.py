"""What encoder-decoders are put together of: sides (layers between two norms), the decoder's look at the encoder, heads.

`make_side` and `label_logits` read the keys that the configurations of BART and its relatives have in common. Read next:
`models/transformer.py`, `models/bart.py`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.config import Compute
from jaxlm.layers.attention import Attention, CrossAttention
from jaxlm.layers.block import HIDDEN, Block, Layers
from jaxlm.layers.blocks import CrossBlock, PostBlock, PostCrossBlock
from jaxlm.layers.cache import layers_of
from jaxlm.layers.heads import Classifier, DeepClassifier, last_token
from jaxlm.layers.linear import Constant, Normal
from jaxlm.layers.mlp import Mlp
from jaxlm.layers.norm import LayerNorm
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


@dataclasses.dataclass(frozen=True)
class Style:
    """Where the norms of a side are, and how its matrices are drawn.

    Attributes:
      pre_norm: norms before attention and mlp, not after the sum.
      ln_in, ln_out: whether the embeddings, and the last layer's states, have a norm.
      epsilon: of all norms.
      init_attention, init_mlp: initializers.
    """

    pre_norm: bool
    ln_in: bool = False
    ln_out: bool = False
    epsilon: float = 1e-5
    init_attention: Any = Normal(0.02)
    init_mlp: Any = Normal(0.02)


def make_side(name: str, config: Any, style: Style, compute: Compute) -> Side:
    """The "encoder" or "decoder" of a configuration; to be called inside the model.

    Its blocks are values: `parent=None` keeps Flax from making them parts of the module that is being called.
    """
    free = {"dtype": jnp.dtype(compute.dtype), "parent": None}
    count, heads, width = (getattr(config, f"{name}_{key}") for key in ("layers", "attention_heads", "ffn_dim"))
    ln = lambda: LayerNorm(style.epsilon, **free)
    attention = lambda kind: kind(
        heads, config.d_model // heads, None, config.attention_dropout, style.init_attention, implementation=compute.attention, **free
    )
    mlp = Mlp(width, config.activation_function, style.init_mlp, dropout=config.activation_dropout, **free)
    block = make_block(name, style.pre_norm, attention, ln, mlp, config.dropout)
    layers = Layers((block,) * count, compute.layout, compute.remat, skip=getattr(config, f"{name}_layerdrop"))
    return Side(layers, ln() if style.ln_in else None, ln() if style.ln_out else None, config.dropout, name=name)


def make_block(name: str, pre_norm: bool, attention: Callable, ln: Callable, mlp: nn.Module, dropout: float) -> nn.Module:
    """A block of the "encoder" or "decoder".

    Args:
      attention: makes one of this class. ln: makes a norm.
    """
    parts = {"attn": attention(Attention), "ln_1": ln(), "mlp": mlp, "ln_2": ln(), "dropout": dropout, "parent": None}
    if name == "encoder":
        return (Block if pre_norm else PostBlock)(**parts)
    return (CrossBlock if pre_norm else PostCrossBlock)(**parts, cross=attention(CrossAttention), ln_cross=ln())


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


LABELS = ("sequence-classification", "question-answering")  # tasks that read the text on both sides where there are no targets


def label_logits(
    task: str,
    config: Any,
    hidden: Float[Array, "B T D"],
    tokens: Int[Array, "B S"] | None,
    segments: Int[Array, "B S"] | None,
    key: Array | None,
) -> Float[Array, "..."] | None:
    """The heads of BART and mBART over labels; to be called inside the model.

    "sequence-classification": [B, labels] from the decoder's state at each text's last end of sequence; of packed rows
    [B, T, labels]. "question-answering": start and end, [B, T, 2]. Others: None. Raises ValueError where the targets cannot be a
    text's: then no state is at its end.
    """
    free = {"init_kernel": Normal(config.init_std), "dtype": hidden.dtype}
    if task == "question-answering":
        return Classifier(2, name="span", **free)(hidden)
    if task != "sequence-classification":
        return None
    if tokens is None or tokens.shape != hidden.shape[:2]:
        raise ValueError("sequence-classification reads the decoder where a text ends: give no targets, or as many as tokens")
    summary = last_token(hidden, tokens == config.eos_token_id, segments)
    return DeepClassifier(config.num_labels, "tanh", config.classifier_dropout, name="classifier", **free)(summary, key)


def fixed_bias(model: nn.Module, size: int) -> Float[Array, "V"] | None:
    """The model's "final_logits_bias", which takes no gradient, as in Hugging Face's models; None where a checkpoint has none.

    To be called inside the model.
    """
    if not (model.is_initializing() or model.has_variable("params", "final_logits_bias")):
        return None
    return jax.lax.stop_gradient(model.param("final_logits_bias", Constant(0.0), (size,), jnp.float32, ("vocab",)))
