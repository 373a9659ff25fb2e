"""Labelled records: every kind of file, TFDS's known sets on made-up and on stored rows, columns, and what is said when they are bad."""

import gzip
import importlib
import json
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxlm.config import Data, Records, Run
from jaxlm.data import known, tfds
from jaxlm.data.record_lines import line_record
from jaxlm.data.records import class_order, named_columns, read_records
from jaxlm.data.sources import documents, fingerprint
from jaxlm.errors import ConfigError, DataError
from jaxlm.overrides import override
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
    with pytest.raises(DataError, match=r"a\.tsv has no column 2: its columns are 0, 1; set 'records.columns=\(\(\"text\",\"NAME\"\),\)'"):
        read(tmp_path / "a.tsv", columns=(("text", 2),), required=("text",))


def test_a_carriage_return_inside_a_line_divides_no_row(tmp_path):
    (tmp_path / "a.tsv").write_bytes(b"text\tlabel\r\na\rb\tx\r\n\nc\ty\rz")
    assert read(tmp_path / "a.tsv", required=("text", "label")) == [
        ("a.tsv:2", {"text": "a\rb", "label": "x"}),
        ("a.tsv:4", {"text": "c", "label": "y\rz"}),
    ]


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
        ("n,label\na,b\n", r"a\.csv has no column for text: its columns are n, label; set 'records.columns="),
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


def mended(error):
    """`records.columns` of the mend that an error's line prints, pasted into a shell."""
    (found,) = re.findall(r"'records\.columns=[^']*'", str(error.value))
    return override(Run(), shlex.split(found)).records.columns


def test_the_printed_mend_is_one(tmp_path):
    (tmp_path / "a.csv").write_text("sentence,n\na,b\n")
    with pytest.raises(DataError) as error:
        read(tmp_path / "a.csv", required=("text", "label"))
    assert mended(error) == (("text", "sentence"), ("label", "NAME"))
    with pytest.raises(DataError) as error:
        read(tmp_path / "a.csv", "multiple-choice", required=("choices",))
    assert mended(error) == (("choices", ("NAME", "NAME")),)
    with pytest.raises(DataError) as error:
        read(tmp_path / "a.csv", columns=(("text", ("sentence", "n")), ("label", "y")), required=("text", "label"))
    assert mended(error) == (("text", ("sentence", "n")), ("label", "NAME"))
    for name, raised in (("super_glue/wsc/1.0.2", DataError), ("squad/v1.1/3.0.0", ConfigError)):
        with pytest.raises(raised) as error:
            known.known_columns(name, CLASSIFY)
        assert mended(error) == (("text", "NAME"), ("label", "NAME"))
    assert shlex.split(known.spelled({"text": "it's"})) == ['records.columns=(("text","it\'s"),)']


@pytest.mark.parametrize(
    ("columns", "mend"),
    [
        (("text", "text"), (("text", "text"),)),
        (("text", ("a", "b"), "label", 0), (("text", ("a", "b")), ("label", 0))),
        ((("text", "a"), "label"), (("text", "NAME"), ("label", "NAME"))),
        ((("text", "a"), ("text", "b")), (("text", "NAME"), ("label", "NAME"))),
        ((("text", None),), (("text", "NAME"), ("label", "NAME"))),
        ((("text", ()),), (("text", "NAME"), ("label", "NAME"))),
    ],
)
def test_columns_that_are_no_pairs_are_spelled_right(tmp_path, columns, mend):
    (tmp_path / "a.csv").write_text("text,label\na,b\n")
    with pytest.raises(ConfigError, match="is not a pair of a role and its column") as error:
        read(tmp_path / "a.csv", columns=columns)
    assert mended(error) == mend
    assert named_columns(Records(columns=mend)) == dict(mend)


def test_numbers_are_joined(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": "of", "b": 1984, "c": 0, "d": null, "e": ""}')
    assert read(path, columns=(("text", ("a", "b", "c", "d", "e")),))[0][1] == {"text": "of 1984 0"}


@pytest.mark.parametrize(
    ("task", "row", "columns", "message"),
    [
        (CLASSIFY, {"a": "x", "b": ["y"]}, (("text", ("a", "b")),), r"a \+ b, the column for text, holds \['x', \['y'\]\], no text"),
        (CLASSIFY, {"text": "x", "label": {"y": 1}}, (), "label, the column for label, holds {'y': 1}, no label"),
        (CLASSIFY, {"text": "x", "label": ["y", None]}, (), r"label, the column for label, holds \['y', None\], no label"),
        ("token-classification", {"tokens": 5, "tags": ["O"]}, (), "tokens, the column for tokens, holds 5, no list of words: mend it"),
        ("token-classification", {"tokens": ["a"], "tags": [["O"]]}, (), r"tags, the column for tags, holds \[\['O'\]\], no list of words"),
        ("token-classification", {"tagged": ["a/O"]}, (), r"tagged, the column for tagged, holds \['a/O'\], no text"),
        ("multiple-choice", {"text": 5, "choices": ["a", "b"]}, (), "text, the column for text, holds 5, no text"),
        ("question-answering", {"question": ["a"], "context": "b"}, (), r"question, the column for question, holds \['a'\], no text"),
    ],
)
def test_cells_of_a_wrong_type_are_named(tmp_path, task, row, columns, message):
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=f"a.jsonl:1: {message}"):
        read(tmp_path / "a.jsonl", task, columns)


def line(text, task=CLASSIFY, columns=(), source="a.tsv"):
    return line_record(text, 7, Run(task=task, data=Data(source=source), records=Records(columns=columns)))


def test_a_line_is_a_record():
    assert line("a\tb\tc") == {"text": "a", "pair": "b\tc"} and line("a") == {"text": "a"}
    assert line("a\tb", columns=(("text", "x"), ("pair", "y"))) == {"text": "a", "pair": "b"}
    assert line("a\tb", columns=(("text", "x"), ("label", "y"))) == {"text": "a\tb"} == line("a\tb", source="tfds:glue/sst2@train")
    assert line("a\tb", source="tfds:glue/mrpc") == {"text": "a", "pair": "b"}
    assert line("{not JSON} at all") == {"text": "{not JSON} at all"} and line('{"text": "a"} b')["text"] == '{"text": "a"} b'
    assert line("a\tb c", "token-classification") == {"tokens": "a\tb c"}
    assert line("a\tb\tc", "question-answering") == {"question": "a", "context": "b\tc"}
    assert line("\ta\tb", "multiple-choice") == {"text": "", "choices": ["a", "b"]}


@pytest.mark.parametrize(
    ("task", "columns", "source", "row", "wanted"),
    [
        (CLASSIFY, (), "a.tsv", {"Sentence": "a", "label": "x", "n": 3}, {"text": "a"}),
        (CLASSIFY, (("text", "body"), ("label", "text")), "a.tsv", {"body": "a", "text": "x"}, {"text": "a"}),
        (CLASSIFY, (("text", "body"), ("label", 0)), "a.tsv", {"text": "a"}, {"text": "a"}),
        (CLASSIFY, (("label", 0), ("text", 1)), "a.tsv", {"sentence1": "a", "sentence2": "b"}, {"text": "a", "pair": "b"}),
        (CLASSIFY, (("text", ("a", "b")),), "a.tsv", {"b": 1984, "a": "of"}, {"text": "of 1984"}),
        (CLASSIFY, (), "tfds:ag_news_subset:1.0.0", {"title": "a", "description": "b"}, {"text": "a b"}),
        (CLASSIFY, (), "tfds:/x/super_glue/wic/1.0.3@train", {"word": "a", "sentence1": "b", "sentence2": "c"},
         {"text": "a b", "pair": "c"}),
        ("token-classification", (), "tfds:conll2003", {"words": ["a"], "tags": ["O"], "tagged": "a/O"}, {"tokens": ["a"]}),
        ("question-answering", (), "a.json", {"question": "a", "passage": "b", "id": 3, "answers": "b"},
         {"question": "a", "context": "b", "id": 3}),
        ("multiple-choice", (), "tfds:super_glue/copa", {"premise": "a", "question": "b", "choice2": "d", "choice1": "c", "label": 1},
         {"text": "a b", "choices": ["c", "d"]}),
    ],
)  # fmt: skip
def test_keys_of_a_line_are_found_as_columns_are(task, columns, source, row, wanted):
    assert line(json.dumps(row), task, columns, source) == wanted


@pytest.mark.parametrize(
    ("text", "task", "message"),
    [
        ('{"n": 1, "label": "x"}', CLASSIFY, 'line 7 has no key for text: its keys are n, label; write {"text": ...}'),
        ("{}", "token-classification", "line 7 has no key for tokens: its keys are none"),
        ('{"text": 5}', CLASSIFY, "line 7: text, the column for text, holds 5, no text"),
        ('{"tokens": 5}', "token-classification", "line 7: tokens, the column for tokens, holds 5"),
        ('{"question": "a"}', "question-answering", "line 7 has no key for context"),
        ("a b", "question-answering", "line 7 has no context: write the question, a tab, and the context"),
        ("a\tb", "multiple-choice", "line 7 has 1 choices: write a text and two choices at least"),
        ('{"text": "a"}', "multiple-choice", "line 7 has no key for choices"),
    ],
)
def test_bad_lines_are_named(text, task, message):
    with pytest.raises(DataError, match=re.escape(message)) as error:
        line(text, task)
    assert "records.columns" not in str(error.value)


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
        columns = known.KNOWN["squad" if name == "squad2" else name].columns
        names = [name for several in columns.values() for name in ([several] if isinstance(several, str) else several)]
        raw = [row for _, row in tfds.tfds_rows(tfds.open_prepared(directory), lambda there, where: names, split)]
        order = class_order(f"tfds:{source}@{split}", data, Records(), task)
    assert [where for where, _ in found] == [f"tfds:{source}, row {i}".rpartition("/")[2] for i in range(3)]
    for row, (_, record) in zip(raw, found, strict=True):
        assert set(record) == set(columns) <= set(ROLES[task])
        assert all(isinstance(record.get(role, ""), str) and record.get(role, "x") for role in ("text", "pair", "question", "context"))
        if kind == "regression":
            assert isinstance(record["label"], float) and order is None
        elif task == "sequence-classification":
            assert record["label"] == order[row["label"]] and order == tuple(builder.info.features["label"].names)
        elif task == "multiple-choice":
            assert record["label"] in (0, 1) and len(record["choices"]) == 2 and order is None
        elif task == "token-classification":
            assert len(record["tokens"]) > 0 and [order.index(tag) for tag in record["tags"]] == row["ner"].tolist()
            assert set(order) == {"O", *(f"{x}-{y}" for x in "BI" for y in "PER ORG LOC MISC".split())}
        else:
            assert order is None
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
    with pytest.raises(DataError, match="has no column for text: its columns are (body, label|label, body); set 'records.columns"):
        read("tfds:own", data=data, required=("text",))
    found = read("tfds:own", data=data, columns=(("text", "body"),))
    assert sorted((record for _, record in found), key=len) == [{"text": "b"}, {"text": "a", "label": "neutral"}]
    order = lambda **records: class_order("tfds:own", data, Records(**records), CLASSIFY)
    assert order() == order(columns=(("label", "label"),)) == ("entailment", "neutral", "contradiction")
    assert order(columns=(("label", "body"),)) is order(columns=(("label", ("body", "label")),)) is None
    assert class_order("own.tsv", data, Records(), CLASSIFY) is None
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
