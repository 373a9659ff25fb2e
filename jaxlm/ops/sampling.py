"""From logits to the next token: filters on a distribution, and one draw from it."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; temperature 0 is greedy. Names are Hugging Face's; every filter leaves `least` tokens."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    least: int = 1

    def __post_init__(self):
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature={self.temperature}: it is at least 0, and 0 is greedy")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k={self.top_k}: at least one token must remain; leave it out to keep all")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p}: a share of the probability, above 0 and at most 1")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ConfigError(f"min_p={self.min_p}: a share of the greatest probability, from 0 to 1")
        if self.typical_p is not None and not 0 < self.typical_p <= 1:
            raise ConfigError(f"typical_p={self.typical_p}: a share of the probability, above 0 and at most 1")


GREEDY = Sampling(temperature=0.0)


def sample(logits: Float[Array, "B V"], sampling: Sampling, keys: Array) -> Int[Array, "B"]:
    """The next token of each row, drawn with the row's own key of `keys` [B]."""
    if sampling.temperature == 0:
        return logits.argmax(-1).astype(jnp.int32)
    return jax.vmap(jax.random.categorical)(keys, filter_logits(logits, sampling)).astype(jnp.int32)


def filter_logits(logits: Float[Array, "B V"], sampling: Sampling) -> Float[Array, "B V"]:
    """Logits after temperature, top-k, top-p, min-p and typical-p, in this order; what is filtered out is -inf."""
    logits = logits.astype(jnp.float32) / sampling.temperature
    if sampling.top_k is not None:
        logits = keep_top_k(logits, max(sampling.top_k, sampling.least))
    if sampling.top_p is not None and sampling.top_p < 1:
        logits = keep_top_p(logits, sampling.top_p, sampling.least)
    if sampling.min_p:
        logits = keep_min_p(logits, sampling.min_p, sampling.least)
    if sampling.typical_p is not None and sampling.typical_p < 1:
        logits = keep_typical(logits, sampling.typical_p, sampling.least)
    return logits


def keep_top_k(logits: Float[Array, "B V"], k: int) -> Float[Array, "B V"]:
    """The k largest logits (and whatever equals the k-th), the rest -inf (Fan et al. 2018, section 5.4)."""
    smallest = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][:, -1:]
    return jnp.where(logits < smallest, -jnp.inf, logits)


def keep_top_p(logits: Float[Array, "B V"], p: float, least: int = 1) -> Float[Array, "B V"]:
    """The smallest set of tokens whose probability reaches p, at least one; the rest -inf (Holtzman et al. 2020, section 3.1)."""
    return _keep_until(logits, jnp.argsort(logits, axis=-1, descending=True), p, least)


def keep_min_p(logits: Float[Array, "B V"], p: float, least: int = 1) -> Float[Array, "B V"]:
    """The tokens at least p times as likely as the likeliest; the rest -inf (Nguyen et al. 2024, section 3)."""
    floor = logits.max(-1, keepdims=True) + math.log(p)
    if least > 1:
        floor = jnp.minimum(floor, jax.lax.top_k(logits, least)[0][:, -1:])
    return jnp.where(logits < floor, -jnp.inf, logits)


def keep_typical(logits: Float[Array, "B V"], p: float, least: int = 1) -> Float[Array, "B V"]:
    """The tokens whose surprise is nearest to the entropy, until their probability reaches p; the rest -inf.

    Locally typical sampling (Meister et al. 2023, section 5). What has no probability is left out of the entropy.
    """
    surprise = -jax.nn.log_softmax(logits, axis=-1)
    entropy = jnp.where(jnp.isfinite(surprise), jnp.exp(-surprise) * surprise, 0.0).sum(-1, keepdims=True)
    return _keep_until(logits, jnp.argsort(jnp.abs(surprise - entropy), axis=-1), p, least)


def _keep_until(logits: Array, order: Array, p: float, least: int) -> Array:
    """Tokens in this order until their probability reaches p, and `least` of them at least."""
    ordered = jnp.take_along_axis(logits, order, axis=-1)
    probability = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability
    kept = jnp.where((before < p) | (jnp.arange(logits.shape[-1]) < least), ordered, -jnp.inf)
    return jnp.put_along_axis(logits, order, kept, axis=-1, inplace=False)
