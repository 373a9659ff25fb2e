"""Scaled dot-product attention: one door, `attend`, with three implementations behind it.

`eager` is the reference, written out; `xla` and `cudnn` are the fused ones of `jax.nn`. Which keys a query may see is one
value, `Mask`. An implementation that cannot do what is asked refuses by name. Read next: `layers/attention.py`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxlm.errors import ConfigError
from jaxlm.ops.dropout import dropout

UNSEEN = 0.7 * float(jnp.finfo(jnp.float32).min)  # the logit of a key that a query does not see


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["keys", "lengths", "segments", "key_segments", "offset"],
    meta_fields=["causal", "window"],
)
@dataclasses.dataclass(frozen=True)
class Mask:
    """Which keys a query sees: those that every condition given here allows.

    Attributes:
      causal: only keys at or before the query.
      window: only keys nearer than this: t - s < window and, unless causal, s - t < window.
      keys: Bool[B, S], False hides a key (padding).
      lengths: Int[B], keys from this index on are hidden (right padding; the form cuDNN reads).
      segments: Int[B, T], a query sees the keys of its own segment (packed documents).
      key_segments: Int[B, S], the keys' segments; None: those of the queries.
      offset: Int[], position of the first query among the keys (a cache in front of it); None: 0.
    """

    causal: bool = False
    window: int | None = None
    keys: Bool[Array, "B S"] | None = None
    lengths: Int[Array, "B"] | None = None
    segments: Int[Array, "B T"] | None = None
    key_segments: Int[Array, "B S"] | None = None
    offset: Int[Array, ""] | None = None

    def dense(self, queries: int, keys: int) -> Bool[Array, "B 1 T S"] | None:
        """The same as one boolean array, True where a query sees a key; None where it sees all."""
        t = jnp.arange(queries)[:, None] + (0 if self.offset is None else self.offset)
        s = jnp.arange(keys)[None, :]
        parts = []
        if self.causal:
            parts.append((s <= t)[None])
        if self.window is not None:
            near = t - s < self.window
            parts.append((near if self.causal else near & (s - t < self.window))[None])
        if self.keys is not None:
            parts.append(self.keys[:, None, :])
        if self.lengths is not None:
            parts.append(s[None] < self.lengths[:, None, None])
        if self.segments is not None:
            other = self.segments if self.key_segments is None else self.key_segments
            parts.append(self.segments[:, :, None] == other[:, None, :])
        return functools.reduce(jnp.logical_and, parts)[:, None] if parts else None


def attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    mask: Mask = Mask(),
    bias: Float[Array, "#B #N T S"] | None = None,
    *,
    implementation: str = "auto",
    scale: float | None = None,
    softcap: float | None = None,
    drop: tuple[float, Array] | None = None,
) -> Float[Array, "B T N H"]:
    """softmax(q k^T * scale + bias) v over the keys that `mask` shows (Vaswani et al. 2017, equation 1).

    N query heads share K key heads in groups of N / K. The softmax is in float32. A query that sees no key gets the mean
    of all values: finite, and nobody's business.

    Args:
      implementation: "auto" takes cuDNN where a GPU can, else the eager one; a name is binding.
      scale: None: H ** -0.5.
      softcap: logits become softcap * tanh(logits / softcap) (Gemma 2).
      drop: (rate, key) of the dropout of attention weights.

    Raises:
      ConfigError: the named implementation cannot do this; the message says what and which one can.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    name = implementation
    if name == "auto":
        name = _choose(query, mask, softcap, drop)
    elif name not in REFUSALS:
        raise ConfigError(f"attention={name!r} is not one of auto, {', '.join(REFUSALS)}")
    reason = REFUSALS[name](query, mask, softcap, drop)
    if reason:
        raise ConfigError(f"attention={name!r} cannot do {reason}; use attention='eager' or 'auto'")
    if name == "eager":
        return _eager(query, key, value, mask, bias, scale, softcap, drop)
    return (_cudnn if name == "cudnn" else _xla)(query, key, value, mask, bias, scale)


def _eager(query, key, value, mask, bias, scale, softcap, drop):
    B, T, N, H = query.shape
    S, K = key.shape[1:3]
    G = N // K
    # One matrix product for each row and key head, the G query heads that share it one below the other. Four axes, not
    # five, and heads before tokens: a third faster on a CPU, forward and backward.
    grouped = query.reshape(B, T, K, G, H).transpose(0, 2, 3, 1, 4).reshape(B, K, G * T, H)
    key, value = key.transpose(0, 2, 1, 3), value.transpose(0, 2, 1, 3)
    logits = jnp.einsum("bkth,bksh->bkts", grouped, key, preferred_element_type=jnp.float32) * scale
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    if bias is not None:
        whole = jnp.broadcast_to(bias.astype(jnp.float32), (bias.shape[0], N, T, S))
        logits = logits + whole.reshape(bias.shape[0], K, G, T, S).reshape(bias.shape[0], K, G * T, S)
    visible = mask.dense(T, S)
    if visible is not None:
        logits = jnp.where(jnp.tile(visible, (1, 1, G, 1)), logits, UNSEEN)
    weights = jax.nn.softmax(logits, axis=-1)
    if drop is not None:
        weights = dropout(weights, *drop, axes=("batch", "heads", None, None))
    mixed = jnp.einsum("bkts,bksh->bkth", weights.astype(value.dtype), value)
    return mixed.reshape(B, K, G, T, H).transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)


def _xla(query, key, value, mask, bias, scale):
    visible = mask.dense(query.shape[1], key.shape[1])
    return jax.nn.dot_product_attention(query, key, value, bias, visible, scale=scale, implementation="xla")


def _cudnn(query, key, value, mask, bias, scale):
    """Causality, windows and lengths go to the kernel by name; a mask of keys becomes an additive bias inside jax.nn."""
    B, T, N, _ = query.shape
    S = key.shape[1]
    window = None if mask.window is None else (mask.window - 1, 0 if mask.causal else mask.window - 1)
    visible = None if mask.keys is None else jnp.broadcast_to(mask.keys[:, None, None, :], (B, N, T, S))
    lengths = {}
    if mask.lengths is not None:
        lengths = {"query_seq_lengths": jnp.full((B,), T, jnp.int32), "key_value_seq_lengths": mask.lengths.astype(jnp.int32)}
    return jax.nn.dot_product_attention(
        query, key, value, bias, visible, scale=scale, is_causal=mask.causal, local_window_size=window, implementation="cudnn", **lengths
    )


def _never(query, mask, softcap, drop) -> str | None:
    return None


def _xla_refusal(query, mask, softcap, drop) -> str | None:
    asked = {"a soft cap": softcap is not None, "dropout of attention weights": drop is not None}
    return next((what for what, is_asked in asked.items() if is_asked), None)


def _cudnn_refusal(query, mask, softcap, drop) -> str | None:
    H = query.shape[-1]
    asked = {
        "segment ids (it ignores them: documents would see each other)": mask.segments is not None,
        "a cache in front of the queries": mask.offset is not None,
        f"activations of {query.dtype} (bfloat16 or float16 only)": query.dtype not in (jnp.bfloat16, jnp.float16),
        f"heads of size {H} (a multiple of 8, at most 256)": H % 8 != 0 or H > 256,
        f"{jax.default_backend()} devices (a GPU only)": jax.default_backend() != "gpu",
    }
    return _xla_refusal(query, mask, softcap, drop) or next((what for what, is_asked in asked.items() if is_asked), None)


REFUSALS = {"eager": _never, "xla": _xla_refusal, "cudnn": _cudnn_refusal}


def _choose(query, mask, softcap, drop) -> str:
    if not _cudnn_refusal(query, mask, softcap, drop) and mask.keys is None and cudnn_runs():
        return "cudnn"
    return "eager"


@functools.cache
def cudnn_runs() -> bool:
    """Whether cuDNN attention compiles on this machine: some pairs of driver and library do not (jax#32430)."""
    shape = jax.ShapeDtypeStruct((1, 64, 1, 64), jnp.bfloat16)
    probe = functools.partial(jax.nn.dot_product_attention, is_causal=True, implementation="cudnn")
    try:
        jax.jit(probe).lower(shape, shape, shape).compile()
    except Exception:  # whatever it is, the answer is no; asking for cudnn by name shows it
        return False
    return True
