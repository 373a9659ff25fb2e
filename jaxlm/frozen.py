"""A JSON object as a value: what a configuration holds where Hugging Face's config.json nests. A leaf."""

import json
from typing import Any


class Frozen(dict):
    """A dict that is hashed by its content, so that a frozen dataclass may hold it; nobody changes it once made.

    >>> hash(Frozen(factor=2.0, type="linear")) == hash(Frozen(type="linear", factor=2.0))
    True
    """

    def __hash__(self) -> int:
        return hash(json.dumps(self, sort_keys=True))

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError(f"a frozen value is not changed: make another one with {key!r}")

    def __reduce__(self) -> tuple:
        return type(self), (dict(self),)  # a dict's own way of unpickling sets its items
