"""`a.b=c` assignments for nested frozen dataclasses, and choices among known names. Read next: `config.py`, whose groups they change."""

import ast
import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any

from jaxlm.errors import ConfigError
from jaxlm.frozen import Frozen


def override(config: Any, assignments: list[str]) -> Any:
    """Apply `a.b=c` assignments to nested dataclasses.

    >>> from jaxlm.config import Run
    >>> override(Run(model=None), ["optimizer.learning_rate=0.01"]).optimizer.learning_rate
    0.01
    """
    for text in assignments:
        key, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"`{text}` is not of the form key=value")
        config = _assign(config, key.strip().split("."), literal(value.strip()), key.strip())
    return config


def override_some(config: Any, assignments: Iterable[str], keys: tuple[str, ...]) -> Any:
    """The same, of these keys alone."""
    for text in assignments:
        key = text.partition("=")[0].strip()
        if key not in keys:
            raise ConfigError(f"{key} cannot be changed after training: what can be is {', '.join(keys)}")
    return override(config, list(assignments))


# Keys of every model that are none of Hugging Face's: they stand in the `extra` of its Config.
OURS = {"embedding_init": str | None}  # a file of word vectors


def _assign(config: Any, path: list[str], value: Any, key: str) -> Any:
    if path[0] in OURS and len(path) == 1 and hasattr(config, "extra"):
        return dataclasses.replace(config, extra=Frozen({**config.extra, path[0]: coerce(value, OURS[path[0]], key)}))
    kinds = field_types(config, path[0], key)
    if len(path) > 1:
        value = _assign(getattr(config, path[0]), path[1:], value, key)
    elif dataclasses.is_dataclass(getattr(config, path[0])) and not (value is None and kinds is Any):  # model=none
        names = ", ".join(f.name for f in dataclasses.fields(getattr(config, path[0])))
        raise ConfigError(f"{key} is a group: set one of its keys ({names}), as in {key}.{names.split(', ')[0]}=...")
    else:
        value = coerce(value, kinds, key)
    return dataclasses.replace(config, **{path[0]: value})


def field_types(config: Any, name: str, key: str) -> Any:
    """The annotated type of a field; an unknown name is refused with the nearest one."""
    if not dataclasses.is_dataclass(config):
        raise ConfigError(f"{key}: {name} belongs to no group here")
    hints = typing.get_type_hints(type(config))
    if name not in hints:
        near = difflib.get_close_matches(name, hints, n=1, cutoff=0.5)
        prefix = key[: key.rfind(name)] if name in key else ""
        mend = f"did you mean {prefix}{near[0]}?" if near else f"the keys are {', '.join(hints)}"
        raise ConfigError(f"unknown key {key}: {mend}")
    return hints[name]


def literal(text: str) -> Any:
    """The value that a word of the command line stands for; what is no literal of Python is text."""
    names = {"true": True, "false": False, "none": None}
    if text.lower() in names:
        return names[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def coerce(value: Any, kind: Any, key: str) -> Any:
    """Fit a literal to an annotated type: a list to a tuple, an int to a float; anything else must match."""
    if kind is Any:
        return tuples(value)
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    nested = Frozen in kinds if isinstance(value, dict) else any(typing.get_origin(k) is tuple for k in kinds)
    if isinstance(value, (dict, list, tuple)) and nested:
        return tuples(value)
    if isinstance(value, int) and not isinstance(value, bool) and float in kinds and int not in kinds:
        return float(value)
    plain = tuple(k for k in kinds if isinstance(k, type))
    if isinstance(value, plain) and not (isinstance(value, bool) and bool not in plain):
        return value
    if str in plain and isinstance(value, (int, float)):
        return str(value)
    wanted = " or ".join(getattr(k, "__name__", str(k)) for k in kinds)
    raise ConfigError(f"{key}={value!r}: this key takes {wanted}")


def tuples(value: Any) -> Any:
    """Lists as tuples and dictionaries as Frozen, all the way down: what a frozen dataclass may hold."""
    plain = tuple(tuples(v) for v in value) if isinstance(value, (list, tuple)) else value
    return Frozen(value) if isinstance(value, dict) else plain


def choose(key: str, name: str, known: Iterable[str]) -> str:
    """`name`, if it is known; else a ConfigError with the nearest one.

    >>> choose("optimizer.name", "lion", ["adamw", "lion"])
    'lion'
    """
    known = list(known)
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=1)
    raise ConfigError(f"{key}={name!r} is not known: " + (f"did you mean {near[0]!r}? " if near else "") + f"It takes {', '.join(known)}")
