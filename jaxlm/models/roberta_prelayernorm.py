"""RoBERTa-PreLayerNorm (Wettig et al. 2023): RoBERTa with the norms in front of attention and mlp, and one at the end."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxlm.config import Compute
from jaxlm.frozen import Frozen
from jaxlm.layers.block import HIDDEN, Block, Layers
from jaxlm.layers.cache import layers_of, leave
from jaxlm.layers.embed import check_length, lookup
from jaxlm.layers.encoder import chosen, either_sight, layer_parts, pool, tied_or_own_table, vocabulary_logits
from jaxlm.layers.heads import VOCABULARY, DeepClassifier, EncoderHeads, Transform, as_rows, first_token
from jaxlm.layers.linear import Normal
from jaxlm.layers.norm import LayerNorm
from jaxlm.models import bert, roberta
from jaxlm.models.names import LABELS, Names, classes, linear, norm
from jaxlm.models.output import Flags, Ids, Key, Output
from jaxlm.models.roberta import dims
from jaxlm.ops.dropout import dropout, split
from jaxlm.ops.positions import from_mask

__all__ = ["NAMES", "SIZES", "Config", "RobertaPreLayerNorm", "dims"]


@dataclasses.dataclass(frozen=True)
class Config(roberta.Config):
    """Hugging Face's config.json of RoBERTa-PreLayerNorm."""

    extra: Frozen = Frozen()
    model_type: str = "roberta-prelayernorm"


SIZES = {
    "efficient_mlm": Config(
        max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5,
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
    ),
}  # fmt: skip


class RobertaPreLayerNorm(nn.Module):
    """Tokens to hidden states, the pooled first token, and the task's logits, with the positions of `roberta.Roberta`."""

    config: Config
    compute: Compute = Compute()
    task: str = "masked-lm"
    plain_logits, output_table = False, tied_or_own_table

    @nn.compact
    def __call__(
        self, tokens: Ids, *, mask: Flags = None, token_types: Ids = None, segments: Ids = None, positions: Ids = None,
        cache: Any = None, key: Key = None, places: Ids = None,
    ) -> Output:  # fmt: skip
        """The arguments are every family's (`models/__init__.py`); a cache with `is_decoder` only."""
        config, dtype, init = self.config, jnp.dtype(self.compute.dtype), Normal(self.config.initializer_range)
        table = lambda name, rows, axis=None: self.param(name, init, (rows, config.hidden_size), jnp.float32, (axis, "embed"))
        choices, keys = tokens.shape[:-1], split(key, 3)
        tokens, mask, token_types, segments, positions = as_rows(tokens, mask, token_types, segments, positions)
        check_length(tokens, dims(config).context, "max_position_embeddings - pad_token_id - 1")
        real = tokens != config.pad_token_id if mask is None else mask
        if all(given is None for given in (mask, segments, positions, cache)):
            positions = from_mask(real)
        sight, positions, cache = either_sight(config.is_decoder, tokens, mask, segments, positions, cache)
        rows = jnp.where(real, positions, -1) + config.pad_token_id + 1

        word = table("word", config.vocab_size, "vocab")
        x = lookup(word, tokens) + lookup(table("position", config.max_position_embeddings), rows)
        x = x + lookup(table("type", config.type_vocab_size), jnp.zeros_like(tokens) if token_types is None else token_types)
        x = dropout(LayerNorm(config.layer_norm_eps, dtype, name="ln")(x), config.hidden_dropout_prob, keys[0], HIDDEN)
        attn, ln_1, mlp, ln_2 = layer_parts(
            dims(config), config.hidden_act, config.layer_norm_eps, config.attention_probs_dropout_prob, init, self.compute
        )
        block = Block(ln_1, attn, ln_2, mlp, config.hidden_dropout_prob, parent=None)
        layers = Layers((block,) * config.num_hidden_layers, self.compute.layout, self.compute.remat)
        params = self.param("layers", layers.init, x)
        x, layer_caches = layers.apply(params, x, sight, layers_of(cache), keys[1])
        hidden = LayerNorm(config.layer_norm_eps, dtype, name="ln_f")(x)

        pooled = pool(self, ("features", "multiple-choice"), hidden, init, segments)
        if self.task in VOCABULARY:
            ln = LayerNorm(config.layer_norm_eps, dtype, parent=None)
            x = Transform(config.hidden_size, "gelu", ln, init, dtype, name="transform")(chosen(hidden, places))
            logits = vocabulary_logits(x, word, config.tie_word_embeddings, init, spare=True)
        elif self.task == "sequence-classification":
            head = DeepClassifier(config.num_labels, "tanh", config.head_dropout, init, dtype, name="sequence")
            logits = head(first_token(hidden, segments), keys[2])
        else:
            rate = config.hidden_dropout_prob if self.task == "multiple-choice" else config.head_dropout
            logits = EncoderHeads(config.num_labels, rate, choices, init).logits(self.task, hidden, pooled, keys[2])
        return Output(hidden, logits, pooled, cache=leave(cache, layer_caches, tokens.shape[1]))


NAMES = Names(
    classes("RobertaPreLayerNorm", "masked-lm", "features", *LABELS, "causal-lm"),
    base="roberta_prelayernorm",
    body=(
        *bert.EMBEDDINGS,
        *norm("encoder.layer.{i}.attention.LayerNorm", "layers/{i}/ln_1"),
        *linear("encoder.layer.{i}.attention.self.query", "layers/{i}/attn/q"),
        *linear("encoder.layer.{i}.attention.self.key", "layers/{i}/attn/k"),
        *linear("encoder.layer.{i}.attention.self.value", "layers/{i}/attn/v"),
        *linear("encoder.layer.{i}.attention.output.dense", "layers/{i}/attn/o", inputs=2),
        *norm("encoder.layer.{i}.intermediate.LayerNorm", "layers/{i}/ln_2"),
        *linear("encoder.layer.{i}.intermediate.dense", "layers/{i}/mlp/up"),
        *linear("encoder.layer.{i}.output.dense", "layers/{i}/mlp/down"),
        *norm("LayerNorm", "ln_f"),
        *linear("pooler.dense", "pooler/dense"),
    ),
    heads=roberta.HEADS,
    tied=roberta.NAMES.tied,
    optional=("pooler",),
)
