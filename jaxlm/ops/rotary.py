"""Rotary positions: pairs of features turn by an angle that grows with the position (Su et al. 2021, equation 15).

The pairs are (j, j + R/2), as in Hugging Face's models; GGUF files of Llama keep (2j, 2j + 1), which reading undoes.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.frozen import Frozen


@dataclasses.dataclass(frozen=True)
class Rotary:
    """Attributes:
    size: R, the features of a head that turn; the first R of them, an even number.
    theta: the base of the frequencies.
    context: positions that the model was made for (max_position_embeddings).
    scaling: config.json's `rope_scaling` or `rope_parameters`; None: none.
    """

    size: int
    theta: float = 10_000.0
    context: int = 2048
    scaling: Frozen | None = None


def frequencies(rotary: Rotary) -> Float[Array, "half"]:
    """Angles a position, in radians."""
    return rotary.theta ** (-jnp.arange(0, rotary.size, 2, dtype=jnp.float32) / rotary.size)


def rotation(positions: Int[Array, "B T"], rotary: Rotary) -> tuple[Float[Array, "B T half"], Float[Array, "B T half"]]:
    """Cosines and sines of every position's angles, in float32."""
    angles = positions[..., None].astype(jnp.float32) * frequencies(rotary)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: Float[Array, "B T N H"], cos: Float[Array, "B T half"], sin: Float[Array, "B T half"]) -> Float[Array, "B T N H"]:
    """The first R features of every head turned by the angles; the rest as they are."""
    half = cos.shape[-1]
    first, second, rest = x[..., :half].astype(jnp.float32), x[..., half : 2 * half].astype(jnp.float32), x[..., 2 * half :]
    cos, sin = cos[:, :, None], sin[:, :, None]
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1).astype(x.dtype)
    return jnp.concatenate([turned, rest], -1) if rest.shape[-1] else turned
