"""What one example means: a file a task, each with four plain functions `features`, `loss`, `predictions`, `metrics`."""

import importlib
from types import ModuleType

from jaxlm.overrides import choose

# Name of the task -> its module. A new task adds one row.
TASKS = {"causal-lm": "jaxlm.tasks.causal_lm"}


def task_named(name: str) -> ModuleType:
    """The module of a task; an unknown name is refused with the nearest."""
    return importlib.import_module(TASKS[choose("task", name, TASKS)])
