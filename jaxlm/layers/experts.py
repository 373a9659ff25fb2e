"""Experts in the place of a block's feed-forward half: each token is fed to the few that a router picks."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.layers.linear import Linear, Normal
from jaxlm.layers.mlp import activation
from jaxlm.sharding import gather, spec


class Experts(nn.Module):
    """sum over the chosen e of p_e down_e(activation(gate_e(x)) * up_e(x)) (Jiang et al. 2024, section 2.1).

    Attributes:
      count: E experts, each of `width`; chosen: how many feed a token, the likeliest; their p sum to 1.
    """

    count: int
    chosen: int
    width: int
    activation: str = "silu"
    init_kernel: Any = Normal(0.02)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], key: Array | None = None) -> Float[Array, "B T D"]:
        """The router runs in the activations' type, its softmax in float32; `key` is every feed-forward half's, and unused."""
        x = x.astype(self.dtype)
        scores = Linear((self.count,), ("embed", None), False, self.init_kernel, self.dtype, name="router")(x)
        share = routing(scores, self.chosen).astype(self.dtype)
        gate, up = (self._weight(name, (x.shape[-1], self.width), ("embed", None)) for name in ("gate", "up"))
        down = self._weight("down", (self.width, x.shape[-1]), (None, "embed"))
        # Every expert sees every token, E / chosen times the arithmetic of sorting tokens to their experts: one spelling
        # that any mesh divides by experts, with static shapes and no token dropped. One product sums over the experts.
        wide = lambda kernel: jnp.einsum("btd,edf->btef", x, kernel, out_sharding=spec("batch", None, "experts", None))
        fed = activation(self.activation)(wide(gate)) * wide(up) * share[..., None]
        return jnp.einsum("btef,efd->btd", fed, down, out_sharding=spec("batch", None, None))

    def _weight(self, name: str, shape: tuple[int, int], axes: tuple[str | None, str | None]) -> Float[Array, "E in out"]:
        axes = ("experts", *axes)
        kernel = self.param(name, self.init_kernel, (self.count, *shape), jnp.float32, axes)
        return gather(kernel.astype(self.dtype), *axes)


def routing(scores: Float[Array, "B T E"], chosen: int) -> Float[Array, "B T E"]:
    """Softmax over the `chosen` largest scores of each token, 0 elsewhere; of equal scores the first."""
    probability = jax.nn.softmax(scores.astype(jnp.float32), axis=-1)
    largest, index = jax.lax.top_k(probability, chosen)
    picked = jax.nn.one_hot(index, scores.shape[-1]) * (largest / largest.sum(-1, keepdims=True))[..., None]
    return picked.sum(-2)
