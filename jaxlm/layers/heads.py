"""What stands on top of a model for a task: from hidden states to logits.

A model reads its `task` at one place and calls one of these. Logits are float32.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.layers.embed import unembed
from jaxlm.layers.linear import Constant, Linear, Normal
from jaxlm.layers.mlp import activation
from jaxlm.ops.dropout import dropout, split
from jaxlm.ops.positions import from_segments
from jaxlm.overrides import choose
from jaxlm.sharding import gather, spec


class Transform(nn.Module):
    """norm(activation(x W + b)): what masked-language-model heads do before the output embedding (Devlin et al. 2019, appendix)."""

    width: int
    activation: str
    norm: nn.Module | None = None
    init_kernel: Any = Normal(0.02)
    dtype: Any = jnp.float32
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... E"]:
        dense = Linear((self.width,), ("embed", None), self.bias, self.init_kernel, self.dtype, name="dense")
        x = activation(self.activation)(dense(x))
        return x if self.norm is None else self.norm(x)


class VocabularyLogits(nn.Module):
    """x table^T + bias: logits over the vocabulary from an embedding table, with a bias of its own.

    Attributes:
      rows: V of a table of its own, where none is given (untied embeddings).
      spare: keep a second bias without a use, as Hugging Face's untied BERT, RoBERTa and ALBERT do.
    """

    rows: int = 0
    init_kernel: Any = Normal(0.02)
    bias: bool = True
    spare: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], table: Float[Array, "V D"] | None = None) -> Float[Array, "B T V"]:
        if table is None:
            table = self.param("table", self.init_kernel, (self.rows, x.shape[-1]), jnp.float32, ("vocab", "embed"))
        if self.spare:
            self.param("spare", Constant(0.0), (table.shape[0],), jnp.float32, ("vocab",))
        logits = unembed(x, table)
        if not self.bias:
            return logits
        bias = self.param("bias", Constant(0.0), (table.shape[0],), jnp.float32, ("vocab",))
        return logits + gather(bias, "vocab").astype(jnp.float32)


class Classifier(nn.Module):
    """x W + b over a few labels, in float32, after dropout."""

    labels: int
    dropout: float = 0.0
    bias: bool = True
    init_kernel: Any = Normal(0.02)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... D"], key: Array | None = None) -> Float[Array, "... labels"]:
        x = dropout(x, self.dropout, key, ("batch", *[None] * (x.ndim - 1)))
        out = Linear((self.labels,), ("embed", None), self.bias, self.init_kernel, self.dtype, name="out")
        return out(x).astype(jnp.float32)


class DeepClassifier(nn.Module):
    """A classifier over activation(x W + b), dropout in front of either matrix (RoBERTa, ELECTRA)."""

    labels: int
    activation: str
    dropout: float = 0.0
    init_kernel: Any = Normal(0.02)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... D"], key: Array | None = None) -> Float[Array, "... labels"]:
        first, last = split(key, 2)
        free = {"init_kernel": self.init_kernel, "dtype": self.dtype}
        x = dropout(x, self.dropout, first, ("batch", *[None] * (x.ndim - 1)))
        x = activation(self.activation)(Linear((x.shape[-1],), ("embed", None), name="dense", **free)(x))
        x = dropout(x, self.dropout, last, ("batch", *[None] * (x.ndim - 1)))
        return Linear((self.labels,), ("embed", None), name="out", **free)(x).astype(jnp.float32)


VOCABULARY = ("masked-lm", "causal-lm", "pretraining")  # tasks whose logits are over the vocabulary
POOLED = ("features", "pretraining", "next-sentence", "sequence-classification", "multiple-choice")  # those that read BERT's pooler


@dataclasses.dataclass(frozen=True)
class EncoderHeads:
    """The heads over labels that every encoder has; to be called inside the model.

    Attributes:
      labels: of both classifications.
      dropout: before the matrix "classifier"; span_dropout: before the matrix "span".
      choices: [B], or [B, C] for multiple choice.
    """

    labels: int
    dropout: float
    choices: tuple[int, ...]
    init_kernel: Any = Normal(0.02)
    span_dropout: float = 0.0

    def logits(self, task: str, hidden: Float[Array, "B T D"], summary: Float[Array, "..."] | None, key: Array | None) -> Array | None:
        """Sequence classification [B, labels], multiple choice [B, C] and next sentence [B, 2] from the rows' summaries; token
        classification [B, T, labels] and question answering (start and end) [B, T, 2] from the hidden states; "features": None.
        Summaries of packed rows, [B, T, D], give [B, T, labels], [B, T] and [B, T, 2]."""
        free = {"init_kernel": self.init_kernel, "dtype": hidden.dtype}
        classify = lambda count, x: Classifier(count, self.dropout, name="classifier", **free)(x, key)
        match task:
            case "sequence-classification":
                return classify(self.labels, summary)
            case "token-classification":
                return classify(self.labels, hidden)
            case "multiple-choice":
                return classify(1, summary).reshape(self.choices if summary.ndim == 2 else summary.shape[:2])
            case "next-sentence":
                return Classifier(2, name="relation", **free)(summary)
            case "question-answering":
                return Classifier(2, self.span_dropout, name="span", **free)(hidden, key)
        return None


def as_rows(*arrays: Array | None) -> list[Array | None]:
    """Multiple choice: arrays [B, C, T] (or None) as [B * C, T], one row a choice."""
    return [None if array is None else array.reshape(-1, array.shape[-1]) for array in arrays]


def first_token(hidden: Float[Array, "B T D"], segments: Int[Array, "B T"] | None = None) -> Float[Array, "B D"] | Float[Array, "B T D"]:
    """Each row's first token; of packed rows, for every token the first one of its own text."""
    return hidden[:, 0] if segments is None else _own(hidden, segments, from_segments(segments) == 0)


def last_token(
    hidden: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None, segments: Int[Array, "B T"] | None = None
) -> Float[Array, "B D"] | Float[Array, "B T D"]:
    """The hidden state of each row's last real token, which has seen the whole row; of packed rows that of each token's own text."""
    if segments is not None:
        real = segments > 0 if mask is None else mask
        later = jnp.triu(jnp.ones((hidden.shape[1],) * 2, bool), 1) & (segments[:, :, None] == segments[:, None, :])
        return _own(hidden, segments, real & ~(later & real[:, None, :]).any(-1))
    if mask is None:
        return hidden[:, -1]
    last = hidden.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
    return jnp.where((jnp.arange(hidden.shape[1]) == last[:, None])[..., None], hidden, 0).sum(1)


def summary(
    hidden: Float[Array, "B T D"], mask: Bool[Array, "B T"] | None, pooling: str, segments: Int[Array, "B T"] | None = None
) -> Float[Array, "B D"] | Float[Array, "B T D"]:
    """Each row's first real token ("cls"), or the mean of its real tokens ("mean"); of packed rows those of each token's own text.

    Raises ConfigError for another pooling.
    """
    first = choose("classifier_pooling", pooling, ("cls", "mean")) == "cls"
    if segments is not None:
        return _own(hidden, segments, from_segments(segments) == 0 if first else segments > 0)
    real = jnp.ones(hidden.shape[:2], bool, out_sharding=spec("batch", None)) if mask is None else mask
    if first:
        real = jnp.arange(hidden.shape[1]) == jnp.argmax(real, axis=1)[:, None]
    total = jnp.where(real[..., None], hidden, 0).sum(1, dtype=jnp.float32)
    return (total / jnp.maximum(real.sum(1, keepdims=True), 1)).astype(hidden.dtype)


def _own(hidden: Float[Array, "B T D"], segments: Int[Array, "B T"], chosen: Bool[Array, "B T"]) -> Float[Array, "B T D"]:
    """For every token the mean of the chosen tokens of its own text."""
    share = (segments[:, :, None] == segments[:, None, :]) & chosen[:, None, :]
    share = share / jnp.maximum(share.sum(-1, keepdims=True), 1)
    return jnp.einsum("bts,bsd->btd", share.astype(hidden.dtype), hidden)


def decoder_logits(
    task: str,
    hidden: Float[Array, "B T D"],
    table: Float[Array, "V D"],
    labels: int,
    mask: Bool[Array, "B T"] | None,
    segments: Int[Array, "B T"] | None = None,
) -> Float[Array, "..."] | None:
    """The heads that every decoder has; to be called inside the model.

    "causal-lm": [B, T, V] by the output embedding. "sequence-classification": [B, labels] from each row's last real token, by
    the matrix "score"; of packed rows [B, T, labels]. "features": None.
    """
    if task == "causal-lm":
        return unembed(hidden, table)
    if task == "sequence-classification":
        return Classifier(labels, bias=False, dtype=hidden.dtype, name="score")(last_token(hidden, mask, segments))
    return None
