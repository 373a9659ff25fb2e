"""Pairs through `python -m jaxlm.train`: every family learns, a run goes on, row plans and meshes agree, mistakes are one line."""

import dataclasses
import gzip
import json

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm import feeding, labelled, outputs, prepare, pretrained, sharding
from jaxlm.config import Data, Evaluation, Loss, Mesh, Records, Run
from jaxlm.errors import ConfigError, exits
from jaxlm.ops.special_ids import said
from jaxlm.runs import read_run
from jaxlm.text.training import train_tokenizer
from jaxlm.training import manifest
from jaxlm.training.loop import fit
from tests import running
from tests.text_pairs import pairs, write, written


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A config file a family beside the pairs."""
    return written(tmp_path_factory.mktemp("pairs"))


def losses(workdir):
    return [row["loss"] for row in running.rows(workdir) if "loss" in row]


@pytest.mark.parametrize("model", ["transformer", "t5", "bart", "marian"])
def test_every_family_learns_with_its_tokenizers_special_tokens(model, place, capsys):
    assert running.run_here(str(place / f"{model}.py")) == 0
    found, out = losses(place / model), capsys.readouterr().out
    assert np.mean(found[-4:]) < 0.8 * found[0], found
    assert "60 examples" in out and "224 tokens a batch" in out
    config, tokenizer = read_run(place / model)[0].model, jaxlm.load_tokenizer(place / model)
    assert [said(config, f"{name}_token_id") for name in ("decoder_start", "eos", "pad")] == [0, tokenizer.eos_id, 0]
    assert tokenizer.encode("CAT cat") != [tokenizer.unk_id] * 2, "it has learnt from both sides"


def test_a_run_of_batches_of_tokens_goes_on_where_it_was(place, capsys):
    """Buckets, a batch of so many tokens, dropout, scheduled sampling: two parts end in the bits of the whole."""
    common = [str(place / "transformer.py"), "data.packing=buckets", "data.batch_tokens=160", "loss.scheduled_sampling=0.5"]
    common += ["optimizer.decay=12", "loss.label_smoothing=0.1", "steps=12", "epochs=none"]
    assert running.run_here(*common, f"workdir={place / 'whole'}") == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jaxlm.train.fit", stopping_at(6))
        assert running.run_here(*common, f"workdir={place / 'parts'}") == 75
    assert manifest.checkpoint_steps(place / "parts")[-1] == 6
    assert running.run_here(*common, f"workdir={place / 'parts'}") == 0
    assert running.same_end(place / "whole", place / "parts") and read_run(place / "parts")[0].data.batch_multiple == 4
    assert running.run_here(*common, "accumulate=3", "steps=13", f"workdir={place / 'parts'}") == 78
    said = capsys.readouterr()
    assert "data.batch_multiple=4: mesh and accumulate do not divide it into 3 parts" in said.err
    assert "112 tokens a batch of the longest rows (data.batch_tokens=160)" in said.out
    assert len({row["tokens"] for row in running.rows(place / "whole") if "tokens" in row}) > 1


def test_batches_of_tokens_are_the_same_on_most_meshes():
    rows = lambda tokens, parts, accumulate=1: feeding.rows_multiple(
        Run(data=Data(sequence_length=16, target_length=12, batch_tokens=tokens), accumulate=accumulate),
        sharding.make_mesh(Mesh(), jax.devices()[:parts]),
    )
    assert {rows(280, parts, accumulate) for parts, accumulate in ((1, 1), (2, 1), (8, 1), (2, 4))} == {8}
    assert [rows(280, 6), rows(280, 8, 2), rows(140, 1), rows(140, 4), rows(140, 8), rows(28, 1)] == [6, 16, 4, 4, 8, 1]


def test_a_run_keeps_what_its_batches_are_a_multiple_of():
    run = Run(data=Data(sequence_length=16, target_length=12, batch_tokens=280))
    mesh = lambda parts: sharding.make_mesh(Mesh(), jax.devices()[:parts])
    of = lambda parts, begun, run=run: feeding.with_multiple(run, mesh(parts), begun).data.batch_multiple
    six = {"batch_multiple": 6}
    assert [of(1, {}), of(6, {}), of(3, six), of(1, six), of(8, {"batch_multiple": 8})] == [8, 6, 6, 6, 8]
    with pytest.raises(ConfigError, match="data.batch_multiple=8: mesh and accumulate do not divide it into 6 parts"):
        of(6, {"batch_multiple": 8})
    assert of(2, {"batch_multiple": 6}, Run()) is None


@pytest.mark.parametrize("shape", [(4,), (2, 3)], ids=["rows", "micro-batches"])
def test_every_row_is_told_the_share_of_its_step(shape):
    run = Run(steps=10, loss=Loss(scheduled_sampling=0.5))
    make = feeding.with_sampling_rate(run, lambda step: {"tokens": np.zeros((*shape, 7), np.int32)})
    for step, share in ((0, 0.0), (5, 0.25), (10, 0.5)):
        made = make(step)["sampling_rate"]
        assert made.dtype == np.float32 and made.shape == shape and (made == share).all()


def stopping_at(step):
    """The loop, asked to stop at a step."""
    return lambda state, run, parts, best=None: fit(state, run, dataclasses.replace(parts, stop=lambda number: number >= step), best)


def test_row_plans_and_meshes_give_one_loss(place):
    """The first step over all pairs: one a row, several a row, in micro-batches, and on eight devices."""
    found = {}
    common = [str(place / "transformer.py"), "model.dropout=0.0", "model.vocab_size=28", "epochs=none", "steps=1", "batch_size=64"]
    for name, changes, devices in (
        ("padded", ["data.packing=padded"], 1),
        ("packed", ["data.sequence_length=32", "data.target_length=24"], 1),
        ("mesh", ["data.packing=padded", "data.batch_tokens=1792", "accumulate=2", "mesh.fsdp=2", "mesh.tensor=2"], 8),
    ):
        assert running.run_here(*common, *changes, f"workdir={place / name}", devices=devices) == 0
        found[name] = losses(place / name)[0]
        counted = sum(2 * len(source.split()) + 1 for source, _ in pairs())  # the words of both sides, and every target's end
        assert [row["tokens"] for row in running.rows(place / name) if "tokens" in row] == [counted]
    assert found["packed"] == pytest.approx(found["padded"], rel=1e-5) and found["mesh"] == pytest.approx(found["packed"], rel=1e-5)


def test_two_vocabularies_are_kept_guarded_and_of_two_tables(place, capsys):
    both = ["target_tokenizer.kind=bpe", "target_tokenizer.vocab_size=300", "epochs=none"]
    given = [str(place / "transformer.py"), *both, "model.share_encoder_decoder_embeddings=false", f"workdir={place / 'two'}"]
    assert running.run_here(*given, "steps=3") == 0
    run, folder = read_run(place / "two")
    source, target = jaxlm.load_tokenizer(place / "two"), jaxlm.load_tokenizer(place / "two" / "target_tokenizer")
    assert (run.model.vocab_size, run.model.decoder_vocab_size) == (source.vocab_size, target.vocab_size)
    assert source.vocab_size < 40 and target.vocab_size > 256 and (folder / "target_tokenizer").is_dir()
    assert source.encode("CAT") == [source.unk_id] and target.decode(target.encode("CAT")) == "CAT"
    assert running.run_here(*given, "steps=4") == 0 and losses(place / "two")[-1] < losses(place / "two")[0]
    capsys.readouterr()
    pretrained.convert(place / "two", place / "folder")
    assert jaxlm.load_tokenizer(place / "folder" / "target_tokenizer").digest == target.digest
    assert running.run_here(*given, "target_tokenizer.vocab_size=290", "steps=5") == 78
    assert "target_tokenizer.vocab_size: 300 -> 290" in capsys.readouterr().err
    for model, mend in (("bart", "leave it out"), ("transformer", "set model.share_encoder_decoder_embeddings=false")):
        assert running.run_here(str(place / f"{model}.py"), *both, f"workdir={place / 'refused'}") == 78
        assert mend in capsys.readouterr().err


def test_validation_is_measured_and_written_and_decides(place):
    changes = ["data.validation=0.2", "evaluation.generate=4", "evaluation.scores=['exact','error-rate']", "evaluation.best=error_rate"]
    assert running.run_here(str(place / "transformer.py"), *changes, "epochs=none", "steps=3", f"workdir={place / 'held'}") == 0
    found = next(row for row in running.rows(place / "held") if "validation_loss" in row)
    assert {"validation_perplexity", "validation_accuracy", "validation_exact", "validation_error_rate"} <= found.keys()
    assert manifest.best(place / "held") == (3, found["validation_error_rate"])


def test_bad_pairs_are_left_out_counted_and_said(place, tmp_path, capsys):
    rows = [*pairs(20), ("", "A"), ("a", " "), ("a", "A " * 9), ("cat " * 30, "CAT " * 30)]
    source = write(tmp_path / "rows.jsonl", rows)
    given = [str(place / "transformer.py"), f"data.source={source}", "epochs=none", "steps=1", f"workdir={tmp_path / 'run'}"]
    given += ["records.skip=true", "records.ratio=8"]
    for _ in range(2):  # made, then found in the cache
        assert running.run_here(*given) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("train: "))
        assert "21 records" in line and "1 records were cut to 16 and 12 tokens and lost 33, 19 of them of targets (data." in line
        assert "data.target_length; first: " in line and line.count("rows.jsonl:") == 3 and "rows.jsonl:24); left out" in line
        assert "left out: 2 pairs with an empty side (first: " in line and "rows.jsonl:21), 1 pair of lengths beyond 1 : 8 (first: " in line
        assert line.endswith("rows.jsonl:23)")


def test_two_plain_files_and_a_mixture_with_prefixes(place, tmp_path, capsys):
    for name, side in (("x.en", 0), ("x.de", 1)):
        with gzip.open(tmp_path / f"{name}.gz", "wt") as file:
            file.writelines(f"{pair[side]}\n" for pair in pairs(30))
    files = f"{tmp_path / 'x.en.gz'}::{tmp_path / 'x.de.gz'}"
    mixed = f"data.source=[[{files!r},1.0,'turn: '],[{str(place / 'pairs.jsonl')!r},3.0]]"
    given = [str(place / "transformer.py"), mixed, "epochs=none", "steps=2", f"workdir={tmp_path / 'run'}"]
    assert running.run_here(*given) == 0
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("train: ")] == [
        "train: 30 records",
        "train: 60 records",
    ]
    tokenizer = jaxlm.load_tokenizer(tmp_path / "run")
    assert tokenizer.unk_id not in tokenizer.encode("turn: cat CAT")


def test_prepare_makes_what_training_finds(place, tmp_path, capsys):
    given = [str(place / "transformer.py"), f"data.cache={tmp_path}"]
    with exits():
        prepare.main(given)
    folder = capsys.readouterr().out.strip()
    assert (manifest.Path(folder) / "train" / "manifest.json").is_file()
    assert running.run_here(*given, "epochs=none", "steps=1", f"workdir={tmp_path / 'run'}") == 0
    assert len(list((tmp_path / "examples").glob("[!.]*"))) == 1


def test_answers_of_squads_file_are_learned_by_the_first_and_measured_by_all(tmp_path):
    answers = lambda *texts: [{"text": text, "answer_start": 0} for text in texts]
    questions = [{"id": "1", "question": "who", "answers": answers("a b", "z", "a b")}, {"id": "2", "question": "what", "answers": []}]
    (tmp_path / "q.json").write_text(json.dumps({"data": [{"paragraphs": [{"context": "a b c", "qas": questions}]}]}))
    columns = (("source", ("question", "context")), ("target", "answers"))
    data = Data(source=str(tmp_path / "q.json"), validation=0.0, cache=str(tmp_path / "cache"))
    run = Run(task="text-to-text", data=data, records=Records(columns=columns, skip=True), evaluation=Evaluation(scores=("exact",)))
    said, tokenizer = [], train_tokenizer("word", labelled.read_texts(run), 40)
    (train,), _ = feeding.make_stores(run, tokenizer, said.append)
    about = train.about(0)
    assert (about["source"], about["target"]) == ("who a b c", ["a b", "z"]) and "left out: 1 pair without an answer" in said[0]
    assert tokenizer.decode(train.column("targets", 0)[:-1]) == "a b" and tokenizer.unk_id not in tokenizer.encode("z")
    exact = lambda output: outputs.scores_of(outputs.Answers([0], [about["source"]], [about["target"]], [output]), run)["exact"].corpus
    assert [exact("a b"), exact("z"), exact("b")] == [100, 100, 0]


def test_what_is_not_measured_is_said(place, tmp_path):
    mixed = ((str(place / "pairs.jsonl"), 1.0), (write(tmp_path / "more.jsonl", pairs(20)), 1.0))
    data = Data(source=mixed, validation=0.5, cache=str(tmp_path / "cache"))
    run, said = Run(task="translation", data=data, evaluation=Evaluation(generate=2)), []
    tokenizer = train_tokenizer("word", labelled.read_texts(run), 40)
    feeding.make_stores(run, tokenizer, said.append)
    assert said[-1].endswith("texts are written and scored of " + mixed[0][0] + " alone; the loss is of all 2 sources")
    (tmp_path / "held.jsonl").write_text('{"source": "a", "target": "A"}\n{"source": "cat"}\n{"source": "dog"}\n')
    alone = dataclasses.replace(data, source=mixed[0][0], validation_source=str(tmp_path / "held.jsonl"))
    _, (held,) = feeding.make_stores(dataclasses.replace(run, data=alone), tokenizer, said.append)
    assert len(held) == 3 and any(line.endswith("; 2 records have no target and are not measured") for line in said)
    assert not any("not measured" in line for line in said if line.startswith("train"))


WRONG = {
    "an empty side": (
        [("a", "A"), ("b", "")],
        [],
        "rows.jsonl:2: the pair has an empty target: mend or remove it, or set records.skip=true",
    ),
    "an absurd ratio": ([("a", "A B C")], ["records.ratio=2"], "rows.jsonl:1: the pair has sides of 1 and 3 tokens"),
    "a target without room": ([("a", "A")], ["data.target_length=1"], "between the special tokens: raise data.target_length"),
    "no end": ([("a", "A")], ["tokenizer.kind=char"], "no token that ends a text"),
    "a target longer than the model": (None, ["data.target_length=33"], "data.target_length=33 exceeds the model's 32 positions"),
    "too few tokens": (None, ["data.batch_tokens=27"], "data.batch_tokens=27"),
    "tokens of text": (
        None,
        ["task=span-corruption", "data.column=source", "tokenizer.kind=bpe", "tokenizer.vocab_size=300", "data.batch_tokens=900"],
        "data.batch_tokens=900 is of pairs",
    ),
    "two tokenizers of text": (None, ["task=denoising", "target_tokenizer.kind=bpe"], "target_tokenizer is of pairs"),
    "no such range": (None, ["loss.scheduled_sampling=1.5"], "loss.scheduled_sampling=1.5: it is from 0 to 1"),
    "a ratio below one": (None, ["records.ratio=0.5"], "records.ratio=0.5: it is at least 1"),
    "a mixture that is none": (None, ["data.source=[['x',1,'a','b']]"], "neither a name nor a mixture"),
    "a prefix of running text": (
        None,
        ["task=span-corruption", "data.column=source", "tokenizer.kind=bpe", "data.source=[['x',1,'a: ']]"],
        "prefixes are for tasks over pairs, and task=span-corruption is none: leave them out",
    ),
    "steps of cleaning": (None, ["data.clean=('html',)"], "data.clean is of running text, and task=translation learns from records"),
    "a reward whose words nobody finds": (
        None,
        ["risk.reward=bleu", "data.packing=padded", "records.target_language=ko"],
        'needs a tokenizer that is not installed: pip install "sacrebleu[ko]"',
    ),
    "risk of packed rows": (None, ["risk.reward=rougeL"], "set data.packing=buckets"),
    "no reward": (None, ["risk.reward=rouge", "data.packing=padded"], "risk.reward='rouge'"),
    "a target of no decoder": (
        None,
        ["task=masked-lm", "data.column=source", "tokenizer.kind=wordpiece", "tokenizer.vocab_size=90"],
        "data.target_length=12 is of a decoder",
    ),
    "no such schedule": (None, ["loss.sampling_schedule=line"], "'linear'"),
    "a best score that nobody writes": (None, ["evaluation.scores=['chrf']", "evaluation.best=chrf"], "set evaluation.generate=200"),
    "a best score that nobody asks for": (
        None,
        ["evaluation.generate=4", "evaluation.scores=['chrf']", "evaluation.best=error_rate"],
        "set evaluation.scores=['chrf', 'error-rate']",
    ),
    "no such best": (None, ["evaluation.best=bleau"], "evaluation.best='bleau' is not known: did you mean 'bleu'?"),
    "no such score": (None, ["evaluation.scores=['belu']"], "evaluation.scores='belu' is not known: did you mean 'bleu'?"),
    "no such language": (None, ["records.target_language=german!"], "records.target_language='german!'"),
    "no such language of sources": (None, ["records.source_language=klingon"], "records.source_language='klingon' is no code"),
    "texts over the decoder": (None, ["evaluation.max_new_tokens=500"], "evaluation.max_new_tokens=500 exceeds the model's"),
    "nothing but bad pairs": ([("", "A"), ("a", "")], ["records.skip=true"], "rows.jsonl: there is no example"),
    "a multiple of nothing": (None, ["data.batch_multiple=8"], "data.batch_multiple is of batches of data.batch_tokens"),
    "rewards in another script": (
        [("a", "ένα"), ("b", "δύο")],
        ["risk.reward=rougeL", "data.packing=padded"],
        "take the reward chrf, risk.reward=chrf",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_line_with_its_place(name, place, tmp_path, capsys):
    rows, options, word = WRONG[name]
    given = [f"data.source={write(tmp_path / 'rows.jsonl', rows)}"] if rows else []
    code = running.run_here(str(place / "transformer.py"), f"workdir={tmp_path / 'run'}", "steps=1", "epochs=none", *given, *options)
    error = capsys.readouterr().err.strip()
    assert code in (65, 78) and word in error and "\n" not in error, error
