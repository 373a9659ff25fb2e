"""What `evaluate --calibrate` fits on a finished run's validation records and keeps in the run: a temperature, or a null threshold.

Read first: `finished.py`, which goes by them, `explain/calibration.py`.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from jaxlm.atomic import write_atomically
from jaxlm.data.selection import holds_out
from jaxlm.errors import ConfigError
from jaxlm.evaluation import Outputs, generates, read_example
from jaxlm.explain import calibration
from jaxlm.finished import CALIBRATION, Member, Say, Wanted, open_member, predict_examples, split_examples
from jaxlm.uncertainty import all_decisions


def calibrate(directory: str, wanted: Wanted, say: Say) -> str:
    """Fit a run's temperature, or of questions that may have no answer its null threshold, on its validation records, and keep it."""
    member = open_member(directory, wanted.batch_size)
    if generates(member.task) or not member.task.RECORDS:
        raise ConfigError(f"--calibrate is of labelled records; {directory} (task={member.run.task}) predicts no labels: leave it out")
    wanted = dataclasses.replace(wanted, split="validation", data=None, samples=0, calibrated=False)
    if not holds_out(member.run.data):
        raise ConfigError(f"--calibrate fits to held-out records, and {directory} holds none out: train with data.validation=0.1")
    examples = split_examples(member, wanted, say)
    rows = [read_example(examples, i) for i in range(len(examples))]
    outputs = predict_examples([member], examples, wanted)[0][0]
    if member.run.records.unanswerable and hasattr(member.task, "fit_threshold"):
        threshold = member.task.fit_threshold(outputs, rows, member.run.records)
        kept, line = {"null_threshold": threshold}, f"null threshold {threshold:.3f}"
    else:
        kept, line = _temperature(outputs, rows, member)
    write_atomically(Path(directory) / CALIBRATION, json.dumps(kept | {"step": member.step, "examples": len(examples)}).encode())
    return f"{directory}: {line}"


def _temperature(outputs: Outputs, rows: list[dict[str, Any]], member: Member) -> tuple[dict[str, float], str]:
    decisions = all_decisions([outputs], rows, member.task, member.run.records)
    if decisions is None:
        raise ConfigError(f"--calibrate fits probabilities of classes; {member.directory} (task={member.run.task}) has none: leave it out")
    logits, labels = decisions[0][0][decisions[1] >= 0], decisions[1][decisions[1] >= 0]
    found = calibration.fit_temperature(logits, labels)
    error = lambda t: calibration.expected_calibration_error(calibration.to_probabilities(logits, t), labels)
    line = f"temperature {found:.3f}, calibration error on the validation records {error(1.0):.4f} -> {error(found):.4f}"
    return {"temperature": found}, line
