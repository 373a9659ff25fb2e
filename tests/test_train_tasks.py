"""From files to predictions: every task over labelled records through the same three commands, and what is wrong in one line."""

import io
import json
import random
import sys
from unittest import mock

import numpy as np
import pytest

from jaxlm import evaluate, labelled, predict
from jaxlm.config import Data, Records, Run
from jaxlm.errors import exits
from jaxlm.text.training import train_tokenizer
from tests import running

CONFIG = """
from jaxlm.config import Checkpoint, Data, Evaluation, Logging, Optimizer, Records, Run, Tokenizer
from jaxlm.models import bert

config = Run(
    model=bert.Config(
        vocab_size=None, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64
    ),
    task="sequence-classification", workdir={workdir!r}, epochs=12, batch_size=4,
    data=Data(source={train!r}, validation=0.2, test_source={test!r}, sequence_length=32, loader="threads", cache={cache!r}),
    tokenizer=Tokenizer(kind="wordpiece", vocab_size=150), optimizer=Optimizer(learning_rate=1e-2, warmup=5),
    evaluation=Evaluation(every=20), checkpoint=Checkpoint(every=20), logging=Logging(every=1, tensorboard=False),
)
"""
GOOD, BAD, PLAIN = "good fine great nice".split(), "bad poor awful sad".split(), "the film was a very long story of two men".split()


def sentence(draw, label):
    words = [draw.choice(PLAIN) for _ in range(draw.randrange(3, 9))] + [draw.choice(GOOD if label == "yes" else BAD)]
    draw.shuffle(words)
    return " ".join(words)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A config file beside its data."""
    folder, draw = tmp_path_factory.mktemp("tasks"), random.Random(0)
    for name, count in (("train", 160), ("test", 40)):
        labels = [draw.choice(["yes", "no"]) for _ in range(count)]
        odd = lambda i, label: {"yes": "no", "no": "yes"}[label] if i % 12 == 5 else label  # so that certainty is punished
        write(folder / f"{name}.jsonl", [{"text": sentence(draw, odd(i, label)), "label": label} for i, label in enumerate(labels)])
    named = {"workdir": folder / "run", "train": folder / "train.jsonl", "test": folder / "test.jsonl", "cache": folder / "cache"}
    (folder / "tiny.py").write_text(CONFIG.format(**{name: str(path) for name, path in named.items()}))
    return folder


@pytest.fixture(scope="module")
def trained(place):
    assert running.run_here(str(place / "tiny.py")) == 0
    return place / "run"


def command(main, capsys, *arguments, lines=()):
    """(exit code, stdout, stderr) of a command in this process."""
    code = 0
    with mock.patch.object(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines))):
        try:
            with exits():
                main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            code = leaving.code
    out = capsys.readouterr()
    return code, out.out, out.err


def measured(text):
    return {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if len(line.split()) == 2 and line[0].isalpha()}


def test_a_classification_learns_and_is_measured_on_unseen_records(trained, capsys):
    code, out, err = command(evaluate.main, capsys, trained, "--split", "test", "--output", trained / "p.jsonl")
    found = measured(out)
    assert code == 0 and found["accuracy"] > 0.8 and {"binary_f1", "matthews", "calibration_error", "brier"} <= found.keys()
    rows = [json.loads(line) for line in (trained / "p.jsonl").read_text().splitlines()]
    wanted = [json.loads(line)["label"] for line in (trained.parent / "test.jsonl").read_text().splitlines()]
    assert [row["record"] for row in rows] == list(range(40))
    assert np.mean([row["label"] == label for row, label in zip(rows, wanted, strict=True)]) == pytest.approx(found["accuracy"], abs=1e-4)
    assert "40 records, 40 examples" in err


def test_validation_in_training_equals_the_command(trained, capsys):
    rows = [row for row in running.rows(trained) if "validation_accuracy" in row]
    best = min(rows, key=lambda row: row["validation_loss"])
    found = measured(command(evaluate.main, capsys, trained)[1])
    assert found["accuracy"] == pytest.approx(best["validation_accuracy"], abs=1e-4)
    assert found["loss"] == pytest.approx(best["validation_loss"], abs=1e-4)


def test_predictions_in_order_whatever_stands_beside_them(trained, capsys):
    lines = ["a good film", '{"text": "an awful story of the men"}', "nice " * 9]
    code, out, _ = command(predict.main, capsys, trained, lines=lines)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [row["label"] for row in rows] == ["yes", "no", "yes"]
    alone = json.loads(command(predict.main, capsys, trained, lines=lines[:1])[1])
    assert alone["probabilities"] == pytest.approx(rows[0]["probabilities"], abs=1e-5)


def test_dropout_samples_and_ensembles_tell_what_is_uncertain(trained, capsys):
    rows = [json.loads(line) for line in command(predict.main, capsys, trained, "--samples", 5, lines=["good", "the the"])[1].splitlines()]
    assert all(row["entropy"] >= row["mutual_information"] > 0 for row in rows)
    one = json.loads(command(predict.main, capsys, trained, lines=["good film"])[1])
    twice = json.loads(command(predict.main, capsys, trained, trained, lines=["good film"])[1])
    assert twice["probabilities"] == pytest.approx(one["probabilities"], abs=1e-6) and twice["mutual_information"] == pytest.approx(
        0, abs=1e-6
    )
    found = measured(command(evaluate.main, capsys, trained, "--samples", 3, "--split", "test")[1])
    assert found["accuracy"] > 0.75 and found["predictive_entropy"] > found["mutual_information"] > 0


def test_calibration_is_kept_and_used(trained, capsys):
    before = measured(command(evaluate.main, capsys, trained)[1])
    code, out, _ = command(evaluate.main, capsys, trained, "--calibrate")
    after = measured(out)
    kept = json.loads((trained / "calibration.json").read_text())["temperature"]
    (trained / "calibration.json").unlink()
    assert code == 0 and f"temperature {kept:.3f}" in out and kept != 1
    assert after["negative_log_likelihood"] < before["negative_log_likelihood"] and after["accuracy"] == before["accuracy"]


def test_a_run_goes_on_where_it_was(place):
    """An epoch, and then another in a second call: the bits are those of two in one go."""
    common = [str(place / "tiny.py"), "data.packing=buckets", "optimizer.decay=60"]
    assert running.run_here(*common, f"workdir={place / 'whole'}", "epochs=2") == 0
    for epochs in (1, 2):
        assert running.run_here(*common, f"workdir={place / 'parts'}", f"epochs={epochs}") == 0
    one, other = running.state(place / "whole"), running.state(place / "parts")
    assert all((one[name] == other[name]).all() for name in one)


def test_packed_rows_learn_as_padded_ones_do_on_a_mesh(place):
    """One step on the same examples: packed, padded and on eight devices give the same loss."""
    losses = {}
    for name, changes, devices in (
        ("padded", ["data.packing=padded", "batch_size=160"], 1),
        ("packed", ["data.packing=packed", "batch_size=160"], 1),
        ("mesh", ["data.packing=packed", "batch_size=160", "mesh.fsdp=2", "mesh.tensor=2"], 8),
    ):
        plain = ["model.hidden_dropout_prob=0.0", "model.attention_probs_dropout_prob=0.0", "epochs=1", "steps=1"]
        assert running.run_here(str(place / "tiny.py"), *plain, *changes, f"workdir={place / name}", devices=devices) == 0
        losses[name] = next(row["loss"] for row in running.rows(place / name) if "loss" in row)
    assert losses["packed"] == pytest.approx(losses["padded"], rel=1e-5) and losses["mesh"] == pytest.approx(losses["packed"], rel=1e-5)


def test_folds_see_every_record_once_and_their_mean_is_that_of_all(place, capsys):
    assert running.run_here(str(place / "tiny.py"), "folds=2", "epochs=1", f"workdir={place / 'folds'}") == 0
    rows = [json.loads(line) for line in (place / "folds" / "out_of_fold.jsonl").read_text().splitlines()]
    study = json.loads((place / "folds" / "study.json").read_text())
    labels = [json.loads(line)["label"] for line in (place / "train.jsonl").read_text().splitlines()]
    assert [row["record"] for row in rows] == list(range(160))
    for k in range(2):
        right = [row["label"] == label for row, label in zip(rows, labels, strict=True) if row["fold"] == k]
        assert np.mean(right) == pytest.approx(study[f"fold-{k}"]["accuracy"])
    everywhere = np.mean([row["label"] == label for row, label in zip(rows, labels, strict=True)])
    assert study["out of fold"]["accuracy"] == pytest.approx(everywhere)
    assert study["mean"]["accuracy"] == pytest.approx((study["fold-0"]["accuracy"] + study["fold-1"]["accuracy"]) / 2)
    assert "deviation" in capsys.readouterr().out


def test_a_learning_curve(place):
    assert running.run_here(str(place / "tiny.py"), "fractions=[0.2,1]", f"workdir={place / 'curve'}") == 0
    study = json.loads((place / "curve" / "study.json").read_text())
    assert set(study) == {"fraction-0.2", "fraction-1"} and study["fraction-1"]["accuracy"] > 0.6


WORDS = [{"tokens": "the cat sat on a mat .".split(), "tags": ["D", "N", "V", "P", "D", "N", "."]}] * 30
QUESTIONS = [
    {"question": f"who saw {n} men", "context": f"the cat saw {n} men", "answers": {"text": ["cat"], "answer_start": [4]}}
    for n in range(30)
]
CHOICES = [{"text": "the cat", "choices": [f"sat {n}", "flew"], "label": 0} for n in range(30)]
OTHERS = {
    "token-classification": (WORDS, [], "the mat sat", {"tokens", "tags"}),
    "question-answering": (QUESTIONS, ["records.stride=4", "records.question=8"], "who saw men\tthe cat saw men", {"text", "n_best"}),
    "multiple-choice": (CHOICES, [], "the cat\tsat 3\tflew", {"label", "probabilities"}),
    "several": (
        [{"text": f"x {n}", "label": ["a", "b"][: n % 3]} for n in range(30)],
        ["records.kind=several"],
        "x 2",
        {"labels", "probabilities"},
    ),
    "regression": ([{"text": f"x {n}", "label": n / 7} for n in range(30)], ["records.kind=regression"], "x 3", {"value"}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_every_task_through_the_three_commands(name, place, tmp_path, capsys):
    rows, options, line, wanted = OTHERS[name]
    task = name if "-" in name else "sequence-classification"
    source, workdir = write(tmp_path / "rows.jsonl", rows), tmp_path / "run"
    given = [f"task={task}", f"data.source={source}", "data.test_source=none", f"workdir={workdir}", "epochs=2", *options]
    assert running.run_here(str(place / "tiny.py"), *given) == 0, capsys.readouterr().err
    code, out, err = command(evaluate.main, capsys, workdir, "--split", "train")
    assert code == 0 and measured(out)["loss"] >= 0 and len(measured(out)) > 1, err
    code, out, err = command(predict.main, capsys, workdir, lines=[line])
    assert code == 0 and wanted <= json.loads(out).keys(), err
    code, out, err = command(predict.main, capsys, workdir, "--samples", 2, lines=[line, line])
    sampled = [json.loads(row) for row in out.splitlines()]
    assert code == 0 and len(sampled) == 2 and wanted <= sampled[0].keys(), err
    assert ("entropy" in sampled[0]) == (name not in ("regression", "question-answering"))
    said = command(evaluate.main, capsys, workdir, "--split", "train", "--samples", 2)[2]
    assert ("have no entropy" in said) == ("entropy" not in sampled[0])
    if name == "question-answering":
        code, _, err = command(predict.main, capsys, workdir, lines=["who saw it?\t\u200b"])
        assert code == 65 and "leaves nothing of the context" in err
        last = tmp_path / "read.jsonl"
        assert command(evaluate.main, capsys, workdir, "--split", "train", "records.n_best=1", "--output", last)[0] == 0
        assert {len(json.loads(row)["n_best"]) for row in last.read_text().splitlines()} == {1}
        code, out, err = command(evaluate.main, capsys, workdir, "records.stride=2")
        assert code == 78 and "records.stride" in err
    write(tmp_path / "bare.jsonl", [{k: v for k, v in row.items() if k not in ("label", "tags", "answers")} for row in rows[:3]])
    code, out, err = command(evaluate.main, capsys, workdir, "--data", tmp_path / "bare.jsonl")
    assert code == 65 and "no labels" in err and "\n" not in err.strip().splitlines()[-1]


def test_folds_are_no_ensemble_and_unlabelled_records_no_validation(place, trained, tmp_path, capsys):
    other = tmp_path / "other"
    assert running.run_here(str(place / "tiny.py"), "data.fold=[0,2]", "epochs=1", f"workdir={other}") == 0
    code, _, err = command(evaluate.main, capsys, trained, other)
    assert code == 78 and "held-out records" in err
    assert command(evaluate.main, capsys, trained, other, "--split", "test")[0] == 0
    bare = write(tmp_path / "bare.jsonl", [{"text": "the film"}] * 3)
    capsys.readouterr()
    assert running.run_here(str(place / "tiny.py"), f"data.validation_source={bare}", "epochs=1", f"workdir={tmp_path / 'v'}") == 65
    assert "no labels" in capsys.readouterr().err


def test_records_without_a_label_are_counted_where_they_are_measured(place, trained, tmp_path, capsys):
    rows = [{"text": "the good film", "label": "yes"}, {"text": "the film", "label": ""}, {"text": "a story"}]
    partly = write(tmp_path / "partly.jsonl", rows)
    code, out, err = command(evaluate.main, capsys, trained, "--data", partly)
    assert code == 0 and "3 records, 3 examples" in err and "; 2 records have no label and are not measured" in err
    given = (str(place / "tiny.py"), "epochs=1", f"data.validation_source={partly}", f"workdir={tmp_path / 'run'}")
    assert running.run_here(*given) == 0 and "; 2 records have no label" in capsys.readouterr().out
    bare = write(tmp_path / "bare.jsonl", rows[2:])
    assert f"the records of {bare} have no labels" in command(evaluate.main, capsys, trained, "--data", bare)[2]


def test_cut_questions_are_said_with_the_key_that_cuts_them(tmp_path):
    data = Data(source=write(tmp_path / "rows.jsonl", QUESTIONS), validation=0.0, sequence_length=32, cache=str(tmp_path / "cache"))
    run, said = Run(task="question-answering", data=data, records=Records(stride=4, question=2)), []
    labelled.make_examples(run, train_tokenizer("wordpiece", labelled.read_texts(run), 150), said.append)
    assert "30 records were cut to 2 tokens" in said[0] and "(records.question; first: " in said[0]


def test_runs_of_other_folds_predict_together_and_those_of_other_lengths_do_not(place, trained, tmp_path, capsys):
    for name, change in (("fold", "data.fold=[0,2]"), ("short", "data.sequence_length=8")):
        assert running.run_here(str(place / "tiny.py"), change, "epochs=1", f"workdir={tmp_path / name}") == 0
    capsys.readouterr()
    code, out, err = command(predict.main, capsys, trained, tmp_path / "fold", lines=["a good film"])
    assert code == 0 and "mutual_information" in json.loads(out), err
    code, out, err = command(predict.main, capsys, trained, tmp_path / "short", lines=["a good film"])
    assert code == 78 and "differ in their data.sequence_length" in err


REFUSED = {
    "samples": (evaluate.main, ["--samples", -1], "samples are 0 or more"),
    "batch": (evaluate.main, ["--batch-size", 0], "a batch has 1 or more"),
    "folder": (evaluate.main, ["--output", "/nowhere/p.jsonl"], "there is no folder /nowhere"),
    "top": (predict.main, ["--top", 0], "--top 0: it is at least 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_that_means_nothing_is_refused(name, trained, capsys):
    main, options, word = REFUSED[name]
    code, out, err = command(main, capsys, trained, *options)
    assert code == 78 and word in err and not out


def test_a_run_that_holds_nothing_out_has_nothing_to_calibrate_by(place, tmp_path, capsys):
    assert running.run_here(str(place / "tiny.py"), "data.validation=0.0", "epochs=1", f"workdir={tmp_path / 'run'}") == 0
    code, _, err = command(evaluate.main, capsys, tmp_path / "run", "--calibrate", "--split", "test")
    assert code == 78 and "--calibrate fits to held-out records" in err.splitlines()[-1]


def test_a_calibration_is_of_its_checkpoint(trained, tmp_path, capsys):
    (trained / "calibration.json").write_text(json.dumps({"temperature": 5.0, "step": -1}))
    ignored = command(evaluate.main, capsys, trained)
    step = int(min((row for row in running.rows(trained) if "validation_loss" in row), key=lambda row: row["validation_loss"])["step"])
    (trained / "calibration.json").write_text(json.dumps({"temperature": 5.0, "step": step}))
    used = command(evaluate.main, capsys, trained)
    (trained / "calibration.json").unlink()
    assert "temperature 5.000" in used[2] and "temperature" not in ignored[2]
    assert measured(used[1])["brier"] != measured(ignored[1])["brier"]


WRONG = {
    "empty text": ([{"text": "a b", "label": "yes"}, {"text": "  ", "label": "no"}], [], "rows.jsonl:2: "),
    "no column": ([{"words": "a", "label": "yes"}], [], "records.columns"),
    "one label": ([{"text": "a", "label": "yes"}] * 3, [], "1 different labels"),
    "few for folds": ([{"text": f"a {n}", "label": "yes" if n else "no"} for n in range(9)], ["folds=3"], "the label 'no' has 1"),
    "no metric": (None, ["evaluation.best=bleu"], "bleu"),
    "unseen label": ([{"text": "a", "label": "maybe"}], ["records.labels=['yes','no']"], "rows.jsonl:1: the label 'maybe' was never seen"),
    "no number": (
        [{"text": "a", "label": "x"}, {"text": "b", "label": "1"}],
        ["records.kind=regression"],
        "rows.jsonl:1: the label 'x' is no number",
    ),
    "a column that is not there": (
        [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}],
        ["records.columns=[['text','text'],['pair','pairr'],['label','label']]"],
        "pairr",
    ),
    "numbers as classes": ([{"text": f"a {n}", "label": n / 7} for n in range(5)], [], "records.kind=regression"),
    "several as one": ([{"text": "a", "label": ["x", "y"]}], [], "rows.jsonl:1: "),
    "a mixture": (None, ["data.source=[['a.jsonl',1.0]]"], "mixture"),
    "no such range": (None, ["records.noise=1.5"], "records.noise=1.5"),
    "evaluation.batches": (None, ["evaluation.batches=2"], "evaluation.batches"),
    "bad packing": (None, ["data.packing=windows"], "data.packing"),
    "pairs of a family without": (None, ["task=next-sentence", "model.is_decoder=false", "masking.rate=2.0"], "masking.rate"),
    "an encoder that writes on": (None, ["task=causal-lm", "tokenizer.kind=bpe", "tokenizer.vocab_size=300"], "model.is_decoder=true"),
    "no metric of questions": (
        QUESTIONS,
        ["task=question-answering", "records.stride=4", "records.question=8", "evaluation.best=best_f1"],
        "It takes loss, exact, f1",
    ),
    "no metric of texts": (None, ["task=masked-lm", "evaluation.best=acuracy"], "did you mean 'accuracy'?"),
    "patience without validation": (None, ["data.validation=0.0", "evaluation.patience=2"], "nothing is held out"),
    "a kind that is none": ([{"text": "a", "label": "x"}] * 3, ["records.kind=severel"], "did you mean 'several'?"),
    "labels that are one": ([{"text": "a", "label": "x"}] * 3, ["records.labels=['x','y','x']"], "names a label twice"),
    "a text without a token": (
        [{"text": "a", "label": "x"}, {"text": "\u200b", "label": "y"}],
        [],
        "rows.jsonl:2: the tokenizer leaves",
    ),
    "no validation file": (None, ["data.validation_source=nix.jsonl"], "data.validation_source=nix.jsonl: no file"),
    "r-drop of words": (None, ["task=masked-lm", "loss.r_drop=1.0"], "loss.r_drop=1.0 is of task=sequence-classification"),
    "noise of words": (None, ["task=masked-lm", "records.noise=0.2"], "records.noise=0.2 is of labelled records"),
    "a fraction over one": (None, ["fractions=[0.1,2]"], "each is more than 0 and at most 1"),
    "a fraction twice": (None, ["fractions=[0.5,0.5]"], "there once"),
    "shares of text": (None, ["task=masked-lm", "data.fraction=0.5"], "data.fraction"),
    "folds of text": (None, ["task=causal-lm", "folds=3"], "folds"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_line_with_its_place(name, place, tmp_path, capsys):
    rows, options, word = WRONG[name]
    given = [f"data.source={write(tmp_path / 'rows.jsonl', rows)}"] if rows else []
    code = running.run_here(str(place / "tiny.py"), f"workdir={tmp_path / 'run'}", *given, *options)
    error = capsys.readouterr().err.strip()
    assert code in (65, 78) and word in error and "\n" not in error
