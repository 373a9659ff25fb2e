"""Labelled records: every kind of file, TFDS's known sets on made-up and on stored rows, columns, and what is said when they are bad."""

import gzip
import importlib
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxlm.config import Data, Records
from jaxlm.data import known, tfds
from jaxlm.data.records import read_records
from jaxlm.data.sources import documents, fingerprint
from jaxlm.errors import ConfigError, DataError
from jaxlm.tasks import multiple_choice, question_answering

ROLES = {
    "sequence-classification": ("text", "pair", "label"),
    "token-classification": ("tokens", "tags", "tagged"),
    "question-answering": question_answering.ROLES,
    "multiple-choice": multiple_choice.ROLES,
}
REQUIRED = {
    "sequence-classification": ("text", "label"),
    "token-classification": ("tokens", "tags"),
    "question-answering": ("question", "context", "answers"),
    "multiple-choice": ("choices", "label"),
}
CLASSIFY = "sequence-classification"


def read(source, task=CLASSIFY, columns=(), required=(), data=Data(), **records):
    """[(where without the folder, record)] of a source."""
    found = read_records(str(source), task, data, Records(columns=columns, **records), ROLES[task], required)
    return [(where.rpartition("/")[2], record) for where, record in found]


def test_tables_with_their_usual_columns(tmp_path):
    wanted = [{"text": 'good, "really"', "label": "1"}, {"text": "bad", "label": "0"}]
    (tmp_path / "a.jsonl").write_text('{"sentence": "good, \\"really\\"", "label": 1, "n": 3}\n\n{"sentence": "bad", "label": 0}\n')
    (tmp_path / "a.csv").write_text('Label,Text\n1,"good, ""really"""\n0,bad\n')
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b'review\tclass\ngood, "really"\t1\nbad\t0\n'))
    pq.write_table(pa.table({"n": [1, 2], "content": ['good, "really"', "bad"], "label": [1, 0]}), tmp_path / "a.parquet")
    ends = {"a.jsonl": (":1", ":3"), "a.csv": (":2", ":3"), "a.tsv.gz": (":2", ":3"), "a.parquet": (", row 1", ", row 2")}
    for name, places in ends.items():
        found = read(tmp_path / name, required=("text", "label"))
        assert found == [(name + place, record) for place, record in zip(places, wanted, strict=True)]


def test_a_table_without_a_header(tmp_path):
    (tmp_path / "a.tsv").write_text('pos\tgood "film\nneg\tbad\n')
    (tmp_path / "a.csv").write_text('pos,"good ""film"\nneg,bad\n')
    for name in ("a.tsv", "a.csv"):
        found = read(tmp_path / name, columns=(("label", 0), ("text", 1)), required=("text", "label"))
        assert found == [(f"{name}:1", {"label": "pos", "text": 'good "film'}), (f"{name}:2", {"label": "neg", "text": "bad"})]
    with pytest.raises(DataError, match=r"a\.tsv has no column 2: its columns are 0, 1; set records.columns=\(\(text,NAME\)"):
        read(tmp_path / "a.tsv", columns=(("text", 2),), required=("text",))


def test_columns_by_name_several_for_a_role_and_pairs(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"sentence1": "a", "Sentence2": "b", "score": 2.5, "x": "c", "sentence": "d"}) + "\n")
    record = lambda **more: read(path, **more)[0][1]
    assert record() == {"text": "a", "pair": "b", "label": "2.5"}
    assert record(kind="regression")["label"] == 2.5
    assert record(columns=(("text", "x"),)) == {"text": "c", "label": "2.5"}
    assert record(columns=(("text", ("x", "sentence")), ("label", "x"))) == {"text": "c d", "label": "c"}
    path.write_text('{"text": "a", "labels": ["x", 3, true]}\n')
    assert record()["label"] == ["x", "3", "true"]


def test_choices_are_a_list_or_numbered_columns(tmp_path):
    path = tmp_path / "a.jsonl"
    task = {"task": "multiple-choice", "required": ("choices",)}
    rows = {
        '{"text": "t", "choices": ["a", "b"], "label": 1}': {"text": "t", "choices": ["a", "b"], "label": 1},
        '{"premise": "t", "choice1": "a", "choice2": "b", "label": 0}': {"text": "t", "choices": ["a", "b"], "label": 0},
        json.dumps({f"ending{i}": str(i) for i in (10, 2, 1)}): {"choices": ["1", "2", "10"]},
    }
    for line, wanted in rows.items():
        path.write_text(line)
        assert read(path, **task)[0][1] == wanted
    path.write_text('{"sent1": "t", "sent2": "u", "x": "a", "y": "b"}')
    columns = (("text", ("sent1", "sent2")), ("choices", ("x", "y")))
    assert read(path, columns=columns, **task)[0][1] == {"text": "t u", "choices": ["a", "b"]}
    with pytest.raises(DataError, match="has no column for choices"):
        read(path, **task)


def test_lines_and_conll(tmp_path):
    (tmp_path / "a.txt").write_text("\ufeffone two\r\n\nthree")
    assert read(tmp_path / "a.txt") == [("a.txt:1", {"text": "one two"}), ("a.txt:3", {"text": "three"})]
    (tmp_path / "b.txt").write_text("a/x b/y\n")
    assert read(tmp_path / "b.txt", "token-classification") == [("b.txt:1", {"tagged": "a/x b/y"})]
    (tmp_path / "a.conll").write_text("-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\nPeter\tNNP B-NP  B-PER\n")
    found = read(tmp_path / "a.conll", "token-classification")
    assert found == [
        ("a.conll:3", {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]}),
        ("a.conll:7", {"tokens": ["Peter"], "tags": ["B-PER"]}),
    ]
    chunks = read(tmp_path / "a.conll", "token-classification", columns=(("tokens", 0), ("tags", 1)))
    assert [record["tags"] for _, record in chunks] == [["NNP", "VBZ"], ["NNP"]]
    (tmp_path / "a.bio").write_text("only\nwords\n\nhere")
    assert [record for _, record in read(tmp_path / "a.bio", "token-classification")] == [
        {"tokens": ["only", "words"]},
        {"tokens": ["here"]},
    ]
    (tmp_path / "a.iob").write_text("a X\n\nb X\nc\n")
    with pytest.raises(DataError, match=r"a\.iob:4 has 1 columns, but the line before has 2"):
        read(tmp_path / "a.iob", "token-classification")


SQUAD = {"version": "v2.0", "data": [{"title": "T", "paragraphs": [{"context": "It is red.", "qas": [
    {"id": "a", "question": "What?", "answers": [{"text": "red", "answer_start": 6}, {"text": "is red", "answer_start": 3}]},
    {"id": "b", "question": "Why?", "answers": [], "is_impossible": True, "plausible_answers": [{"text": "red", "answer_start": 6}]},
    {"id": "c", "question": "Who?"},
]}]}]}  # fmt: skip


def test_squad_in_its_own_format(tmp_path):
    path = tmp_path / "dev.json.gz"
    path.write_bytes(gzip.compress(json.dumps(SQUAD).encode()))
    found = read(path, "question-answering", required=question_answering.REQUIRED)
    assert [where for where, _ in found] == [f"dev.json.gz, question {i}" for i in "abc"]
    answers = [record.pop("answers", None) for _, record in found]
    assert answers == [{"text": ["red", "is red"], "answer_start": [6, 3]}, {"text": [], "answer_start": []}, None]
    assert found[1][1] == {"id": "b", "question": "Why?", "context": "It is red."}
    for text, message in (('{"a": 1}', "is no file in SQuAD's format"), ("[", "is no JSON"), ("[1]", "is no file in SQuAD's")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(DataError, match=f"x.json {message}"):
            read(tmp_path / "x.json", "question-answering")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n,label\na,b\n", r"a\.csv has no column for text: its columns are n, label; set records.columns=\(\(text,NAME\)"),
        ("text,n\na,b\n", r"a\.csv has no column for label: its columns are text, n"),
        ("text,label\na,b\nc,d,e\n", r"a\.csv:3 has more cells than the first line"),
        ("text,label\na,b\nc\n", r"a\.csv:3: label, the column for label, is empty"),
        ("text,label\n,b\n", r"a\.csv:2: text, the column for text, is empty"),
        ('text,label\na,b\n"c', r"a\.csv is cut or corrupt"),
    ],
)
def test_bad_tables_are_named(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.csv", required=("text", "label"))


def test_other_bad_sources_are_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n{"text": 3, "label": "x"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: text, the column for text, holds 3, no text"):
        read(path)
    path.write_text('{"text": "a", "label": "x"}\n{"text": "b"}\n')
    assert [record for _, record in read(path)] == [{"text": "a", "label": "x"}, {"text": "b"}]
    with pytest.raises(DataError, match=r"a\.jsonl:2 has no column for label"):
        read(path, required=("label",))
    with pytest.raises(ConfigError, match="the role in records.columns='txt' is not known: did you mean 'text'"):
        read(path, columns=(("txt", "text"),))
    with pytest.raises(DataError, match="stdlib holds no labelled records"):
        read("stdlib")
    (tmp_path / "a.pdf").write_text("")
    with pytest.raises(DataError, match=r"a.pdf: files of this kind cannot be read; the endings are .*\.tsv.*\.json.*\.conll"):
        read(tmp_path / "a.pdf")


@pytest.fixture(scope="module")
def lib():
    pytest.importorskip("tensorflow_datasets")
    tfds.quiet_tensorflow()
    return tfds._import_tfds()


CONFIGS = {
    "imdb_reviews": "imdb_reviews/plain_text", "squad": "squad/v1.1", "squad2": "squad/v2.0", "conll2003": "conll2003/conll2003",
    "wiki40b": "wiki40b/en", "c4": "c4/en",
}  # fmt: skip
SPLITS = {"glue/mnli": ("train", "validation_matched", "validation_mismatched"), "glue/ax": ("test",)}
TASKS = {**{name: row.task for name, row in known.KNOWN.items()}, "squad2": "question-answering"}


def describe(lib, name, root):
    """Write down what TFDS's own code says of a set, as if it were prepared in `root`; its folder and builder."""
    builder = lib.builder(CONFIGS.get(name, name), data_dir=str(root))
    file = lambda split: lib.core.ShardedFileTemplate(
        data_dir=builder.data_dir, dataset_name=builder.name, split=split, filetype_suffix="tfrecord"
    )
    splits = SPLITS.get(name, ("train", "validation", "test"))
    made = [lib.core.SplitInfo(name=split, shard_lengths=[3], num_bytes=0, filename_template=file(split)) for split in splits]
    builder.info.set_splits(lib.core.SplitDict(made))
    Path(builder.data_dir).mkdir(parents=True)
    builder.info.write_to_directory(builder.data_dir)
    return Path(builder.data_dir), builder


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", TASKS)
def test_every_known_set_of_tfds(lib, name, tmp_path):
    """TFDS's own features with made-up rows: the columns are there, texts are texts, classes have their names."""
    task = TASKS[name]
    directory, builder = describe(lib, name, tmp_path)
    source, split = CONFIGS.get(name, name), "test" if name == "glue/ax" else "validation"
    data = Data(data_dir=str(tmp_path), split="train")
    kind = "regression" if name == "glue/stsb" else "one"
    with lib.testing.mock_data(num_examples=3, num_sub_examples=2, data_dir=str(directory)):
        found = read(f"tfds:{source}@{split}", task, required=REQUIRED[task], data=data, kind=kind)
    assert [where for where, _ in found] == [f"tfds:{source}, row {i}".rpartition("/")[2] for i in range(3)]
    for _, record in found:
        assert set(record) == set(known.KNOWN["squad" if name == "squad2" else name].columns) <= set(ROLES[task])
        assert all(isinstance(record.get(role, ""), str) and record.get(role, "x") for role in ("text", "pair", "question", "context"))
        if kind == "regression":
            assert isinstance(record["label"], float)
        elif task == "sequence-classification":
            assert record["label"] in builder.info.features["label"].names
        elif task == "multiple-choice":
            assert record["label"] in (0, 1) and len(record["choices"]) == 2
        elif task == "token-classification":
            assert len(record["tokens"]) > 0 and set(record["tags"]) <= {
                "O",
                *(f"{x}-{y}" for x in "BI" for y in "PER ORG LOC MISC".split()),
            }
        else:
            assert set(record["answers"]) == {"text", "answer_start"} and all(isinstance(n, int) for n in record["answers"]["answer_start"])
    json.dumps(found)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["lm1b", "wiki40b", "c4", "ag_news_subset"])
def test_documents_of_known_sets_need_no_column(lib, name, tmp_path):
    directory, builder = describe(lib, name, tmp_path)
    source = f"tfds:{CONFIGS.get(name, name)}"
    with lib.testing.mock_data(num_examples=3, data_dir=str(directory)):
        texts = list(documents(f"{source}@validation", data_dir=str(tmp_path)))
        column = known.DOCUMENTS[name]
        assert texts == list(documents(source, column=column, split="validation", data_dir=str(tmp_path)))
    assert len(texts) == 3 and all(isinstance(text, str) for text in texts)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", known.UNFIT)
def test_sets_that_fit_no_task_say_why(lib, name, tmp_path):
    describe(lib, name, tmp_path)
    with pytest.raises(DataError, match=f"tfds:{name}/1.0.2 fits no task here, for its .*: write it as jsonl"):
        read(f"tfds:{name}", data=Data(data_dir=str(tmp_path)))


def test_all_of_glue_and_super_glue_is_spoken_of(lib):
    for base, module in (("glue", "Glue"), ("super_glue", "SuperGlue")):
        builder = getattr(importlib.import_module(f"tensorflow_datasets.text.{base}"), module)
        names = {f"{base}/{config.name}" for config in builder.BUILDER_CONFIGS}
        assert names == {name for name in (*known.KNOWN, *known.UNFIT) if name.startswith(f"{base}/")}


def store(lib, name, config, splits, features, root):
    """Real rows in TFDS's own format."""
    import tensorflow as tf

    made = {split: tf.data.Dataset.from_tensor_slices(rows) for split, rows in splits.items()}
    lib.dataset_builders.store_as_tfds_dataset(
        name=name, version="2.0.0", config=config, features=lib.features.FeaturesDict(features), split_datasets=made, data_dir=root
    )


@pytest.fixture(scope="module")
def stored(lib, tmp_path_factory):
    root = tmp_path_factory.mktemp("tfds")
    text, classes = lib.features.Text(), lib.features.ClassLabel(names=["entailment", "neutral", "contradiction"])
    rows = {"premise": ["naïve 東京", "b", "c"], "hypothesis": ["x", "y", "z"], "label": [2, 0, -1], "idx": [0, 1, 2]}
    other = {name: values[:1] for name, values in rows.items()}
    features = {"premise": text, "hypothesis": text, "label": classes, "idx": np.int64}
    store(lib, "glue", "mnli", {"train": rows, "validation_matched": other}, features, root)
    pairs = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": np.float32([2.5, -1.0])}
    store(lib, "glue", "stsb", {"test": pairs}, {"sentence1": text, "sentence2": text, "label": np.float32}, root)
    store(lib, "own", "plain", {"train": {"body": ["a", "b"], "label": [1, -1]}}, {"body": text, "label": classes}, root)
    return root


@pytest.mark.filterwarnings("default")
def test_stored_rows_with_names_splits_and_secret_labels(stored):
    data = Data(data_dir=str(stored))
    first, second, third = ({"text": a, "pair": b} for a, b in (("naïve 東京", "x"), ("b", "y"), ("c", "z")))
    every = [("mnli, row 0", first | {"label": "contradiction"}), ("mnli, row 1", second | {"label": "entailment"}), ("mnli, row 2", third)]
    assert read("tfds:glue/mnli", data=data) == every
    assert read("tfds:glue/mnli@train[1:2]", data=data) == [("mnli, row 0", every[1][1])]
    assert read("tfds:glue/mnli@validation", data=data) == read("tfds:glue/mnli@validation_matched", data=data) == every[:1]
    scores = read("tfds:glue/stsb@test", data=data, kind="regression")
    assert sorted((record for _, record in scores), key=lambda record: record["text"]) == [
        {"text": "a", "pair": "c", "label": 2.5},
        {"text": "b", "pair": "d"},
    ]
    with pytest.raises(DataError, match="mnli, row 2: label, the column for label, is empty"):
        read("tfds:glue/mnli", data=data, required=("text", "label"))
    folder = stored / "glue" / "mnli" / "2.0.0"
    assert [record for _, record in read(f"tfds:{folder}@validation", data=Data())] == [every[0][1]]
    assert fingerprint(f"tfds:{folder}@validation") == fingerprint("tfds:glue/mnli", str(stored))


@pytest.mark.filterwarnings("default")
def test_a_set_of_ones_own_and_a_set_of_another_task(stored):
    data = Data(data_dir=str(stored))
    with pytest.raises(DataError, match="has no column for text: its columns are (body, label|label, body); set records.columns"):
        read("tfds:own", data=data, required=("text",))
    found = read("tfds:own", data=data, columns=(("text", "body"),))
    assert sorted((record for _, record in found), key=len) == [{"text": "b"}, {"text": "a", "label": "neutral"}]
    with pytest.raises(ConfigError, match="glue/mnli/2.0.0 is a set for task=sequence-classification, not multiple-choice: set task="):
        read("tfds:glue/mnli", "multiple-choice", data=data)
    columns = (("text", "premise"), ("choices", ("hypothesis", "premise")), ("label", "idx"))
    assert read("tfds:glue/mnli", "multiple-choice", data=data, columns=columns)[1][1] == {"text": "b", "choices": ["y", "b"], "label": 1}
    with pytest.raises(DataError, match="data.split=dev.*its splits are train, validation_matched"):
        read("tfds:glue/mnli@dev", data=data)


@pytest.mark.parametrize(
    ("name", "columns", "rows"),
    [
        ("sentiment/test.tsv", (("label", 0), ("text", 1)), 2445),
        ("reuters8/test.tsv", (("label", 0), ("text", 1)), 2189),
        ("newsgroups/test.tsv", (("label", 0), ("text", 1)), 7528),
    ],
)
def test_real_tables(name, columns, rows):
    path = Path(os.environ.get("JAXLM_REAL", "")) / name
    if not path.is_file():
        pytest.skip(f"{name} is not here: fetch it, and set JAXLM_REAL to its folder")
    found = read(path, columns=columns, required=("text", "label"))
    assert len(found) == rows and found[-1][0] == f"test.tsv:{rows}"
    assert len({record["label"] for _, record in found}) in (2, 8, 20)
