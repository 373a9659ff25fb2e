"""x W + b, in the spelling that a processor's matrix units can take. Read next: `layers/linear.py`."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxlm.ops.turned import Turned


def affine(
    x: Float[Array, "n d"],
    kernel: Float[Array, "d f"] | Turned,
    bias: Float[Array, "f"] | None,
    layout: jax.sharding.PartitionSpec | None = None,
) -> Float[Array, "n f"]:
    """x W + b in the type of x, laid out on the mesh as `layout` says (None: no mesh); one device alone where W is turned."""
    if isinstance(kernel, Turned):
        y = kernel.times(x)
    elif x.dtype == jnp.bfloat16 and layout is None and jax.default_backend() == "cpu":
        return _tiled(x, kernel, jnp.zeros(kernel.shape[1], x.dtype) if bias is None else bias)
    else:
        y = jnp.einsum("nd,df->nf", x, kernel, out_sharding=layout)
    return y if bias is None else y + bias


@jax.custom_vjp
def _tiled(x, kernel, bias):
    """For processors with tiles for bfloat16 (Intel AMX): a training step takes two thirds of float32's time there.

    XLA's CPU library uses the tiles for bfloat16 factors and a float32 result, and only where the left factor is read along its
    rows. The gradient of W reads x along its columns: so x is laid down anew, and a row of ones below it gives the gradient of b in
    passing (the sum over bfloat16 rows alone would take as long as a product).
    """
    return (_product(x, kernel) + bias).astype(x.dtype)


def _forward(x, kernel, bias):
    return _tiled(x, kernel, bias), (x, kernel)


def _backward(kept, grad):
    x, kernel = kept
    columns = jnp.concatenate([x.T, jnp.ones((1, len(x)), x.dtype)])
    grad_both = _product(columns, grad).astype(x.dtype)
    return _product(grad, kernel.T).astype(x.dtype), grad_both[:-1], grad_both[-1]


def _product(left, right):
    return jnp.einsum("nd,df->nf", left, right, preferred_element_type=jnp.float32)


_tiled.defvjp(_forward, _backward)
