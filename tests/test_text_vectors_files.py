"""Files of word vectors: written and read back, as gensim reads them, and hostile ones."""

import gzip
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from jaxlm.errors import DataError
from jaxlm.text.embeddings import fasttext_files, vector_files
from jaxlm.text.embeddings.subwords import Subwords
from jaxlm.text.embeddings.vector_files import load_vectors, save_binary, save_fasttext, save_text
from jaxlm.text.embeddings.vector_training import Trained
from jaxlm.text.vectors import Vectors
from tests.test_weights_fuzz import changed

WORDS = ("the", "Ünder", "東京", "a\u00a0b", "-1")


def some():
    return Vectors(WORDS, np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32))


def fasttext(path, words=WORDS, buckets=20):
    """A trained fastText model, written to a file."""
    inputs = np.random.default_rng(0).standard_normal((len(words) + buckets, 3)).astype(np.float32)
    subwords = Subwords(inputs[len(words) :], 2, 4)
    trained = Trained(fasttext_files.compose(list(words), inputs[: len(words)], subwords), inputs, inputs[: len(words)])
    save_fasttext(path, trained, np.arange(len(words), 0, -1))
    return trained.vectors


def same(one, other):
    assert one.words == other.words and np.array_equal(one.matrix, other.matrix) and other.matrix.dtype == np.float32


@pytest.mark.parametrize(("save", "name"), [(save_text, "v.txt"), (save_binary, "v.bin")])
def test_what_is_written_is_read(tmp_path, save, name):
    save(tmp_path / name, some())
    same(some(), load_vectors(tmp_path / name))
    assert load_vectors(tmp_path / name, limit=2).words == WORDS[:2]
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("binary", [False, True])
def test_gensim_reads_what_is_written_and_the_other_way_round(tmp_path, binary):
    models = pytest.importorskip("gensim.models")
    (save_binary if binary else save_text)(tmp_path / "ours", some())
    peer = models.KeyedVectors.load_word2vec_format(tmp_path / "ours", binary=binary)
    assert tuple(peer.index_to_key) == WORDS and np.array_equal(peer.vectors, some().matrix)
    peer.save_word2vec_format(tmp_path / "theirs", binary=binary)
    same(some(), load_vectors(tmp_path / "theirs"))


def test_text_without_sizes_gzip_and_words_with_spaces(tmp_path):
    text = ". . . 1 2 3\nthe 4 5 -6e-1 \nthe 0 0 0\n"
    (tmp_path / "glove.txt").write_text(text)
    (tmp_path / "glove.txt.gz").write_bytes(gzip.compress(text.encode()))
    wanted = Vectors((". . .", "the"), np.array([[1, 2, 3], [4, 5, -0.6]], np.float32))  # the first of a repeated word
    (tmp_path / "glove.txt").write_text(text.replace(". . .", "..."))
    assert load_vectors(tmp_path / "glove.txt").words == ("...", "the")
    (tmp_path / "sized.vec").write_text("2 3\n. . . 1 2 3\nthe 4 5 -.6\n")
    same(wanted, load_vectors(tmp_path / "sized.vec"))
    (tmp_path / "glove.txt.gz").write_bytes(gzip.compress((tmp_path / "sized.vec").read_bytes()))
    same(wanted, load_vectors(tmp_path / "glove.txt.gz"))


def test_an_array_beside_its_words(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    np.save(tmp_path / "x_3d_emb.npy", some().matrix)
    with pytest.raises(DataError, match="no words beside it"):
        load_vectors(tmp_path / "x_3d_emb.npy")
    pyarrow.parquet.write_table(pa.table({"index": list(WORDS)}), tmp_path / "x_index.parquet")
    same(some(), load_vectors(tmp_path / "x_3d_emb.npy"))
    (tmp_path / "x_3d_emb.txt").write_text("\n".join(WORDS[:4]) + "\n")
    same(some(), load_vectors(tmp_path / "x_3d_emb.npy"))
    (tmp_path / "x_index.parquet").unlink()
    with pytest.raises(DataError, match="4 words for"):
        load_vectors(tmp_path / "x_3d_emb.npy")


def test_fasttext_is_gensims_for_known_and_unseen_words(tmp_path):
    models = pytest.importorskip("gensim.models.fasttext")
    fasttext(tmp_path / "f.bin")
    peer, vectors = models.load_facebook_vectors(str(tmp_path / "f.bin")), load_vectors(tmp_path / "f.bin")
    assert tuple(peer.index_to_key) == vectors.words and np.allclose(peer.vectors, vectors.matrix, atol=1e-6)
    for word in ("unseen", "Üñ", "京東", "e\u0301"):
        assert np.allclose(peer[word], vectors.lookup([word])[0], atol=1e-6), word


GENSIMS = (
    "crime-and-punishment.bin",
    "lee_fasttext_new.bin",
    "toy-model.bin",
    "euclidean_vectors.bin",
    "lee_fasttext.vec",
    "word2vec_pre_kv_c",
)


@pytest.mark.parametrize("name", GENSIMS)
def test_gensims_own_files_are_equal_value_for_value(name):
    models = pytest.importorskip("gensim.models")
    from gensim.models.fasttext import load_facebook_vectors
    from gensim.test.utils import datapath

    vectors = load_vectors(datapath(name))
    if vectors.subwords:
        peer = load_facebook_vectors(datapath(name))
        for word in ("zzzunseen", "éàß東京", "останавливатьсях"):
            assert np.array_equal(peer[word], vectors.lookup([word])[0])
    else:
        peer = models.KeyedVectors.load_word2vec_format(datapath(name), binary=name.endswith(".bin"))
    kept = [row for row, word in enumerate(vectors.words) if word != "</s>"]  # fastText gives it no n-grams, gensim does
    assert tuple(peer.index_to_key) == vectors.words and np.array_equal(peer.vectors[kept], vectors.matrix[kept])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ":1 holds no vector"),
        (b"hello\n", ":1 holds no vector"),
        (b"2 3\na 1 2 3\n", "says 2 words and has 1"),
        (b"1 3\na 1 2 3\nb 1 2 3\n", "says 1 words and has 2"),
        (b"a 1 2 3\nb 1 2\n", ":2 has 2 numbers after its word, not 3"),
        (b"a 1 2 3\nb 1 x 3\n", ":2 is no word with 3 numbers"),
        (b"a 1 2\n\xff 1 2\n", ":2 is no word"),
        (b"a 1 2\nb 1 nan\n", "word number 2 is not finite"),
        (b"a 1 2\nb 1e99 1\n", "word number 2 is not finite"),
        (b"99999999 300\na " + b"\xff\0" * 40, "99999999 words of width 300 need"),
        (b"2 2\nab \0\0\0\0\0\0\0\0" + b"c" * 12, "at byte 15 no word number 1 of 2"),
        (b"1 1\n\xff \0\0\0\0", "not UTF-8"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "cut or corrupt"),
        (fasttext_files.MAGIC + struct.pack("<i", 13), "version 13"),
        (fasttext_files.MAGIC + struct.pack("<2i", 12, 3), "cut or damaged at byte 8"),
    ],
)
def test_damaged_files_are_one_line(tmp_path, content, message):
    (tmp_path / "v").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        load_vectors(tmp_path / "v")
    assert str(tmp_path / "v") in str(error.value) and "\n" not in str(error.value)


def test_quantised_models_and_classifiers_are_refused_by_name(tmp_path):
    fasttext(tmp_path / "f.bin")
    good = (tmp_path / "f.bin").read_bytes()
    classifier = good[:36] + struct.pack("<i", 3) + good[40:]
    (tmp_path / "c.bin").write_bytes(classifier)
    with pytest.raises(DataError, match="is a fastText classifier"):
        load_vectors(tmp_path / "c.bin")
    flag = len(good) - 2 * 17 - (25 + 5) * 3 * 4
    (tmp_path / "q.ftz").write_bytes(good[:flag] + b"\1" + good[flag + 1 :])
    with pytest.raises(DataError, match="is quantised"):
        load_vectors(tmp_path / "q.ftz")


@pytest.mark.parametrize(("save", "word"), [(save_text, "a\nb"), (save_binary, "a b"), (save_text, "")])
def test_words_that_a_format_cannot_hold_leave_nothing_behind(tmp_path, save, word):
    with pytest.raises(DataError, match="cannot be written"):
        save(tmp_path / "v", Vectors(("ok", word), np.ones((2, 2), np.float32)))
    assert list(tmp_path.iterdir()) == []


KINDS = {
    "text": lambda path: save_text(path, some()),
    "binary": lambda path: save_binary(path, some()),
    "glove": lambda path: path.write_text("the 1 2 3\ncat -4 5e-3 6\n"),
    "gzip": lambda path: path.write_bytes(gzip.compress(b"2 2\nthe 1 2\ncat 3 4\n")),
    "fasttext": fasttext,
    "array.npy": lambda path: (np.save(path, some().matrix), Path(path).with_suffix(".txt").write_text("\n".join(WORDS) + "\n")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_changed_files_load_or_are_refused(tmp_path, kind):
    path = tmp_path / kind
    KINDS[kind](path)
    outcomes = {"loaded": 0, "refused": 0}

    @settings(max_examples=100, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(changed(path.read_bytes()))
    def run(data):
        path.write_bytes(data)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                vectors = load_vectors(path)
                vectors.lookup(vectors.words[:3])
            outcomes["loaded"] += 1
        except DataError as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
            outcomes["refused"] += 1

    run()
    assert outcomes["refused"] > 15, outcomes


def test_lines_without_end_are_not_taken_in(tmp_path, monkeypatch):
    monkeypatch.setattr(vector_files, "LINE", 1000)
    (tmp_path / "v").write_bytes(b"a 1 2\n" + b"b" * 5000)
    with pytest.raises(DataError, match=":2 is longer than 1000 bytes"):
        load_vectors(tmp_path / "v")
