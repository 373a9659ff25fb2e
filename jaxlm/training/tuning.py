"""What of a model is trained: frozen parameters, low-rank updates (LoRA), and learning rates that fall with the depth.

The parameters are divided once: `divide` gives what the optimizer sees, state["params"], and what stays, state["frozen"];
`assemble` makes the whole of both again, inside the step and wherever a model is evaluated, loaded or saved. With LoRA,
state["params"] is {"lora": {path of a matrix: {"a", "b"}}} and the new heads. Read next: `step.py`.
"""

import difflib
import math
import zlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from jaxlm.config import Tuning
from jaxlm.errors import ConfigError
from jaxlm.training.optimizer import kernel_axes

Leaves = Mapping[str, Any]  # path -> leaf, as in "layers/0/attn/q/kernel"

# What the families call the parameters below their layers: the embeddings, their norms and projections, positions.
BELOW = {"word", "wte", "embed", "shared", "source", "target", "type", "position", "wpe", "encoder_position", "decoder_position"}
BELOW |= {"ln", "ln_in", "project", "relative"}


def paths(tree: Any) -> dict[str, Any]:
    """A tree of parameters as {path: leaf}."""
    return {"/".join(entry.key for entry in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def nested(leaves: Leaves) -> dict[str, Any]:
    """The inverse of `paths`."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *folders, last = path.split("/")
        inside = tree
        for name in folders:
            inside = inside.setdefault(name, {})
        inside[last] = leaf
    return tree


def check_tuning(tuning: Tuning, pretrained: str | None) -> None:
    """Refuse numbers out of their range, and LoRA without a model to start from."""
    if tuning.lora_rank < 0:
        raise ConfigError(f"tuning.lora_rank={tuning.lora_rank}: it is at least 0, which trains the matrices themselves")
    if tuning.lora_alpha <= 0:
        raise ConfigError(f"tuning.lora_alpha={tuning.lora_alpha}: it is a positive number")
    if not 0 < tuning.layer_decay <= 1:
        raise ConfigError(f"tuning.layer_decay={tuning.layer_decay}: it is more than 0 and at most 1, which is the same rate everywhere")
    if tuning.lora_rank and pretrained is None:
        raise ConfigError("tuning.lora_rank updates a model that is trained already: name it, pretrained=PATH, or set tuning.lora_rank=0")


def divide(params: Any, tuning: Tuning, new: Collection[str], key: jax.Array) -> tuple[dict, dict | None]:
    """Parameters as (what is trained, what stays); the latter None where everything is trained.

    With LoRA (Hu et al. 2021) trained are the low-rank updates and the parameters that are `new`. What `freeze` names stays in
    either case: it gets no update of low rank.

    Args:
      params: the whole model, in either layout; arrays, or tracers.
      new: paths that the pretrained model did not have.
      key: draws the updates.

    Raises:
      ConfigError: a name that fits nothing; a layer of a stack; nothing is left to train.
    """
    leaves = paths(params)
    frozen = find(leaves, tuning.freeze, "tuning.freeze")
    updates, scale = {}, {}
    if tuning.lora_rank:
        matrices = {path: leaf for path, leaf in leaves.items() if matrix_axes(path, leaf.ndim)}
        targets = find(matrices, tuning.lora_targets, "tuning.lora_targets") - frozen - set(new)
        updates = {f"lora/{path}": low_rank(path, leaves[path], tuning.lora_rank, key) for path in sorted(targets)}
        if not updates:
            raise ConfigError(
                f"tuning.lora_targets={list(tuning.lora_targets)}: all of them are new or frozen; name matrices of the pretrained model"
            )
        scale = {"lora": {"scale": jnp.float32(tuning.lora_alpha / tuning.lora_rank)}}
        frozen |= leaves.keys() - set(new)
    if not updates and frozen >= leaves.keys():
        raise ConfigError("tuning.freeze leaves nothing to train: name fewer parameters")
    trained = nested({**{path: leaf for path, leaf in leaves.items() if path not in frozen}, **updates})
    return trained, {**nested({path: leaf for path, leaf in leaves.items() if path in frozen}), **scale} if frozen else None


def assemble(params: Any, frozen: Any) -> Any:
    """The whole model: trained and frozen leaves together, and W + alpha / rank A B for every low-rank update (Hu et al. 2021).

    Args:
      params: state["params"], or its moving average.
      frozen: state["frozen"]; None: params is the whole.
    """
    if frozen is None:
        return params
    rest = lambda tree: paths({name: branch for name, branch in tree.items() if name != "lora"})
    whole, updates = rest(frozen) | rest(params), paths(params.get("lora", {}))
    for path in sorted(updated(params)):
        whole[path] = _updated(path, whole[path], updates[f"{path}/a"], updates[f"{path}/b"], frozen["lora"]["scale"])
    return nested(whole)


def updated(params: Any) -> set[str]:
    """The paths of the matrices that have a low-rank update in state["params"]."""
    return {path.rpartition("/")[0] for path in paths(params.get("lora", {}))}


def find(leaves: Leaves, patterns: Iterable[str], key: str) -> set[str]:
    """The paths in which one of the patterns stands: its parts, split at "/", are neighbours there.

    >>> find({"layers/0/ln_1/scale": jnp.ones(2), "layers/10/ln_1/scale": jnp.ones(2)}, ["layers/0"], "tuning.freeze")
    {'layers/0/ln_1/scale'}

    Raises ConfigError for a pattern that stands nowhere, or only in some layers of a stack.
    """
    found = set()
    for pattern in patterns:
        stands = lambda path, pattern=f"/{pattern.strip('/')}/": pattern in f"/{path}/"
        hits = {path: [stands(one) for one in layer_by_layer(path, leaf.shape)] for path, leaf in leaves.items()}
        partly = next((path for path, hit in hits.items() if any(hit) and not all(hit)), None)
        if partly:
            raise ConfigError(f"{key}: {pattern!r} is a part of {partly}, which holds all layers: set compute.layout=unrolled")
        fitting = {path for path, hit in hits.items() if all(hit)}
        if not fitting:
            raise ConfigError(f"{key}: {pattern!r} names nothing here: {_nearest(pattern, leaves)}")
        found |= fitting
    return found


def layer_by_layer(path: str, shape: tuple[int, ...]) -> list[str]:
    """What the unrolled layout calls the parts of a leaf: of a stack one path a layer."""
    if "stacked" not in path.split("/"):
        return [path]
    return [f"/{path}/".replace("/stacked/", f"/{i}/").strip("/") for i in range(shape[0])]


def _nearest(pattern: str, leaves: Leaves) -> str:
    parts = [path.split("/") for path in leaves]
    known = {"/".join(names[i:j]) for names in parts for i in range(len(names)) for j in range(i + 1, len(names) + 1)}
    near = difflib.get_close_matches(pattern, sorted(known), n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted({names[0] for names in parts}))}"


def matrix_axes(path: str, rank: int) -> tuple[int, int] | None:
    """How many leading axes of a leaf number matrices (layers, experts), and how many are inputs; None: it is no matrix."""
    names = path.split("/")
    if names[-1] == "kernel":
        return kernel_axes(names, rank)
    stacked, in_layer = "stacked" in names, any(name == "stacked" or name.isdecimal() for name in names)
    if not in_layer:
        return (0, 1) if rank == 2 else None  # tables: [V, D]
    return (1 + stacked, 1) if rank == 3 + stacked else None  # experts: [E, inputs, outputs]


def low_rank(path: str, matrix: jax.Array, rank: int, key: jax.Array) -> dict[str, jax.Array]:
    """A [..., inputs, rank] and B [..., rank, outputs] of one matrix, divided over the mesh as the matrix is.

    B is 0, so that the model starts as it was. A is uniform within inputs ** -0.5, as torch draws the matrices of its linear
    layers and PEFT its A: learning rates that are published for LoRA fit. Of a table one row is read at a time: it has one input.
    Layer i has the same values in both layouts.
    """
    lead, inputs = matrix_axes(path, matrix.ndim)
    layout = [None] * matrix.ndim if jax.sharding.get_abstract_mesh().empty else [*jax.typeof(matrix).sharding.spec]
    place = lambda *names: None if jax.sharding.get_abstract_mesh().empty else PartitionSpec(*names)
    shape, end = matrix.shape, lead + inputs
    bound = math.prod(shape[lead:end]) ** -0.5 if lead or path.endswith("kernel") else 1.0
    draw = lambda key, first: jax.random.uniform(
        key, (*shape[first:end], rank), jnp.float32, -bound, bound, out_sharding=place(*layout[first:end], None)
    )
    b = jnp.zeros((*shape[:lead], rank, *shape[end:]), jnp.float32, out_sharding=place(*layout[:lead], None, *layout[end:]))
    number = next((int(name) for name in path.split("/") if name.isdecimal()), 0)
    key = jax.random.fold_in(key, zlib.crc32("/".join("stacked" if name.isdecimal() else name for name in path.split("/")).encode()))
    if "stacked" in path.split("/"):
        return {"a": jax.lax.map(lambda i: draw(jax.random.fold_in(key, i), 1), jnp.arange(shape[0])), "b": b}
    return {"a": draw(jax.random.fold_in(key, number), 0), "b": b}


def _updated(path: str, matrix: jax.Array, a: jax.Array, b: jax.Array, scale: jax.Array) -> jax.Array:
    lead, _ = matrix_axes(path, matrix.ndim)
    batch = tuple(range(lead))
    # A few operations, and no precision to lose: what is saved is to be what was trained.
    update = jax.lax.dot_general(a, b, (((a.ndim - 1,), (lead,)), (batch, batch)), precision=jax.lax.Precision.HIGHEST)
    return (matrix + scale * update).astype(matrix.dtype)


def with_layer_decay(rule: optax.GradientTransformation, decay: float, params: Any) -> optax.GradientTransformation:
    """The rule with its updates times decay ** (L - i) in layer i of L, times decay ** (L + 1) below the layers, as they are above.

    So a layer learns `decay` times as fast as the one above it (Clark et al. 2020, appendix; the heads count as layer L).

    Args:
      params: the whole model or its shapes, from which L is counted; an encoder and a decoder have each their own.
    """
    if decay == 1:
        return rule
    counts: dict[str, int] = {}
    for path, leaf in paths(params).items():
        stack, number = _layer(path)
        if stack is not None:
            counts[stack] = max(counts.get(stack, 0), leaf.shape[0] if number is None else number + 1)
    slow = lambda updates, _: nested({path: update * _factor(path, update, decay, counts) for path, update in paths(updates).items()})
    return optax.chain(rule, optax.stateless(slow))


def _layer(path: str) -> tuple[str | None, int | None]:
    """The path of the layers that a parameter belongs to, and its layer's number, None for all of a stack; (None, None): to none."""
    names = path.removeprefix("lora/").split("/")
    for i, name in enumerate(names):
        if name == "stacked" or name.isdecimal():
            return "/".join(names[:i]), int(name) if name.isdecimal() else None
    return None, None


def _factor(path: str, update: jax.Array, decay: float, counts: Mapping[str, int]) -> jax.Array | float:
    stack, number = _layer(path)
    if stack is None:
        return decay ** (max(counts.values(), default=0) + 1) if BELOW & set(path.split("/")) else 1.0
    if number is not None:
        return decay ** (counts[stack] - number)
    rates = decay ** (counts[stack] - jnp.arange(counts[stack], dtype=jnp.float32))
    return rates.astype(update.dtype).reshape(-1, *[1] * (update.ndim - 1))
