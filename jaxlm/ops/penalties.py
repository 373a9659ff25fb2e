"""What a text so far says against its next token: penalties and bans on logits, one pure function each.

All take the row's tokens so far with the slots that count. Rows are R, vocabulary V, slots S. Where a ban is meant the logit
becomes -inf. Read next: `inference/rules.py`, which applies them in Hugging Face's order.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Logits = Float[Array, "R V"]
Tokens = Int[Array, "R S"]
Real = Bool[Array, "R S"]


def counts(tokens: Tokens, real: Real, vocabulary: int) -> Float[Array, "R V"]:
    """How often each token stands in a row's real slots."""
    add = lambda ids, real: jnp.zeros(vocabulary, jnp.float32).at[ids].add(real.astype(jnp.float32))
    return jax.vmap(add)(tokens, real)


def repetition(logits: Logits, tokens: Tokens, real: Real, penalty: float) -> Logits:
    """What has been said is divided by the penalty where positive, multiplied where negative (Keskar et al. 2019, section 4.1)."""
    said = counts(tokens, real, logits.shape[-1]) > 0
    return jnp.where(said, jnp.where(logits < 0, logits * penalty, logits / penalty), logits)


def presence_and_frequency(logits: Logits, tokens: Tokens, real: Real, presence: float, frequency: float) -> Logits:
    """logits - presence * (was said) - frequency * (times said), as in OpenAI's interface."""
    times = counts(tokens, real, logits.shape[-1])
    return logits - presence * (times > 0) - frequency * times


def ban_repeated_ngrams(
    logits: Logits, tokens: Tokens, real: Real, ends: Int[Array, "R"], size: int, source: tuple[Tokens, Real] | None = None
) -> Logits:
    """No token that would end an n-gram which the row, or its `source` (tokens, real), has already (Paulus et al. 2018, section 2.5).

    Args:
      ends: the slot of each row's last token.
    """
    prefix, known = last(tokens, real, ends, size - 1)
    tokens, real = (tokens, real) if source is None else source
    starts = max(tokens.shape[1] - size + 1, 0)  # an n-gram begins at each of these slots
    same = jnp.broadcast_to(known.all(1)[:, None], (len(logits), starts))
    for i in range(size):
        same = same & real[:, i : i + starts]
        if i < size - 1:
            same = same & (tokens[:, i : i + starts] == prefix[:, i, None])
    return ban(logits, tokens[:, size - 1 :][:, :starts], same)


def last(tokens: Tokens, real: Real, ends: Int[Array, "R"], count: int) -> tuple[Int[Array, "R n"], Bool[Array, "R n"]]:
    """The `count` tokens up to each row's slot `ends`, and which of them are there."""
    slots = ends[:, None] - jnp.arange(count - 1, -1, -1)
    inside = jnp.clip(slots, 0)
    take = lambda array: jnp.take_along_axis(array, inside, axis=1)
    return take(tokens), take(real) & (slots >= 0)


def ban(logits: Logits, tokens: Int[Array, "R n"], banned: Bool[Array, "R n"]) -> Logits:
    """-inf for each row's own tokens, where `banned`."""
    refuse = lambda logits, ids, banned: logits.at[jnp.where(banned, ids, logits.shape[0])].set(-jnp.inf, mode="drop")
    return jax.vmap(refuse)(logits, tokens, banned)


def add_to_sequences(
    logits: Logits, tokens: Tokens, real: Real, ends: Int[Array, "R"], biases: tuple[tuple[tuple[int, ...], float], ...]
) -> Logits:
    """Each (sequence, bias): where the row ends with all of the sequence but its last token, that token's logit is raised by the bias."""
    for size in sorted({len(sequence) for sequence, _ in biases}):
        rows = [(sequence, bias) for sequence, bias in biases if len(sequence) == size]
        sequences, raised = jnp.array([sequence for sequence, _ in rows], jnp.int32), jnp.array([bias for _, bias in rows], jnp.float32)
        prefix, known = last(tokens, real, ends, size - 1)
        fits = (known[:, None] & (prefix[:, None] == sequences[:, :-1])).all(-1)
        logits = logits.at[:, sequences[:, -1]].add(jnp.where(fits, raised, 0.0))
    return logits


def keep(logits: Logits, words: Int[Array, "R W"]) -> Logits:
    """-inf for tokens whose bit is not set, bit i % 32 of word i // 32; a row in which that leaves none stays as it is."""
    bits = (words[:, :, None] >> jnp.arange(32)) & 1
    kept = jnp.where(bits.reshape(len(words), -1)[:, : logits.shape[-1]] == 1, logits, -jnp.inf)
    return jnp.where((kept > -jnp.inf).any(1, keepdims=True), kept, logits)


def only(logits: Logits, tokens: tuple[int, ...], where: Bool[Array, "R"]) -> Logits:
    """These tokens alone left, alike, where asked."""
    alone = jnp.full_like(logits, -jnp.inf).at[:, jnp.array(tokens, jnp.int32)].set(0.0)
    return jnp.where(where[:, None], alone, logits)


def without(logits: Logits, tokens: tuple[int, ...], where: Bool[Array, "R"]) -> Logits:
    """These tokens banned, where asked."""
    banned = jnp.zeros(logits.shape[-1], bool).at[jnp.array(tokens, jnp.int32)].set(True)
    return jnp.where(where[:, None] & banned, -jnp.inf, logits)
