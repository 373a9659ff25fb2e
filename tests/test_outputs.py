"""Texts that a small run writes: in training, by evaluate and by predict; their file, their speed, the comparison of two runs."""

import dataclasses
import json
import random
import types

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm import evaluate, outputs, predict, sharding
from jaxlm.config import Evaluation, Run
from jaxlm.data.examples import in_memory
from jaxlm.errors import ConfigError, DataError
from jaxlm.evaluation import make_validation
from jaxlm.finished import Wanted, check_wanted, open_member
from jaxlm.inference import loop
from jaxlm.labelled import make_examples
from jaxlm.outputs import Answers, Decoding, chosen, write
from jaxlm.tasks import task_named
from jaxlm.text.sides import target_of
from tests import running
from tests.test_train_tasks import command, measured
from tests.test_train_tasks import write as write_rows

CONFIG = """
from jaxlm.config import Checkpoint, Data, Evaluation, Logging, Optimizer, Run, Tokenizer
from jaxlm.models import transformer

config = Run(
    model=transformer.Config(
        vocab_size=None, d_model=48, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64, dropout=0.0,
    ),
    task="translation", workdir={workdir!r}, epochs=24, batch_size=16,
    data=Data(
        source={train!r}, validation=0.1, test_source={test!r}, sequence_length=24, target_length=16, loader="threads", cache={cache!r}
    ),
    tokenizer=Tokenizer(kind="word", vocab_size=64), optimizer=Optimizer(learning_rate=1e-2, warmup=10),
    evaluation=Evaluation(every=60, generate=16, best="bleu"), checkpoint=Checkpoint(every=60), logging=Logging(every=1, tensorboard=False),
)
"""
PAIRS = dict(zip("one two three four five six".split(), "eins zwei drei vier fünf sechs".split(), strict=True))


def pair(draw):
    words = [draw.choice(list(PAIRS)) for _ in range(draw.randrange(2, 6))]
    return {"source": " ".join(words), "target": " ".join(PAIRS[word] for word in words)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that has learned to count in German; its data beside it."""
    folder, draw = tmp_path_factory.mktemp("outputs"), random.Random(0)
    for name, count in (("train", 300), ("test", 21)):
        write_rows(folder / f"{name}.jsonl", [pair(draw) for _ in range(count)])
    named = {"workdir": folder / "run", "train": folder / "train.jsonl", "test": folder / "test.jsonl", "cache": folder / "cache"}
    (folder / "tiny.py").write_text(CONFIG.format(**{name: str(path) for name, path in named.items()}))
    assert running.run_here(str(folder / "tiny.py")) == 0
    return folder / "run"


def test_training_tells_scores_of_what_it_writes(trained):
    rows = [row for row in running.rows(trained) if "validation_bleu" in row]
    assert rows and {"validation_loss", "validation_accuracy", "validation_ter"} <= rows[-1].keys()
    assert rows[-1]["validation_chrf"] > 50, "learned, or little below says anything"


def test_evaluate_writes_and_scores_a_split(trained, capsys):
    import sacrebleu

    code, out, err = command(evaluate.main, capsys, trained, "--split", "test", "--num-beams", 2, "--output", trained / "out.jsonl")
    rows = [json.loads(line) for line in (trained / "out.jsonl").read_text().splitlines()]
    given = [json.loads(line) for line in (trained.parent / "test.jsonl").read_text().splitlines()]
    found = measured(out)
    assert code == 0 and [(row["source"], row["reference"]) for row in rows] == [(row["source"], row["target"]) for row in given]
    assert [row["record"] for row in rows] == list(range(21))
    texts, references = ([row[name] for row in rows] for name in ("output", "reference"))
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(texts, [references], force=True).score, abs=1e-3)
    assert rows[3]["score"] == pytest.approx(sacrebleu.sentence_chrf(texts[3], references[3:4]).score, abs=1e-3)
    assert {"loss", "perplexity", "accuracy", "chrf", "ter"} <= found.keys() and found["chrf"] > 50
    assert "tok:13a|smooth:exp" in out and "of each text: chrf" in out and "21 outputs of" in out and "tokens/s" in out
    low, high = (float(word) for word in next(line for line in out.splitlines() if line.startswith("bleu       95 %")).split()[3::2])
    assert low < found["bleu"] < high


def test_two_runs_are_compared_on_the_same_texts(trained, capsys, tmp_path):
    """With itself there is no difference; with a worse one the better wins; with other texts it is refused."""
    greedy, worse, other = (tmp_path / f"{name}.jsonl" for name in ("greedy", "worse", "other"))
    split = ("--split", "test")
    assert command(evaluate.main, capsys, trained, *split, "--output", greedy)[0] == 0
    out = command(evaluate.main, capsys, trained, *split, "--against", trained)[1]
    assert f"bleu: +0.00 against {trained}" in out and "better in 0.0% of resamples" in out
    rows = [json.loads(line) for line in greedy.read_text().splitlines()]
    write_rows(worse, [{**row, "output": "eins eins"} for row in rows])
    out = command(evaluate.main, capsys, trained, *split, "--against", worse)[1]
    assert "better in 100.0% of resamples, p = 0.0010" in out
    write_rows(other, [{**row, "reference": "null"} for row in rows])
    code, _, err = command(evaluate.main, capsys, trained, *split, "--against", other)
    assert code == 65 and "record 0 is not among them, or has another reference" in err
    other.write_text('{"record": 0}\n')
    code, _, err = command(evaluate.main, capsys, trained, *split, "--against", other)
    assert code == 65 and "other.jsonl:1 is no output beside its reference" in err


def test_validation_in_training_is_what_evaluate_finds(trained, capsys):
    """The best checkpoint's, where all of the validation pairs are written."""
    best = max((row for row in running.rows(trained) if "validation_bleu" in row), key=lambda row: row["validation_bleu"])
    found = measured(command(evaluate.main, capsys, trained)[1])
    assert found["loss"] == pytest.approx(best["validation_loss"], abs=1e-4)
    member = open_member(str(trained))
    stores = [make_examples(member.run, member.tokenizer, lambda text: None)[1]]
    run = dataclasses.replace(member.run, evaluation=Evaluation(generate=10**6))
    again = make_validation(dataclasses.replace(member, run=run), stores, member.tokenizer)(member.params)
    assert again["bleu"] == pytest.approx(found["bleu"], abs=1e-4) and again["loss"] == pytest.approx(found["loss"], abs=1e-4)


def test_predictions_are_in_order(trained, capsys):
    lines = ["two six one", '{"source": "five"}', "three three four one five"]
    code, out, _ = command(predict.main, capsys, trained, lines=lines)
    rows = [json.loads(line)["output"] for line in out.splitlines()]
    assert code == 0 and len(rows) == 3 and set(" ".join(rows).split()) <= set(PAIRS.values()) and len(set(rows)) == 3
    assert command(predict.main, capsys, trained, "--max-new-tokens", 1, lines=lines)[1].splitlines()[2].count(" ") == 1, "one word"


def test_texts_do_not_depend_on_the_batch_and_programs_are_few(trained):
    member, draw = open_member(str(trained), batch_size=4), random.Random(5)
    texts = [pair(draw)["source"] for _ in range(9)]
    sources = [np.array(member.tokenizer.encode(text), np.int32) for text in texts]
    before = loop.advance._cache_size()
    written = write(member, member.params, sources)
    assert loop.advance._cache_size() - before <= 1, "the last batch is filled up"
    assert written.texts == [write(member, member.params, [source]).texts[0] for source in sources]
    ends = [len(target_of(member.tokenizer).encode(text, add_special_tokens=False)) + 1 for text in written.texts]
    assert written.tokens == sum(min(end, 16) for end in ends), "ends are counted, padding and repeated rows are not"
    assert write(member, member.params, []).texts == []


def test_on_a_mesh_the_texts_are_the_same(trained):
    member = open_member(str(trained))
    sources = [np.array(member.tokenizer.encode(pair(random.Random(n))["source"]), np.int32) for n in range(16)]
    wanted = write(member, member.params, sources).texts
    mesh = sharding.make_mesh(dataclasses.replace(member.run.mesh, data=-1, fsdp=2), devices=jax.devices()[:4])
    with sharding.use(mesh):
        model, params = jaxlm.load(trained)
        assert write(dataclasses.replace(member, model=model), params, sources).texts == wanted


def test_examples_are_chosen_evenly_among_those_with_a_target():
    store = in_memory([(n, {"tokens": [1], "targets": [1] if n % 2 else [], "cut": 0, "about": {}}) for n in range(40)])
    assert chosen(store).tolist() == list(range(1, 40, 2)) == chosen(store, 999).tolist()
    assert chosen(store, 4).tolist() == [1, 11, 21, 31] and chosen(store, 0).size == 0
    with pytest.raises(DataError, match="no targets"):
        chosen(in_memory([(0, {"tokens": [1], "targets": [], "cut": 0, "about": {}})]))


@pytest.mark.parametrize(
    "arguments,code,message",
    [
        (["--samples", "3"], 78, "writes texts; --against DIR2 compares two runs: give one run, and no --samples"),
        (["--calibrate"], 78, "predicts no labels"),
        (["--split", "dev"], 78, "the splits are"),
        (["--max-new-tokens", "99"], 78, "exceed the model's"),
        (["--against", "nowhere"], 65, "there is no directory nowhere"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(trained, capsys, arguments, code, message):
    found, _, err = command(evaluate.main, capsys, trained, *arguments)
    last = [line for line in err.splitlines() if line.startswith("jaxlm: ")]
    assert (found, len(last)) == (code, 1) and message in last[0]


@pytest.mark.parametrize("task", ["sequence-classification", "causal-lm"])
def test_tasks_that_write_nothing_refuse_what_is_of_texts(task):
    member = types.SimpleNamespace(task=task_named(task), run=Run(task=task))
    for wanted in (Wanted(("x",), decoding=Decoding(num_beams=2)), Wanted(("x",), against="y")):
        with pytest.raises(ConfigError, match=f"task={task} writes none"):
            check_wanted([member], wanted)
    check_wanted([member], Wanted(("x",)))


def test_predict_refuses_what_has_no_meaning(trained, capsys):
    code, _, err = command(predict.main, capsys, trained, "--samples", 2, lines=["one"])
    assert code == 78 and "give one run, and no --samples" in err
    code, _, err = command(predict.main, capsys, trained, lines=["one", " "])
    assert code == 65 and "line 2: the pair has an empty source" in err


def test_a_wrong_score_stops_a_run_before_it_starts(trained):
    with pytest.raises(ConfigError, match="did you mean 'rouge'"):
        run = dataclasses.replace(open_member(str(trained)).run, evaluation=Evaluation(generate=2, scores=("rougeL",)))
        outputs.check_scores(run)


def test_a_file_of_outputs_is_read_as_it_was_written(tmp_path):
    answers = Answers([0, 2], ["a", "b"], ["ä", "é"], ["x", "y"])
    rows = outputs.rows_of(answers, outputs.text_scores.measures(answers.outputs, [["x"], ["z"]], ("exact",)))
    write_rows(tmp_path / "out.jsonl", rows)
    assert outputs.read_answers(tmp_path / "out.jsonl") == answers and [row["score"] for row in rows] == [100.0, 0.0]
