"""Word vectors: neighbours, analogies, rank correlation, embedding tables; real GloVe's published numbers."""

import os
from pathlib import Path

import numpy as np
import pytest

from jaxlm.errors import DataError
from jaxlm.text.embeddings import vector_evaluation
from jaxlm.text.embeddings.embedding_init import fill_embeddings, turned
from jaxlm.text.embeddings.subwords import Subwords, hash_bytes, ngram_buckets
from jaxlm.text.embeddings.vector_files import load_vectors
from jaxlm.text.vectors import Vectors

PLACES = [Path(place) for place in (os.environ.get("JAXLM_REAL"),) if place]


def royal():
    """man, woman, king, queen on two axes; apple aside."""
    matrix = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1], [-1, -1, -1]], np.float32)
    return Vectors(("man", "woman", "king", "queen", "apple"), matrix)


def random_vectors(count=300, width=7):
    return Vectors(tuple(f"w{i}" for i in range(count)), np.random.default_rng(0).standard_normal((count, width)).astype(np.float32))


def test_neighbours_are_those_of_the_whole_matrix():
    vectors = random_vectors()
    unit = vectors.matrix / np.linalg.norm(vectors.matrix, axis=1, keepdims=True)
    words = [f"w{i}" for i in range(0, 300, 2)]  # more than one block of queries
    for word, found in zip(words, vectors.most_similar(words, 4), strict=True):
        cosines = unit @ unit[vectors.index[word]]
        order = [i for i in np.argsort(-cosines) if vectors.words[i] != word][:4]
        assert [other for other, _ in found] == [vectors.words[i] for i in order]
        assert np.allclose([score for _, score in found], cosines[order], atol=1e-6)
    assert len(vectors.most_similar(["w0"], 1000)[0]) == 299 and vectors.most_similar(["w0"], 0) == [[]]


def test_analogies_leave_their_own_words_out():
    vectors = royal()
    assert vectors.analogy("man", "king", "woman")[0][0] == "queen"
    assert vectors.analogy("man", "king", "woman", limit=3) == []  # queen lies beyond, the rest is asked about
    assert [word for word, _ in vectors.analogy("man", "man", "king", 9)] == ["queen", "woman", "apple"]


def test_unknown_words_are_told_with_the_nearest():
    with pytest.raises(DataError, match="did you mean 'queen'"):
        royal().lookup(["quen"])
    with pytest.raises(DataError, match="one row a word"):
        Vectors(("a",), np.zeros((2, 3)))


def test_subwords_give_unseen_words_the_mean_of_their_ngrams():
    buckets = np.random.default_rng(1).standard_normal((50, 3)).astype(np.float32)
    vectors = Vectors(("cat",), np.ones((1, 3), np.float32), Subwords(buckets, 3, 4))
    grams = [b"<ca", b"<cat", b"cat", b"cat>", b"at>"]
    rows = [hash_bytes(gram.replace(b"cat", b"cut").replace(b"ca", b"cu").replace(b"at", b"ut")) % 50 for gram in grams]
    assert sorted(ngram_buckets("cut", 3, 4, 50)) == sorted(rows)
    assert np.allclose(vectors.lookup(["cut"])[0], buckets[rows].mean(0)) and (vectors.lookup(["cat"]) == 1).all()
    with pytest.raises(DataError, match="no vector"):
        vectors.lookup([""])  # `<>` has no n-gram of three letters
    assert "cut" not in vectors and ngram_buckets("</s>", 3, 6, 50) == []


def test_spearman_is_scipys_with_ties():
    scipy = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(0)
    for _ in range(20):
        x, y = random.integers(0, 6, 40), random.standard_normal(40)
        assert abs(vector_evaluation.spearman(x, y) - scipy.spearmanr(x, y)[0]) < 1e-12
    assert np.isnan(vector_evaluation.spearman(np.ones(3), np.arange(3)))


def test_sets_are_read_and_scored(tmp_path):
    (tmp_path / "pairs.tsv").write_text("word1\tword2\tscore\n# note\nMan\tWoman\t9\nman\tapple\t1\nking\tqueen\t8\nman\tpear\t3\n")
    result = vector_evaluation.similarity(royal(), vector_evaluation.read_pairs(tmp_path / "pairs.tsv"))
    assert (result.covered, result.pairs) == (3, 4) and result.spearman == pytest.approx(0.5)
    (tmp_path / "questions.txt").write_text(": royal\nMan King Woman Queen\nman woman king apple\n: none\na b c d\n")
    sections = vector_evaluation.read_analogies(tmp_path / "questions.txt")
    rows = vector_evaluation.analogies(royal(), sections)
    assert [(row.section, row.right, row.covered, row.asked) for row in rows] == [("royal", 1, 2, 2), ("none", 0, 0, 1)]
    assert vector_evaluation.total(rows).accuracy == 0.5
    assert list(vector_evaluation.report(royal(), [tmp_path / "pairs.tsv"], None)) == ["pairs.tsv: Spearman 0.500, 3 of 4 pairs covered"]


@pytest.mark.parametrize(
    ("text", "read", "message"),
    [
        ("a\tb\t1\na\tb\n", vector_evaluation.read_pairs, ":2 is no pair"),
        ("a\tb\t1\na\tb\tx\n", vector_evaluation.read_pairs, ":2 is no pair"),
        ("a b c d\n", vector_evaluation.read_analogies, ":1 is no question"),
        (": s\n\na b c\n", vector_evaluation.read_analogies, ":3 is no question"),
    ],
)
def test_damaged_sets_name_the_line(tmp_path, text, read, message):
    (tmp_path / "set.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "set.txt")


def test_scores_are_gensims(tmp_path):
    pytest.importorskip("gensim")
    from gensim.models import KeyedVectors
    from gensim.test.utils import datapath

    from jaxlm.text.embeddings.vector_files import save_binary

    pairs = vector_evaluation.read_pairs(datapath("wordsim353.tsv"))
    words = dict.fromkeys(word for one, two, _ in pairs[:300] for word in (one, two.upper()))
    vectors = Vectors(tuple(words), np.random.default_rng(0).standard_normal((len(words), 10)).astype(np.float32))
    save_binary(tmp_path / "v.bin", vectors)
    peer = KeyedVectors.load_word2vec_format(tmp_path / "v.bin", binary=True)
    _, spearman, missing = peer.evaluate_word_pairs(datapath("wordsim353.tsv"))
    mine = vector_evaluation.similarity(vectors, pairs)
    assert mine.spearman == pytest.approx(spearman[0], abs=1e-6) and 100 * (1 - mine.covered / mine.pairs) == pytest.approx(missing)
    assert vectors.most_similar(["tiger"], 5)[0] == [
        (word, pytest.approx(score, abs=1e-6)) for word, score in peer.most_similar("tiger", topn=5)
    ]
    theirs = peer.most_similar(positive=["tiger", "love"], negative=["book"], topn=3)
    assert vectors.analogy("book", "tiger", "love", 3) == [(word, pytest.approx(score, abs=1e-6)) for word, score in theirs]


class Pieces:
    """A tokenizer of known pieces, the longest first, as byte-level ones decode: with the space that stood before."""

    def __init__(self, *pieces):
        self.pieces, self.vocab_size = pieces, len(pieces)

    def decode(self, ids):
        return "".join(self.pieces[i] for i in ids)

    def encode_batch(self, texts, *, add_special_tokens=True, allow_special=False):
        assert not add_special_tokens
        return [self._encode(text) for text in texts]

    def _encode(self, text):
        ids = []
        while text:
            piece = max((p for p in self.pieces if text.startswith(p)), key=len)
            ids, text = [*ids, self.pieces.index(piece)], text[len(piece) :]
        return ids


def test_a_table_starts_from_words_and_pieces():
    tokenizer = Pieces(" cat", " Dog", " do", "s", "g", " ", *"abcdefhijklmnopqrtuvwxyz")
    vectors = Vectors(("cat", "dog", "cats", "dos"), np.array([[2, 0], [0, 2], [0, 4], [4, 0]], np.float32))
    table = np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)
    filled, coverage = fill_embeddings(table, tokenizer, vectors)
    assert (coverage.direct, coverage.averaged, coverage.rows) == (2, 3, 40)
    assert "12% of 40" in str(coverage)
    scale = filled[0, 0] / 2
    # cat and Dog by their words; do and g out of "dog" and "dos"; s out of "cats" and "dos"
    wanted = np.array([[2, 0], [0, 2], [2, 1], [2, 2], [0, 2]]) * scale
    assert np.allclose(filled[:5], wanted, atol=1e-5)
    assert np.isclose(filled[:5].std(), table.std(), rtol=1e-4)
    assert np.array_equal(filled[5:], table[5:]) and filled.dtype == table.dtype
    with pytest.raises(DataError, match="no token"):
        fill_embeddings(table, Pieces(" ", "x"), Vectors(("東",), np.ones((1, 2), np.float32)) if False else Vectors((), np.zeros((0, 2))))


def test_vectors_of_another_width_keep_what_they_can():
    matrix = random_vectors(50, 4).matrix * np.array([5, 3, 0.01, 0.01], np.float32)
    wide, narrow = turned(matrix, matrix, 9, 0), turned(matrix, matrix, 2, 0)
    assert np.allclose(wide @ wide.T, matrix @ matrix.T, atol=1e-3) and wide.std(0).min() > 0
    assert np.abs(narrow @ narrow.T - matrix @ matrix.T).max() < 0.01
    assert np.array_equal(turned(matrix, matrix, 9, 0), wide) and not np.array_equal(turned(matrix, matrix, 9, 1), wide)


def test_real_glove_has_its_published_scores():
    found = [path for place in PLACES for path in place.rglob("glove_6B_50d_emb.npy")]
    if not found:
        pytest.skip("glove_6B_50d_emb.npy is not here: fetch it, and set JAXLM_REAL to its folder")
    pytest.importorskip("gensim")
    from gensim.test.utils import datapath

    vectors = load_vectors(found[0])
    king, man, woman = vectors.lookup(["king", "man", "woman"])
    answer = vectors.nearest((king - man + woman)[None], 1, [["king", "man", "woman"]])[0][0]  # of the raw lengths
    assert answer == ("queen", pytest.approx(0.861, abs=5e-4))
    assert vectors.analogy("man", "king", "woman") == [("queen", pytest.approx(0.852, abs=5e-4))]
    similarity = vector_evaluation.similarity(vectors, vector_evaluation.read_pairs(datapath("wordsim353.tsv")))
    assert (round(similarity.spearman, 3), similarity.covered) == (0.503, 353)
    rows = vector_evaluation.analogies(vectors, vector_evaluation.read_analogies(datapath("questions-words.txt")))
    assert round(vector_evaluation.total(rows).accuracy, 3) == 0.470
