"""`python -m jaxlm.tokenize`: every kind from every file, verbs that stream, nothing half-written."""

import collections
import gzip
import io
import json
import signal
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxlm import tokenize
from jaxlm.data import lines
from jaxlm.errors import ConfigError, DataError, Stopped
from jaxlm.text.tokenizer import load_tokenizer

TEXTS = ["the cat sat on the mat", "the dog lay on the mat, and slept", "мир и труд", "a cat, a dog"] * 20


@pytest.fixture
def files(tmp_path):
    """The same texts in files of every kind; the text files hold one a line."""
    plain = "\n".join(TEXTS) + "\n"
    rows = [{"text": text, "language": "ru" if "мир" in text else "en"} for text in TEXTS]
    (tmp_path / "a.txt").write_text(plain)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(plain.encode()))
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.csv").write_text("text\n" + "".join(f'"{text}"\n' for text in TEXTS))
    (tmp_path / "a.tsv").write_text("language\ttext\n" + "".join(f"{row['language']}\t{row['text']}\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    return tmp_path


@pytest.fixture
def folder(files):
    train(files, "bpe", "a.txt", size=300)
    return files / "bpe"


def train(files, kind, *names, size=60, more=()):
    out = files / kind
    tokenize.main(["train", "--kind", kind, "--vocab-size", str(size), "--out", str(out), *more, *(str(files / name) for name in names)])
    return load_tokenizer(out)


def stdin(monkeypatch, data):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.csv", "a.tsv", "a.parquet"])
def test_every_file_gives_the_same_words(files, name):
    counts = collections.Counter(" ".join(TEXTS).split())
    tokenizer = train(files, "word", name)
    assert [tokenizer.piece(i) for i in range(5, tokenizer.vocab_size)] == sorted(counts, key=lambda word: (-counts[word], word))


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram", "word", "char"])
def test_every_kind_is_trained_encodes_and_decodes(files, kind, monkeypatch, capsys):
    tokenizer = train(files, kind, "a.jsonl", size=300 if kind == "bpe" else 60)
    assert f"{kind}, {tokenizer.vocab_size} tokens" in capsys.readouterr().err
    stdin(monkeypatch, b"a cat\nthe dog")
    tokenize.main(["encode", str(files / kind)])
    ids = capsys.readouterr().out
    assert [list(map(int, line.split())) for line in ids.splitlines()] == tokenizer.encode_batch(["a cat", "the dog"])
    stdin(monkeypatch, ids.encode())
    tokenize.main(["decode", str(files / kind)])
    assert capsys.readouterr().out == "a cat\nthe dog\n"


def test_the_same_files_give_the_same_bytes(files):
    train(files, "unigram", "a.txt", "a.jsonl", more=["--sample", "5", "--seed", "3"])
    first = {path.name: path.read_bytes() for path in (files / "unigram").iterdir()}
    (files / "unigram").rename(files / "moved")
    train(files, "unigram", "a.txt", "a.jsonl", more=["--sample", "5", "--seed", "3"])
    assert first == {path.name: path.read_bytes() for path in (files / "unigram").iterdir()}


def test_encode_prints_pieces_and_leaves_the_template_out(files, monkeypatch, capsys):
    train(files, "wordpiece", "a.txt", size=200)
    tokenize.main(["encode", str(files / "wordpiece"), "--tokens", str(files / "a.txt"), "--column", "x"])
    found = capsys.readouterr().out.splitlines()
    assert found[:2] == ["[CLS] the cat sat on the mat [SEP]", "[CLS] the dog lay on the mat , and slept [SEP]"]
    tokenize.main(["encode", "--bare", "--tokens", str(files / "wordpiece"), str(files / "a.jsonl")])
    assert capsys.readouterr().out.splitlines()[3] == "a cat , a dog"


def test_stats_by_file_and_by_column(files, folder, capsys):
    tokenize.main(["stats", str(folder), str(files / "a.txt")])
    out = capsys.readouterr().out
    assert "tokens/word" in out and str(files / "a.txt") in out and "cyrillic" in out
    tokenize.main(["stats", str(folder), "--by", "language", str(files / "*.jsonl")])
    rows = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()}
    assert rows["en"] == "360" and rows["ru"] == "60"


def test_blocks_of_a_text_file_end_at_lines_and_hold_everything(files, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK", 50)
    blocks = [text for _, text in lines.file_texts([str(files / "a.txt")], "text")]
    assert "".join(blocks) == (files / "a.txt").read_text() and len(blocks) > 10
    assert all(block.endswith("\n") for block in blocks)
    assert sum(lines.batches([str(files / "a.txt")], "text"), []) == TEXTS


def test_lines_arrive_as_they_come(monkeypatch):
    monkeypatch.setattr(lines, "BLOCK", 5)
    stdin(monkeypatch, "one\ntwo three\n\nvier\r\nfünf".encode())
    assert sum(lines.batches([], "text"), []) == ["one", "two three", "", "vier", "fünf"]


@pytest.mark.parametrize(
    "line, error, says",
    [
        ("", ConfigError, "the verb"),
        ("trane", ConfigError, "did you mean 'train'"),
        ("train --kind wordpeace --out {0}/o {0}/a.txt", ConfigError, "did you mean 'wordpiece'"),
        ("train --kind bpe --vocab-size 9 --out {0}/o {0}/a.txt", ConfigError, "--vocab-size 9 is too small.*257"),
        ("train --kind unigram --vocab-size 9 --out {0}/o {0}/a.txt", ConfigError, "--vocab-size 9 is too small.* at least"),
        ("train --kind bpe --out {0}/o {0}/b.txt", DataError, r"^\S+b.txt: no file matches .* did you mean .*a.txt"),
        ("train --kind bpe --out {0}/o {0}/empty.txt", DataError, "no text.*check the files"),
        ("train --kind bpe --out {0}/o {0}/latin.txt", DataError, "latin.txt .*not UTF-8"),
        ("train --kind bpe --out {0}/o --column body {0}/a.jsonl", DataError, "no column body.* give --column NAME"),
        ("train --kind bpe --out {0} {0}/a.txt", ConfigError, "not an empty folder"),
        ("train --kind char --lower --out {0}/o {0}/a.txt", ConfigError, "lower the texts"),
        ("train --kind word --distinct 0 --out {0}/o {0}/a.txt", ConfigError, "at least 1"),
        ("train --kind bpe --out {0}/o", ConfigError, "required: files"),
        ("stats {0}/bpe --by language {0}/a.txt", DataError, "a.txt has no column language"),
        ("decode {0}/bpe {0}/a.txt", DataError, "line 1 holds something else than ids"),
    ],
)
def test_errors_are_one_line_and_leave_nothing_behind(files, folder, line, error, says):
    (files / "empty.txt").write_text("")
    (files / "latin.txt").write_bytes(b"ok\n\xff\xfe\n")
    before = sorted(files.iterdir())
    with pytest.raises(error, match=says) as caught:
        tokenize.main(line.format(files).split())
    assert "\n" not in str(caught.value)
    assert sorted(files.iterdir()) == before


def test_standard_input_that_is_no_text_is_named_by_its_line(folder, monkeypatch):
    stdin(monkeypatch, b"one\ntwo\n\xff\n")
    with pytest.raises(DataError, match="line 3 is not UTF-8"):
        tokenize.main(["encode", str(folder)])


def test_an_interruption_leaves_nothing_behind(files, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tokenize.training, "train_tokenizer", interrupted)
    before = sorted(files.iterdir())
    with pytest.raises(Stopped, match="train: interrupted"):
        train(files, "bpe", "a.txt", size=300)
    assert sorted(files.iterdir()) == before


def start(*arguments):
    line = [sys.executable, "-m", "jaxlm.tokenize", *map(str, arguments)]
    return subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def test_a_reader_that_leaves_is_no_error(folder, files):
    (files / "long.txt").write_text("the cat sat on the mat\n" * 200_000)
    with start("encode", folder, files / "long.txt") as running:
        assert running.stdout.readline().split()
        running.stdout.close()
        assert running.wait(60) == 0 and running.stderr.read() == b""


def test_an_answer_comes_at_once_and_ctrl_c_is_one_line(folder):
    with start("encode", folder) as running:
        running.stdin.write(b"the cat\n")
        running.stdin.flush()
        assert running.stdout.readline().split()
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 75
        error = running.stderr.read().decode()
    assert "interrupted" in error and error.count("\n") == 1


def test_a_row_without_text_keeps_its_line(tmp_path):
    """A line of ids a row: what stands beside it, a label, is still beside it."""
    (tmp_path / "a.jsonl").write_text('{"text": "ab"}\n{"text": ""}\n{"text": "b"}\n')
    assert [batch for batch in lines.batches([str(tmp_path / "a.jsonl")], "text")] == [["ab"], [""], ["b"]]


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "a.txt.zst").write_bytes(b"(\xb5/\xfd broken")
    with pytest.raises(DataError, match="a.txt.zst"):
        list(lines.batches([str(tmp_path / "a.txt.zst")], "text"))
