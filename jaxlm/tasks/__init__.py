"""What one example means: a file a task, each with four plain functions `features`, `loss`, `predictions`, `metrics`."""

import importlib
from types import ModuleType

from jaxlm.overrides import choose

# Name of the task -> its module. A new task adds one row.
TASKS = {
    "causal-lm": "jaxlm.tasks.causal_lm",
    "masked-lm": "jaxlm.tasks.masked_lm",
    "next-sentence": "jaxlm.tasks.sentence_pairs",
    "sentence-order": "jaxlm.tasks.sentence_pairs",
    "replaced-tokens": "jaxlm.tasks.replaced_tokens",
    "sequence-classification": "jaxlm.tasks.sequence_classification",
    "token-classification": "jaxlm.tasks.token_classification",
    "question-answering": "jaxlm.tasks.question_answering",
    "multiple-choice": "jaxlm.tasks.multiple_choice",
    "text-to-text": "jaxlm.tasks.text_to_text",
    "translation": "jaxlm.tasks.text_to_text",
    "summarization": "jaxlm.tasks.text_to_text",
    "span-corruption": "jaxlm.tasks.span_corruption",
    "denoising": "jaxlm.tasks.denoising",
}


def task_named(name: str) -> ModuleType:
    """The module of a task; an unknown name is refused with the nearest."""
    return importlib.import_module(TASKS[choose("task", name, TASKS)])


def head_of(name: str) -> str:
    """The model's head that a task trains: its own, or one of several tasks."""
    return getattr(task_named(name), "HEAD", name)
