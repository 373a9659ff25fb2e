"""Sources: every kind of file and compression, the standard library, TFDS, and what is said when they are bad."""

import gzip
import json
import lzma
import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxlm.data import stdlib, tfds
from jaxlm.data.sources import documents, fingerprint
from jaxlm.errors import DataError

TEXTS = ["one\ntwo", '"quoted" naïve, 東京', "three"]


def _table(ending):
    if ending == ".jsonl":
        return "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in TEXTS).encode()
    if ending == ".csv":
        return ("n,text\n" + "".join('1,"' + text.replace('"', '""') + '"\n' for text in TEXTS)).encode()
    if ending == ".tsv":
        return ("text\tn\n" + "".join(text.replace("\n", " ") + "\t1\n" for text in TEXTS)).encode()
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": TEXTS, "n": [1, 2, 3]}), sink)
    return sink.getvalue().to_pybytes()


def _compress(content, ending):
    if ending == ".zst":
        return pa.compress(content, codec="zstd", asbytes=True)
    return {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[ending](content)


@pytest.mark.parametrize("compression", ["", ".gz", ".xz", ".zst"])
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_tables(ending, compression, tmp_path):
    path = tmp_path / f"part.one{ending}{compression}"
    path.write_bytes(_compress(_table(ending), compression))
    expected = [text.replace("\n", " ") for text in TEXTS] if ending == ".tsv" else TEXTS
    assert list(documents(str(path))) == expected
    with pytest.raises(DataError, match=f"{path.name}.* has no column body.*(text, n|n, text).*data.column="):
        list(documents(str(path), column="body"))
    if ending in (".jsonl", ".parquet"):
        with pytest.raises(DataError, match="the column n holds 1, no text; set data.column"):
            list(documents(str(path), column="n"))


@pytest.mark.parametrize("compression", ["", ".gz", ".xz", ".zst"])
def test_text_files_and_globs(compression, tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name, text in {"z.txt": "last\r\n", "a.txt": "\ufefffirst", "b/c/m.txt": "middle", "b/empty.txt": ""}.items():
        (tmp_path / (name + compression)).write_bytes(_compress(text.encode(), compression))
    assert list(documents(f"{tmp_path}/**/*.txt{compression}")) == ["first", "middle", "last\r\n"]
    assert list(documents(f"{tmp_path}/a.txt{compression}")) == ["first"]


@pytest.mark.parametrize("compression", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("ending", [".txt", ".jsonl", ".parquet"])
def test_cut_and_corrupt_files_are_named(ending, compression, tmp_path):
    content = os.urandom(30_000).hex().encode() if ending == ".txt" else _table(ending) * (1 if ending == ".parquet" else 500)
    whole = _compress(content, compression)
    path = tmp_path / f"x{ending}{compression}"
    middle = len(whole) // 2
    flipped = whole[:middle] + b"\xff" * 30 + whole[middle + 30 :]
    unseen = (ending, compression) == (".txt", ".zst")  # a frame without a checksum, which is up to whoever compresses
    for damaged in (whole[:middle], b"nonsense" + whole, *([] if unseen else [flipped])):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=str(path)):
            list(documents(str(path)))


def test_bad_lines_are_named(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": \n')
    with pytest.raises(DataError, match=r"x\.jsonl:3 is no JSON"):
        list(documents(str(path)))
    path.write_text('{"text": "a"}\n[1]\n')
    with pytest.raises(DataError, match=r"x\.jsonl:2 is JSON but no object"):
        list(documents(str(path)))
    path.write_bytes(b'{"text": "\xff"}\n')
    with pytest.raises(DataError, match="not UTF-8"):
        list(documents(str(path)))
    path = tmp_path / "x.csv"
    path.write_text('text,n\na,1\n"b')
    with pytest.raises(DataError, match=r"x\.csv is cut"):
        list(documents(str(path)))


def test_documents_are_streamed_and_long_cells_fit(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("text\n" + "a" * 300_000 + "\n")
    assert len(next(documents(str(path)))) == 300_000
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "good \\ud800"}\nbroken')
    assert next(documents(str(path))) == "good \ufffd"


def test_names_that_match_nothing(tmp_path):
    (tmp_path / "input.txt").write_text("x")
    with pytest.raises(DataError, match=r"no file matches .*inptu\.txt; did you mean .*input\.txt"):
        documents(f"{tmp_path}/inptu.txt")
    with pytest.raises(DataError, match="holds input.txt"):
        documents(f"{tmp_path}/**/*.parquet")
    with pytest.raises(DataError, match="is a folder"):
        documents(str(tmp_path))
    (tmp_path / "x.pdf").write_text("x")
    with pytest.raises(DataError, match="x.pdf: files of this kind"):
        list(documents(f"{tmp_path}/x.pdf"))


def test_the_standard_library():
    paths = stdlib.stdlib_files()
    assert not any(stdlib.SKIPPED & set(path.parts[-3:]) for path in paths)
    texts = list(documents("stdlib"))
    assert len(texts) > 400 and 8e6 < sum(map(len, texts)) < 40e6
    assert any("def permutation" in text or "class OrderedDict" in text for text in texts)
    assert not any(text.startswith("# -*- coding: utf-8 -*-\n# Autogenerated by Sphinx") for text in texts)


def test_the_fingerprint_changes_with_a_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    first = fingerprint(str(path))
    assert first == fingerprint(str(path))
    path.write_text("other")
    assert first != fingerprint(str(path))
    path.write_text("two")
    os.utime(path, ns=(0, 1))  # of the size it had
    assert first != fingerprint(str(path))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    pytest.importorskip("tensorflow_datasets")
    tf = tfds.quiet_tensorflow()
    lib = tfds._import_tfds()
    root = tmp_path_factory.mktemp("tfds")
    lib.dataset_builders.store_as_tfds_dataset(
        name="tiny",
        version="1.0.0",
        config="plain",
        features=lib.features.FeaturesDict({"text": lib.features.Text(), "label": lib.features.ClassLabel(num_classes=2)}),
        split_datasets={"train": tf.data.Dataset.from_tensor_slices({"text": TEXTS, "label": [0, 1, 1]})},
        data_dir=root,
    )
    return root


@pytest.mark.filterwarnings("default")
def test_tfds_by_name_and_by_directory(prepared):
    named = list(documents("tfds:tiny/plain", data_dir=str(prepared)))
    assert sorted(named) == sorted(TEXTS)
    directory = tfds.tfds_directory("tiny:1.0.0", str(prepared))
    for source in (f"tfds:{directory}", "tfds:tiny", "tfds:tiny/plain:1.0.0"):
        assert list(documents(source, data_dir=str(prepared))) == named
    assert fingerprint(f"tfds:{directory}") == fingerprint("tfds:tiny", str(prepared))
    with pytest.raises(DataError, match="has no column body: its columns are .*text"):
        list(documents("tfds:tiny", column="body", data_dir=str(prepared)))
    with pytest.raises(DataError, match="holds no text"):
        list(documents("tfds:tiny", column="label", data_dir=str(prepared)))
    with pytest.raises(DataError, match="data.split=test.*splits are train"):
        list(documents("tfds:tiny", split="test", data_dir=str(prepared)))


def test_tfds_offline_fails_at_once(tmp_path, monkeypatch):
    waited = []

    def silent(address, timeout):
        waited.append(timeout)
        raise TimeoutError("timed out")

    monkeypatch.setattr(tfds.socket, "create_connection", silent)
    start = time.monotonic()
    with pytest.raises(DataError, match=rf"copy the prepared data set to {tmp_path}/glue/sst2/VERSION"):
        documents("tfds:glue/sst2", data_dir=str(tmp_path))
    assert time.monotonic() - start + sum(waited) < 2
    with pytest.raises(DataError, match="is no prepared TFDS data set"):
        documents(f"tfds:{tmp_path}/nowhere")
