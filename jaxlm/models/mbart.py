"""mBART (Liu et al. 2020): BART with norms in front, a last norm on either side, and the language at the end of each text."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.config import Compute
from jaxlm.layers.cache import leave
from jaxlm.layers.embed import check_length, lookup, unembed
from jaxlm.layers.heads import last_token
from jaxlm.layers.linear import Normal
from jaxlm.layers.sides import LABELS, Style, fixed_bias, label_logits, make_side, see_memory
from jaxlm.layers.sight import decoder_sight, encoder_sight, refuse
from jaxlm.models import bart
from jaxlm.models.bart import SETTINGS, dims  # noqa: F401 (a family has SETTINGS and dims)
from jaxlm.models.names import classes
from jaxlm.models.output import Flags, Ids, Key, Output
from jaxlm.ops.dropout import split
from jaxlm.ops.positions import from_segments, shift_right


@dataclasses.dataclass(frozen=True)
class Config(bart.Config):
    """Hugging Face's config.json of mBART."""

    decoder_start_token_id: int | None = None
    num_labels: int = 2
    model_type: str = "mbart"


SIZES = {
    "mbart-large-cc25": Config(vocab_size=250027, scale_embedding=True),
    "mbart-large-50": Config(vocab_size=250054, scale_embedding=True),
}


class MBart(nn.Module):
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
        """Arguments: `models/__init__.py`. Without targets, classification and question answering read the text, its language first."""
        config, limit, keys = self.config, self.config.max_position_embeddings, split(key, 3)
        refuse("mbart", token_types=token_types)
        refuse("mbart without targets", cache=None if targets is not None else cache)
        if targets is None and self.task in LABELS:
            targets, target_mask, target_segments, target_positions = _language_first(tokens, mask, segments), mask, segments, positions
        shared = self._table("shared", config.vocab_size, "vocab")
        scale = config.d_model**0.5 if config.scale_embedding else 1.0
        style = Style(True, ln_in=True, ln_out=True, init_attention=Normal(config.init_std), init_mlp=Normal(config.init_std))
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


def _language_first(tokens, mask, segments):
    """The text as targets: its last token, which names the language, comes first."""
    texts = segments if segments is not None else jnp.ones_like(tokens) if mask is None else mask.astype(jnp.int32)
    last = last_token(tokens[..., None].astype(jnp.float32), None, texts)[..., 0].astype(tokens.dtype)
    return jnp.where(from_segments(texts) == 0, last, shift_right(tokens, 0))


NAMES = dataclasses.replace(
    bart.NAMES, architectures=classes("MBart", "seq2seq-lm", "features", "sequence-classification", "question-answering")
)
