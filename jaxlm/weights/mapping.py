"""From a checkpoint's tensors to a tree of parameters and back, by a family's name table (`models/names.py`).

Strict: what is missing, unexpected or of another shape is refused, all of it listed. Each tensor goes to its place on the
devices before the next one is read.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.errors import DataError
from jaxlm.weights.tensors import Checkpoint

# Tensors that hold no weights: counters and tables that are computed.
BUFFERS = re.compile(
    r"(^|.*\.)(position_ids|token_type_ids|masked_bias|attn\.bias|attention\.bias|rotary_emb\..*|inv_freq|num_batches_tracked)$"
)


@dataclasses.dataclass(frozen=True)
class Match:
    """Which tensor is which parameter.

    Attributes:
      mapped: entries of the name table -> the stored names of their tensors.
      tied: stored names that repeat another tensor, or None where the file leaves the copy out.
      dropped: stored names that no parameter needs: buffers, and heads of other tasks.
      absent: our optional paths that the file does not have.
    """

    mapped: list[tuple[Any, tuple[str, ...]]]
    tied: list[str]
    dropped: list[str]
    absent: list[str]


def match(checkpoint: Checkpoint, names: Any, entries: list[Any], shapes: Mapping[str, tuple[int, ...]], optional: bool) -> Match:
    """Find every parameter's tensor.

    Args:
      names: the family's table; entries: its rows for these parameters (`models.names.entries`).
      shapes: of all parameters, by path.
      optional: whether the table's optional parameters may be absent.

    Raises:
      DataError: with every missing, unexpected and mis-shaped tensor.
    """
    stored = {_plain(name, names.base): name for name in checkpoint.specs}
    mapped, absent, wrong = [], [], []
    for entry in entries:
        there = [stored.pop(name, None) for name in entry.theirs]
        if None not in there:
            mapped.append((entry, tuple(there)))
            wrong += _wrong_shapes(checkpoint, entry, there, shapes)
        elif optional and entry.ours[0].split("/")[0] in names.optional:
            absent += entry.ours
        else:
            wrong += [f"missing {name}" for name, found in zip(entry.theirs, there, strict=True) if found is None]
    named = {path for entry in entries for path in entry.ours}
    wrong += [f"missing {path} (no tensor is named so)" for path in shapes if path not in named]
    tied = [stored.pop(name) for name in list(stored) if name in names.tied]
    heads = _pattern(row.theirs for row in names.heads)
    dropped = [stored.pop(name) for name in list(stored) if BUFFERS.match(name) or heads.fullmatch(name) or _spare(name, names, optional)]
    wrong += [f"unexpected {name} {list(checkpoint.specs[name].shape)}" for name in stored.values()]
    if wrong:
        raise DataError(f"{checkpoint.where} does not fit its config.json: {'; '.join(wrong)}")
    return Match(mapped, tied, dropped, absent)


def _plain(name: str, base: str) -> str:
    """A stored name without the base prefix, and with today's names of norms."""
    name = name.removeprefix(f"{base}.") if base else name
    return re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))


def _pattern(names: Iterable[str]) -> re.Pattern:
    return re.compile("|".join(re.sub(r"\\{\w\\}", r"\\d+", re.escape(name)) for name in names) or r"(?!)")


def _spare(name: str, names: Any, optional: bool) -> bool:
    """A body's optional part that this task does not use (BERT's pooler under a token classifier)."""
    rows = [row.theirs for row in names.body if row.ours[0].split("/")[0] in names.optional]
    return not optional and bool(_pattern(rows).fullmatch(name))


def _wrong_shapes(checkpoint, entry, there, shapes) -> list[str]:
    ours = [shapes[path] for path in entry.ours]
    want = entry.row.shape([shape[1:] for shape in ours] if len(entry.theirs) > 1 or "{e}" in entry.row.theirs else ours)
    specs = [(name, checkpoint.specs[name].shape) for name in there]
    return [f"{name} is {list(shape)}, not {list(want)}" for name, shape in specs if tuple(shape) != tuple(want)]


def read(checkpoint: Checkpoint, matched: Match, abstract: Mapping[str, jax.ShapeDtypeStruct], dtype: Any = None) -> dict[str, Any]:
    """The parameters, as a nested dict; each in its stored type, or in `dtype`, at the sharding of its abstract value."""
    tree: dict[str, Any] = {}
    for entry, there in matched.mapped:
        shapes = [abstract[path].shape for path in entry.ours]
        parts = _inward(entry, [checkpoint.read(name) for name in there], shapes)
        for path, part in zip(entry.ours, parts, strict=True):
            _check_finite(part, there[0], checkpoint.where)
            _put(tree, path, _place(part, abstract[path].sharding, dtype))
    return tree


def _inward(entry, tensors, shapes):
    if "{e}" not in entry.row.theirs:
        return entry.row.inward(tensors[0], shapes)
    experts = [entry.row.inward(tensor, [shape[1:] for shape in shapes]) for tensor in tensors]
    return [np.stack(parts) for parts in zip(*experts, strict=True)]


def _check_finite(array: np.ndarray, name: str, where: str) -> None:
    # A sum is NaN or infinite if one of its parts is; it is cheap, and wrong only where finite values overflow: then look closer.
    with np.errstate(over="ignore", invalid="ignore"):
        if not np.isfinite(np.sum(array, dtype=np.float32)) and not np.isfinite(array.astype(np.float32)).all():
            raise DataError(f"{where}: {name} holds values that are not finite: the file is damaged, get it again")


def _place(array: np.ndarray, sharding: Any, dtype: Any) -> jax.Array:
    array = array if dtype is None else array.astype(dtype)
    array = np.ascontiguousarray(array)
    return jax.device_put(array, sharding) if sharding is not None else jnp.asarray(array)


def _put(tree: dict[str, Any], path: str, leaf: Any) -> None:
    *folders, last = path.split("/")
    for name in folders:
        tree = tree.setdefault(name, {})
    tree[last] = leaf


def export(entries: list[Any], params: Mapping[str, Any], name: Callable[[str], str]) -> dict[str, np.ndarray]:
    """Tensors under Hugging Face's names, in the parameters' types.

    Args:
      params: by path. name: the stored name of a table's name (with the base prefix, where there is one).
    """
    tensors = {}
    for entry in entries:
        ours = [np.asarray(jax.device_get(params[path])) for path in entry.ours]
        if "{e}" in entry.row.theirs:
            for e, theirs in enumerate(entry.theirs):
                tensors[name(theirs)] = entry.row.outward([array[e] for array in ours])
        else:
            tensors[name(entry.theirs[0])] = entry.row.outward(ours)
    return tensors
