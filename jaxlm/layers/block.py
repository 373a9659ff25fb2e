"""The pre-norm Transformer block, and the one function that applies a pile of blocks.

Two layouts of the parameters: "unrolled" {"0": layer, "1": layer, ...}, fast everywhere, and "stacked"
{"stacked": layers with a leading axis L} under lax.scan, small to compile. `stack` and `unstack` turn a whole tree from
one into the other. Other orders of norms and halves are in `blocks.py`. Read next: `models/gpt2.py`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.errors import ConfigError
from jaxlm.layers.sight import Sight
from jaxlm.ops.dropout import dropout, fold, split
from jaxlm.overrides import choose

HIDDEN = ("batch", None, None)
# What the forward pass keeps for the backward pass; the rest is computed again.
REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "attention": jax.checkpoint_policies.save_only_these_names("attention"),
    "full": jax.checkpoint_policies.nothing_saveable,
}


_SKIPS = 2**31 - 1  # the part of a layer's key that none of its own drops has


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)) (pre-norm: Radford et al. 2019, section 2.3).

    Attributes:
      dropout: of what is added to x; mlp_dropout: of the mlp's part, where it is another.
    """

    ln_1: nn.Module
    attn: nn.Module
    ln_2: nn.Module
    mlp: nn.Module
    dropout: float = 0.0
    mlp_dropout: float | None = None

    def __call__(self, x: Float[Array, "B T D"], sight: Sight, cache: Any = None, key: Array | None = None):
        """Returns x [B, T, D] and the layer's cache."""
        keys = split(key, 4)
        mixed, cache = self.attn(self.ln_1(x), sight, cache, keys[0])
        x = x + dropout(mixed, self.dropout, keys[1], HIDDEN)
        rate = self.dropout if self.mlp_dropout is None else self.mlp_dropout
        return x + dropout(self.mlp(self.ln_2(x), keys[3]), rate, keys[2], HIDDEN), cache


@dataclasses.dataclass(frozen=True)
class Layers:
    """Blocks one after the other: a value with two pure functions.

    Attributes:
      blocks: one a layer; `(block,) * count` where all are equal, which the stacked layout needs.
      order: where layers share parameters (ALBERT), which of the blocks each layer is; None: one after the other.
      kinds: which of several sights each layer looks with (local and global attention in turn); None: there is one.
      skip: probability that a layer is left out of a training step, for the whole batch (LayerDrop: Fan et al. 2020, section 3.1).
    """

    blocks: tuple[nn.Module, ...]
    layout: str = "unrolled"
    remat: str = "none"
    kinds: tuple[int, ...] | None = None
    order: tuple[int, ...] | None = None
    skip: float = 0.0

    def init(self, key: Array, x: Float[Array, "B T D"], sight: Sight = Sight()) -> dict:
        """The parameters of all layers, in the layout; layer i has the same values in both."""
        choose("compute.layout", self.layout, ("unrolled", "stacked"))
        if self.layout == "stacked":
            one = lambda i: _init_block(self._only_block(), jax.random.fold_in(key, i), x, sight)
            return {"stacked": jax.lax.map(one, jnp.arange(len(self.blocks)))}
        return {str(i): _init_block(block, jax.random.fold_in(key, i), x, sight) for i, block in enumerate(self.blocks)}

    def apply(self, params: dict, x: Float[Array, "B T D"], sights: Sight | tuple[Sight, ...], cache: Any = None, key: Array | None = None):
        """Returns x [B, T, D] and the cache, which has one entry a layer in the layout of the parameters."""
        choose("compute.remat", self.remat, REMAT)
        sights = sights if isinstance(sights, tuple) else (sights,)
        run = self._scan if self.layout == "stacked" else self._unroll
        return run(params, x, sights, cache, key)

    def _unroll(self, params, x, sights, cache, key):
        caches = []
        for i, number in enumerate(self.order or range(len(self.blocks))):
            sight, layer = sights[self.kinds[i] if self.kinds else 0], self._layer(self.blocks[number])
            x, new = layer(params[str(number)], x, sight, None if cache is None else cache[i], fold(key, i))
            caches.append(new)
        return x, None if cache is None else tuple(caches)

    def _scan(self, params, x, sights, cache, key):
        layer = self._layer(self._only_block())
        looks = [lambda *rest, sight=sight: layer(rest[0], rest[1], sight, *rest[2:]) for sight in sights]

        def body(x, xs):
            layer_params, layer_cache, i, kind, number = xs
            if self.order:  # read inside the loop: gathered before it, every layer would have its copy
                layer_params = jax.tree.map(lambda leaf: leaf[number], params["stacked"])
            return jax.lax.switch(kind, looks, layer_params, x, layer_cache, fold(key, i))

        order = jnp.asarray(self.order or tuple(range(len(self.blocks))), jnp.int32)
        kinds = jnp.asarray(self.kinds or (0,) * len(order), jnp.int32)
        return jax.lax.scan(body, x, (None if self.order else params["stacked"], cache, jnp.arange(len(order)), kinds, order))

    def _layer(self, block):
        layer = functools.partial(_apply_block, block, self.skip)
        return layer if REMAT[self.remat] is None else jax.checkpoint(layer, policy=REMAT[self.remat])

    def _only_block(self):
        if any(block != self.blocks[0] for block in self.blocks):
            raise ConfigError("compute.layout=stacked needs layers of one shape, and this model has others: use compute.layout=unrolled")
        return self.blocks[0]


# Jitted, so that equal layers are traced once.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply_block(block, skip, params, x, sight, cache, key):
    apply = lambda: block.apply({"params": params}, x, sight, cache, key)
    if not skip or key is None:
        return apply()
    return jax.lax.cond(jax.random.bernoulli(fold(key, _SKIPS), skip), lambda: (x, cache), apply)


@functools.partial(jax.jit, static_argnums=0)
def _init_block(block, key, x, sight):
    return block.init(key, x, sight)["params"]


def stack(tree: Any) -> Any:
    """Every {"0": layer, "1": layer, ...} of a tree as {"stacked": arrays with a leading layer axis}.

    Parameters, gradients and optimizer states alike: tuples are gone through, arrays stay.
    """
    if not isinstance(tree, dict) or set(tree) != {str(i) for i in range(len(tree))} or not tree:
        return _inside(stack, tree)
    return {"stacked": jax.tree.map(lambda *leaves: jnp.stack(leaves), *(tree[str(i)] for i in range(len(tree))))}


def unstack(tree: Any) -> Any:
    """The inverse of `stack`."""
    if not isinstance(tree, dict) or set(tree) != {"stacked"}:
        return _inside(unstack, tree)
    count = jax.tree.leaves(tree)[0].shape[0]
    return {str(i): jax.tree.map(lambda leaf: leaf[i], tree["stacked"]) for i in range(count)}  # noqa: B023 (used at once)


LAYOUTS = {"unrolled": unstack, "stacked": stack}


def _inside(change: Callable, tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: change(value) for name, value in tree.items()}
    if isinstance(tree, tuple):
        return type(tree)(*map(change, tree)) if hasattr(tree, "_fields") else tuple(map(change, tree))
    return tree
