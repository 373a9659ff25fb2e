"""From a model's logits to those that decide: penalties, bans and forced tokens, in Hugging Face's order.

A `State` row knows its tokens by slots; what stands before its prompt is not real and counts for nothing. Read next:
`inference/loop.py`.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.inference.settings import Settings
from jaxlm.ops import penalties

State = dict[str, Any]


def adjust(logits: Float[Array, "R V"], state: State, settings: Settings) -> Float[Array, "R V"]:
    """Float32 logits after everything that is held against a token."""
    tokens, real, now = state["tokens"], state["real"], state["now"]
    ends = jnp.full(len(logits), now - 1)
    source = state.get("source")
    logits = penalties.add_to_sequences(logits.astype(jnp.float32), tokens, real, ends, settings.biases)
    if settings.encoder_repetition_penalty != 1:
        logits = penalties.repetition(logits, *source, 1 / settings.encoder_repetition_penalty)
    if settings.repetition_penalty != 1:
        logits = penalties.repetition(logits, tokens, real, settings.repetition_penalty)
    if settings.presence_penalty or settings.frequency_penalty:
        new = real & (jnp.arange(real.shape[1]) >= state["first"])
        logits = penalties.presence_and_frequency(logits, tokens, new, settings.presence_penalty, settings.frequency_penalty)
    if settings.no_repeat_ngram_size:
        logits = penalties.ban_repeated_ngrams(logits, tokens, real, ends, settings.no_repeat_ngram_size)
    if settings.encoder_no_repeat_ngram_size:
        logits = penalties.ban_repeated_ngrams(logits, tokens, real, ends, settings.encoder_no_repeat_ngram_size, source)
    logits = _lengths(logits, state, settings)
    return penalties.keep(logits, state["allowed"]) if "allowed" in state else logits  # `inference/constrain.py`


def _lengths(logits, state, settings):
    """What depends on how much there is: no end too early, forced first and last tokens."""
    new, read = state["now"] - state["first"], state["real"].sum(1)
    everywhere = jnp.ones(len(logits), bool)
    if settings.eos_token_id and (settings.min_length or settings.min_new_tokens):
        early = (read < settings.min_length) | (new < settings.min_new_tokens)
        logits = penalties.without(logits, settings.eos_token_id, early)
    if settings.forced_bos_token_id is not None:
        logits = penalties.only(logits, (settings.forced_bos_token_id,), read == 1)
    if settings.forced_eos_token_id:
        logits = penalties.only(logits, settings.forced_eos_token_id, everywhere & (new == state["most"] - 1))
    if settings.suppress_tokens:
        logits = penalties.without(logits, settings.suppress_tokens, everywhere)
    if settings.begin_suppress_tokens:
        # As in transformers, a forced first token does not count as the beginning.
        begin = jnp.where(read - new == 1, 1, 0) if settings.forced_bos_token_id is not None else 0
        logits = penalties.without(logits, settings.begin_suppress_tokens, everywhere & (new == begin))
    return logits
