"""Tokenizers: every text comes back, training is deterministic, damaged files are one DataError."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.errors import ConfigError, DataError
from jaxlm.text.tokenizer import load_tokenizer
from jaxlm.text.tokenizers import fast
from jaxlm.text.training import train_tokenizer
from jaxlm.text.unicode import well_formed

TEXTS = ["def f(x):\n    return x + 1\n", "the cat sat on the mat; the dog sat on the cat", "naïve café, 東京"] * 4


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("bpe", TEXTS, 320)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_every_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_lone_surrogates_become_replacement_characters(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"
    assert well_formed("\ud83d\ude00") == "\U0001f600"


def test_text_never_becomes_a_control_token(tokenizer):
    ids = tokenizer.encode(f"a{fast.EOS}b")
    assert tokenizer.eos_id not in ids and tokenizer.decode(ids) == f"a{fast.EOS}b"
    assert tokenizer.decode([tokenizer.eos_id, *ids]) == f"a{fast.EOS}b"


def test_a_batch_is_its_texts(tokenizer):
    texts = ["one two", "", "a\udfffb"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_training_is_deterministic_and_saving_keeps_everything(kind, tmp_path):
    one, two = (train_tokenizer(kind, iter(TEXTS), 300) for _ in range(2))
    one.save(tmp_path / "a" / "tokenizer")
    two.save(tmp_path / "b")
    for path in (tmp_path / "b").iterdir():
        assert path.read_bytes() == (tmp_path / "a" / "tokenizer" / path.name).read_bytes()
    for folder in ("a", "a/tokenizer", "b"):  # a run directory, and folders of files
        again = load_tokenizer(tmp_path / folder)
        assert (again.digest, again.vocab_size, again.eos_id) == (one.digest, one.vocab_size, one.eos_id)
        assert again.encode(f"the cat{TEXTS[2]}") == one.encode(f"the cat{TEXTS[2]}")
    assert train_tokenizer(kind, ["other text"], 300).digest != one.digest


def test_loaded_text_never_becomes_a_control_token(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    assert tokenizer.eos_id not in load_tokenizer(tmp_path).encode(fast.EOS)


def test_transformers_opens_what_is_saved(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token_id == tokenizer.eos_id
    assert theirs.encode("the cat, naïve") == tokenizer.encode("the cat, naïve")


def test_published_truncation_and_padding_are_lifted(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    saved = json.loads(path.read_text())
    saved["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    path.write_text(json.dumps(saved))
    assert load_tokenizer(tmp_path).encode("the cat sat") == tokenizer.encode("the cat sat")


def test_vocab_and_merges(tokenizer, tmp_path):
    tokenizer.engine.model.save(str(tmp_path))
    loaded = load_tokenizer(tmp_path)
    assert loaded.encode(TEXTS[2]) == tokenizer.encode(TEXTS[2])
    assert loaded.eos_id == tokenizer.eos_id and loaded.eos_id not in loaded.encode(fast.EOS)


def test_robertas_end_is_its_own(tmp_path):
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "a": 3, fast.EOS: 4}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    loaded = load_tokenizer(tmp_path)
    assert (loaded.eos_id, loaded.pad_id, loaded.decode([0, 3, 2])) == (2, 1, "a")


def test_characters_are_the_texts_own():
    tokenizer = train_tokenizer("char", ["hello"], 9)
    assert (tokenizer.characters, tokenizer.vocab_size, tokenizer.eos_id) == ("ehlo", 4, None)
    assert tokenizer.encode("hole") == [1, 3, 2, 0] and tokenizer.decode([1, 3, 2, 0]) == "hole"
    with pytest.raises(DataError, match="'z' is not among"):
        tokenizer.encode("hz")
    with pytest.raises(DataError, match="id -1"):
        tokenizer.decode([-1])


def test_ids_outside_are_refused(tokenizer):
    with pytest.raises(DataError, match=f"id {tokenizer.vocab_size} "):
        tokenizer.decode([tokenizer.vocab_size])


PANICS = {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"], "continuing_subword_prefix": "####"}


@pytest.mark.parametrize("content", ["", '{"a": 1}', json.dumps({"version": "1.0", "added_tokens": [], "model": PANICS})])
def test_damaged_files_are_one_data_error(content, tmp_path):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match="tokenizer.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"characters": "aa"}', '{"characters": 3}'])
def test_damaged_characters_are_one_data_error(content, tmp_path):
    (tmp_path / "characters.json").write_text(content)
    with pytest.raises(DataError, match="characters.json"):
        load_tokenizer(tmp_path)


def test_wrong_words_are_named(tmp_path):
    with pytest.raises(ConfigError, match="did you mean bpe"):
        train_tokenizer("bpee", TEXTS, 300)
    with pytest.raises(ConfigError, match="at least 257"):
        train_tokenizer("bpe", TEXTS, 256)
    with pytest.raises(DataError, match="no text"):
        train_tokenizer("bpe", [], 300)
    with pytest.raises(DataError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        load_tokenizer(tmp_path / "nowhere")
