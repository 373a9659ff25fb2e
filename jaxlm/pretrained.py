"""Load and save a model with its parameters: the one place that joins models, weights, text and checkpoints.

A path is a run directory, a Hugging Face folder, an old Flax folder or a GGUF file; what is none of them is looked up on
the hub. Read next: `weights/mapping.py`.
"""

import contextlib
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm import config, sharding
from jaxlm.config import Compute
from jaxlm.errors import ConfigError, DataError
from jaxlm.layers.block import unstack
from jaxlm.models import configuration, family, family_named, has_decoder, init_params, make_model
from jaxlm.models.names import Names, entries
from jaxlm.overrides import choose
from jaxlm.text.tokenizer import load_tokenizer, save_tokenizer
from jaxlm.training import checkpoint, manifest
from jaxlm.training.resume import DIGESTS
from jaxlm.weights import folders, hub, mapping, safetensors_files
from jaxlm.weights.tensors import Checkpoint, Outgoing

DTYPES = ("float32", "bfloat16", "float16")
SHARD = 5 * 10**9  # bytes of a file, as Hugging Face cuts them
LARGEST, DEEPEST = 2**24, 4096  # of any size, and of layers, in a configuration


def load(path: str | Path, task: str | None = None, dtype: str | None = None) -> tuple[Any, dict]:
    """A model and its parameters, each where the current mesh wants it.

    Args:
      path: a run directory (its best checkpoint, else the newest; the moving average if there is one), a Hugging Face folder
        with safetensors, an old Flax folder, a GGUF file, or the name of a model on the hub.
      task: decides the head; None: the run's own, or what the checkpoint's `architectures` say.
      dtype: of parameters and activations; None: each parameter as stored, activations as most of them.

    Raises:
      DataError: there is nothing to load, or it does not fit the task or the configuration.
    """
    path = hub.find(path)
    if is_run(path):
        return load_run(path, task, dtype)
    return from_checkpoint(folders.open_checkpoint(path), task, dtype)[:2]


def is_run(path: Path) -> bool:
    """Whether a path that exists is a run directory, even one without a checkpoint yet."""
    return path.is_dir() and ((path / "checkpoints").is_dir() or not any(path.iterdir()))


def from_checkpoint(source: Checkpoint, task: str | None, dtype: str | None) -> tuple[Any, dict, mapping.Match]:
    """A model, its parameters, and which tensor went where."""
    if dtype is not None:
        choose("dtype", dtype, DTYPES)
    known, model, abstract = _described(source, task, dtype)
    shapes = {name: leaf.shape for name, leaf in abstract.items()}
    found = entries((*known.NAMES.body, *known.NAMES.heads), shapes)
    matched = mapping.match(source, known.NAMES, found, shapes, model.task)
    mapping.check_computed(source, known.NAMES, model.config)
    return model, mapping.read(source, matched, abstract, dtype and jnp.dtype(dtype)), matched


def _described(source: Checkpoint, task: str | None, dtype: str | None) -> tuple[Any, Any, dict[str, Any]]:
    """The family, the model, and its parameters' shapes; a config.json that makes no model is one DataError."""
    try:
        known = family_named(source.config.get("model_type"))
        settings = configuration.from_json(known.Config, source.config)
        sizes = {**dataclasses.asdict(known.dims(settings)), "vocab_size": settings.vocab_size}
        sizes |= {name: size for name, size in dataclasses.asdict(settings).items() if "layer" in name and isinstance(size, int)}
        _check_sizes(sizes)
        settings = _untied(source, known.NAMES, settings)
        model = make_model(settings, Compute(dtype=dtype or _stored_dtype(source)), task or _task(source, known.NAMES))
        return known, model, paths(_abstract(model))
    except (ConfigError, DataError) as error:
        raise DataError(f"{source.where}: {error}") from error
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{source.where}: its config.json describes no model that can be built ({reason}): get the file again") from error


def _check_sizes(sizes: dict[str, Any]) -> None:
    """Refuse what no model has, before anything is made of it."""
    del sizes["context"]
    for key, size in sizes.items():
        if not isinstance(size, int) or not 0 <= size <= (DEEPEST if "layer" in key else LARGEST):
            raise DataError(f"no model has {key}={str(size)[:30]}")


def _abstract(model: Any) -> dict:
    """The parameters' shapes and shardings on the current mesh."""
    mesh = jax.sharding.get_abstract_mesh()
    rows = 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in sharding.AXES["batch"])
    return jax.eval_shape(lambda: init_params(model, jax.random.key(0), rows))


def _untied(source: Checkpoint, names: Names, settings: Any) -> Any:
    """The configuration, untied where the file has an output of its own: Transformers goes by the values too."""
    unlike = mapping.unlike_copies(source, names)
    tied, known = getattr(settings, "tie_word_embeddings", False), {row.theirs for row in (*names.body, *names.heads)}
    for copy in sorted(unlike):
        if copy not in known or (tied and not copy.endswith(".weight")):
            raise DataError(f"{copy} should repeat {names.tied[copy]} and differs: the file is damaged, get it again")
    return dataclasses.replace(settings, tie_word_embeddings=False) if unlike and tied else settings


def _task(source: Checkpoint, names: Names) -> str:
    wanted = source.config.get("architectures") or []
    for task, architecture in names.architectures.items():
        if architecture in wanted:
            return task
    said = f"names {wanted[0]}" if wanted else "names no architecture"
    raise DataError(f"its config.json {said}: give task=, one of {', '.join(names.architectures)}")


def _stored_dtype(source: Checkpoint) -> str:
    """The type that most of the stored values have."""
    sizes = dict.fromkeys(DTYPES, 0)
    for spec in source.specs.values():
        if spec.dtype.name in sizes:
            sizes[spec.dtype.name] += math.prod(spec.shape)
    return max(sizes, key=sizes.get)


def paths(tree: Any) -> dict[str, Any]:
    """A tree of parameters as {path: leaf}."""
    return {"/".join(entry.key for entry in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def save(path: str | Path, model: Any, params: Any, tokenizer: Any = None) -> None:
    """Write a Hugging Face folder that torch's `AutoModel*.from_pretrained` opens: config.json, model.safetensors, tokenizer files.

    Every parameter keeps its type; files of more than 5 GB are cut into shards. A reader sees the old folder or the new one.

    Args:
      params: on one device or on a mesh, in either layout.
      tokenizer: a tokenizer, or the folder whose tokenizer files are copied.
    """
    names = family(model.config).NAMES
    values = configuration.to_json(model.config, names.architectures[model.task])
    tensors = list(outgoing(model, params))
    for key in {"dtype", "torch_dtype"} & values.keys():  # transformers loads in the type that stands there
        values[key] = _most_common_dtype(params)
    more = lambda folder: save_tokenizer(tokenizer, folder)
    if jax.process_index() == 0:
        safetensors_files.write_folder(Path(path).expanduser().absolute(), values, tensors, SHARD, more)
    else:
        for tensor in tensors:  # every host takes part in gathering
            tensor.make()


def outgoing(model: Any, params: Any) -> list[Outgoing]:
    """The tensors of a model under Hugging Face's names; each is gathered from its devices when it is asked for."""
    names = family(model.config).NAMES
    flat = paths(params)
    leaves, fetch = paths(jax.eval_shape(unstack, params)), lambda path: _fetch(flat, path)
    found = entries((*names.body, *names.heads), {name: leaf.shape for name, leaf in leaves.items()})
    body = {row.theirs for row in names.body}
    prefix = f"{names.base}." if names.base and model.task != "features" else ""
    tensors = list(mapping.export(found, leaves, fetch, lambda row, name: (prefix if row.theirs in body else "") + name))
    tied = getattr(model.config, "tie_word_embeddings", True)
    there = {tensor.name: tensor for tensor in tensors}
    copies = [prefix + name for name in names.copies if not tied and prefix + name not in there]
    tensors += [dataclasses.replace(there[prefix + names.tied[name.removeprefix(prefix)]], name=name) for name in copies]
    for name, make in names.computed.items() if model.task not in names.unstored else ():
        table = make(model.config).astype(_most_common_dtype(params))
        tensors.append(Outgoing(prefix + name, table.nbytes, lambda table=table: table))
    return tensors


def _fetch(flat: dict[str, Any], path: str) -> Any:
    """A parameter; of a stack of layers only this layer's part."""
    if path in flat:
        return flat[path]
    parts = path.split("/")
    for i, part in enumerate(parts):
        stacked = "/".join((*parts[:i], "stacked", *parts[i + 1 :]))
        if part.isdecimal() and stacked in flat:
            return flat[stacked][int(part)]
    raise KeyError(path)


def _most_common_dtype(params: Any) -> str:
    sizes: dict[str, int] = {}
    for leaf in jax.tree.leaves(params):
        sizes[leaf.dtype.name] = sizes.get(leaf.dtype.name, 0) + leaf.size
    return max(sizes, key=sizes.get)


def load_run(path: str | Path, task: str | None = None, dtype: str | None = None) -> tuple[Any, dict]:
    """A model and its parameters from a run directory."""
    run, folder = read_run(path)
    if task not in (None, run.task):
        raise DataError(f"{path} was trained for {run.task}, not for {task}")
    model = make_model(run.model, dataclasses.replace(run.compute, dtype=dtype or run.compute.dtype), run.task)
    stored = checkpoint.leaves(folder)
    part = "ema" if any(name.startswith("ema/") for name in stored) else "params"
    mesh = None if jax.sharding.get_abstract_mesh().empty else jax.sharding.get_mesh()
    placed = paths(_abstract(model)) if mesh else {}
    target: dict[str, Any] = {}
    for name, leaf in stored.items():
        top, _, path = name.partition("/")
        if top == part:
            sharding = placed[path].sharding if path in placed else None
            mapping.put(target, path, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding))
    params = checkpoint.restore_part(folder, {part: target}, mesh)[part]
    return model, params if dtype is None else jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def read_run(path: str | Path) -> tuple[config.Run, Path]:
    """The configuration of a run directory, and the checkpoint to load from it."""
    path = Path(path).expanduser()
    if not path.is_dir():
        raise DataError(f"there is no directory {path}; train one: python -m jaxlm.train workdir={path}")
    folder = _checkpoint(path)
    if folder is None:
        raise DataError(f"{path} holds no checkpoint; train one: python -m jaxlm.train workdir={path}")
    values = json.loads(checkpoint.read_file(folder, "config.json"))
    values = {key: value for key, value in values.items() if key not in DIGESTS}
    return config.from_dict(values, family_named(values["model"]["model_type"]).Config), folder


def _checkpoint(path: Path) -> Path | None:
    """The best checkpoint if its digests match, else the newest good one."""
    best = manifest.best(path)
    if best is not None:
        folder = manifest.folder(path) / str(best[0])
        if not manifest.verify(folder):
            return folder
    return checkpoint.latest(path, lambda text: print(text), owner=False)


def on_one_device(params: Any) -> Any:
    """Parameters of a mesh as plain arrays of the first device."""
    return jax.tree.map(lambda leaf: jax.numpy.asarray(jax.device_get(leaf)), params)


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What `convert` did: the kind of the source ("run", "safetensors", "flax", "gguf"), where its tensors went (not of a run), and
    the largest difference between the logits of before and after."""

    kind: str
    match: mapping.Match | None
    difference: float


def convert(source: str | Path, target: str | Path) -> Conversion:
    """A Hugging Face folder of a run, an old Flax folder or a GGUF file; a run directory of a Hugging Face folder.

    Raises:
      DataError: the target is there and not empty, or the source cannot be loaded.
    """
    source, target = hub.find(source), Path(target).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target} is not empty: name a new folder")
    kind = "run" if is_run(source) else folders.kind_of(source)
    if kind == "run":
        (model, params), matched = load_run(source), None
        tokenizer = source / "tokenizer"
    else:
        model, params, matched = from_checkpoint(folders.open_checkpoint(source), None, None)
        tokenizer = load_tokenizer(source) if kind == "gguf" else source
    if kind == "safetensors":
        _write_run(target, model, params, source)
    else:
        save(target, model, params, tokenizer)
    return Conversion(kind, matched, float(np.abs(_probe(model, params) - _probe(*load(target, model.task))).max()))


def _write_run(folder: Path, model: Any, params: Any, source: Path) -> None:
    """A run directory that stands at step 0; without a tokenizer where the source has none that is read."""
    digest = None
    with contextlib.suppress(DataError):
        digest = load_tokenizer(source).digest
        save_tokenizer(source, folder / "tokenizer")
    words = config.Tokenizer(path=str(folder.absolute() / "tokenizer"))
    run = config.Run(model=model.config, task=model.task, workdir=str(folder), tokenizer=words, compute=model.compute)
    values = config.to_dict(run) | dict(zip(DIGESTS, (digest, None), strict=True))
    content = json.dumps(values, indent=1).encode()
    files = {"config.json": content} | ({"tokenizer": folder / "tokenizer"} if digest else {})
    with contextlib.closing(checkpoint.Writer(folder, 1, files)) as writer:
        writer.save(0, {"params": params}, block=True)
    manifest.write_atomically(folder / "config.json", content)


def _probe(model: Any, params: Any) -> np.ndarray:
    """The logits, or without a head the hidden states, of random ids."""
    size = min(model.config.vocab_size, getattr(model.config, "decoder_vocab_size", None) or model.config.vocab_size)
    tokens = np.random.default_rng(0).integers(0, size, (2, 3, 8) if model.task == "multiple-choice" else (2, 8)).astype(np.int32)
    out = model.apply({"params": params}, *(tokens, tokens) if has_decoder(model) else (tokens,))
    return np.asarray(out.hidden if out.logits is None else out.logits, np.float32)
