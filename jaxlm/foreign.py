"""Foreign checkpoints as models: the configuration, and the parameters by the family's name table. Read next: `pretrained.py`."""

import contextlib
import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxlm.config import Compute
from jaxlm.errors import ConfigError, DataError
from jaxlm.inference.settings import OWN
from jaxlm.models import configuration, family, family_named, make_model
from jaxlm.models.names import Names, entries
from jaxlm.overrides import choose
from jaxlm.runs import abstract_params
from jaxlm.training.tuning import paths
from jaxlm.weights import mapping
from jaxlm.weights.strict_json import read_object
from jaxlm.weights.tensors import Checkpoint

DTYPES = ("float32", "bfloat16", "float16")
LARGEST, DEEPEST = 2**24, 4096  # of any size, and of layers, in a configuration


def from_checkpoint(source: Checkpoint, task: str | None, dtype: str | None) -> tuple[Any, dict, mapping.Match]:
    """A model, its parameters, and which tensor went where."""
    if dtype is not None:
        choose("dtype", dtype, DTYPES)
    settings = settings_of(source)
    with _describing(source):
        names = family(settings).NAMES
        model = make_model(settings, Compute(dtype=dtype or stored_dtype(source)), task or _task(source, names))
        abstract = paths(abstract_params(model))
    matched = _matched(source, model, abstract)
    return model, mapping.read(source, matched, abstract, dtype and jnp.dtype(dtype)), matched


def settings_of(source: Checkpoint) -> Any:
    """The family's Config; a config.json that makes no model is one DataError."""
    with _describing(source):
        known = family_named(source.config.get("model_type"))
        settings = configuration.from_json(known.Config, {**source.config, **_ids_of_generation(source)})
        sizes = {**dataclasses.asdict(known.dims(settings)), "vocab_size": settings.vocab_size}
        sizes |= {name: size for name, size in dataclasses.asdict(settings).items() if "layer" in name and isinstance(size, int)}
        _check_sizes(sizes)
        return _untied(source, known.NAMES, settings)


def _ids_of_generation(source: Checkpoint) -> dict[str, Any]:
    """What generation_config.json beside a config.json says of tokens, under its own name; methods of decoding are the caller's."""
    path = Path(source.where).parent / "generation_config.json"
    if source.where.endswith(".gguf") or not path.is_file():
        return {}
    found = read_object(path)
    ids = {name: found[name] for name in OWN if found.get(name) is not None}
    return {"generation_config": ids} if ids else {}


def lacking(source: Checkpoint, model: Any, abstract: Mapping[str, Any]) -> set[str]:
    """The paths of a model for which a checkpoint has no tensor, or one of another shape; reads headers only."""
    found, shapes = _entries(model, abstract)
    named = {path for entry in found for path in entry.ours}
    lost = mapping.lacking(source, family(model.config).NAMES, found, shapes)
    return {path for entry in lost for path in entry.ours} | (abstract.keys() - named)


def read(source: Checkpoint, model: Any, abstract: Mapping[str, Any], without: Collection[str]) -> dict[str, Any]:
    """The parameters of a model, by path and in its types, but for some paths."""
    abstract = {path: leaf for path, leaf in abstract.items() if path not in without}
    return paths(mapping.read(source, _matched(source, model, abstract), abstract, jnp.float32))


def _matched(source: Checkpoint, model: Any, abstract: Mapping[str, Any]) -> mapping.Match:
    names = family(model.config).NAMES
    matched = mapping.match(source, names, *_entries(model, abstract), model.task)
    mapping.check_computed(source, names, model.config)
    return matched


def _entries(model: Any, abstract: Mapping[str, Any]) -> tuple[list[Any], dict[str, tuple[int, ...]]]:
    names, shapes = family(model.config).NAMES, {path: leaf.shape for path, leaf in abstract.items()}
    return entries((*names.body, *names.heads), shapes), shapes


@contextlib.contextmanager
def _describing(source: Checkpoint) -> Iterator[None]:
    """Around what is made of a config.json: whatever is wrong with it is one DataError that names the file."""
    try:
        yield
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


def _untied(source: Checkpoint, names: Names, settings: Any) -> Any:
    """The configuration, untied where the file has an output of its own: Transformers goes by the values too."""
    unlike = mapping.unlike_copies(source, names)
    tied, known = getattr(settings, "tie_word_embeddings", False), {row.theirs for row in (*names.body, *names.heads)}
    for copy in sorted(unlike):
        if copy not in known or (tied and not copy.endswith(".weight")):
            raise DataError(f"{copy} should repeat {names.tied[copy]} and differs: the file is damaged, get it again")
    own_output = tied and unlike & {row.theirs for row in names.heads}  # what differs in the body is a second vocabulary's table
    return dataclasses.replace(settings, tie_word_embeddings=False) if own_output else settings


def _task(source: Checkpoint, names: Names) -> str:
    wanted = source.config.get("architectures") or []
    for task, architecture in names.architectures.items():
        if architecture in wanted:
            return task
    said = f"names {wanted[0]}" if wanted else "names no architecture"
    raise DataError(f"its config.json {said}: give task=, one of {', '.join(names.architectures)}")


def stored_dtype(source: Checkpoint) -> str:
    """The type that most of the stored values have."""
    sizes = dict.fromkeys(DTYPES, 0)
    for spec in source.specs.values():
        if spec.dtype.name in sizes:
            sizes[spec.dtype.name] += math.prod(spec.shape)
    return max(sizes, key=sizes.get)
