"""Rotary positions in config.json: Transformers 5 nests, under `rope_parameters`, what 4 kept side by side.

A `Config` holds 4's keys (`rope_theta`, `rope_scaling`), which people know and set; what a file nests is told by them on
the way in, and nested again on the way out, so that both versions read the same in what we save.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from jaxlm.errors import DataError
from jaxlm.ops.rotary import Rotary

# Kind of layer ("" where there is one) -> the fields that may hold its base; of whole attention also the scaling.
BASES = {
    "": ("rope_theta", "rotary_emb_base"),
    "full_attention": ("rope_theta", "global_rope_theta"),
    "sliding_attention": ("rope_local_base_freq", "local_rope_theta"),
}
SHARES = ("rotary_pct", "partial_rotary_factor")


def rotary(config: Any) -> Rotary:
    """How a head's features turn with its position, by Llama's keys."""
    asked = getattr(config, "head_dim", config.extra.get("head_dim"))  # no key of Qwen 2's own, but its files may have it
    size = asked or config.hidden_size // config.num_attention_heads
    return Rotary(size, config.rope_theta, config.max_position_embeddings, config.rope_scaling)


def flat(fields: set[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json's values with what `rope_parameters` nests also under the fields of the Config.

    Raises DataError for scaled positions of windowed layers, which no field holds.
    """
    found = dict(values)
    for kind, part in _parts(fields, values):
        rest = dict(part)
        for key, names in (("rope_theta", BASES[kind]), ("partial_rotary_factor", SHARES)):
            name = _field(names, fields)
            if name and rest.get(key) is not None:
                found[name] = rest.pop(key)
        scaled = rest.get("rope_type", "default") != "default"
        if scaled and kind == "sliding_attention":
            raise DataError("config.json: rope_parameters scales the positions of windowed layers: only whole attention may be scaled")
        if "rope_scaling" in fields and kind != "sliding_attention":
            found["rope_scaling"] = rest if scaled else None
    return found


def nested(fields: set[str], values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse: `rope_parameters`, where there is one, says what the fields say."""
    kinds = dict(_parts(fields, values))
    if not kinds:
        return dict(values)
    for kind, part in kinds.items():
        scaling = values.get("rope_scaling") if kind != "sliding_attention" else None
        made = dict(scaling or {"rope_type": "default"}) if "rope_scaling" in fields else dict(part)
        for key, names in (("rope_theta", BASES[kind]), ("partial_rotary_factor", SHARES)):
            name = _field(names, fields)
            if name and key in part:
                made[key] = values[name]
        kinds[kind] = made
    return {**values, "rope_parameters": kinds.get("", kinds)}


def _parts(fields: set[str], values: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    parameters = values.get("rope_parameters")
    if not parameters or "rope_parameters" in fields:
        return
    kinds = {kind: part for kind, part in parameters.items() if kind in BASES and isinstance(part, dict)}
    yield from (kinds or {"": parameters}).items()


def _field(names: tuple[str, ...], fields: set[str]) -> str | None:
    return next((name for name in names if name in fields), None)
