"""The vocabulary of name tables: how a family's parameters are called, and lie, in Hugging Face's checkpoints.

A table is a tuple of `Row`s, read in both directions: export is the inverse of import by construction. In names, `{i}` and
`{j}` stand for numbers; `{e}` only in their name stands for experts, which are one array with a leading axis here.
`pretrained.py` applies the tables.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor of theirs, and the parameters of ours that it holds.

    Attributes:
      theirs: the name, without the base prefix ("bert.").
      ours: paths; several where theirs is fused (q, k and v in one matrix), in the order of the outputs.
      inputs: how many leading axes of ours are inputs of a matrix; 0: a vector; None: kept in ours' shape.
      transposed: theirs is [outputs, inputs], as torch.nn.Linear keeps it.
      interleaved: fused head by head, [N, 3, H], not one after the other.
      leading: axes of size 1 in front of theirs (Marian's bias is [1, V]).
      beside: the row holds only where this parameter is there too (T5 calls its matrices otherwise where there is a gate).
    """

    theirs: str
    ours: tuple[str, ...]
    inputs: int | None = None
    transposed: bool = True
    interleaved: bool = False
    leading: int = 0
    beside: str | None = None

    def shape(self, ours: Sequence[Shape]) -> Shape:
        """The shape of theirs, from those of ours."""
        if self.inputs is None:
            return (1,) * self.leading + tuple(ours[0])
        rows, outputs = prod(ours[0][: self.inputs]), sum(prod(shape[self.inputs :]) for shape in ours)
        if not self.inputs:
            return (outputs,)
        return (outputs, rows) if self.transposed else (rows, outputs)

    def inward(self, theirs: np.ndarray, ours: Sequence[Shape]) -> list[np.ndarray]:
        """Theirs as ours, of these shapes; views where that is possible."""
        if self.inputs is None:
            return [theirs.reshape(ours[0])]
        flat = theirs.T if self.transposed else theirs  # outputs last
        if self.interleaved:
            heads, size = ours[0][self.inputs :]
            parts = np.moveaxis(flat.reshape(*flat.shape[:-1], heads, len(ours), size), -2, 0)
        else:
            ends = np.cumsum([prod(shape[self.inputs :]) for shape in ours])[:-1]
            parts = np.split(flat, ends, axis=-1) if len(ours) > 1 else [flat]
        return [part.reshape(shape) for part, shape in zip(parts, ours, strict=True)]

    def outward(self, ours: Sequence[np.ndarray]) -> np.ndarray:
        """The inverse of `inward`."""
        if self.inputs is None:
            return ours[0].reshape((1,) * self.leading + ours[0].shape)
        rows = [prod(ours[0].shape[: self.inputs])] if self.inputs else []
        if self.interleaved:
            flat = np.stack([array.reshape(*rows, *array.shape[self.inputs :]) for array in ours], axis=-2).reshape(*rows, -1)
        else:
            flat = np.concatenate([array.reshape(*rows, -1) for array in ours], axis=-1)
        return np.ascontiguousarray(flat.T if self.transposed else flat)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row with its numbers filled in: the tensors (one, or one an expert) and the parameters that hold the same."""

    row: Row
    theirs: tuple[str, ...]
    ours: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Names:
    """A family's whole table.

    Attributes:
      base: the prefix that a model with a head puts before the names of its body ("bert"); "" where there is none.
      body, heads: the rows of the body, and of all heads.
      tied: name of a tensor that a checkpoint may leave out or repeat -> the name, body or head, that it equals.
      optional: our paths that a checkpoint may lack (BERT's pooler, for "features" alone; BART's bias): the model then goes without.
      copies: tied names that a checkpoint repeats where the output embedding is not tied (BART's `embed_tokens`).
      computed: name of a tensor that the configuration alone decides (fixed positions) -> the function that makes it.
      unstored: tasks whose class does not write what is computed (Marian's).
      architectures: task -> Hugging Face's class.
    """

    architectures: Mapping[str, str]
    base: str
    body: tuple[Row, ...]
    heads: tuple[Row, ...] = ()
    tied: Mapping[str, str] = dataclasses.field(default_factory=dict)
    optional: tuple[str, ...] = ()
    unstored: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    computed: Mapping[str, Callable[[Any], np.ndarray]] = dataclasses.field(default_factory=dict)


SUFFIXES = {
    "features": "Model",
    "causal-lm": "ForCausalLM",
    "masked-lm": "ForMaskedLM",
    "pretraining": "ForPreTraining",
    "next-sentence": "ForNextSentencePrediction",
    "sequence-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "multiple-choice": "ForMultipleChoice",
    "seq2seq-lm": "ForConditionalGeneration",
}
LABELS = ("sequence-classification", "token-classification", "question-answering", "multiple-choice")


def classes(name: str, *tasks: str, **others: str) -> dict[str, str]:
    """Task -> Hugging Face's class, the default task first; `others` are classes of other names, with _ for - in the task.

    >>> classes("Opt", "causal-lm", features="OptBody")
    {'causal-lm': 'OptForCausalLM', 'features': 'OptBody'}
    """
    return {task: name + SUFFIXES[task] for task in tasks} | {task.replace("_", "-"): other for task, other in others.items()}


def linear(theirs: str, *ours: str, inputs: int = 1, transposed: bool = True, interleaved: bool = False) -> tuple[Row, Row]:
    """A matrix and its bias; `inputs` is 2 where ours contracts heads and head size."""
    weight = Row(f"{theirs}.weight", tuple(f"{path}/kernel" for path in ours), inputs, transposed, interleaved)
    return weight, Row(f"{theirs}.bias", tuple(f"{path}/bias" for path in ours), 0, interleaved=interleaved)


def norm(theirs: str, ours: str) -> tuple[Row, Row]:
    """A norm: scale and bias."""
    return Row(f"{theirs}.weight", (f"{ours}/scale",)), Row(f"{theirs}.bias", (f"{ours}/bias",))


def same(theirs: str, ours: str, leading: int = 0) -> tuple[Row]:
    """A tensor that is ours as it lies."""
    return (Row(theirs, (ours,), leading=leading),)


def vocabulary(decoder: str, bias: str | None = None) -> tuple[Row, ...]:
    """The end of a masked language model's head: untied, a table and its bias; tied, the bias alone, which may have a name of its own."""
    own = *same(f"{decoder}.weight", "decoder/table"), *same(f"{decoder}.bias", "decoder/bias")
    rest = same(f"{decoder}.bias", "vocabulary/bias") if bias is None else (*same(bias, "vocabulary/bias"), *same(bias, "decoder/spare"))
    return *own, *rest


def tied_vocabulary(decoder: str, bias: str) -> dict[str, str]:
    """What a tied vocabulary's head may leave out or repeat."""
    return {f"{decoder}.weight": "embeddings.word_embeddings.weight", f"{decoder}.bias": bias}


def entries(rows: Sequence[Row], shapes: Mapping[str, Shape]) -> list[Entry]:
    """The rows that these parameters have, one entry for every layer; the first row that fits a parameter counts."""
    found, taken = [], set()
    for row in rows:
        pattern = re.compile(re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d+)", re.escape(row.ours[0])))
        for path, shape in shapes.items():
            match = pattern.fullmatch(path)
            if match and path not in taken and (row.beside is None or row.beside.format(**match.groupdict()) in shapes):
                found.append(_entry(row, match.groupdict(), shape))
                taken.update(found[-1].ours)
    return found


def _entry(row: Row, numbers: dict[str, str], shape: Shape) -> Entry:
    ours = tuple(path.format(**numbers) for path in row.ours)
    if "{e}" in row.theirs:
        return Entry(row, tuple(row.theirs.format(**numbers, e=e) for e in range(shape[0])), ours)
    return Entry(row, (row.theirs.format(**numbers),), ours)
