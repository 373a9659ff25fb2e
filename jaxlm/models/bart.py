"""BART (Lewis et al. 2020): post-norm, learned positions. Read next: `models/mbart.py`, `models/marian.py`, `models/pegasus.py`."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.config import Compute
from jaxlm.frozen import Frozen
from jaxlm.layers.cache import leave
from jaxlm.layers.embed import check_length, lookup, unembed
from jaxlm.layers.linear import Normal
from jaxlm.layers.sides import LABELS, Style, fixed_bias, label_logits, make_side, see_memory
from jaxlm.layers.sight import decoder_sight, encoder_sight, refuse
from jaxlm.models.names import Names, Row, classes, linear, norm, same
from jaxlm.models.output import Dims, Flags, Ids, Key, Output
from jaxlm.ops.dropout import split
from jaxlm.ops.positions import shift_right


@dataclasses.dataclass(frozen=True)
class Config:
    """Hugging Face's config.json of BART."""

    vocab_size: int | None = 50265
    max_position_embeddings: int = 1024
    d_model: int = 1024
    encoder_layers: int = 12
    decoder_layers: int = 12
    encoder_attention_heads: int = 16
    decoder_attention_heads: int = 16
    encoder_ffn_dim: int = 4096
    decoder_ffn_dim: int = 4096
    activation_function: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    classifier_dropout: float = 0.0
    encoder_layerdrop: float = 0.0
    decoder_layerdrop: float = 0.0
    init_std: float = 0.02
    scale_embedding: bool = False
    tie_word_embeddings: bool = True
    eos_token_id: int | None = 2
    decoder_start_token_id: int | None = 2
    num_labels: int = 3
    extra: Frozen = Frozen()
    model_type: str = "bart"


SIZES = {"bart-base": Config(50265, 1024, 768, 6, 6, 12, 12, 3072, 3072), "bart-large": Config()}


class Bart(nn.Module):
    """Tokens [B, S] and targets [B, T] to the decoder's hidden states [B, T, D] and the task's logits.

    Initialization: all matrices and tables normal, init_std; all biases 0 and all norms 1.
    """

    config: Config
    compute: Compute = Compute()
    task: str = "seq2seq-lm"

    @nn.compact
    def __call__(
        self, tokens: Ids, targets: Ids = None, *, mask: Flags = None, target_mask: Flags = None, token_types: Ids = None,
        segments: Ids = None, target_segments: Ids = None, positions: Ids = None, target_positions: Ids = None,
        memory: Float[Array, "B S D"] | None = None, cache: Any = None, key: Key = None,
    ) -> Output:  # fmt: skip
        """Arguments: `models/__init__.py`. Without targets, classification and question answering read the text itself, shifted."""
        config, limit, keys = self.config, self.config.max_position_embeddings, split(key, 3)
        refuse("bart", token_types=token_types)
        refuse("bart without targets", cache=None if targets is not None else cache)
        if targets is None and self.task in LABELS:
            targets = shift_right(tokens, config.decoder_start_token_id, mask if segments is None else segments)
            target_mask, target_segments, target_positions = mask, segments, positions
        shared = self._table("shared", config.vocab_size, "vocab")
        scale = config.d_model**0.5 if config.scale_embedding else 1.0
        style = Style(pre_norm=False, ln_in=True, init_attention=Normal(config.init_std), init_mlp=Normal(config.init_std))
        if memory is None and tokens is not None:
            check_length(tokens, limit, "max_position_embeddings")
            sight, positions = encoder_sight(tokens, mask, segments, positions)
            x = lookup(shared, tokens) * scale + lookup(self._table("encoder_position", limit + 2), positions + 2)
            memory, _ = make_side("encoder", config, style, self.compute)(x.astype(self.compute.dtype), sight, None, keys[0])
        if targets is None:
            return Output(memory, memory=memory)
        check_length(targets, limit, "max_position_embeddings")
        sight, target_positions, cache = decoder_sight(targets, target_mask, target_segments, target_positions, cache)
        sight, cache = see_memory(sight, cache, memory, mask, segments, target_segments)
        x = lookup(shared, targets) * scale + lookup(self._table("decoder_position", limit + 2), target_positions + 2)
        hidden, layer_caches = make_side("decoder", config, style, self.compute)(x.astype(self.compute.dtype), sight, cache, keys[1])
        logits = label_logits(self.task, config, hidden, tokens, segments, keys[2])
        if self.task == "seq2seq-lm":
            table = shared if config.tie_word_embeddings else self._table("lm_head", config.vocab_size, "vocab")
            logits = unembed(hidden, table, bias=fixed_bias(self, table.shape[0]))
        return Output(hidden, logits, memory=memory, cache=leave(cache, layer_caches, targets.shape[1]))

    def output_table(self, params: dict) -> Float[Array, "V D"]:
        """The output embedding: logits are hidden @ table^T + final_logits_bias."""
        return params["shared" if self.config.tie_word_embeddings else "lm_head"]

    def _table(self, name: str, rows: int, axis: str | None = None) -> Array:
        return self.param(name, Normal(self.config.init_std), (rows, self.config.d_model), jnp.float32, (axis, "embed"))


def dims(config: Any) -> Dims:
    """The sizes of the model; layers, heads and mlp are the decoder's."""
    heads, limit = config.decoder_attention_heads, config.max_position_embeddings
    return Dims(config.d_model, config.decoder_layers, heads, heads, config.d_model // heads, config.decoder_ffn_dim, limit)


def rows_of(side: str) -> tuple[Row, ...]:
    """The name table of the "encoder" or "decoder" of BART and its relatives."""
    theirs, ours = f"{side}.layers.{{i}}", f"{side}/layers/{{i}}"
    attention = lambda name, part: (
        *(row for letter in "qkv" for row in linear(f"{theirs}.{name}.{letter}_proj", f"{ours}/{part}/{letter}")),
        *linear(f"{theirs}.{name}.out_proj", f"{ours}/{part}/o", inputs=2),
        *norm(f"{theirs}.{name}_layer_norm", f"{ours}/{'ln_1' if part == 'attn' else 'ln_cross'}"),
    )
    return (
        *same(f"{side}.embed_positions.weight", f"{side}_position"),
        *norm(f"{side}.layernorm_embedding", f"{side}/ln_in"),
        *attention("self_attn", "attn"),
        *attention("encoder_attn", "cross"),
        *linear(f"{theirs}.fc1", f"{ours}/mlp/up"),
        *linear(f"{theirs}.fc2", f"{ours}/mlp/down"),
        *norm(f"{theirs}.final_layer_norm", f"{ours}/ln_2"),
        *norm(f"{side}.layer_norm", f"{side}/ln_out"),
    )


SETTINGS = {"vocab": "vocab_size", "heads": "decoder_attention_heads", "kv_heads": "decoder_attention_heads"}
SETTINGS |= {"mlp": "decoder_ffn_dim", "embed": "d_model"}
EMBEDDINGS = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
NAMES = Names(
    classes("Bart", "seq2seq-lm", "features", "sequence-classification", "question-answering"),
    base="model",
    body=(*same("shared.weight", "shared"), *rows_of("encoder"), *rows_of("decoder")),
    heads=(
        *same("lm_head.weight", "lm_head"),
        *same("final_logits_bias", "final_logits_bias", leading=1),
        *linear("classification_head.dense", "classifier/dense"),
        *linear("classification_head.out_proj", "classifier/out"),
        *linear("qa_outputs", "span/out"),
    ),
    tied=dict.fromkeys(("lm_head.weight", *EMBEDDINGS), "shared.weight"),
    copies=EMBEDDINGS,
    optional=("final_logits_bias",),
)
