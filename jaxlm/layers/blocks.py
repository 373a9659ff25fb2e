"""Blocks that order their norms and halves otherwise than the pre-norm `block.Block`, and those that look at an encoder.

All take (x, sight, cache, key) and return x and the layer's cache, so that `block.Layers` runs any of them.
"""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from jaxlm.layers.block import HIDDEN
from jaxlm.layers.sight import Sight
from jaxlm.ops.dropout import dropout, fold, split

Hidden = Float[Array, "B T D"]


class PostBlock(nn.Module):
    """norm(x + attention(x)), then norm(x + mlp(x)) (Vaswani et al. 2017, section 3.1).

    Attributes:
      dropout: of what is added to x; mlp_dropout: of the mlp's part, where it is another.
    """

    attn: nn.Module
    ln_1: nn.Module
    mlp: nn.Module
    ln_2: nn.Module
    dropout: float = 0.0
    mlp_dropout: float | None = None

    def __call__(self, x: Hidden, sight: Sight, cache: Any = None, key: Array | None = None):
        """Returns x [B, T, D] and the layer's cache."""
        keys = split(key, 4)
        mixed, cache = self.attn(x, sight, cache, keys[0])
        x = self.ln_1(x + dropout(mixed, self.dropout, keys[1], HIDDEN))
        rate = self.dropout if self.mlp_dropout is None else self.mlp_dropout
        return self.ln_2(x + dropout(self.mlp(x, keys[3]), rate, keys[2], HIDDEN)), cache


class Group(nn.Module):
    """Blocks one after the other, as one layer (ALBERT); no cache."""

    blocks: tuple[nn.Module, ...]

    def __call__(self, x: Hidden, sight: Sight, cache: None = None, key: Array | None = None):
        """Returns x [B, T, D] and no cache."""
        for i, block in enumerate(self.blocks):
            x, _ = block(x, sight, None, fold(key, i))
        return x, None


class ParallelBlock(nn.Module):
    """x + attention(norm(x)) + mlp(norm(x)) (Wang & Komatsuzaki 2021)."""

    ln_1: nn.Module
    attn: nn.Module
    ln_2: nn.Module
    mlp: nn.Module
    dropout: float = 0.0

    def __call__(self, x: Hidden, sight: Sight, cache: Any = None, key: Array | None = None):
        """Returns x [B, T, D] and the layer's cache."""
        keys = split(key, 4)
        mixed, cache = self.attn(self.ln_1(x), sight, cache, keys[0])
        fed = dropout(self.mlp(self.ln_2(x), keys[3]), self.dropout, keys[2], HIDDEN)
        return x + dropout(mixed, self.dropout, keys[1], HIDDEN) + fed, cache


class SandwichBlock(nn.Module):
    """x + norm(attention(norm(x))), then x + norm(mlp(norm(x))) (Gemma 2, section 2)."""

    ln_1: nn.Module
    attn: nn.Module
    ln_1_out: nn.Module
    ln_2: nn.Module
    mlp: nn.Module
    ln_2_out: nn.Module

    def __call__(self, x: Hidden, sight: Sight, cache: Any = None, key: Array | None = None):
        """Returns x [B, T, D] and the layer's cache."""
        mixed, cache = self.attn(self.ln_1(x), sight, cache, key)
        x = x + self.ln_1_out(mixed)
        return x + self.ln_2_out(self.mlp(self.ln_2(x))), cache


class CrossBlock(nn.Module):
    """The pre-norm decoder block over an encoder: self-attention, cross-attention, mlp.

    Its cache is {"self": ..., "memory": keys and values of the encoder's states}.
    """

    ln_1: nn.Module
    attn: nn.Module
    ln_cross: nn.Module
    cross: nn.Module
    ln_2: nn.Module
    mlp: nn.Module
    dropout: float = 0.0

    def __call__(self, x: Hidden, sight: Sight, cache: Any = None, key: Array | None = None):
        """Returns x [B, T, D] and the layer's cache."""
        keys = split(key, 6)
        mixed, own = self.attn(self.ln_1(x), sight, _part(cache, "self"), keys[0])
        x = x + dropout(mixed, self.dropout, keys[1], HIDDEN)
        mixed, memory = self.cross(self.ln_cross(x), sight, _part(cache, "memory"), keys[2])
        x = x + dropout(mixed, self.dropout, keys[3], HIDDEN)
        x = x + dropout(self.mlp(self.ln_2(x), keys[5]), self.dropout, keys[4], HIDDEN)
        return x, None if cache is None else {"self": own, "memory": memory}


class PostCrossBlock(nn.Module):
    """The post-norm decoder block over an encoder (Vaswani et al. 2017, section 3.1); cache as `CrossBlock`'s."""

    attn: nn.Module
    ln_1: nn.Module
    cross: nn.Module
    ln_cross: nn.Module
    mlp: nn.Module
    ln_2: nn.Module
    dropout: float = 0.0

    def __call__(self, x: Hidden, sight: Sight, cache: Any = None, key: Array | None = None):
        """Returns x [B, T, D] and the layer's cache."""
        keys = split(key, 6)
        mixed, own = self.attn(x, sight, _part(cache, "self"), keys[0])
        x = self.ln_1(x + dropout(mixed, self.dropout, keys[1], HIDDEN))
        mixed, memory = self.cross(x, sight, _part(cache, "memory"), keys[2])
        x = self.ln_cross(x + dropout(mixed, self.dropout, keys[3], HIDDEN))
        x = self.ln_2(x + dropout(self.mlp(x, keys[5]), self.dropout, keys[4], HIDDEN))
        return x, None if cache is None else {"self": own, "memory": memory}


def _part(cache: Any, name: str) -> Any:
    """A part of the layer's cache; "memory" is empty until the first call has filled it."""
    return None if cache is None else cache.get(name, {})
