"""The families: one file each, found by the `model_type` of its configuration."""

import importlib
from types import ModuleType
from typing import Any

import flax.linen as nn

from jaxlm.config import Compute, choose

# model_type -> (module, class). A new family adds one row.
FAMILIES = {
    "gpt2": ("jaxlm.models.gpt2", "GPT2"),
}


def family(config: Any) -> ModuleType:
    """The module of a configuration's family: Config, SIZES, sizes, SETTINGS, context, cache_shape."""
    return family_named(config.model_type)


def family_named(model_type: str) -> ModuleType:
    """The module of the family with this `model_type`; an unknown one is refused with the nearest."""
    return importlib.import_module(FAMILIES[choose("model_type", model_type, FAMILIES)][0])


def make_model(config: Any, compute: Compute = Compute()) -> nn.Module:
    """The module of a configuration: a value; its parameters come from `init` or from a checkpoint."""
    return getattr(family(config), FAMILIES[config.model_type][1])(config, compute)
