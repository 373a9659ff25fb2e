"""The assembly that BART, mBART, Marian and Pegasus share, and the layers of a side, which the 2017 Transformer shares too.

Both read the keys that these families' configurations have in common. Read next: `models/bart.py`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.config import Compute
from jaxlm.layers.attention import Attention, CrossAttention
from jaxlm.layers.block import Block, Layers
from jaxlm.layers.blocks import CrossBlock, PostBlock, PostCrossBlock
from jaxlm.layers.cache import leave
from jaxlm.layers.embed import check_length, lookup, unembed
from jaxlm.layers.heads import Classifier, DeepClassifier, last_token
from jaxlm.layers.linear import Constant, Normal
from jaxlm.layers.mlp import Mlp
from jaxlm.layers.norm import LayerNorm
from jaxlm.layers.sides import Side, see_memory
from jaxlm.layers.sight import decoder_sight, encoder_sight, refuse
from jaxlm.models.output import Dims, Flags, Ids, Key, Output
from jaxlm.ops.dropout import split
from jaxlm.ops.positions import shift_right, sinusoids
from jaxlm.sharding import gather


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
    layers = Layers((block,) * count, compute.layout, compute.remat)
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


def dims(config: Any) -> Dims:
    """The sizes of the model; layers, heads and mlp are the decoder's."""
    width, heads = config.d_model, config.decoder_attention_heads
    limit = config.max_position_embeddings
    return Dims(width, config.decoder_layers, heads, heads, width // heads, config.decoder_ffn_dim, limit)


# The configuration keys that set the axes which a mesh divides, for messages.
SETTINGS = {"vocab": "vocab_size", "heads": "decoder_attention_heads", "kv_heads": "decoder_attention_heads"}
SETTINGS |= {"mlp": "decoder_ffn_dim", "embed": "d_model"}


class EncoderDecoder(nn.Module):
    """Tokens [B, S] and targets [B, T] to the decoder's hidden states [B, T, D] and the task's logits.

    All matrices and tables are drawn from a normal distribution of init_std; biases are 0, norms 1.

    Attributes:
      style: where the norms are.
      learned: whether positions are learned (from row 2 of their table on), not sinusoids.
    """

    config: Any
    compute: Compute = Compute()
    task: str = "seq2seq-lm"
    style: Style = Style(pre_norm=False)
    learned: bool = False

    @nn.compact
    def __call__(
        self, tokens: Ids, targets: Ids = None, *, mask: Flags = None, target_mask: Flags = None, token_types: Ids = None,
        segments: Ids = None, target_segments: Ids = None, positions: Ids = None, target_positions: Ids = None,
        memory: Float[Array, "B S D"] | None = None, cache: Any = None, key: Key = None,
    ) -> Output:  # fmt: skip
        """The arguments are every encoder-decoder's (`models/__init__.py`); classification and question answering read the text
        itself, shifted, where there are no targets."""
        refuse(self.config.model_type, token_types=token_types)
        keys, labels = split(key, 3), self.task in ("sequence-classification", "question-answering")
        if labels and targets is None:
            targets = self.shifted(tokens, mask, segments)
            target_mask, target_segments, target_positions = mask, segments, positions
        source, target = self.tables()
        if memory is None and tokens is not None:
            sight, positions = encoder_sight(tokens, mask, segments, positions)
            memory, _ = self._side("encoder")(self._embed("encoder", source, tokens, positions), sight, None, keys[0])
        if targets is None:
            return Output(memory, memory=memory)
        sight, target_positions, cache = decoder_sight(targets, target_mask, target_segments, target_positions, cache)
        sight, cache = see_memory(sight, cache, memory, mask, segments, target_segments)
        x = self._embed("decoder", target, targets, target_positions)
        hidden, layer_caches = self._side("decoder")(x, sight, cache, keys[1])
        logits = self._logits(hidden, target, tokens, keys[2])
        return Output(hidden, logits, memory=memory, cache=leave(cache, layer_caches, targets.shape[1]))

    def shifted(self, tokens: Any, mask: Any, segments: Any) -> Any:
        """The text as targets, for tasks that read it twice."""
        return shift_right(tokens, self.config.decoder_start_token_id, mask if segments is None else segments)

    def tables(self) -> tuple[Array, Array]:
        """The embeddings of tokens and of targets."""
        return (self._table("shared", self.config.vocab_size, "vocab"),) * 2

    def _embed(self, side, table, tokens, positions):
        config = self.config
        check_length(tokens, config.max_position_embeddings, "max_position_embeddings")
        x = lookup(table, tokens) * (config.d_model**0.5 if config.scale_embedding else 1.0)
        if self.learned:
            x = x + lookup(self._table(f"{side}_position", config.max_position_embeddings + 2), positions + 2)
        else:
            x = x + lookup(jnp.asarray(sinusoids(config.max_position_embeddings, config.d_model, interleaved=False)), positions)
        return x.astype(self.compute.dtype)

    def _side(self, name: str):
        drawn = {"init_attention": self._normal(), "init_mlp": self._normal()}
        return make_side(name, self.config, dataclasses.replace(self.style, **drawn), self.compute)

    def _logits(self, hidden, table, tokens, key):
        config, free = self.config, {"init_kernel": self._normal(), "dtype": hidden.dtype}
        match self.task:
            case "seq2seq-lm":
                table = table if config.tie_word_embeddings else self._table("lm_head", table.shape[0], "vocab")
                return self._biased(unembed(hidden, table))
            case "sequence-classification":
                if tokens is None or tokens.shape != hidden.shape[:2]:
                    raise ValueError("sequence-classification reads the decoder where a text ends: give no targets, or as many as tokens")
                summary = last_token(hidden, tokens == config.eos_token_id)
                return DeepClassifier(config.num_labels, "tanh", config.classifier_dropout, name="classifier", **free)(summary, key)
            case "question-answering":
                return Classifier(2, name="span", **free)(hidden)
        return None

    def _biased(self, logits):
        """A fixed bias that some checkpoints have: no gradient, as in Hugging Face's models."""
        if not (self.is_initializing() or self.has_variable("params", "final_logits_bias")):
            return logits
        bias = self.param("final_logits_bias", Constant(0.0), logits.shape[-1:], jnp.float32, ("vocab",))
        return logits + jax.lax.stop_gradient(gather(bias, "vocab").astype(jnp.float32))

    def output_table(self, params: dict) -> Float[Array, "V D"]:
        """The output embedding: logits are hidden @ table^T + final_logits_bias."""
        return params["shared" if self.config.tie_word_embeddings else "lm_head"]

    def _table(self, name: str, rows: int, axis: str | None = None) -> Array:
        return self.param(name, self._normal(), (rows, self.config.d_model), jnp.float32, (axis, "embed"))

    def _normal(self) -> Normal:
        return Normal(self.config.init_std)
