"""What every model returns, and what every family tells of its sizes."""

import dataclasses
import functools
from typing import Any

import jax
from jaxtyping import Array, Bool, Float, Int

# The arguments of every model's call.
Ids = Int[Array, "B T"] | None
Flags = Bool[Array, "B T"] | None
Key = Array | None


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["hidden", "logits", "pooled", "relation", "memory", "cache"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class Output:
    """Under jit, what is not used is not computed: a training step that takes `hidden` never makes the logits.

    Attributes:
      hidden: the last layer's states, after the last norm; of the decoder where there are two stacks and targets.
      logits: of the task's head; None for "features".
      pooled: BERT's pooled first token.
      relation: logits [B, 2] of the second head of "pretraining": do the two texts follow each other?
      memory: the encoder's hidden states, of encoder-decoders.
      cache: with the keys and values of this call, where one came in.
    """

    hidden: Float[Array, "B T D"]
    logits: Float[Array, "..."] | None = None
    pooled: Float[Array, "B D"] | None = None
    relation: Float[Array, "B 2"] | None = None
    memory: Float[Array, "B S D"] | None = None
    cache: Any = None


@dataclasses.dataclass(frozen=True)
class Dims:
    """The sizes of a model that meshes, caches and estimates ask for; `layers` and `heads` are the decoder's where there are two stacks.

    `context` is the most tokens a row may have; None: any number.
    """

    embed: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    mlp: int
    context: int | None
