"""ModernBERT (Warner et al. 2024): a pre-norm encoder with rotary positions, gated mlps, and local and global attention in turn."""

import dataclasses

import jax.numpy as jnp

from jaxlm.config import choose
from jaxlm.frozen import Frozen
from jaxlm.layers.attention import Attention
from jaxlm.layers.block import HIDDEN, Block, Layers
from jaxlm.layers.embed import lookup
from jaxlm.layers.heads import EncoderHeads, Transform, summary
from jaxlm.layers.linear import Truncated
from jaxlm.layers.mlp import GatedMlp
from jaxlm.layers.norm import Unchanged
from jaxlm.layers.sight import encoder_sight, refuse
from jaxlm.models.bert import vocabulary
from jaxlm.models.encoder import Encoder, dims
from jaxlm.models.names import LABELS, Names, classes, linear, norm, same
from jaxlm.ops.dropout import dropout
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
    layer_norm_eps = property(lambda self: self.norm_eps)  # BERT's name


LARGE = {"hidden_size": 1024, "intermediate_size": 2624, "num_hidden_layers": 28, "num_attention_heads": 16}
SIZES = {"modernbert-base": Config(), "modernbert-large": Config(**LARGE)}


class ModernBert(Encoder):
    """The encoder with global sight in some layers, and every head on a transform of its own; no token types, no pooler.

    Truncated normal weights: initializer_range; o, down, transform, decoder: / sqrt(2 num_hidden_layers); classifier: D ** -0.5.
    """

    pooling, spare, final_norm = ("sequence-classification", "multiple-choice"), False, True

    def _see(self, tokens, mask, segments, positions, cache):
        config, (sight, positions) = self.config, encoder_sight(tokens, mask, segments, positions)
        refuse(config.model_type, cache=cache)
        turned = lambda theta, scaling: rotation(positions, Rotary(dims(config).head_size, theta, config.max_position_embeddings, scaling))
        near = config.local_rope_theta or config.global_rope_theta
        whole, local = turned(config.global_rope_theta, config.rope_scaling), turned(near, None)
        # A window of 128 sees 64 to either side, beside the token itself.
        return (sight.but(rotation=whole), sight.but(window=config.local_attention // 2 + 1, rotation=local)), positions, None

    def _embed(self, tokens, token_types, positions, key):
        config = self.config
        refuse(config.model_type, token_types=token_types)
        word = self.param("word", self._normal, (config.vocab_size, config.hidden_size), jnp.float32, ("vocab", "embed"))
        return word, dropout(self._norm(name="ln")(lookup(word, tokens)), config.embedding_dropout, key, HIDDEN)

    def _layers(self) -> Layers:
        config, places, kinds = self.config, range(self.config.num_hidden_layers), ("full_attention", "sliding_attention")
        named = config.layer_types or [kinds[bool(i % config.global_attn_every_n_layers)] for i in places]
        seen = tuple(kinds.index(choose("layer_types", name, kinds)) for name in named)
        return Layers(tuple(map(self._block, places)), self.compute.layout, self.compute.remat, seen)

    def _block(self, layer: int) -> Block:
        config, free = self.config, {"dtype": self._dtype, "parent": None}
        parts = {"dropout": config.attention_dropout, "bias": config.attention_bias, "out_bias": config.attention_bias}
        parts |= {"init_kernel": self._normal, "init_out": self._into, "implementation": self.compute.attention}
        attn = Attention(config.num_attention_heads, dims(config).head_size, **parts, **free)
        parts = {"bias": config.mlp_bias, "dropout": config.mlp_dropout}
        mlp = GatedMlp(config.intermediate_size, config.hidden_activation, self._normal, self._into, **parts, **free)
        ln_1 = self._norm(parent=None) if layer else Unchanged(parent=None)  # the embeddings are normed already
        return Block(ln_1, attn, self._norm(parent=None), mlp, config.attention_dropout, 0.0, parent=None)

    def _pool(self, hidden, mask):
        return summary(hidden, mask, self.config.classifier_pooling) if self.task in self.pooling else None

    def _heads(self, hidden, pooled, word, choices, key):
        config = self.config
        if self.task == "features":
            return None, None
        parts = self._norm(parent=None), self._into, self._dtype, config.classifier_bias
        x = Transform(config.hidden_size, config.classifier_activation, *parts, name="head")(hidden if pooled is None else pooled)
        if self.task == "masked-lm":
            return self._decode(x, word, init_kernel=self._into, bias=config.decoder_bias), None
        final, rate = Truncated(config.hidden_size**-0.5, config.initializer_cutoff_factor), config.classifier_dropout
        return EncoderHeads(config.num_labels, rate, choices, final, rate).logits(self.task, x, x, key), None

    @property
    def _normal(self) -> Truncated:
        return Truncated(self.config.initializer_range, self.config.initializer_cutoff_factor)

    @property
    def _into(self) -> Truncated:
        return Truncated(self._normal.stddev * (2 * self.config.num_hidden_layers) ** -0.5, self._normal.cutoff)


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
