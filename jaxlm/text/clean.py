"""Cleaning: steps on one document at a time, composed as the configuration names them; and the options of duplicate removal.

    cleaner = make_cleaner(("unicode", "html", ("language", {"keep": ("en",)}), "pii", ("near_duplicates", {"threshold": 0.8})))
    cleaner("<p>Write to ada@example.org, please.</p>").text

A step is a plain function of the text and its options. Read next, in `cleaning/`: `repair.py`, `markup.py`, `quality.py`,
`pages.py`, `pii.py`, `decontaminate.py`, then `duplicates.py` for what needs two passes.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import inspect
import json
import sys
import typing
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jaxlm.errors import ConfigError
from jaxlm.overrides import choose, coerce
from jaxlm.text.cleaning.decontaminate import decontaminate, load_grams
from jaxlm.text.cleaning.language import language
from jaxlm.text.cleaning.markup import html
from jaxlm.text.cleaning.pages import c4, load_words, profanity
from jaxlm.text.cleaning.pii import pii
from jaxlm.text.cleaning.quality import gopher, length, symbols
from jaxlm.text.cleaning.repair import controls, normalize, unicode, whitespace
from jaxlm.text.cleaning.repetition import repetition
from jaxlm.text.cleaning.signatures import Duplicates
from jaxlm.text.unicode import well_formed

VERSION = 1  # of the rules: raise it with any change of what a step does

EDITS: dict[str, Callable[..., str]] = {  # text -> text
    "unicode": unicode,
    "normalize": normalize,
    "controls": controls,
    "whitespace": whitespace,
    "html": html,
}
RULES: dict[str, Callable[..., str | None]] = {  # text -> the reason to drop it, or None
    "language": language,
    "length": length,
    "repetition": repetition,
    "symbols": symbols,
    "gopher": gopher,
    "profanity": profanity,
    "decontaminate": decontaminate,
}
COUNTED: dict[str, Callable[..., tuple[str | None, dict[str, int]]]] = {  # text -> (text, or None to drop it; what was done how often)
    "c4": c4,
    "pii": pii,
}
STEPS: dict[str, Callable[..., Any]] = {**EDITS, **RULES, **COUNTED}

LOADED = {"profanity": ("words", load_words), "decontaminate": ("path", load_grams)}  # an option that names files, and their reader
LIBRARIES = {"unicode": "ftfy", "language": "py3langid", "html": "selectolax"}
PROBES = ("Probe: déjà vu &amp; 1 [2].", "<html><p>Probe</p></html>")  # every step meets its library and options before the first document


def exact_duplicates() -> dict[str, Any]:
    """Drop documents of the same text as one before."""
    return {"exact": True}


def near_duplicates(threshold: float = 0.8, ngram: int = 5, permutations: int = 128) -> dict[str, Any]:
    """Drop documents whose sets of `ngram`-word shingles have a Jaccard similarity of at least `threshold` with one before."""
    return {"threshold": threshold, "ngram": ngram, "permutations": permutations}


def paragraph_duplicates(minimum: int = 100) -> dict[str, Any]:
    """Take out paragraphs of at least `minimum` characters that stood in the corpus before.

    A paragraph is what empty lines enclose; `html` writes a block a line, and so leaves one paragraph a page.
    """
    return {"paragraph": minimum}


# Options of the second pass. They see what all other steps left, wherever they stand among them.
GLOBAL: dict[str, Callable[..., dict[str, Any]]] = {
    "exact_duplicates": exact_duplicates,
    "near_duplicates": near_duplicates,
    "paragraph_duplicates": paragraph_duplicates,
}


@dataclasses.dataclass(frozen=True)
class Cleaned:
    """What became of a document."""

    text: str | None  # None: dropped
    dropped: str | None = None  # the step and its reason, as "gopher:few_words"; "empty" where nothing was left
    changed: tuple[str, ...] = ()  # the steps that changed the text
    counts: dict[str, int] = dataclasses.field(default_factory=dict)  # what was done how often, as {"pii:email": 2}


@dataclasses.dataclass(frozen=True)
class Cleaner:
    """Steps ready to be applied to documents, one by one and in any process: the result depends on the text alone."""

    steps: tuple[tuple[str, Callable[..., Any]], ...]  # those of one pass, with their options bound
    duplicates: Duplicates | None  # the options of the second pass; None: there is none
    fingerprint: str  # a digest of everything that the result depends on, files and versions of libraries included

    def __call__(self, text: str) -> Cleaned:
        """Apply the steps in turn, until one drops the document. Lone surrogates become U+FFFD first."""
        text = well_formed(text)
        changed: list[str] = []
        counts: dict[str, int] = {}
        for name, step in self.steps:
            after, reason, did = _apply(name, step, text)
            counts.update({f"{name}:{key}": counts.get(f"{name}:{key}", 0) + count for key, count in did.items()})
            if after is None:
                return Cleaned(None, f"{name}:{reason}", tuple(changed), counts)
            if after != text and name not in changed:
                changed.append(name)
            text = after
            if not text or text.isspace():
                break
        empty = not text or text.isspace()
        return Cleaned(None if empty else text, "empty" if empty else None, tuple(changed), counts)


def _apply(name: str, step: Callable[..., Any], text: str) -> tuple[str | None, str | None, dict[str, int]]:
    """(the text or None, the reason to drop it, what was done how often) by one step of any of the three shapes."""
    if name in EDITS:
        return step(text), None, {}
    if name in RULES:
        reason = step(text)
        return (text, None, {}) if reason is None else (None, reason, {})
    after, counts = step(text)
    return (None, next(iter(counts)), {}) if after is None else (after, None, counts)


def make_cleaner(steps: Iterable[str | tuple[str, Mapping[str, Any]]]) -> Cleaner:
    """The cleaner of a configuration's `data.clean`.

    Args:
      steps: names, or (name, options), of STEPS and GLOBAL.

    Files that options name are read now. Raises ConfigError for a name, an option or a value that is not known, with the
    nearest one, and for a library that is missing.
    """
    local, twice, parts = [], {}, []
    for step in steps:
        name, given = _named(step)
        options = _options(name, given)
        parts.append([name, *([importlib.metadata.version(LIBRARIES[name])] if _installed(name) else [])])
        if name in GLOBAL:
            twice |= GLOBAL[name](**options)
        else:
            _load(name, options)
            local.append((name, _probed(name, functools.partial(STEPS[name], **options))))
        parts[-1].append({key: getattr(value, "digest", value) for key, value in sorted(options.items())})
    if twice.get("paragraph") and "c4" in (name for name, _ in local):
        raise ConfigError("data.clean: c4 leaves no empty lines, and paragraph_duplicates finds paragraphs by them: leave one of them out")
    versions = [VERSION, unicodedata.unidata_version, *sys.version_info[:3]]  # letters, and what `ipaddress` calls public
    digest = hashlib.sha256(json.dumps([versions, parts], sort_keys=True).encode()).hexdigest()
    return Cleaner(tuple(local), Duplicates(**twice) if twice else None, digest)


def _named(step: Any) -> tuple[str, Mapping[str, Any]]:
    name, options = (step, {}) if isinstance(step, str) else step if isinstance(step, (list, tuple)) and len(step) == 2 else (None, None)
    if not isinstance(name, str) or not isinstance(options, Mapping):
        raise ConfigError(f'data.clean: {step!r} is no step: write a name, or (name, {{"option": value}})')
    return choose("data.clean", name, [*STEPS, *GLOBAL]), options


def _options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a step, those left out by their defaults; every value fits the function's annotation."""
    function = {**STEPS, **GLOBAL}[name]
    kinds = typing.get_type_hints(function)
    known = {key: value.default for key, value in inspect.signature(function).parameters.items() if key != "text"}
    for key in given:
        if key not in known:
            choose(f"data.clean: {name}: option", key, known or ["no options"])
    options = {key: coerce(given[key], kinds[key], f"data.clean: {name}: {key}") if key in given else value for key, value in known.items()}
    if missing := [key for key, value in options.items() if value is inspect.Parameter.empty]:
        raise ConfigError(f'data.clean: {name} needs {missing[0]}: write ("{name}", {{"{missing[0]}": ...}})')
    return options


def _load(name: str, options: dict[str, Any]) -> None:
    if name in LOADED:
        key, read = LOADED[name]
        more = {"n": options["n"]} if name == "decontaminate" else {}
        options[key] = read(options[key], **more)


def _installed(name: str) -> bool:
    """Whether a step's result depends on a library that is here; the probe tells what is missing."""
    try:
        return name in LIBRARIES and bool(importlib.metadata.version(LIBRARIES[name]))
    except importlib.metadata.PackageNotFoundError:
        return False


def _probed(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
    try:
        for text in PROBES:
            step(text)
    except (TypeError, ValueError, IndexError, AttributeError, KeyError) as error:
        raise ConfigError(f"data.clean: {name}: its options do not fit: {error}") from error
    return step
