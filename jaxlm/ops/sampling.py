"""From logits to the next token: filters on a distribution, and one draw from it."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; temperature 0 is greedy. Names are Hugging Face's."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self):
        if self.temperature < 0:
            raise ConfigError(f"temperature={self.temperature}: it is at least 0, and 0 is greedy")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top_k={self.top_k}: at least one token must remain")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p}: a share of the probability, above 0 and at most 1")


GREEDY = Sampling(temperature=0.0)


def sample(logits: Float[Array, "B V"], sampling: Sampling, key: Array) -> Int[Array, "B"]:
    """The next token of each row."""
    if sampling.temperature == 0:
        return logits.argmax(-1).astype(jnp.int32)
    return jax.random.categorical(key, filter_logits(logits, sampling)).astype(jnp.int32)


def filter_logits(logits: Float[Array, "B V"], sampling: Sampling) -> Float[Array, "B V"]:
    """Logits after temperature, then top-k, then top-p; what is filtered out is -inf."""
    logits = logits.astype(jnp.float32) / sampling.temperature
    if sampling.top_k is not None:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p is not None and sampling.top_p < 1:
        logits = keep_top_p(logits, sampling.top_p)
    return logits


def keep_top_k(logits: Float[Array, "B V"], k: int) -> Float[Array, "B V"]:
    """The k largest logits (and whatever equals the k-th), the rest -inf (Fan et al. 2018, section 5.4)."""
    smallest = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][:, -1:]
    return jnp.where(logits < smallest, -jnp.inf, logits)


def keep_top_p(logits: Float[Array, "B V"], p: float) -> Float[Array, "B V"]:
    """The smallest set of tokens whose probability reaches p, at least one; the rest -inf (Holtzman et al. 2020, section 3.1)."""
    order = jnp.argsort(logits, axis=-1, descending=True)
    sorted_logits = jnp.take_along_axis(logits, order, axis=-1)
    probability = jax.nn.softmax(sorted_logits, axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability
    kept = jnp.where(before < p, sorted_logits, -jnp.inf)
    return jnp.put_along_axis(logits, order, kept, axis=-1, inplace=False)
