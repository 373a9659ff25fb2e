"""The assembly that BERT and its descendants share; each family's file changes the parts in which it differs.

Read next: `models/bert.py`, which changes nothing, then `models/roberta.py`.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.config import Compute
from jaxlm.layers.attention import Attention
from jaxlm.layers.block import HIDDEN, Layers
from jaxlm.layers.blocks import PostBlock
from jaxlm.layers.cache import layers_of, leave
from jaxlm.layers.embed import check_length, lookup
from jaxlm.layers.heads import POOLED, VOCABULARY, Classifier, EncoderHeads, Transform, VocabularyLogits, as_rows
from jaxlm.layers.linear import Normal
from jaxlm.layers.mlp import Mlp
from jaxlm.layers.norm import LayerNorm
from jaxlm.layers.sight import decoder_sight, encoder_sight, refuse
from jaxlm.models.output import Dims, Flags, Ids, Key, Output
from jaxlm.ops.dropout import dropout, split


class Encoder(nn.Module):
    """Tokens [B, T] (multiple choice: [B, C, T]) to hidden states [B, T, D], the pooled first token, and the task's logits.

    All matrices and tables are drawn from a normal distribution of initializer_range; biases are 0, norms 1.
    """

    config: Any
    compute: Compute = Compute()
    task: str = "masked-lm"

    pooling = POOLED  # the tasks that read the pooler
    spare = True  # whether untied models keep the tied bias too
    final_norm = False  # after the last layer

    @nn.compact
    def __call__(
        self, tokens: Ids, *, mask: Flags = None, token_types: Ids = None, segments: Ids = None, positions: Ids = None,
        cache: Any = None, key: Key = None,
    ) -> Output:  # fmt: skip
        """The arguments are every family's (`models/__init__.py`); a cache with `is_decoder` only."""
        choices, keys = tokens.shape[:-1], split(key, 3)
        tokens, mask, token_types, segments, positions = as_rows(tokens, mask, token_types, segments, positions)
        sight, positions, cache = self._see(tokens, mask, segments, positions, cache)
        word, x = self._embed(tokens, token_types, positions, keys[0])
        layers = self._layers()
        params = self.param("layers", layers.init, x)
        hidden, layer_caches = layers.apply(params, x, sight, layers_of(cache), keys[1])
        hidden = self._norm(name="ln_f")(hidden) if self.final_norm else hidden
        pooled = self._pool(hidden, mask)
        logits, relation = self._heads(hidden, pooled, word, choices, keys[2])
        return Output(hidden, logits, pooled, relation, cache=leave(cache, layer_caches, tokens.shape[1]))

    def output_table(self, params: dict) -> Float[Array, "V E"]:
        """The output embedding: logits are transform(hidden) @ table^T + bias."""
        return params["word"] if self.config.tie_word_embeddings else params["decoder"]["table"]

    def _see(self, tokens, mask, segments, positions, cache):
        check_length(tokens, self.config.max_position_embeddings, "max_position_embeddings")
        if self.config.is_decoder:
            return decoder_sight(tokens, mask, segments, positions, cache)
        refuse(f"{self.config.model_type} as an encoder", cache=cache)
        return *encoder_sight(tokens, mask, segments, positions), None

    def _embed(self, tokens, token_types, positions, key):
        """The table of words, and the normed sum of words, positions and types."""
        config = self.config
        width = getattr(config, "embedding_size", config.hidden_size)
        table = lambda name, rows, axis=None: self.param(name, self._normal, (rows, width), jnp.float32, (axis, "embed"))
        word = table("word", config.vocab_size, "vocab")
        x = lookup(word, tokens) + lookup(table("position", config.max_position_embeddings), positions)
        if config.type_vocab_size:
            x = x + lookup(table("type", config.type_vocab_size), jnp.zeros_like(tokens) if token_types is None else token_types)
        else:
            refuse(config.model_type, token_types=token_types)
        return word, dropout(self._norm(name="ln")(x), config.hidden_dropout_prob, key, HIDDEN)

    def _layers(self) -> Layers:
        return Layers((self._block(),) * self.config.num_hidden_layers, self.compute.layout, self.compute.remat)

    def _block(self) -> nn.Module:
        return PostBlock(*self._halves(), self.config.hidden_dropout_prob, parent=None)

    def _halves(self) -> tuple[nn.Module, ...]:
        """Attention and mlp, each with its norm after it."""
        config, free = self.config, {"dtype": self._dtype, "parent": None}
        size, rate = config.hidden_size // config.num_attention_heads, config.attention_probs_dropout_prob
        parts = {"dropout": rate, "init_kernel": self._normal, "implementation": self.compute.attention}
        attn = Attention(config.num_attention_heads, size, **parts, **free)
        mlp = Mlp(config.intermediate_size, config.hidden_act, self._normal, **free)
        return attn, self._norm(parent=None), mlp, self._norm(parent=None)

    def _pool(self, hidden, mask):
        if self.task not in self.pooling or not (self.is_initializing() or self.has_variable("params", "pooler")):
            return None
        return Transform(hidden.shape[-1], "tanh", None, self._normal, self._dtype, name="pooler")(hidden[:, 0])

    def _heads(self, hidden, pooled, word, choices, key):
        """The task's logits, and those of the second head of "pretraining"."""
        config = self.config
        if self.task in VOCABULARY:
            relation = Classifier(2, name="relation", **self._free)(pooled) if self.task == "pretraining" else None
            return self._vocabulary(hidden, word, config.hidden_act), relation
        heads = EncoderHeads(config.num_labels, self._rate, choices, self._normal)
        return heads.logits(self.task, hidden, pooled, key), None

    def _vocabulary(self, hidden, word, activation):
        transform = Transform(word.shape[1], activation, self._norm(parent=None), self._normal, self._dtype, name="transform")
        return self._decode(transform(hidden), word, init_kernel=self._normal)

    def _decode(self, x, word, **parts):
        if self.config.tie_word_embeddings:
            return VocabularyLogits(**parts, name="vocabulary")(x, word)
        return VocabularyLogits(word.shape[0], spare=self.spare, **parts, name="decoder")(x)

    def _norm(self, **names: Any) -> LayerNorm:
        return LayerNorm(self.config.layer_norm_eps, self._dtype, getattr(self.config, "norm_bias", True), **names)

    @property
    def _rate(self) -> float:
        """Of dropout in front of a classifier."""
        config = self.config
        return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout

    @property
    def _free(self) -> dict[str, Any]:
        return {"init_kernel": self._normal, "dtype": self._dtype}

    @property
    def _normal(self) -> Normal:
        return Normal(self.config.initializer_range)

    @property
    def _dtype(self) -> Any:
        return jnp.dtype(self.compute.dtype)


def dims(config: Any) -> Dims:
    """The sizes of the model."""
    width, heads = config.hidden_size, config.num_attention_heads
    return Dims(width, config.num_hidden_layers, heads, heads, width // heads, config.intermediate_size, config.max_position_embeddings)
