"""Marian (Junczys-Dowmunt et al. 2018): BART's parts with sinusoidal positions and a bias on the logits.

The two sides may have tables of their own.
"""

import dataclasses

from jaxtyping import Array, Float

from jaxlm.models import bart, pegasus
from jaxlm.models.encoder_decoder import SETTINGS, EncoderDecoder, Style, dims  # noqa: F401 (a family has SETTINGS and dims)
from jaxlm.models.names import same


@dataclasses.dataclass(frozen=True)
class Config(bart.Config):
    """Hugging Face's config.json of Marian."""

    vocab_size: int | None = 58101
    decoder_vocab_size: int | None = None  # where the tables are not shared; None: vocab_size
    share_encoder_decoder_embeddings: bool = True
    eos_token_id: int | None = 0
    decoder_start_token_id: int | None = 58100
    num_labels: int = 2
    model_type: str = "marian"


BASE = {"d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8, "decoder_attention_heads": 8}
BASE |= {"encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048, "activation_function": "swish", "scale_embedding": True}
SIZES = {"opus-mt-en-de": Config(max_position_embeddings=512, **BASE)}


class Marian(EncoderDecoder):
    """As BART, in another style, with sinusoidal positions."""

    style: Style = Style(pre_norm=False)

    def tables(self) -> tuple[Array, Array]:
        """The embeddings of tokens and of targets."""
        config = self.config
        if config.share_encoder_decoder_embeddings:
            return super().tables()
        rows = config.decoder_vocab_size or config.vocab_size
        return self._table("source", config.vocab_size, "vocab"), self._table("target", rows, "vocab")

    def output_table(self, params: dict) -> Float[Array, "V D"]:
        """The output embedding: logits are hidden @ table^T + final_logits_bias."""
        own = not self.config.share_encoder_decoder_embeddings and self.config.tie_word_embeddings
        return params["target"] if own else super().output_table(params)


NAMES = dataclasses.replace(
    bart.NAMES,
    architectures={"seq2seq-lm": "MarianMTModel", "features": "MarianModel"},
    body=(*bart.NAMES.body, *same("encoder.embed_tokens.weight", "source"), *same("decoder.embed_tokens.weight", "target")),
    computed=pegasus.NAMES.computed,
    unstored=("seq2seq-lm",),
    tied={**bart.NAMES.tied, "lm_head.weight": "decoder.embed_tokens.weight"},
)
