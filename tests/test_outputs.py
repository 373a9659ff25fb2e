"""Texts that a small run writes: in training, by evaluate and by predict; their file, their speed, the comparison of two runs."""

import dataclasses
import json
import random
import types
from unittest import mock

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm import convert, evaluate, generate, outputs, predict, sharding
from jaxlm.config import Data, Evaluation, Records, Run
from jaxlm.data.examples import in_memory
from jaxlm.errors import ConfigError, DataError
from jaxlm.evaluation import make_validation
from jaxlm.finished import Wanted, check_wanted, open_member, split_examples
from jaxlm.inference import loop
from jaxlm.inference import texts as texts_module
from jaxlm.inference.generate import generate_tokens
from jaxlm.labelled import make_examples, read_split
from jaxlm.outputs import Answers, Decoding, chosen, write
from jaxlm.tasks import task_named
from jaxlm.text.sides import load_sides
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


@pytest.fixture(scope="module")
def of_two_tokenizers(trained):
    """A run that has learned the same with a tokenizer for each side, and validation records of their own."""
    folder = trained.parent
    changes = [
        "target_tokenizer.kind=bpe",
        "target_tokenizer.vocab_size=280",
        "model.share_encoder_decoder_embeddings=false",
        "epochs=none",
    ]
    changes += ["steps=6", "evaluation.best=loss", "evaluation.generate=none", f"data.validation_source={folder / 'test.jsonl'}"]
    changes += ["checkpoint.every=2", "checkpoint.keep=3", "evaluation.every=6"]
    assert running.run_here(str(folder / "tiny.py"), f"workdir={folder / 'two'}", *changes) == 0
    return folder / "two"


def test_what_is_written_is_spelled_by_the_tokenizer_of_the_targets(of_two_tokenizers, capsys):
    """By the library, whole and as it comes, and by the command."""
    tokenizer, (model, params) = load_sides(of_two_tokenizers), jaxlm.load(of_two_tokenizers)
    (ids,) = generate_tokens(model, params, np.array([tokenizer.encode("one two")]), max_new_tokens=4, min_new_tokens=4)
    wanted = tokenizer.target.decode(ids.tolist())
    named = {"max_new_tokens": 4, "min_new_tokens": 4}
    assert texts_module.generate_text(model, params, tokenizer, ["one two"], **named) == [wanted] and wanted
    assert "".join(texts_module.stream_text(model, params, tokenizer, "one two", **named)) == wanted
    settings = ("--prompt", "one two", "--temperature", "0", "--max-new-tokens", 4, "min_new_tokens=4")
    assert command(generate.main, capsys, of_two_tokenizers, *settings)[1] == f"one two{wanted}\n"


def test_the_harness_measures_what_two_tokenizers_write_and_nothing_else(of_two_tokenizers):
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance

    from jaxlm.harness_model import JaxLM

    model, ask = JaxLM(pretrained=str(of_two_tokenizers)), lambda kind, *words: [Instance(kind, {}, words, 0)]
    wanted = texts_module.generate_text(model.model, model.params, model.tokenizer, ["one two"], max_new_tokens=3)
    assert model.generate_until(ask("generate_until", "one two", {"max_gen_toks": 3}), disable_tqdm=True) == wanted
    with pytest.raises(ConfigError, match="has a tokenizer for each side"):
        model.loglikelihood(ask("loglikelihood", "one", " eins"), disable_tqdm=True)
    with pytest.raises(ConfigError, match="has a tokenizer for each side"):
        model.loglikelihood_rolling(ask("loglikelihood_rolling", "one"), disable_tqdm=True)


def test_validation_records_of_their_own_need_no_training_records(of_two_tokenizers, capsys, tmp_path):
    member = open_member(str(of_two_tokenizers))
    data = dataclasses.replace(member.run.data, source="gone.jsonl", cache=str(tmp_path))
    member = dataclasses.replace(member, run=dataclasses.replace(member.run, data=data))
    assert len(split_examples(member, Wanted(("x",)), lambda text: None)) == 21


def test_the_mean_of_checkpoints_is_evaluated_as_a_run_and_not_as_a_folder(of_two_tokenizers, capsys, tmp_path):
    assert command(convert.main, capsys, of_two_tokenizers, tmp_path / "mean", "--average", 3, "--run")[0] == 0
    assert "chrf" in command(evaluate.main, capsys, tmp_path / "mean", "--split", "test")[1]
    assert command(convert.main, capsys, of_two_tokenizers, tmp_path / "folder", "--average", 3)[0] == 0
    code, _, err = command(evaluate.main, capsys, tmp_path / "folder", "--split", "test")
    assert code == 65 and "is a model in Hugging Face's form" in err and "--average N --run" in err


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
    assert f"bleu: +0.00 against {trained}" in out and "better in 50.0% of resamples, p = 1.0000" in out
    out = command(evaluate.main, capsys, trained, *split, "--against", trained, "evaluation.max_new_tokens=1")[1]
    assert f"bleu: +0.00 against {trained}" in out, "both write as is asked"
    rows = [json.loads(line) for line in greedy.read_text().splitlines()]
    write_rows(worse, [{**row, "output": "eins eins"} for row in rows])
    out = command(evaluate.main, capsys, trained, *split, "--against", worse)[1]
    assert "better in 100.0% of resamples, p = 0.0010" in out
    write_rows(other, [{**row, "reference": "null"} for row in rows])
    code, _, err = command(evaluate.main, capsys, trained, *split, "--against", other)
    assert code == 65 and "record 0 is not among them, or has another reference" in err
    with mock.patch.object(outputs, "write", side_effect=AssertionError("told only after all is written")):
        assert command(evaluate.main, capsys, trained, *split, "--against", other)[0] == 65
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


def test_plain_lines_stand_beside_their_sources_and_are_learned_from(trained, capsys, tmp_path):
    """Back-translation: what is written becomes the source of the line that it was written for."""
    lines = ["two six one", "", "three four"]
    code, out, _ = command(predict.main, capsys, trained, lines=lines)
    rows = [json.loads(line)["output"] for line in out.splitlines()]
    assert code == 0 and rows[1] == "" and rows[0] and rows[2]
    plain = command(predict.main, capsys, trained, "--plain", lines=lines)[1]
    assert plain == "".join(f"{row}\n" for row in rows)
    (tmp_path / "synthetic.de").write_text(plain)
    (tmp_path / "mono.en").write_text("".join(f"{line}\n" for line in lines))
    run = Run(task="translation", data=Data(source=f"{tmp_path / 'synthetic.de'}::{tmp_path / 'mono.en'}"))
    found = [record for _, record in read_split(run, "train")]
    assert [record["source"] for record in found] == rows and [record["target"] for record in found] == lines


def test_completions_are_learned_from_as_they_are_or_turned_round(tmp_path):
    """As instructions and their answers; for back-translation what was written is the source."""
    run = Run(task="translation", data=Data(source=write_rows(tmp_path / "out.jsonl", [{"prompt": "ein Hund", "completion": "a dog"}])))
    ((_, record),) = read_split(run, "train")
    assert record == {"source": "ein Hund", "target": "a dog"}
    back = dataclasses.replace(run, records=Records(columns=(("source", "completion"), ("target", "prompt"))))
    ((_, record),) = read_split(back, "train")
    assert record == {"source": "a dog", "target": "ein Hund"}


def test_the_scores_may_be_others_than_in_training(trained, capsys):
    given = ("--split", "test", "evaluation.scores=['exact']", "evaluation.max_new_tokens=1", "records.target_language=de")
    out = command(evaluate.main, capsys, trained, *given)[1]
    assert "exact" in measured(out) and "bleu" not in measured(out)
    assert "; 21 were cut at 1 tokens (--max-new-tokens)" in out
    assert "were cut" not in outputs.speed_line(outputs.Written(["a"], 2, 1.0, 2))


def test_texts_do_not_depend_on_the_batch_and_programs_are_few(trained):
    member, draw = open_member(str(trained), batch_size=4), random.Random(5)
    texts = [pair(draw)["source"] for _ in range(9)]
    sources = [np.array(member.tokenizer.encode(text), np.int32) for text in texts]
    before = loop.advance._cache_size()
    written = write(member, member.params, sources)
    assert loop.advance._cache_size() - before <= 1, "the last batch is filled up"
    assert written.texts == [write(member, member.params, [source]).texts[0] for source in sources]
    ends = [len(member.tokenizer.as_target().encode(text, add_special_tokens=False)) + 1 for text in written.texts]
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
        (["--max-new-tokens", "99"], 78, "exceed the decoder's"),
        (["evaluation.max_new_tokens=99"], 78, "exceed the decoder's"),
        (["--against", "nowhere"], 65, "there is no directory nowhere"),
        (["--against", "nowhere.jsonl"], 65, "--against nowhere.jsonl: there is no such file"),
        (["--num-beams", "0"], 78, "--num-beams 0: it is at least 1"),
        (["--max-new-tokens", "0"], 78, "--max-new-tokens 0: it is at least 1"),
        (["records.n_best=3"], 78, "records.n_best cannot be changed after training: what can be is evaluation.scores, "),
        (["records.target_language=xx"], 78, "records.target_language='xx' is no code"),
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
    code, _, err = command(predict.main, capsys, trained, lines=["one", '{"source": " "}'])
    assert code == 65 and "line 2: the pair has an empty source" in err


def test_a_wrong_score_stops_a_run_before_it_starts(trained):
    with pytest.raises(ConfigError, match="did you mean 'rouge'"):
        run = dataclasses.replace(open_member(str(trained)).run, evaluation=Evaluation(generate=2, scores=("rougeL",)))
        outputs.check_scores(run)


def test_the_nearest_of_several_references_counts(tmp_path):
    answers = Answers([0, 1], ["a", "b"], [["x", "y z"], "u"], ["y z", "u"])
    found = outputs.scores_of(answers, Run(task="text-to-text"))
    assert found["exact"].corpus == 100.0 and found["error_rate"].corpus == 0.0
    write_rows(tmp_path / "out.jsonl", outputs.rows_of(answers, found))
    again = outputs.read_answers(tmp_path / "out.jsonl")
    about = lambda n: {"source": answers.sources[n], "target": answers.references[n]}
    store = in_memory([(n, {"tokens": [1], "targets": [1], "cut": 0, "about": about(n)}) for n in (0, 1)])
    assert again == answers == outputs.beside(again, store, "out.jsonl")


def test_a_file_of_outputs_is_read_as_it_was_written(tmp_path):
    answers = Answers([0, 2], ["a\u2028a", "b"], ["ä", "é"], ["x", "y"])
    rows = outputs.rows_of(answers, outputs.text_scores.measures(answers.outputs, [["x"], ["z"]], ("exact",)))
    (tmp_path / "out.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert outputs.read_answers(tmp_path / "out.jsonl") == answers and [row["score"] for row in rows] == [100.0, 0.0]
    (tmp_path / "out.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(DataError, match="cannot be read as text"):
        outputs.read_answers(tmp_path / "out.jsonl")
