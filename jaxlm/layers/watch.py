"""Attention seen from outside: the weights of every attention of a call, without a word of it in the models.

Read next: `../explain/alignments.py`.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.layers.attention import Attention
from jaxlm.ops.attention import attend


@functools.partial(jax.jit, static_argnames=("model", "kind"))
def attention_weights(model: nn.Module, params: Any, *inputs: Array, kind: type = Attention) -> tuple[Float[Array, "B N T S"], ...]:
    """The weights of each attention of exactly this class in `model.apply({"params": params}, *inputs)`, in the order of the layers."""
    found = []

    def watch(method: Callable, given: tuple, named: dict[str, Any], context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if type(module) is kind and context.method_name == "_mix" and not module.is_initializing():
            found.append(_weights(module, *given))
        return method(*given, **named)

    with jax.disable_jit(), nn.intercept_methods(watch):  # what a layer compiles on its own would hide its inside
        model.apply({"params": params}, *inputs)
    return tuple(found)


def _weights(module, width, q, k, v, mask, bias, key):
    """What attention mixes where the values are unit vectors, as many at once as a value has features."""
    B, S, K, H = k.shape
    units = jnp.eye(S, -(-S // H) * H)
    one = lambda at: jnp.broadcast_to(units[:, None, at : at + H], (B, S, K, H))
    free = {"scale": module.scale, "softcap": module.softcap, "implementation": "eager"}
    mixed = [attend(q, k, one(at), mask, bias, **free) for at in range(0, S, H)]
    return jnp.concatenate(mixed, -1)[..., :S].transpose(0, 2, 1, 3)
