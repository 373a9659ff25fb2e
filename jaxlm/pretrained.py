"""Load and save a model with its parameters: the one place that joins models, weights, text and checkpoints.

A path is a run directory, a Hugging Face folder, an old Flax folder or a GGUF file; what is none of them is looked up on
the hub. Read next: `runs.py` and `foreign.py`, the two kinds of checkpoints.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm import config, foreign, overrides
from jaxlm.errors import ConfigError, DataError
from jaxlm.foreign import from_checkpoint
from jaxlm.frozen import Frozen
from jaxlm.layers.block import unstack
from jaxlm.models import configuration, family, family_named, has_decoder, init_params, make_model
from jaxlm.models.electra_pair import ElectraPair
from jaxlm.models.names import entries
from jaxlm.runs import abstract_params, init_rows, is_run, kept, load_run, read_run, stored_shapes
from jaxlm.text.sides import copy_target
from jaxlm.text.tokenizer import load_tokenizer, save_tokenizer
from jaxlm.training import checkpoint, manifest
from jaxlm.training.resume import DIGESTS
from jaxlm.training.tuning import layer_by_layer, nested, paths
from jaxlm.weights import folders, hub, mapping, safetensors_files
from jaxlm.weights.tensors import Checkpoint, Outgoing

SHARD = 5 * 10**9  # bytes of a file, as Hugging Face cuts them


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


def read_model(run: config.Run) -> Any:
    """The Config of a run without a `model` of its own: as it has begun, or that of the pretrained model."""
    begun = Path(run.workdir).expanduser() / "config.json"
    if not begun.is_file():
        return read_config(run.pretrained)
    values = json.loads(begun.read_text(encoding="utf-8"))["model"]
    return config.from_dict({"model": values}, family_named(values["model_type"]).Config).model


def read_config(path: str | Path) -> Any:
    """The family's Config of whatever `load` takes; a vocabulary that has a table of its own is untied in it."""
    path = hub.find(path)
    if not is_run(path):
        return foreign.settings_of(folders.open_checkpoint(path))
    model = read_run(path)[0].model
    extra = {key: value for key, value in model.extra.items() if key not in overrides.OURS}  # its embeddings are filled by now
    return dataclasses.replace(model, extra=Frozen(extra))


def load_body(path: str | Path, model: Any, key: jax.Array, say: Callable[[str], None] = lambda _: None) -> tuple[dict, set[str]]:
    """Parameters to start training from: a checkpoint's where it has them, fresh ones in heads that it has not.

    Args:
      path: as for `load`.
      model: with any head and layout, of the checkpoint's family and sizes.
      key: draws what is fresh.

    Returns the parameters in float32, each where the current mesh wants it, and the paths of the fresh ones: heads, or heads
    for another number of labels, and BERT's pooler where it is missing.

    Raises ConfigError for ELECTRA's pair, which begins afresh; DataError where a part of the body is missing or has another shape.
    """
    path, plain = hub.find(path), _unrolled(model)
    abstract = paths(abstract_params(plain))
    source, new = _opened(path, plain, abstract)
    if is_run(path):
        leaves = paths(kept(*load_run(path))[1])
        stored = {leaf.dtype.name for leaf in leaves.values()}
    else:
        leaves, stored = foreign.read(source, plain, abstract, new), {foreign.stored_dtype(source)}
    leaves = {name: leaf.astype(jnp.float32) for name, leaf in leaves.items() if name not in new} | _fresh(plain, key, new)
    cast = f" ({', '.join(sorted(stored))} there, float32 in training)" if stored != {"float32"} else ""
    say(f"parameters from {path}{cast}" + (f"; new: {', '.join(sorted(new))}" if new else ""))
    return nested(_laid_out(leaves, paths(abstract_params(model)))), new


def new_parameters(path: str | Path, model: Any) -> set[str]:
    """The paths of a model that `load_body` would draw afresh; reads no parameters."""
    plain = _unrolled(model)
    return _opened(hub.find(path), plain, paths(abstract_params(plain)))[1]


def _opened(path: Path, model: Any, abstract: dict[str, Any]) -> tuple[Checkpoint | None, set[str]]:
    """A foreign checkpoint, and the paths of the heads that it, or a run, lacks; refuses a model with another body."""
    source = None if is_run(path) else folders.open_checkpoint(path)
    theirs, lacking = _lacking_in_run(path, abstract) if source is None else (foreign.settings_of(source), None)
    if theirs.model_type != model.config.model_type:
        mend = "leave `model` out, or take its family"
        raise DataError(f"pretrained={path} is of the family {theirs.model_type}, the run's model {model.config.model_type}: {mend}")
    if not getattr(theirs, "tie_word_embeddings", True) and getattr(model.config, "tie_word_embeddings", False):
        raise DataError(f"pretrained={path} has an output embedding of its own: set model.tie_word_embeddings=false, or leave `model` out")
    lacking = foreign.lacking(source, model, abstract) if lacking is None else lacking
    new = lacking & _heads(model, abstract)
    if lacking - new:
        raise DataError(_misfit(path, theirs, model.config, sorted(lacking - new)))
    return source, new


def _lacking_in_run(path: Path, abstract: dict[str, Any]) -> tuple[Any, set[str]]:
    """The Config of a run, and the paths that its checkpoint has not, or in another shape."""
    run, folder = read_run(path)
    stored = {}
    for name, shape in stored_shapes(run, folder).items():
        ones = layer_by_layer(name, shape)
        stored |= dict.fromkeys(ones, shape if ones == [name] else shape[1:])
    return run.model, {name for name, leaf in abstract.items() if stored.get(name) != leaf.shape}


def _heads(model: Any, abstract: dict[str, Any]) -> set[str]:
    """The paths that a pretrained model may lack: heads, what no table names, and parts of the body that may be missing."""
    names, shapes = family(model.config).NAMES, {path: leaf.shape for path, leaf in abstract.items()}
    found = entries((*names.body, *names.heads), shapes)
    free = lambda row: "{i}" not in row.ours[0] and (row in names.heads or row.ours[0].split("/")[0] in names.optional)
    return shapes.keys() - {path for entry in found if not free(entry.row) for path in entry.ours}


def _misfit(path: Path, theirs: Any, ours: Any, lacking: list[str]) -> str:
    """What to say about a body that does not fit, with the keys that make the difference."""
    pairs = [(field.name, getattr(theirs, field.name), getattr(ours, field.name)) for field in dataclasses.fields(ours)]
    differ = [f"{key}={one}, not {other}" for key, one, other in pairs if one != other and key != "num_labels" and type(one) in (int, bool)]
    mend = f"it has {'; '.join(differ)}: leave `model` out, or give it these" if differ else "it is damaged or incomplete, get it again"
    more = f" and {len(lacking) - 1} more" if lacking[1:] else ""
    return f"pretrained={path} does not have {lacking[0]}{more} as the run's model needs it; {mend}"


def _unrolled(model: Any) -> Any:
    """The model in the layout of foreign checkpoints."""
    if isinstance(model, ElectraPair):
        raise ConfigError(f"task={model.task} trains a generator and a discriminator from the beginning: leave `pretrained` out")
    return make_model(model.config, dataclasses.replace(model.compute, layout="unrolled"), model.task)


def _fresh(model: Any, key: jax.Array, new: set[str]) -> dict[str, jax.Array]:
    """New values of some parameters; the compiler leaves the others out."""
    draw = lambda key: {path: leaf for path, leaf in paths(init_params(model, key, init_rows())).items() if path in new}
    return jax.jit(draw)(key) if new else {}


def _laid_out(leaves: dict[str, jax.Array], wanted: dict[str, Any]) -> dict[str, jax.Array]:
    """The leaves in the layer layout of the wanted paths; one after the other, so that there are never two copies of a model."""
    for path in [path for path in leaves if "stacked" in path.split("/") and path not in wanted]:
        whole = leaves.pop(path)
        leaves |= {name: whole[i] for i, name in enumerate(layer_by_layer(path, whole.shape))}
    parts = lambda path: [leaves.pop(name) for name in layer_by_layer(path, wanted[path].shape)]
    return {path: leaves.pop(path) if path in leaves else jnp.stack(parts(path)) for path in wanted}


def save(path: str | Path, model: Any, params: Any, tokenizer: Any = None) -> None:
    """Write a Hugging Face folder that torch's `AutoModel*.from_pretrained` opens: config.json, model.safetensors, tokenizer files.

    Every parameter keeps its type; files of more than 5 GB are cut into shards. A reader sees the old folder or the new one.

    Args:
      params: on one device or on a mesh, in either layout.
      tokenizer: a tokenizer, or the folder whose tokenizer files are copied.
    """
    model, params = kept(model, params)
    names = family(model.config).NAMES
    values = configuration.to_json(model.config, names.architectures[model.task])
    tensors = list(outgoing(model, params))
    for key in {"dtype", "torch_dtype"} & values.keys():  # transformers loads in the type that stands there
        values[key] = _most_common_dtype(params)
    more = lambda folder: (save_tokenizer(tokenizer, folder), _save_generation(model.config, folder))
    if jax.process_index() == 0:
        safetensors_files.write_folder(Path(path).expanduser().absolute(), values, tensors, SHARD, more)
    else:
        for tensor in tensors:  # every host takes part in gathering
            tensor.make()


def _save_generation(config: Any, folder: Path) -> None:
    """The generation_config.json that the model came with, as far as it was read."""
    if said := config.extra.get("generation_config"):
        (folder / "generation_config.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


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

    Raises DataError where the target is there and not empty, or the source cannot be loaded.
    """
    source, target = hub.find(source), Path(target).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target} is not empty: name a new folder")
    kind = "run" if is_run(source) else folders.kind_of(source)
    if kind == "run":
        (model, params), matched = kept(*load_run(source)), None
        tokenizer = source / "tokenizer"
    else:
        model, params, matched = from_checkpoint(folders.open_checkpoint(source), None, None)
        tokenizer = load_tokenizer(source) if kind == "gguf" else source
    if kind == "safetensors":
        _write_run(target, model, params, source)
    else:
        save(target, model, params, tokenizer)
        copy_target(source, target)
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
