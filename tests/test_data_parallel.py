"""Pairs of texts: files side by side, tables, sets of translations, and what is said when they do not fit together."""

import gzip
import json
import os
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxlm.config import Data, Records
from jaxlm.data import known, tfds
from jaxlm.data.records import read_records
from jaxlm.data.sources import fingerprint
from jaxlm.errors import ConfigError, DataError

ROLES, BOTH = ("id", "source", "target"), ("source", "target")
WANTED = [{"source": "a b", "target": "ä"}, {"source": "c", "target": "d"}]


def read(source, required=BOTH, task="translation", data=Data(), **records):
    """[(where without the folder, record)] of a source."""
    found = read_records(str(source), task, data, Records(**records), ROLES, required)
    return [(re.sub(r"\S*/", "", where), record) for where, record in found]


def texts(source, **options):
    return [record for _, record in read(source, **options)]


def test_two_files_side_by_side(tmp_path):
    (tmp_path / "t.en").write_bytes("\ufeffa b\r\nc\n\nx\u2028y".encode())
    (tmp_path / "t.de.gz").write_bytes(gzip.compress("ä\nd\ne\n\n".encode()))
    source = f"{tmp_path}/t.en::{tmp_path}/t.de.gz"
    wanted = [*WANTED, {"source": "", "target": "e"}, {"source": "x\u2028y", "target": ""}]
    assert read(source) == [(f"t.en:{n} and t.de.gz:{n}", record) for n, record in enumerate(wanted, 1)]
    assert read(source, columns=(("source", 0), ("target", 1))) == read(source)  # those of another source of the run
    for name in "12":
        (tmp_path / f"g{name}.en").write_text(f"a{name}\n")
        (tmp_path / f"g{name}.de").write_text(f"b{name}\n")
    assert texts(f"{tmp_path}/g*.en::{tmp_path}/g*.de") == [{"source": f"a{n}", "target": f"b{n}"} for n in "12"]


def test_one_file_of_lines_is_a_file_of_sources(tmp_path):
    (tmp_path / "t.en").write_text("a\n\nb")
    wanted = [("t.en:1", {"source": "a"}), ("t.en:2", {"source": ""}), ("t.en:3", {"source": "b"})]
    assert read(tmp_path / "t.en", ("source",)) == wanted
    assert read(tmp_path / "t.en", ("source",), columns=(("source", 0), ("target", 1))) == wanted
    (tmp_path / "t.txt").write_text("a\n\nb")
    assert texts(tmp_path / "t.txt", required=("source",)) == [record for _, record in wanted]
    with pytest.raises(
        DataError, match=r"t\.en:1 has no column for target.*or name a file of targets too, as in data.source=SOURCES::TARGETS"
    ):
        read(tmp_path / "t.en")


@pytest.mark.parametrize(("en", "de"), [("a\nb\nc\n", "a\n"), ("a\n", "a\nb\nc"), ("", "a\nb")])
def test_files_of_unequal_length_name_both_counts(tmp_path, en, de):
    (tmp_path / "t.en").write_text(en)
    (tmp_path / "t.de").write_text(de)
    counts = [len(text.splitlines()) for text in (en, de)]
    with pytest.raises(DataError, match=rf"t\.en has {counts[0]} lines and .*t\.de {counts[1]}: line n of one belongs to line n"):
        read(f"{tmp_path}/t.en::{tmp_path}/t.de")


def test_other_files_that_are_no_pair(tmp_path):
    for name in ("a.en", "b.en", "a.de", "a.tsv"):
        (tmp_path / name).write_text("x\n")
    here = lambda *names: "::".join(f"{tmp_path}/{name}" for name in names)
    for source, message in (
        (here("*.en", "*.de"), r"\*\.en names 2 files and .*\*\.de names 1 files: name as many"),
        (here("a.en", "a.de", "b.en"), "names 3 files side by side: a pair has two"),
        (here("a.en", "a.tsv"), r"a\.tsv is no file of plain lines: name a table alone"),
        (here("a.en", "a.fr"), r"no file matches .*a\.fr; did you mean .*/a\."),
    ):
        with pytest.raises(DataError, match=message):
            read(source)
    (tmp_path / "a.de").write_bytes(b"\xff\n")
    with pytest.raises(DataError, match=r"a\.de is not UTF-8 text"):
        read(here("a.en", "a.de"))
    (tmp_path / "a.de.gz").write_bytes(gzip.compress(b"x\n" * 99)[:-9])
    with pytest.raises(DataError, match=r"a\.de\.gz is cut or corrupt"):
        read(here("a.en", "a.de.gz"))


def test_the_fingerprint_covers_both_files(tmp_path):
    for name in ("t.en", "t.de"):
        (tmp_path / name).write_text("a\n")
    source = f"{tmp_path}/t.en::{tmp_path}/t.de"
    before = fingerprint(source)
    for name in ("t.en", "t.de"):
        (tmp_path / name).write_text("other\n" + name * 3)
        assert fingerprint(source) != before
        before = fingerprint(source)


def test_tables_by_number_and_by_their_usual_names(tmp_path):
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress("a b\tä\nc\td\n".encode()))
    numbered = {"columns": (("source", 0), ("target", 1))}
    assert read(tmp_path / "a.tsv.gz", **numbered) == [("a.tsv.gz:1", WANTED[0]), ("a.tsv.gz:2", WANTED[1])]
    (tmp_path / "a.csv").write_text('Document,n,Summary\n"a b",1,ä\nc,2,d\n')
    pq.write_table(pa.table({"dialogue": ["a b", "c"], "id": [1, 2], "highlights": ["ä", "d"]}), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text('{"src": "a b", "tgt": "ä"}\n{"article": "c", "translation": "d"}\n')
    for name in ("a.csv", "a.parquet", "a.jsonl"):
        assert [{role: record[role] for role in BOTH} for record in texts(tmp_path / name, task="summarization")] == WANTED
    (tmp_path / "q.jsonl").write_text('{"question": "a", "context": "b", "answer": "ä"}')
    columns = (("source", ("question", "context")), ("target", "answer"))
    assert texts(tmp_path / "q.jsonl", task="text-to-text", columns=columns) == WANTED[:1]


def test_a_side_that_is_empty_or_missing_in_a_row_is_for_the_task_to_judge(tmp_path):
    (tmp_path / "a.tsv").write_text("source\ttarget\na\n\tb\n")
    assert texts(tmp_path / "a.tsv") == [{"source": "a", "target": ""}, {"source": "", "target": "b"}]
    assert texts(tmp_path / "a.tsv", required=("source",))[0] == {"source": "a"}
    (tmp_path / "a.jsonl").write_text('{"source": null, "target": "a"}\n{"source": ["a"], "target": "b"}')
    with pytest.raises(DataError, match=r"a\.jsonl:2: source, the column for source, holds \['a'\], no text"):
        read(tmp_path / "a.jsonl")


def test_columns_are_called_by_the_languages(tmp_path):
    (tmp_path / "a.csv").write_text("text,EN,de\nx,a b,ä\n")
    assert texts(tmp_path / "a.csv", source_language="en_XX", target_language="de_DE") == WANTED[:1]
    assert texts(tmp_path / "a.csv", source_language="en", target_language="en", columns=(("target", "de"),)) == WANTED[:1]
    (tmp_path / "b.csv").write_text("src,tgt\na b,ä\n")  # here they only name the texts
    assert texts(tmp_path / "b.csv", source_language="en", target_language="de") == WANTED[:1]
    with pytest.raises(DataError, match="has no column for target: its columns are text, EN, de; set"):
        read(tmp_path / "a.csv", source_language="en", target_language="fr")


def test_languages_inside_a_translation(tmp_path):
    inside = [{"id": 1, "translation": {"en": "a b", "de": "ä"}}, {"id": 2, "translation": {"de": "d", "en": "c"}}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, inside)))
    pq.write_table(pa.Table.from_pylist(inside), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        found = texts(tmp_path / name, source_language="en", target_language="de")
        assert found == [{"id": n, **record} for n, record in enumerate(WANTED, 1)]
        turned = texts(tmp_path / name, columns=(("source", "de"), ("target", "en")))
        assert turned[0] == {"id": 1, "source": "ä", "target": "a b"}
        with pytest.raises(DataError, match="has no column for source: its columns are id, .*; set 'records.columns"):
            read(tmp_path / name)
    assert texts(tmp_path / "a.parquet", source_language="en", target_language="de") == found


def direction(name, source=None, target=None, task="translation"):
    codes = {role: code for role, code in zip(BOTH, (source, target), strict=True) if code}
    by_name = known.columns_by_name(name, task, codes)
    assert by_name == known.known_columns(name + "/1.0.0", task, codes)
    return by_name.get("source"), by_name.get("target")


def test_the_direction_of_known_translations():
    assert direction("wmt14_translate/de-en") == direction("wmt14_translate/de-en", target="en") == ("de", "en")
    assert direction("wmt14_translate/de-en", target="de") == ("en", "de")
    assert direction("wmt19_translate/zh-en", "en", "zh") == direction("wmt19_translate/zh-en", "en_XX") == ("en", "zh")
    assert direction("ted_hrlr_translate/beru_to_en") == ("be_ru", "en")
    assert direction("ted_hrlr_translate/aztr_to_en", "en", "az_tr", task="text-to-text") == ("en", "az_tr")
    assert direction("xsum", "en", "en", "summarization") == ("document", "summary")
    assert known.columns_by_name("wmt14_translate/de-en", "summarization") == {}
    with pytest.raises(ConfigError, match="wmt14_translate/de-en has the languages de and en: records.target_language=fr is neither"):
        direction("wmt14_translate/de-en", "en", "fr")
    with pytest.raises(ConfigError, match="records.source_language and records.target_language are both de: set one to en"):
        direction("wmt14_translate/de-en", "de", "de")
    with pytest.raises(ConfigError, match="is a set for task=translation, not summarization: set task=translation, or name its columns"):
        known.known_columns("wmt14_translate/de-en/1.0.0", "summarization")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A prepared set of TFDS with rows of our own."""
    pytest.importorskip("tensorflow_datasets")
    tfds.quiet_tensorflow()
    import tensorflow as tf

    lib, root = tfds._import_tfds(), tmp_path_factory.mktemp("tfds")
    rows = tf.data.Dataset.from_tensor_slices({"de": ["ä", "d"], "en": ["a b", "c"]})
    lib.dataset_builders.store_as_tfds_dataset(
        name="wmt14_translate",
        version="1.0.0",
        config="de-en",
        features=lib.features.Translation(languages=("de", "en")),
        split_datasets={"train": rows},
        data_dir=root,
    )
    return Data(data_dir=str(root))


@pytest.mark.filterwarnings("default")
def test_a_stored_set_of_translations(stored):
    source = "tfds:wmt14_translate/de-en"
    found = texts(source, data=stored, source_language="en")
    assert sorted(found, key=str) == WANTED
    assert texts(source, data=stored, task="text-to-text") == [{"source": each["target"], "target": each["source"]} for each in found]
    assert texts(source, data=stored, columns=(("source", "en"),), required=("source",)) == [{"source": each["source"]} for each in found]
    with pytest.raises(ConfigError, match="has the languages de and en: records.source_language=fr is neither"):
        read(source, data=stored, source_language="fr")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", known.PAIRS)
def test_known_pairs_have_the_columns_that_tfds_says(name, tmp_path):
    """Every configuration of a set, as TFDS's own code describes it."""
    pytest.importorskip("tensorflow_datasets")
    lib, task = tfds._import_tfds(), known.PAIRS[name].task
    for made_as in [made_as.name for made_as in lib.builder_cls(name).BUILDER_CONFIGS] or [""]:
        info = lib.builder(f"{name}/{made_as}".rstrip("/"), data_dir=str(tmp_path)).info
        columns = known.known_columns(info.full_name, task)
        assert columns.keys() == set(BOTH) and set(columns.values()) <= set(info.features)
        assert task != "translation" or tuple(columns.values()) == tuple(info.supervised_keys)


@pytest.mark.parametrize(
    ("source", "columns", "rows"),
    [
        ("multi30k/train.en.gz::{}/multi30k/train.de.gz", (), 29000),
        ("summarization/valid.tsv.gz", (("source", 0), ("target", 1)), 1039),
    ],
)
def test_real_pairs(source, columns, rows):
    folder = os.environ.get("JAXLM_SHARED")
    if folder is None:
        pytest.skip("JAXLM_SHARED names no folder of real data")
    found = read(f"{folder}/{source.format(folder)}", columns=columns)
    assert len(found) == rows and all(record["source"] and record["target"] for _, record in found)
