"""Rotary positions: pairs of features turn by an angle that grows with the position (Su et al. 2021, equation 15).

The pairs are (j, j + R/2), as in Hugging Face's models; GGUF files of Llama keep (2j, 2j + 1), which reading undoes.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.errors import ConfigError
from jaxlm.frozen import Frozen
from jaxlm.overrides import choose


@dataclasses.dataclass(frozen=True)
class Rotary:
    """Attributes:
    size: R, the features of a head that turn; the first R of them, an even number.
    theta: the base of the frequencies.
    context: positions that the model was made for (max_position_embeddings).
    scaling: config.json's `rope_scaling`, its kind under "rope_type" or "type"; None: none.
    """

    size: int
    theta: float = 10_000.0
    context: int = 2048
    scaling: Frozen | None = None

    @property
    def kind(self) -> str:
        """The name of the scaling, one of `SCALINGS`."""
        scaling = self.scaling or {}
        return scaling.get("rope_type") or scaling.get("type") or "default"

    @property
    def trained(self) -> int:
        """Positions that the model had seen before its frequencies were scaled."""
        return (self.scaling or {}).get("original_max_position_embeddings") or self.context

    @property
    def reach(self) -> int:
        """Positions that the scaled frequencies are made for."""
        longer = {"linear": self.context, "dynamic": self.context, "llama3": self.trained, "yarn": self.trained}
        return max(self.context, int(longer[self.kind] * self.asked("factor"))) if self.kind in longer else self.context

    def asked(self, key: str) -> float:
        """A number of the scaling that has no default."""
        number = (self.scaling or {}).get(key)
        if number is None:
            raise ConfigError(f"rope_scaling of type {self.kind} has no {key}: add it, or leave rope_scaling out")
        return number


Angles = tuple[Float[Array, "half"], float]


def frequencies(rotary: Rotary, longest: Int[Array, ""] | int = 0) -> Angles:
    """Angles a position, in radians, and the factor of their cosines and sines.

    Args:
      longest: positions in use; only "dynamic" asks.

    Raises ConfigError for a scaling of an unknown kind, or one that lacks a number.
    """
    return SCALINGS[choose("rope_scaling type", rotary.kind, SCALINGS)](rotary, longest)


def _powers(theta, size: int):
    # Spelled as torch does: at position 10,000 an error in the last place is already 1e-3 of a turn.
    return 1.0 / theta ** (np.arange(0, size, 2, dtype=np.float32) / size)


def _default(rotary: Rotary, longest) -> Angles:
    return _powers(rotary.theta, rotary.size), 1.0


def _linear(rotary: Rotary, longest) -> Angles:
    """Positions are pressed together (Chen et al. 2023, equation 3)."""
    return _powers(rotary.theta, rotary.size) / np.float32(rotary.asked("factor")), 1.0


def _dynamic(rotary: Rotary, longest) -> Angles:
    """The base grows with the longest row of the batch, once it is longer than the context (bloc97 2023)."""
    factor, power = rotary.asked("factor"), rotary.size / (rotary.size - 2)
    share = jnp.maximum(longest, rotary.context).astype(jnp.float32) / rotary.context
    return _powers(rotary.theta * (factor * share - (factor - 1)) ** power, rotary.size), 1.0


def _llama3(rotary: Rotary, longest) -> Angles:
    """Slow frequencies are divided, fast ones kept, those between blended (Llama 3.1)."""
    plain = _powers(rotary.theta, rotary.size)
    low, high, factor = (rotary.asked(key) for key in ("low_freq_factor", "high_freq_factor", "factor"))
    turns = rotary.trained * plain / (2 * math.pi)
    fast = np.clip((turns - low) / (high - low), 0, 1)
    return plain * ((1 - fast) / factor + fast), 1.0


def _yarn(rotary: Rotary, longest) -> Angles:
    """As Llama 3's, by rotations over the trained length, and sharper attention (Peng et al. 2023, section 3)."""
    plain, scaling = _powers(rotary.theta, rotary.size), rotary.scaling
    factor = scaling.get("factor") or rotary.context / rotary.trained
    place = lambda turns: rotary.size * math.log(rotary.trained / (turns * 2 * math.pi)) / (2 * math.log(rotary.theta))
    low, high = place(scaling.get("beta_fast") or 32), place(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary.size - 1)
    slow = np.clip((np.arange(len(plain), dtype=np.float32) - low) / (high - low or 1e-3), 0, 1)
    return plain * (slow / factor + (1 - slow)), _sharpness(scaling, factor)


def _sharpness(scaling: Frozen, factor: float) -> float:
    if scaling.get("attention_factor") is not None:
        return scaling["attention_factor"]
    grown = lambda weight: 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0
    one, other = scaling.get("mscale"), scaling.get("mscale_all_dim")
    return grown(one) / grown(other) if one and other else grown(1.0)


# config.json's names of scalings -> the function.
SCALINGS = {"default": _default, "linear": _linear, "dynamic": _dynamic, "llama3": _llama3, "yarn": _yarn}


def rotation(positions: Int[Array, "B T"], rotary: Rotary) -> tuple[Float[Array, "B T half"], Float[Array, "B T half"]]:
    """Cosines and sines of every position's angles, in float32."""
    each, factor = frequencies(rotary, positions.max() + 1 if rotary.kind == "dynamic" else 0)
    angles = positions[..., None].astype(jnp.float32) * each
    return jnp.cos(angles) * factor, jnp.sin(angles) * factor


def rotate(x: Float[Array, "B T N H"], cos: Float[Array, "B T half"], sin: Float[Array, "B T half"]) -> Float[Array, "B T N H"]:
    """The first R features of every head turned by the angles; the rest as they are."""
    half = cos.shape[-1]
    first, second, rest = x[..., :half].astype(jnp.float32), x[..., half : 2 * half].astype(jnp.float32), x[..., 2 * half :]
    cos, sin = cos[:, :, None], sin[:, :, None]
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1).astype(x.dtype)
    return jnp.concatenate([turned, rest], -1) if rest.shape[-1] else turned
