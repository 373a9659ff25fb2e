"""The store: split, prepare, resume, share; a damaged shard is named."""

import concurrent.futures
import dataclasses

import numpy as np
import pytest

from jaxlm import config
from jaxlm.data import portions, shards
from jaxlm.data import prepare as preparing
from jaxlm.data.prepare import prepare, store_key, training_documents, validation_documents
from jaxlm.data.split import make_rule
from jaxlm.data.store import open_store, write_manifest, write_shard
from jaxlm.errors import ConfigError, DataError
from jaxlm.text.training import train_tokenizer

TEXTS = [f"document {i}, with {i * i} in it\n" for i in range(200)]


def split(documents, validation):
    """(text, held out) of a whole corpus."""
    rule = make_rule(iter(enumerate(documents)), validation)
    return (piece for number, text in enumerate(documents) for piece in rule.pieces(number, text))


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    for i, text in enumerate(TEXTS):
        (tmp_path / f"{i:04d}.txt").write_text(text)
    monkeypatch.setattr(portions, "PORTION_BYTES", 1500)
    monkeypatch.setattr(shards, "BATCH_CHARACTERS", 400)
    data = config.Data(source=f"{tmp_path}/*.txt", cache=str(tmp_path / "cache"), validation=0.1)
    return data, train_tokenizer("bpe", TEXTS, 300)


def test_the_split_is_a_hash_of_the_text():
    held = {text for text, out in split(TEXTS, 0.1) if out}
    assert 5 < len(held) < 40
    assert held == {text for text, out in split(TEXTS + TEXTS, 0.1) if out}
    more = {text for text, out in split(TEXTS[:100], 0.1) if out}
    assert more == held & set(TEXTS[:100])
    assert not any(out for _, out in split(TEXTS, 0.0))


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_no_side_of_the_split_is_empty(share):
    assert {out for _, out in split(TEXTS[:20], share)} == {True, False}


def test_few_documents_are_split_by_position():
    text = "".join(map(chr, range(300, 1303)))
    assert list(split([text], 0.1)) == [(text[: int(1003 * 0.9)], False), (text[int(1003 * 0.9) :], True)]
    assert list(split(["abcd", "efgh", "ij"], 0.5)) == [("abcd", False), ("e", False), ("fgh", True), ("ij", True)]
    assert list(split(["a"], 0.9)) == [("a", False)]
    assert list(split(["ab"], 0.0)) == [("ab", False)]


def test_bad_splits_are_refused():
    with pytest.raises(DataError, match="empty"):
        split([], 0.1)
    with pytest.raises(ConfigError, match=r"data\.validation=1\.0"):
        split(["a"], 1.0)


def test_prepare_keeps_every_document_in_order(corpus):
    data, tokenizer = corpus
    lines = []
    train, validation = prepare(data, data.source, tokenizer, lines.append)
    assert len(lines) == len(train.shards) > 3
    for store, texts in ((train, list(training_documents(data, data.source))), (validation, list(validation_documents(data, data.source)))):
        assert store.bytes == sum(len(text.encode()) for text in texts)
        assert (store.vocab_size, store.tokenizer) == (tokenizer.vocab_size, tokenizer.digest)
        assert len(store.lengths) == len(texts)
        for i, text in enumerate(texts):
            ids = store.slice(i, 0, 10**9)
            assert ids[-1] == tokenizer.eos_id and tokenizer.decode(ids[:-1]) == text
    whole = train.stream(0, train.tokens)
    assert np.array_equal(whole, train.take(np.arange(train.tokens))) and len(whole) == train.tokens
    assert np.array_equal(train.stream(5, 900), whole[5:900])
    assert train.slice(0, 0, 3).base is not None  # a view of the file
    assert train.document_at(int(train.starts[7])) == 7 and train.document_at(int(train.starts[7]) - 1) == 6


def test_prepare_finds_its_store_again(corpus, monkeypatch):
    data, tokenizer = corpus
    first, _ = prepare(data, data.source, tokenizer)
    monkeypatch.setattr(preparing, "build", None)  # would raise if it were called
    assert prepare(data, data.source, tokenizer)[0].directory == first.directory
    for change in ({"validation": 0.2}, {"column": "body"}):
        assert store_key(dataclasses.replace(data, **change), data.source, tokenizer) != store_key(data, data.source, tokenizer)
    other = train_tokenizer("char", TEXTS, 0)
    assert store_key(data, data.source, other) != store_key(data, data.source, tokenizer)


def test_nothing_held_out_is_none(corpus):
    data, tokenizer = corpus
    assert prepare(dataclasses.replace(data, validation=0.0), data.source, tokenizer)[1] is None


@dataclasses.dataclass
class Counting:
    """A tokenizer that dies after some texts."""

    inner: object
    left: float = float("inf")
    seen: int = 0

    def encode_batch(self, texts):
        self.seen += len(texts)
        if self.seen > self.left:
            raise KeyboardInterrupt
        return self.inner.encode_batch(texts)

    def __getattr__(self, name):
        return getattr(self.inner, name)


def test_an_interrupted_prepare_goes_on(corpus, tmp_path):
    data, tokenizer = corpus
    with pytest.raises(KeyboardInterrupt):
        prepare(data, data.source, Counting(tokenizer, left=120))
    again = Counting(tokenizer)
    train, validation = prepare(data, data.source, again)
    assert again.seen < 150  # the finished shards were kept
    elsewhere = dataclasses.replace(data, cache=str(tmp_path / "other"))
    fresh, _ = prepare(elsewhere, data.source, tokenizer)
    assert np.array_equal(fresh.stream(0, fresh.tokens), train.stream(0, train.tokens))
    for path in fresh.directory.glob("*.arrow"):
        assert path.read_bytes() == (train.directory / path.name).read_bytes()


def test_several_may_prepare_one_store_at_once(corpus):
    data, tokenizer = corpus
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        stores = [pair[0] for pair in pool.map(lambda _: prepare(data, data.source, tokenizer), range(4))]
    assert len({store.directory for store in stores}) == 1
    assert len({store.stream(0, store.tokens).tobytes() for store in stores}) == 1
    assert not list(stores[0].directory.parents[1].glob("*.partial"))


def _flip(content):
    return content[:500] + bytes([content[500] ^ 1]) + content[501:]


@pytest.mark.parametrize(
    ("damage", "word"),
    [(lambda c: c[:-7], "cut"), (lambda c: b"", "empty"), (_flip, "damaged"), (None, "missing")],
    ids=["cut", "empty", "flipped", "missing"],
)
def test_a_damaged_shard_is_named_and_the_mend_works(damage, word, corpus):
    data, tokenizer = corpus
    train, _ = prepare(data, data.source, tokenizer)
    path = train.directory / "00000-00001.arrow"
    content = path.read_bytes()
    path.unlink()
    if damage:
        path.write_bytes(damage(content))
    with pytest.raises(DataError, match=rf"00000-00001\.arrow is {word}.*delete {train.directory.parent}") as error:
        prepare(data, data.source, tokenizer)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99}'])
def test_a_damaged_manifest_is_named(content, corpus):
    data, tokenizer = corpus
    train, _ = prepare(data, data.source, tokenizer)
    (train.directory / "manifest.json").write_text(content)
    with pytest.raises(DataError, match="manifest.json .*delete"):
        open_store(train.directory)


def test_large_vocabularies_and_pandas_free_reading(tmp_path):
    row = write_shard(tmp_path / "00000.arrow", [[70_000, 1], [2]], [5, 1], 100_000)
    write_manifest(tmp_path, [row], "digest", 100_000)
    store = open_store(tmp_path)
    assert store.stream(0, 3).tolist() == [70_000, 1, 2] and store.stream(0, 3).dtype == np.int32
    assert (store.bytes, store.lengths.tolist(), store.starts.tolist()) == (6, [2, 1], [0, 2])
