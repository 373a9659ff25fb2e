"""Between Hugging Face's config.json and a family's `Config`: nothing is lost on the way in or out.

Keys that a Config has no field for are kept in its `extra`; keys that a file leaves out take the family's defaults.
"""

import dataclasses
from typing import Any

from jaxlm import overrides
from jaxlm.errors import DataError
from jaxlm.frozen import Frozen
from jaxlm.models import rope_keys
from jaxlm.overrides import coerce, field_types

# Told anew on the way out, or of no meaning here.
OURS = ("architectures", "model_type")


def from_json(kind: type, values: dict[str, Any]) -> Any:
    """The Config of this kind; raises DataError for a value of the wrong type, naming the key."""
    names = {field.name for field in dataclasses.fields(kind)}
    config, values = kind(), rope_keys.flat(names, values)
    known = {key: value for key, value in values.items() if key in names - {"extra"}}
    labels = values.get("id2label")
    if "num_labels" in names and "num_labels" not in known and isinstance(labels, dict):
        known["num_labels"] = len(labels)
    for key, value in known.items():
        known[key] = _fitted(config, key, value)
    extra = {key: value for key, value in values.items() if key not in names and key not in OURS}
    return dataclasses.replace(config, **known, extra=Frozen(extra))


def _fitted(config: Any, key: str, value: Any) -> Any:
    if value is None:
        return value
    if isinstance(value, float) and value.is_integer() and isinstance(getattr(config, key), int):
        value = int(value)
    try:
        return coerce(value, field_types(config, key, key), key)
    except Exception as error:
        raise DataError(f"config.json: {error}") from error


def to_json(config: Any, architecture: str) -> dict[str, Any]:
    """The content of config.json: the Config's fields, what it kept, and Hugging Face's class."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    extra = {key: value for key, value in values.pop("extra").items() if key not in (*overrides.OURS, "generation_config")}
    labels = values.pop("num_labels", None)
    values = {"architectures": [architecture], **extra, **values}
    if labels is not None and len(values.get("id2label", (0, 1))) != labels:
        values["id2label"] = {str(i): f"LABEL_{i}" for i in range(labels)}
        values["label2id"] = {f"LABEL_{i}": i for i in range(labels)}
    return rope_keys.nested({field.name for field in dataclasses.fields(config)}, values)
