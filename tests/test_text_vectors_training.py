"""Training word vectors: the updates equal the papers' gradients, bounds hold, every kind learns, the command tells."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import vectors as command
from jaxlm.errors import ConfigError, DataError
from jaxlm.text.embeddings import glove, vector_batches, vector_corpus, vector_files, vector_steps, vector_training
from jaxlm.text.embeddings.vector_steps import BLOCK, GROUP, Block, Tables
from jaxlm.text.embeddings.vector_training import Settings

WINDOW, NEGATIVE = 2, 3


def topics(sentences=1500, seed=0):
    """Sentences of one of four topics, six words each: words of a topic are alike."""
    random = np.random.default_rng(seed)
    return [[f"{'abcd'[topic]}{word}" for word in random.integers(0, 6, 9)] for topic in random.integers(0, 4, sentences)]


def prepared(lines, min_count=1):
    vocabulary = vector_corpus.count_words(lines, min_count)
    return vector_corpus.encode(lines, vocabulary), vocabulary


def separation(vectors):
    """Mean cosine within topics less that between them."""
    cosines = vectors.unit @ vectors.unit.T
    same = np.array([[one[0] == two[0] for two in vectors.words] for one in vectors.words])
    return cosines[same & ~np.eye(len(same), dtype=bool)].mean() - cosines[~same].mean()


def test_words_are_counted_and_streamed():
    told = []
    lines = list(vector_corpus.sentences(["The cat's hat!\n\nthe_Cat 東京 x", "…"]))
    assert lines == [["the", "cat's", "hat"], ["the", "cat", "東京", "x"]]
    vocabulary = vector_corpus.count_words([*lines, ["x"]], 2, told.append)
    assert vocabulary.words == ("the", "x") and vocabulary.counts.tolist() == [2, 2] and vocabulary.total == 8
    assert told == ["counted 8 words; 2 of 6 distinct come at least 2 times"]
    corpus = vector_corpus.encode(lines, vocabulary)
    assert corpus.ids.tolist() == [0, 0, 1] and corpus.ends.tolist() == [1, 3]
    with pytest.raises(DataError, match="lower --min-count"):
        vector_corpus.count_words(lines, 9)


def test_rare_words_are_forgotten_where_there_are_too_many(monkeypatch):
    monkeypatch.setattr(vector_corpus, "DISTINCT", 3)
    lines = [["a", "b"], ["a", "b"], ["a", "c", "d", "e"], ["b"]]
    assert vector_corpus.count_words(lines, 1).words == ("a", "b")


@pytest.mark.parametrize("piece", [7, 1 << 20])
def test_batches_hold_every_word_with_its_own_neighbours(monkeypatch, piece):
    """Nothing is lost or seen twice; no window leaves its sentence."""
    monkeypatch.setattr(vector_batches, "PIECE", piece)
    monkeypatch.setattr(vector_batches, "CALL", 3 * 8)
    bounds = ((0, 5), (5, 6), (6, 36), (36, 50))
    corpus, vocabulary = prepared([[f"w{i}" for i in range(start, stop)] for start, stop in bounds])
    sentence = np.searchsorted(corpus.ends, np.arange(50), "right")
    place = {word: i for i, word in enumerate(corpus.ids)}
    seen = []
    for batch in vector_batches.batches(corpus, np.ones(50), (4, 2, 8), np.random.default_rng(0)):
        for block, (left, right) in enumerate(zip(batch.left, batch.right, strict=True)):
            for t in range(8):
                at = 4 + block * 8 + t
                around = batch.ids[at - left[t] : at + right[t] + 1]
                here = [place[word] for word in around]
                if len(around) > 1:
                    assert here == list(range(here[0], here[-1] + 1)) and len({sentence[i] for i in here}) == 1
                    seen.append(place[batch.ids[at]])
    counts = np.bincount(seen, minlength=50)
    assert counts.max() == 2 and (counts[sentence != 1] == 2).sum() >= (47 if piece > 50 else 25)


def test_subsampling_keeps_the_papers_share():
    corpus, vocabulary = prepared([["often"] * 9000 + ["rare"] * 1000])
    keep = vector_batches.keep_probabilities(vocabulary.counts, 0.1)
    assert np.allclose(keep, [(0.1 / 0.9) ** 0.5 + 0.1 / 0.9, 1])
    kept = sum((batch.left + batch.right > 0).sum() for batch in vector_batches.batches(corpus, keep, (3, 1, 8), np.random.default_rng(0)))
    assert abs(kept - keep @ vocabulary.counts) < 300
    assert (vector_batches.keep_probabilities(vocabulary.counts, 0) == 1).all()
    table = vector_batches.noise_table(np.array([16, 1]))
    assert abs((table == 0).mean() - 8 / 9) < 1e-5


def block_case(rows=40, width=6, seed=0):
    random = np.random.default_rng(seed)
    tables = Tables(*(jnp.asarray(random.standard_normal((rows, width)).astype(np.float32)) for _ in range(2)))
    ids = random.integers(0, rows, BLOCK + 2 * WINDOW).astype(np.int32)
    left, right = random.integers(0, WINDOW + 1, (2, 1, BLOCK)).astype(np.int8)
    negatives = random.integers(0, rows, (1, BLOCK)).astype(np.int32)
    none, few = np.zeros((1, 0), np.int32), np.zeros((1, BLOCK + 2 * WINDOW), np.float32)
    return tables, ids, Block(np.zeros(1, np.int32), left, right, negatives, np.full(1, 1e-2, np.float32), few, none, none)


def expected_loss(kind, tables, ids, block):
    """Pair by pair: minus log sigma(u . h), and each of the group's negatives NEGATIVE / K times."""
    mix, right, wrong = np.zeros((3, BLOCK, len(tables.inputs)), np.float32)  # how often a centre t meets each row
    for t in range(BLOCK):
        around = [*range(t - int(block.left[0, t]), t), *range(t + 1, t + 1 + int(block.right[0, t]))]
        context = ids[[WINDOW + i for i in around]].astype(int)
        pairs = (len(context) > 0) if kind == "cbow" else len(context)
        np.add.at(mix[t], context if kind == "cbow" else ids[WINDOW + t], 1 / max(len(context), 1) if kind == "cbow" else 1)
        np.add.at(right[t], ids[WINDOW + t] if kind == "cbow" else context, min(1, pairs))
        np.add.at(wrong[t], block.negatives[0, t // GROUP * GROUP :][:GROUP], pairs * NEGATIVE / GROUP)
    scores = mix @ tables.inputs @ tables.outputs.T
    return -(right * jax.nn.log_sigmoid(scores) + wrong * jax.nn.log_sigmoid(-scores)).sum()


@pytest.mark.parametrize("kind", ["skipgram", "cbow"])
def test_a_block_descends_the_papers_loss(kind):
    tables, ids, block = block_case()
    gradient = jax.grad(lambda tables: expected_loss(kind, tables, ids, block))(tables)
    before = Tables(*map(np.array, tables))
    after = getattr(vector_steps, kind)(tables, np.zeros(40, np.float32), ids, block, window=WINDOW, negative=NEGATIVE)
    assert np.allclose(before.outputs - after.outputs, 1e-2 * gradient.outputs, atol=1e-5)
    if kind == "skipgram":  # word2vec's CBOW gives each context word the whole change of the mean
        assert np.allclose(before.inputs - after.inputs, 1e-2 * gradient.inputs, atol=1e-5)
    else:
        assert not np.allclose(before.inputs - after.inputs, 1e-2 * gradient.inputs, atol=1e-3)


def test_ngram_rows_get_the_whole_change_of_their_mean():
    tables, ids, block = block_case()
    plain = vector_steps.skipgram(Tables(*map(jnp.array, tables)), np.zeros(40, np.float32), ids, block, window=WINDOW, negative=NEGATIVE)
    rows = np.concatenate([ids[WINDOW:-WINDOW], ids[WINDOW:-WINDOW], [0]])[None]  # each centre's row twice: the mean is the row
    owners = np.concatenate([np.arange(BLOCK), np.arange(BLOCK), [BLOCK]])
    order = np.argsort(owners, kind="stable")
    block = block._replace(rows=rows[:, order].astype(np.int32), owners=owners[None, order].astype(np.int32))
    before = np.array(tables.inputs)
    twice = vector_steps.skipgram(tables, np.zeros(40, np.float32), ids, block, window=WINDOW, negative=NEGATIVE)
    assert np.allclose(twice.inputs - before, 2 * (np.array(plain.inputs) - before), atol=1e-5)
    assert np.allclose(twice.outputs, plain.outputs, atol=1e-6)


def test_crowded_rows_are_bounded():
    stream = np.array([[3, 1, 3, 3], [3, 2, 2, 0]], np.int32)
    assert vector_training._crowd(stream).tolist() == [[3, 1, 3, 3], [1, 2, 2, 1]]
    corpus, vocabulary = prepared([["a", "b"] * 8] * 300)  # two words: every row of a block meets hundreds of pairs
    settings = Settings(size=10, sample=0, epochs=3, learning_rate=0.3)
    assert np.abs(vector_training.train(corpus, vocabulary, settings).inputs).max() < 20


@pytest.mark.parametrize("kind", vector_training.KINDS)
def test_every_kind_learns_what_stands_together(kind):
    corpus, vocabulary = prepared(topics())
    settings = Settings(kind=kind, size=12, epochs=12, sample=0, buckets=500, seed=1, learning_rate=0.05)
    make = glove.train if kind == "glove" else vector_training.train
    vectors = make(corpus, vocabulary, settings).vectors
    assert vectors.matrix.shape == (24, 12) and separation(vectors) > 0.4
    assert np.array_equal(make(corpus, vocabulary, settings).vectors.matrix, vectors.matrix), "the same seed"
    assert vectors.most_similar(["a0"], 3)[0][0][0][0] == "a"


def test_cooccurrences_are_counted_by_distance():
    corpus, vocabulary = prepared([list("abca"), ["b"]])
    keys, counts = glove.cooccurrences(corpus, 3, 2)
    found = {(vocabulary.words[key // 3], vocabulary.words[key % 3]): float(count) for key, count in zip(keys, counts, strict=True)}
    assert found == {("a", "b"): 1.5, ("a", "c"): 1.5, ("b", "c"): 1.0}
    with pytest.raises(DataError, match="no two words"):
        glove.train(*prepared([["a"], ["b"]]), Settings(kind="glove"))


def test_glove_descends_the_papers_loss():
    random = np.random.default_rng(0)
    old = [random.standard_normal((9, 4)).astype(np.float32) for _ in range(2)]
    i, j, count = np.array([[0, 1, 2]], np.int32), np.array([[3, 4, 5]], np.int32), np.array([[2.0, 40.0, 0.0]], np.float32)

    def loss(words, contexts):
        one, two = words[i[0]], contexts[j[0]]
        miss = (one[:, :-1] * two[:, :-1]).sum(-1) + one[:, -1] + two[:, -1] - np.log([2.0, 40.0, 1.0])
        return (np.array([0.2**0.75, 1, 0]) * miss**2).sum() / 2

    gradients = jax.grad(loss, (0, 1))(*map(jnp.asarray, old))
    squares = [np.full_like(table, 4) for table in old]
    new = glove.update(tuple(jnp.stack(pair, 1) for pair in zip(old, squares, strict=True)), i, j, count, rate=0.1)
    for table, before, gradient in zip(new, old, gradients, strict=True):
        assert np.allclose(table[:, 0], before - 0.1 * gradient / 2, atol=1e-5)
        assert np.allclose(table[:, 1], 4 + gradient**2, atol=1e-4)


@pytest.mark.parametrize(("kind", "name"), [("skipgram", "v.txt"), ("cbow", "v.bin"), ("fasttext", "f.bin"), ("glove", "g.vec")])
def test_the_command_trains_writes_and_answers(tmp_path, capsys, kind, name):
    (tmp_path / "a.txt").write_text("\n".join(" ".join(line) for line in topics(200)))
    (tmp_path / "b.jsonl").write_text('{"text": "a0 a1 zebra"}\n')
    options = ["--size", "8", "--epochs", "2", "--sample", "0", "--buckets", "100", "--min-count", "2"]
    out = tmp_path / name
    command.main(["train", "--kind", kind, "--out", str(out), *options, str(tmp_path / "*.txt"), str(tmp_path / "b.jsonl")])
    printed = capsys.readouterr().out
    assert "24 of 25 distinct" in printed and f"wrote 24 vectors of width 8 to {out}" in printed
    vectors = vector_files.load_vectors(out)
    assert vectors.matrix.shape == (24, 8) and (vectors.subwords is not None) == (kind == "fasttext")
    command.main(["similar", str(out), "a0", "--count", "2", "--analogy", "a0", "a1", "b0"])
    assert len(capsys.readouterr().out.splitlines()) == 6
    (tmp_path / "pairs.tsv").write_text("a0\ta1\t9\na0\tb1\t1\nc0\tc1\t8\n")
    command.main(["evaluate", str(out), "--pairs", str(tmp_path / "pairs.tsv")])
    assert "pairs.tsv: Spearman" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.txt", "b.jsonl", "pairs.tsv", name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to do"),
        (["trian"], "did you mean 'train'|did you mean train"),
        (["train", "--out", "v.doc", "x.txt"], "ending in"),
        (["train", "--out", "v.txt", "--kind", "word2vec", "x.txt"], "the kinds are"),
        (["train", "--out", "v.txt", "--window", "0", "x.txt"], "--window 0 is out of range"),
        (["train", "--out", "v.txt", "--learning-rate", "nan", "x.txt"], "--learning-rate nan"),
    ],
)
def test_wrong_options_are_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message):
        command.main(arguments)


def test_the_commands_errors_are_one_line(tmp_path):
    line = [sys.executable, "-m", "jaxlm.vectors", "similar", str(tmp_path / "no.bin"), "a"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 65 and done.stderr.count("\n") == 1 and "no.bin is no file" in done.stderr
