"""ModernBERT (Warner et al. 2024): a pre-norm encoder with rotary positions, gated mlps, and local and global attention in turn."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jaxlm.config import Compute
from jaxlm.frozen import Frozen
from jaxlm.layers.attention import Attention
from jaxlm.layers.block import HIDDEN, Block, Layers
from jaxlm.layers.embed import lookup
from jaxlm.layers.encoder import chosen, tied_or_own_table, vocabulary_logits
from jaxlm.layers.heads import EncoderHeads, Transform, as_rows, summary
from jaxlm.layers.linear import Truncated
from jaxlm.layers.mlp import GatedMlp
from jaxlm.layers.norm import LayerNorm, Unchanged
from jaxlm.layers.sight import encoder_sight, refuse
from jaxlm.layers.windows import WHOLE, WINDOW, kinds
from jaxlm.models.bert import dims
from jaxlm.models.names import LABELS, Names, classes, linear, norm, same, vocabulary
from jaxlm.models.output import Flags, Ids, Key, Output
from jaxlm.ops.dropout import dropout, split
from jaxlm.ops.rotary import Rotary, rotation


@dataclasses.dataclass(frozen=True)
class Config:
    """Hugging Face's config.json of ModernBERT; `layer_types` None: every so many layers a global one, the first among them."""

    vocab_size: int | None = 50368
    hidden_size: int = 768
    intermediate_size: int = 1152
    num_hidden_layers: int = 22
    num_attention_heads: int = 12
    hidden_activation: str = "gelu"
    max_position_embeddings: int = 8192
    initializer_range: float = 0.02
    initializer_cutoff_factor: float = 2.0
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    attention_dropout: float = 0.0
    layer_types: tuple[str, ...] | None = None
    global_attn_every_n_layers: int = 3
    local_attention: int = 128
    global_rope_theta: float = 160_000.0
    local_rope_theta: float | None = 10_000.0
    rope_scaling: Frozen | None = None
    embedding_dropout: float = 0.0
    mlp_bias: bool = False
    mlp_dropout: float = 0.0
    decoder_bias: bool = True
    classifier_pooling: str = "cls"
    classifier_dropout: float = 0.0
    classifier_bias: bool = False
    classifier_activation: str = "gelu"
    tie_word_embeddings: bool = True
    num_labels: int = 2
    extra: Frozen = Frozen()
    model_type: str = "modernbert"


LARGE = {"hidden_size": 1024, "intermediate_size": 2624, "num_hidden_layers": 28, "num_attention_heads": 16}
SIZES = {"modernbert-base": Config(), "modernbert-large": Config(**LARGE)}


class ModernBert(nn.Module):
    """Tokens to hidden states and the task's logits, every head on a transform of its own; `pooled` is what classifiers read.

    A local layer with local_attention 128 sees 64 tokens to either side, beside the token itself.
    Truncated normal weights: initializer_range; o, down, transform, decoder: / sqrt(2 num_hidden_layers); classifier: D ** -0.5.
    """

    config: Config
    compute: Compute = Compute()
    task: str = "masked-lm"
    plain_logits, output_table = False, tied_or_own_table

    @nn.compact
    def __call__(
        self, tokens: Ids, *, mask: Flags = None, token_types: Ids = None, segments: Ids = None, positions: Ids = None,
        cache: Any = None, key: Key = None, places: Ids = None,
    ) -> Output:  # fmt: skip
        """The arguments are every family's (`models/__init__.py`); there are no token types and no cache."""
        config, dtype = self.config, jnp.dtype(self.compute.dtype)
        refuse(config.model_type, token_types=token_types, cache=cache)
        choices, keys = tokens.shape[:-1], split(key, 3)
        tokens, mask, segments, positions = as_rows(tokens, mask, segments, positions)
        sight, positions = encoder_sight(tokens, mask, segments, positions)
        turned = lambda theta, scaling: rotation(positions, Rotary(dims(config).head_size, theta, config.max_position_embeddings, scaling))
        far, near = config.global_rope_theta, config.local_rope_theta or config.global_rope_theta
        whole = sight.but(rotation=turned(far, config.rope_scaling))
        local = sight.but(window=config.local_attention // 2 + 1, rotation=turned(near, None))
        named = [WINDOW if i % config.global_attn_every_n_layers else WHOLE for i in range(config.num_hidden_layers)]
        seen = kinds(config.layer_types or named, config.num_hidden_layers)

        stddevs = config.initializer_range, config.initializer_range * (2 * config.num_hidden_layers) ** -0.5
        init, into = (Truncated(stddev, config.initializer_cutoff_factor) for stddev in stddevs)
        ln = lambda **names: LayerNorm(config.norm_eps, dtype, config.norm_bias, **names)
        word = self.param("word", init, (config.vocab_size, config.hidden_size), jnp.float32, ("vocab", "embed"))
        x = dropout(ln(name="ln")(lookup(word, tokens)), config.embedding_dropout, keys[0], HIDDEN)
        blocks = tuple(self._block(i, ln, init, into) for i in range(config.num_hidden_layers))
        layers = Layers(blocks, self.compute.layout, self.compute.remat, seen)
        params = self.param("layers", layers.init, x)
        hidden = ln(name="ln_f")(layers.apply(params, x, (whole, local), None, keys[1])[0])

        if self.task == "features":
            return Output(hidden)
        pooled = (
            summary(hidden, mask, config.classifier_pooling, segments)
            if self.task in ("sequence-classification", "multiple-choice")
            else None
        )
        parts = ln(parent=None), into, dtype, config.classifier_bias
        head = Transform(config.hidden_size, config.classifier_activation, *parts, name="head")
        x = head(chosen(hidden, places) if pooled is None else pooled)
        if self.task == "masked-lm":
            return Output(hidden, vocabulary_logits(x, word, config.tie_word_embeddings, into, config.decoder_bias))
        final, rate = Truncated(config.hidden_size**-0.5, config.initializer_cutoff_factor), config.classifier_dropout
        return Output(hidden, EncoderHeads(config.num_labels, rate, choices, final, rate).logits(self.task, x, x, keys[2]), pooled)

    def _block(self, layer: int, ln: Any, init: Truncated, into: Truncated) -> Block:
        config, known, free = self.config, dims(self.config), {"dtype": jnp.dtype(self.compute.dtype), "parent": None}
        parts = {"bias": config.attention_bias, "out_bias": config.attention_bias, "implementation": self.compute.attention}
        attn = Attention(known.heads, known.head_size, None, config.attention_dropout, init, into, **parts, **free)
        mlp = GatedMlp(known.mlp, config.hidden_activation, init, into, bias=config.mlp_bias, dropout=config.mlp_dropout, **free)
        ln_1 = ln(parent=None) if layer else Unchanged(parent=None)  # the embeddings are normed already
        return Block(ln_1, attn, ln(parent=None), mlp, config.attention_dropout, 0.0, parent=None)


NAMES = Names(
    classes("ModernBert", "masked-lm", "features", *LABELS),
    base="model",
    body=(
        *same("embeddings.tok_embeddings.weight", "word"),
        *norm("embeddings.norm", "ln"),
        *norm("layers.{i}.attn_norm", "layers/{i}/ln_1"),
        *linear("layers.{i}.attn.Wqkv", "layers/{i}/attn/q", "layers/{i}/attn/k", "layers/{i}/attn/v"),
        *linear("layers.{i}.attn.Wo", "layers/{i}/attn/o", inputs=2),
        *norm("layers.{i}.mlp_norm", "layers/{i}/ln_2"),
        *linear("layers.{i}.mlp.Wi", "layers/{i}/mlp/gate", "layers/{i}/mlp/up"),
        *linear("layers.{i}.mlp.Wo", "layers/{i}/mlp/down"),
        *norm("final_norm", "ln_f"),
    ),
    heads=(
        *linear("head.dense", "head/dense"),
        *norm("head.norm", "head/norm"),
        *vocabulary("decoder"),
        *linear("classifier", "classifier/out"),
        *linear("classifier", "span/out"),
    ),
    tied={"decoder.weight": "embeddings.tok_embeddings.weight"},
)
