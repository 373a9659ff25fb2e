"""Losses over tokens. Each returns (sum, weight), so that averages over micro-batches, devices and hosts are right.

Weights, not magic labels, say what counts; a weight of 0 leaves a token out.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxlm.sharding import gather, replicate, spec

MASKED = -1e30  # a score whose exponential is 0 beside any other, and whose gradient is finite


def token_cross_entropy(
    hidden: Float[Array, "B T D"],
    table: Float[Array, "V D"],
    labels: Int[Array, "B T"],
    weights: Float[Array, "B T"],
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    chunk: int | None = None,
    softcap: float | None = None,
    bias: Float[Array, "V"] | None = None,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Cross-entropy of softmax(hidden table^T) against labels, with its gradients made in the forward pass.

    The logits exist once, in the forward pass, where both gradients are cheap: nothing of size [B, T, V] is kept for the
    backward pass and no product is computed again. With `chunk` only [B, chunk, V] logits exist at a time.

    loss = (1 - e) (-log p[label]) + e mean_v(-log p[v]) + z (log sum exp logits)^2     (smoothing: Szegedy et al. 2016,
    equation 8; z-loss: Chowdhery et al. 2022, section 5)

    A label outside [0, V) whose weight is not 0 makes the loss and the gradients NaN.

    Args:
      table: the output embedding, in any dtype; products run in hidden's dtype, sums in float32.
      chunk: tokens of a row at a time; T must be its multiple. None: all.
      softcap: logits are softcap * tanh(hidden table^T / softcap) (Gemma 2).
      bias: is added to hidden table^T and takes no gradient (BART's buffer).

    Returns:
      The weighted sum in nats and the sum of the weights.
    """
    T = hidden.shape[1]
    if chunk is not None and T % chunk:
        raise ValueError(f"chunk={chunk} does not divide the {T} tokens of a row")
    chunks = 1 if chunk is None else T // chunk
    checked = _checked(labels, weights, table.shape[0])
    bias = None if bias is None else gather(bias, "vocab")
    return _cross_entropy(hidden, table, bias, labels, checked, (label_smoothing, z_loss, chunks, softcap)), weights.sum()


def _checked(labels: Array, weights: Array, classes: int) -> Array:
    """The weights, NaN where a label that counts is no class: no other class is ever trained in its place."""
    inside = (labels >= 0) & (labels < classes)
    return jnp.where(inside | (weights == 0), weights, jnp.nan)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _cross_entropy(hidden, table, bias, labels, weights, options):
    loss = lambda h, y, w: _chunk_loss(h, table, bias, y, w, options)[0]
    if options[2] == 1:
        return loss(hidden, labels, weights)
    pieces = [_in_chunks(x, options[2]) for x in (hidden, labels, weights)]
    return jax.lax.scan(lambda total, piece: (total + loss(*piece), None), jnp.zeros((), jnp.float32), tuple(pieces))[0]


def _forward(hidden, table, bias, labels, weights, options):
    if options[2] == 1:
        loss, grad_hidden, grad_table = _chunk_gradients(hidden, table, bias, labels, weights, options)
        return loss, (grad_hidden, grad_table.astype(table.dtype))
    pieces = tuple(_in_chunks(x, options[2]) for x in (hidden, labels, weights))

    def body(carry, piece):
        loss, grad_hidden, grad_table = _chunk_gradients(piece[0], table, bias, piece[1], piece[2], options)
        return (carry[0] + loss, carry[1] + grad_table), grad_hidden

    start = (jnp.zeros((), jnp.float32), jnp.zeros_like(table, jnp.float32))
    (loss, grad_table), grads = jax.lax.scan(body, start, pieces)
    return loss, (jnp.moveaxis(grads, 0, 1).reshape(hidden.shape), grad_table.astype(table.dtype))


def _backward(options, residuals, cotangent):
    grad_hidden, grad_table = residuals
    of_hidden, of_table = ((cotangent * grad).astype(grad.dtype) for grad in (grad_hidden, grad_table))
    return of_hidden, of_table, None, None, None


_cross_entropy.defvjp(_forward, _backward)


def _in_chunks(x: Array, chunks: int) -> Array:
    """[B, T, ...] as [chunks, B, T / chunks, ...]: rows stay where they are on the mesh."""
    return jnp.moveaxis(x.reshape(x.shape[0], chunks, -1, *x.shape[2:]), 1, 0)


def _chunk_loss(hidden, table, bias, labels, weights, options):
    smoothing, z_loss, _, softcap = options
    flat = hidden.reshape(-1, hidden.shape[-1])
    labels, weights = labels.reshape(-1), weights.reshape(-1)
    table = table.astype(flat.dtype)
    logits = jnp.einsum("nd,vd->nv", flat, table, preferred_element_type=jnp.float32, out_sharding=spec("batch", "vocab"))
    logits = _capped(logits if bias is None else logits + bias, softcap)
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    # The label's logit is made again from its row: cheaper than a search through [N, V], and right where V is divided.
    rows = jnp.asarray(replicate(table)).at[labels].get(mode="clip", out_sharding=spec("batch", None))
    picked = jnp.einsum("nd,nd->n", flat, rows, preferred_element_type=jnp.float32)
    if bias is not None:
        picked = picked + jnp.asarray(replicate(bias)).at[labels].get(mode="clip", out_sharding=spec("batch"))
    picked = _capped(picked, softcap)
    loss = normalizer - (1 - smoothing) * picked
    if smoothing:
        loss = loss - smoothing * logits.mean(-1)
    if z_loss:
        loss = loss + z_loss * normalizer**2
    return (loss * weights).sum(), (flat, logits, normalizer, labels, weights)


def _capped(logits: Array, softcap: float | None) -> Array:
    return logits if softcap is None else softcap * jnp.tanh(logits / softcap)


def _chunk_gradients(hidden, table, bias, labels, weights, options):
    smoothing, z_loss, _, softcap = options
    loss, (flat, logits, normalizer, labels, weights) = _chunk_loss(hidden, table, bias, labels, weights, options)
    probability = jnp.exp(logits - normalizer[:, None])
    if z_loss:
        probability = probability * (1 + 2 * z_loss * normalizer)[:, None]
    hit = jnp.arange(logits.shape[1])[None] == labels[:, None]
    target = jnp.where(hit, 1 - smoothing, 0.0) + smoothing / logits.shape[1]
    grad_logits = (probability - target) * weights[:, None]
    if softcap is not None:
        grad_logits = grad_logits * (1 - (logits / softcap) ** 2)
    grad_logits = grad_logits.astype(flat.dtype)
    grad_hidden = jnp.einsum("nv,vd->nd", grad_logits, table.astype(flat.dtype), out_sharding=spec("batch", None))
    grad_table = jnp.einsum("nv,nd->vd", grad_logits, flat, preferred_element_type=jnp.float32, out_sharding=spec("vocab", None))
    return loss, _as_rows(grad_hidden, hidden.shape), grad_table


def _as_rows(flat: Array, shape: tuple[int, ...]) -> Array:
    # Left to itself, the reshape would lay a mesh axis along T where there is one row a device.
    return jnp.reshape(flat, shape, out_sharding=spec("batch", None, None))


def plain_cross_entropy(
    logits: Float[Array, "... V"],
    labels: Int[Array, "..."],
    weights: Float[Array, "..."],
    *,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The textbook form of `token_cross_entropy` on whole logits: its reference, and the loss where logits are no mere product."""
    logits = logits.astype(jnp.float32)
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    # A search, not an index: it leaves the logits where they are, on a mesh too, and its gradient is no scatter.
    picked = jnp.where(jnp.arange(logits.shape[-1]) == labels[..., None], logits, 0).sum(-1)
    loss = normalizer - (1 - label_smoothing) * picked
    if label_smoothing:
        loss = loss - label_smoothing * logits.mean(-1)
    if z_loss:
        loss = loss + z_loss * normalizer**2
    return (loss * _checked(labels, weights, logits.shape[-1])).sum(), weights.sum()


def group_cross_entropy(
    scores: Float[Array, "B T"], groups: Int[Array, "B T"], candidates: Float[Array, "B T"], targets: Float[Array, "B T"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Cross-entropy of the target tokens, each among the candidates of its own group: the choice of one place out of several.

    loss[t] = log sum exp scores[s] - scores[t], the sum over the candidates s of t's group in t's row

    Args:
      groups: number of the group that a token belongs to; groups do not reach over rows.
      candidates, targets: 1 or 0; a target is a candidate.

    Returns:
      The sum over the targets in nats, and their number.
    """
    scores = scores.astype(jnp.float32)
    among = (groups[:, :, None] == groups[:, None, :]) & (candidates[:, None, :] > 0)
    normalizer = jax.nn.logsumexp(jnp.where(among, scores[:, None, :], MASKED), axis=-1)
    return ((normalizer - scores) * targets).sum(), targets.sum().astype(jnp.float32)
