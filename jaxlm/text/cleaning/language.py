"""The language of a text, by py3langid (Lui and Baldwin 2012: naive Bayes over byte n-grams, 97 languages). Read next: `quality.py`."""

import functools
from typing import Any

from jaxlm.errors import ConfigError, extra


@functools.cache
def _identifier() -> Any:
    with extra("clean", "py3langid"):
        from py3langid import langid
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


def detect(text: str, characters: int = 2000) -> tuple[str, float]:
    """(ISO 639-1 code, probability) of the first `characters` of a text."""
    found, probability = _identifier().classify(text[:characters])
    return found, float(probability)


def language(text: str, keep: tuple[str, ...] = ("en",), probability: float = 0.5, characters: int = 2000) -> str | None:
    """Drop what is in another language than those to keep, or in one of them with less probability; the reason is the language.

    Raises ConfigError for a language that the model does not know.
    """
    known = _identifier().labels
    for code in keep:
        if code not in known:
            raise ConfigError(f"language: keep={code!r} is none of py3langid's languages: {', '.join(sorted(known))}")
    found, certain = detect(text, characters)
    return None if found in keep and certain >= probability else found if found not in keep else "uncertain"
