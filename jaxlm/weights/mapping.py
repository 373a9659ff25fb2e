"""From a checkpoint's tensors to a tree of parameters and back, by a family's name table (`models/names.py`).

Strict: what is missing, unexpected or of another shape is refused, all of it listed. Each tensor goes to its place on the
devices while the file is read; nothing is kept between.
"""

import concurrent.futures
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from jaxlm.errors import DataError
from jaxlm.weights.tensors import Checkpoint, Outgoing

# Tensors that hold no weights: counters, tables that are computed, and one that T5's first checkpoints have in vain.
BUFFERS = re.compile(
    r"(.*\.)?(position_ids|token_type_ids|masked_bias|attn\.bias|attention\.bias|rotary_emb\..*|inv_freq|num_batches_tracked"
    r"|version|EncDecAttention\.relative_attention_bias\.weight)"
)
READERS = 4  # threads: turning [outputs, inputs] around takes longer than reading
PIECE = 1 << 17  # numbers that are looked at together, while they are in the processor's cache


@dataclasses.dataclass(frozen=True)
class Match:
    """Which tensor is which parameter.

    Attributes:
      mapped: entries of the name table -> the stored names of their tensors.
      tied: stored names that repeat another tensor -> the stored name of the other.
      dropped: stored names that no parameter needs: buffers, and heads of other tasks.
      absent: our optional paths that the file does not have.
    """

    mapped: list[tuple[Any, tuple[str, ...]]]
    tied: dict[str, str]
    dropped: list[str]
    absent: list[str]


def match(checkpoint: Checkpoint, names: Any, entries: list[Any], shapes: Mapping[str, tuple[int, ...]], task: str) -> Match:
    """Find every parameter's tensor.

    Args:
      names: the family's table; entries: its rows for these parameters (`models.names.entries`).
      shapes: of all parameters, by path.
      task: an optional part of the body (BERT's pooler) may be absent for "features" only, one of a head always.

    Raises:
      DataError: with every missing, unexpected and mis-shaped tensor.
    """
    stored, wrong = by_table_name(checkpoint, names.base)
    wanted = {name for entry in entries for name in entry.theirs}
    mapped, absent, free = [], [], {*names.heads} if task != "features" else {*names.heads, *names.body}
    for entry in entries:
        there = [_take(stored, name, names.tied, wanted) for name in entry.theirs]
        if None not in there:
            mapped.append((entry, tuple(there)))
            wrong += _unfit(checkpoint, entry, there, shapes)
        elif entry.row in free and entry.ours[0].split("/")[0] in names.optional:
            absent += entry.ours
        else:
            shape = list(_their_shape(entry, shapes))
            wrong += [f"missing {name} {shape}" for name, found in zip(entry.theirs, there, strict=True) if found is None]
    named = {path for entry in entries for path in entry.ours}
    wrong += [f"missing {path} {list(shapes[path])} (no tensor is named so)" for path in shapes if path not in named]
    taken = {name: there for entry, found in mapped for name, there in zip(entry.theirs, found, strict=True)}
    tied = {stored.pop(name): taken[names.tied[name]] for name in list(stored) if names.tied.get(name) in taken}
    dropped = [stored.pop(name) for name in list(stored) if _needless(name, names, task)]
    wrong += [f"unexpected {name} {list(checkpoint.specs[name].shape)}" for name in stored.values()]
    if wrong:
        raise DataError(f"{checkpoint.where} does not fit its config.json: {'; '.join(wrong)}")
    return Match(mapped, tied, dropped, absent)


def lacking(checkpoint: Checkpoint, names: Any, entries: list[Any], shapes: Mapping[str, tuple[int, ...]]) -> list[Any]:
    """The entries of which a checkpoint has no tensors, or of another shape; arguments as for `match`."""
    stored, _ = by_table_name(checkpoint, names.base)
    wanted = {name for entry in entries for name in entry.theirs}
    found = [(entry, [_take(stored, name, names.tied, wanted) for name in entry.theirs]) for entry in entries]
    return [entry for entry, there in found if None in there or _unfit(checkpoint, entry, there, shapes)]


def by_table_name(checkpoint: Checkpoint, base: str) -> tuple[dict[str, str], list[str]]:
    """The table's names -> the stored ones, without the base prefix and with today's names of norms; and what comes twice."""
    stored: dict[str, str] = {}
    wrong = []
    for name, spec in checkpoint.specs.items():
        plain = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name.removeprefix(f"{base}.") if base else name))
        if plain in stored:
            wrong.append(f"unexpected {name} {list(spec.shape)}, which {stored[plain]} is already")
        stored.setdefault(plain, name)
    return stored, wrong


def unlike_copies(checkpoint: Checkpoint, names: Any) -> set[str]:
    """Names of the table that are stored beside the tensor they should repeat, and differ from it."""
    stored, _ = by_table_name(checkpoint, names.base)
    pairs = {}
    for copy, source in names.tied.items():
        while source not in stored and source in names.tied:  # a copy of a copy that is left out
            source = names.tied[source]
        if copy in stored and source in stored:
            pairs[copy] = [stored[copy], stored[source]]
    return {copy for copy, pair in pairs.items() if not _same_bits(checkpoint, *pair)}


def _same_bits(checkpoint: Checkpoint, one: str, other: str) -> bool:
    if checkpoint.specs[one] != checkpoint.specs[other]:
        return False
    a, b = (checkpoint.read(name) for name in (one, other))
    return bool(np.array_equal(a.view(f"u{a.dtype.itemsize}"), b.view(f"u{b.dtype.itemsize}")))


def check_computed(checkpoint: Checkpoint, names: Any, config: Any) -> None:
    """Refuse a file whose tables are not those that we compute: its model is another one."""
    stored = by_table_name(checkpoint, names.base)[0] if names.computed else {}
    for name in names.computed.keys() & stored.keys():
        ours, theirs = names.computed[name](config), checkpoint.read(stored[name])
        if ours.shape != theirs.shape or not np.allclose(ours, theirs.astype(np.float32), atol=1e-2):
            raise DataError(f"{checkpoint.where}: {stored[name]} {list(theirs.shape)} is not the table that its config.json describes")


def _take(stored: dict[str, str], name: str, tied: Mapping[str, str], wanted: set[str]) -> str | None:
    """The stored name of a tensor; where a file has only a tied copy of it, the copy's.

    A bias that repeats another may be left out although it is wanted (Transformers 4's untied BERT): the other is read twice.
    """
    copies = [copy for copy, source in tied.items() if source == name and copy in stored and copy not in wanted]
    if name in stored or copies:
        return stored.pop(name if name in stored else copies[0])
    return stored.get(tied.get(name)) if name.endswith(".bias") else None


def _needless(name: str, names: Any, task: str) -> bool:
    """Buffers, what is computed, heads of other tasks, a part that this task does not use (BERT's pooler)."""
    spare = [] if task == "features" else [row for row in names.body if row.ours[0].split("/")[0] in names.optional]
    pattern = "|".join(re.sub(r"\\{\w\\}", r"\\d+", re.escape(row.theirs)) for row in (*names.heads, *spare))
    return name in names.tied or name in names.computed or bool(BUFFERS.fullmatch(name) or (pattern and re.fullmatch(pattern, name)))


def _their_shape(entry: Any, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    ours = [shapes[path] for path in entry.ours]
    return tuple(entry.row.shape([shape[1:] for shape in ours] if "{e}" in entry.row.theirs else ours))


def _unfit(checkpoint: Checkpoint, entry: Any, there: Iterable[str], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    want, specs = _their_shape(entry, shapes), [(name, checkpoint.specs[name]) for name in there]
    wrong = [f"{name} is {list(spec.shape)}, not {list(want)}" for name, spec in specs if tuple(spec.shape) != want]
    return wrong + [f"{name} holds {spec.dtype}, no floating-point numbers" for name, spec in specs if not _floating(spec.dtype)]


def _floating(dtype: np.dtype) -> bool:
    return dtype.kind == "f" or dtype.name == "bfloat16"


def read(checkpoint: Checkpoint, matched: Match, abstract: Mapping[str, jax.ShapeDtypeStruct], dtype: Any = None) -> dict[str, Any]:
    """The parameters, as a nested dict; each in its stored type, or in `dtype`, where its abstract value lies on the current mesh.

    Raises DataError for values that are not finite.
    """
    tree: dict[str, Any] = {}
    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        mesh = None if jax.sharding.get_abstract_mesh().empty else jax.sharding.get_mesh()
        loaded = pool.map(lambda found: _read_entry(checkpoint, *found, abstract, (dtype, mesh)), matched.mapped)
        for path, leaf in (pair for pairs in loaded for pair in pairs):
            put(tree, path, leaf)
    return tree


def _read_entry(checkpoint, entry, there, abstract, place) -> list[tuple[str, jax.Array]]:
    tensors = [_finite(checkpoint.read(name), name, checkpoint.where) for name in there]
    parts = _inward(entry, tensors, [abstract[path].shape for path in entry.ours])
    return [(path, _place(part, abstract[path].sharding, *place)) for path, part in zip(entry.ours, parts, strict=True)]


def _inward(entry, tensors, shapes):
    if "{e}" not in entry.row.theirs:
        return entry.row.inward(tensors[0], shapes)
    experts = [entry.row.inward(tensor, [shape[1:] for shape in shapes]) for tensor in tensors]
    return [np.stack(parts) for parts in zip(*experts, strict=True)]


def _finite(array: np.ndarray, name: str, where: str) -> np.ndarray:
    """The array, which must hold neither NaN nor infinity: those have every bit of the exponent set."""
    with np.errstate(over="ignore", invalid="ignore"):  # one pass: a sum shows what its parts are, or it has overflowed
        if array.dtype == np.float32 and np.isfinite(array.sum()):
            return array
    bits = array.view(f"u{array.dtype.itemsize}")
    exponent = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F800000, "float64": 0x7FF << 52}[array.dtype.name]
    flat, mask = (bits if bits.flags.c_contiguous else bits.T).reshape(-1), bits.dtype.type(exponent)
    if any((flat[i : i + PIECE] & mask).max() == mask for i in range(0, flat.size, PIECE)):
        raise DataError(f"{where}: {name} holds values that are not finite: the file is damaged, get it again")
    return array


def _place(array: np.ndarray, sharding: Any, dtype: Any, mesh: Any) -> jax.Array:
    """The array on its devices, never in the file's own memory."""
    array = array if dtype is None or array.dtype == dtype else array.astype(dtype)
    if mesh is None:
        return jax.device_put(_owned(array))
    sharding = NamedSharding(mesh, sharding.spec)  # an abstract value's own sharding names no devices
    return jax.make_array_from_callback(array.shape, sharding, lambda index: _owned(array[index]))


def _owned(array: np.ndarray) -> np.ndarray:
    """An array that JAX may keep: a CPU device takes a contiguous one as it lies (even with may_alias=False), here the mapped file.

    The copy is aligned as XLA likes it, or it would be copied once more. What is not contiguous is copied by JAX.
    """
    if not array.flags.c_contiguous:
        return array
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    np.copyto(copy, array)
    return copy


def put(tree: dict[str, Any], path: str, leaf: Any) -> None:
    """Set the leaf at a path of a nested dict."""
    *folders, last = path.split("/")
    for name in folders:
        tree = tree.setdefault(name, {})
    tree[last] = leaf


def export(
    entries: Iterable[Any], leaves: Mapping[str, Any], fetch: Callable[[str], Any], name: Callable[[Any, str], str]
) -> Iterator[Outgoing]:
    """Tensors under Hugging Face's names, in the parameters' types.

    Args:
      leaves: shapes and types, by path. fetch: path -> the parameter.
      name: (row, the table's name) -> the stored name (with the base prefix, where there is one).
    """
    for entry in entries:
        total = sum(leaves[path].size * leaves[path].dtype.itemsize for path in entry.ours)
        for e, theirs in enumerate(entry.theirs):
            expert = e if "{e}" in entry.row.theirs else None
            make = lambda entry=entry, expert=expert: np.ascontiguousarray(
                entry.row.outward([_on_host(fetch(path) if expert is None else fetch(path)[expert]) for path in entry.ours])
            )
            yield Outgoing(name(entry.row, theirs), total // len(entry.theirs), make)


def _on_host(array: Any) -> np.ndarray:
    """The whole of an array, from all hosts."""
    if getattr(array, "is_fully_addressable", True):
        return np.asarray(jax.device_get(array))
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
