"""Tokenizers learnt in bounded memory: equal to the library's own below the bound, the same at each run, open to AutoTokenizer."""

import collections
import json
import random
import subprocess
import sys

import pytest

from jaxlm.errors import ConfigError, DataError
from jaxlm.text import statistics, training
from jaxlm.text.learning import counting, reservoir
from jaxlm.text.learning.folder import new_folder
from jaxlm.text.tokenizer import load_tokenizer
from jaxlm.text.training import KINDS, Settings, train_tokenizer

SENTENCES = [
    "The cat sat on the mat, and the dog lay beside it.", "def read(path): return open(path).read()", "Ein Satz über Größen: 3,14 m².",
    "Съешь же ещё этих мягких булок.", "東京は日本の首都です。", "naïve café — “quoted” … it's, we'll, they're", "a\n\n    b\tc  ",
    "😀 smiles 12345",
]  # fmt: skip


def corpus(number=300, seed=0):
    draw = random.Random(seed)
    words = " ".join(SENTENCES).split(" ")
    return [" ".join(draw.choices(words, k=draw.randint(1, 30))) for _ in range(number)] + SENTENCES


TEXTS = corpus()


@pytest.fixture(scope="module")
def trained():
    return {kind: train_tokenizer(kind, iter(TEXTS), 500) for kind in KINDS}


def library_bpe(texts, size):
    from tokenizers import models, pre_tokenizers, trainers

    from jaxlm.text.tokenizers import bpe

    engine = bpe.byte_level(models.BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    engine.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=size, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False)
    )
    return engine.to_str()


@pytest.mark.parametrize("direct", [training.DIRECT, 1000])
def test_bpe_below_the_bound_is_the_librarys_own(direct, monkeypatch):
    monkeypatch.setattr(training, "DIRECT", direct)
    monkeypatch.setattr(counting, "PORTION", 2000)
    assert train_tokenizer("bpe", iter(TEXTS), 500).engine.to_str() == library_bpe(TEXTS, 500)


def test_wordpiece_below_the_bound_is_the_librarys_own(trained):
    """With the same trainer, given the texts whole; the library numbers "##x" at random, so each has its place in both."""
    from tokenizers import trainers

    about = json.loads(trained["wordpiece"].engine.to_str())["model"]["vocab"]
    later = sorted(piece for piece in about if piece.startswith("##") and len(piece) == 3)
    letters = sorted(piece for piece in about if len(piece) == 1)
    engine = training._bert({name: i for i, name in enumerate(training.CONTROL)}, Settings())
    trainer = trainers.WordPieceTrainer(
        vocab_size=500, special_tokens=[*training.CONTROL, *later], initial_alphabet=letters, limit_alphabet=len(letters),
        show_progress=False,
    )  # fmt: skip
    engine.train_from_iterator(TEXTS, trainer)
    assert engine.get_vocab() == about
    assert list(about)[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def test_words_are_the_most_frequent_ones(trained):
    counts = collections.Counter(word for text in TEXTS for word in text.split())
    wanted = sorted(counts, key=lambda word: (-counts[word], word))
    assert [trained["word"].piece(i) for i in range(5, trained["word"].vocab_size)] == wanted[:495]


@pytest.mark.parametrize("kind", KINDS)
def test_autotokenizer_gives_the_same_ids(kind, trained, tmp_path):
    transformers = pytest.importorskip("transformers")
    training.save_for_transformers(trained[kind], tmp_path)
    theirs, again = transformers.AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)
    for text in TEXTS[-50:]:
        assert theirs(text)["input_ids"] == trained[kind].encode(text) == again.encode(text)
    for role in ("eos", "pad", "unk"):
        if getattr(trained[kind], f"{role}_id", None) is not None:
            assert getattr(theirs, f"{role}_token_id") == getattr(trained[kind], f"{role}_id")


@pytest.mark.filterwarnings("default")
def test_the_same_texts_give_the_same_bytes_in_another_process(trained, tmp_path):
    code = (
        "import json, sys; from jaxlm.text.training import *\n"
        "texts = json.load(open(sys.argv[1]))\n"
        "print(*[train_tokenizer(kind, texts, 500).digest for kind in KINDS])"
    )
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "texts.json")], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [trained[kind].digest for kind in KINDS]


def test_decoding_gives_the_text_back_up_to_the_normalizer(trained):
    for text in SENTENCES[:4]:
        assert trained["bpe"].decode(trained["bpe"].encode(text)) == trained["char"].decode(trained["char"].encode(text)) == text
        squeezed = " ".join(text.replace("²", "2").split())
        assert trained["unigram"].decode(trained["unigram"].encode(text)) == squeezed
        assert trained["wordpiece"].unk_id not in trained["wordpiece"].encode(text)


def test_t5s_and_berts_control_tokens(trained):
    assert [trained["unigram"].piece(i) for i in range(3)] == ["<pad>", "</s>", "<unk>"]
    assert trained["unigram"].encode("the cat")[-1] == 1 == trained["unigram"].eos_id
    found = trained["wordpiece"].encode("the", "cat")
    assert (found[0], found[-1], found.count(3)) == (2, 3, 2) and found.token_types[-1] == 1


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram", "word"])
def test_lower(kind):
    tokenizer = train_tokenizer(kind, [text.upper() for text in TEXTS], 500, Settings(lower=True))
    assert tokenizer.encode("THE CAT") == tokenizer.encode("the cat")
    assert tokenizer.unk_id is None or tokenizer.unk_id not in tokenizer.encode("the cat")


def test_control_tokens_in_training_texts_are_text():
    texts = ["say </s> and <pad> or <unk>"] * 50 + TEXTS
    tokenizer = train_tokenizer("unigram", texts, 500)
    assert not {0, 1, 2} & set(tokenizer.encode("say </s> and <pad>")[:-1])
    assert tokenizer.engine.token_to_id("</s>") == 1


def test_rare_words_are_dropped_and_memory_is_bounded():
    from tokenizers import Tokenizer, models, pre_tokenizers

    engine = Tokenizer(models.WordLevel())
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    texts = [f"often often sometimes noise{i} more{i}" for i in range(500)]
    told = []
    assert len(counting.count_words(texts[:10], engine, 100, told.append)) == 22 and not told
    assert counting.count_words(texts, engine, 100, told.append) == {"often": 1000, "sometimes": 500}
    assert told == ["1,002 distinct words: those seen at most 1 times so far are dropped, 2 stay"]


def test_counting_in_portions_loses_nothing_and_long_words_count_too(monkeypatch):
    from tokenizers import Tokenizer, models, pre_tokenizers

    monkeypatch.setattr(counting, "PORTION", 50)
    engine = Tokenizer(models.WordLevel())
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert counting.count_words(TEXTS, engine, 10_000) == collections.Counter(word for text in TEXTS for word in text.split())
    told = []
    counts = counting.count_words([chr(97 + i) * 1000 for i in range(26)] + ["x y"] * 100, engine, 100, told.append)
    assert told and sum(map(len, counts)) <= 3200


def test_counts_are_lowered_in_proportion_above_the_bound():
    lines = list(counting.repeated({"a": 900, "b": 100, "c": 1}, most=100))
    assert collections.Counter(" ".join(lines).split()) == {"a": 89, "b": 9, "c": 1}


def test_the_sample_is_uniform_seeded_and_of_its_size():
    draws = collections.Counter(item for seed in range(2000) for item in reservoir.sample(range(20), 5, seed))
    assert all(400 < draws[item] < 600 for item in range(20)), draws  # 500 each, standard deviation 19
    assert reservoir.sample(range(1000), 10, 3) == reservoir.sample(range(1000), 10, 3) != reservoir.sample(range(1000), 10, 4)
    assert reservoir.sample(range(4), 5, 0) == [0, 1, 2, 3]


def test_pieces_hold_all_words():
    text = "one two\nthree  four " + "x" * 50 + " end"
    found = list(reservoir.pieces(text, 12))
    assert max(map(len, found)) <= 12 and "".join("".join(found).split()) == "".join(text.split())


@pytest.mark.parametrize(
    "kind, texts, size, error, says",
    [
        ("wordpeace", TEXTS, 500, ConfigError, "did you mean wordpiece"),
        ("bpe", TEXTS, 256, ConfigError, "at least 257"),
        ("wordpiece", ["abc ab"], 9, ConfigError, "at least 10"),  # 5, a, b, c, ##b, ##c
        ("word", TEXTS, 5, ConfigError, "at least 6"),
        ("unigram", TEXTS, 5, ConfigError, "at least"),
        *((kind, [], 500, DataError, "no text") for kind in KINDS),
        *((kind, ["", ""], 500, DataError, "no text") for kind in KINDS),
        *((kind, [" \n "], 500, DataError, "no text") for kind in ("wordpiece", "word", "unigram")),
    ],
)
def test_refusals_say_what_to_mend(kind, texts, size, error, says):
    with pytest.raises(error, match=says) as caught:
        train_tokenizer(kind, texts, size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_the_least_size_that_is_named_is_enough(kind):
    with pytest.raises(ConfigError) as caught:
        train_tokenizer(kind, TEXTS, 6)
    least = int(str(caught.value).split()[-1])
    assert train_tokenizer(kind, TEXTS, least).vocab_size <= least
    with pytest.raises(ConfigError):
        train_tokenizer(kind, TEXTS, least - 1)


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "a" / "b" / "out") as folder:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt
    assert not any(tmp_path.iterdir())
    (tmp_path / "out").mkdir()
    with new_folder(tmp_path / "out") as folder:
        (folder / "whole").write_text("x")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "whole"]
    with pytest.raises(ConfigError, match="not an empty folder"), new_folder(tmp_path / "out"):
        pass


def test_statistics_count_by_group_and_by_script():
    tokenizer = train_tokenizer("word", ["one two мир"], 100)
    groups, scripts = statistics.measure(tokenizer, [("en", "one two three"), ("ru", "мир"), ("en", "one 7")])
    assert (groups["en"].texts, groups["en"].words, groups["en"].known, groups["en"].tokens, groups["en"].unknown) == (2, 5, 3, 5, 2)
    assert groups["ru"].bytes_per_token == 6 and groups["ru"].coverage == 1 and groups["ru"].unknown_rate == 0
    assert {name: row.words for name, row in scripts.items()} == {"latin": 4, "cyrillic": 1, "signs": 1}
    characters = train_tokenizer("char", ["one two"], 0)
    assert statistics.measure(characters, [("a", "one x")])[0]["a"].unknown == 1
    assert len(list(statistics.table("file", groups))) == 3


def test_bpe_learns_nothing_from_what_is_too_long_to_be_a_word():
    """Its time is quadratic in the longest word; words around it are learnt from as ever."""
    assert train_tokenizer("bpe", ["a" * 20_000], 300).vocab_size == 257
    texts = ["the cat sat on the mat " * 20, "the dog " * 30]
    alone, beside = (train_tokenizer("bpe", [*texts, *more], 280) for more in ([], ["\n\n" + "x" * 3000]))
    assert alone.digest == beside.digest


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram", "word"])
@pytest.mark.parametrize("size", [-5, 10**9, 10**20])
def test_sizes_that_nobody_means_are_refused(kind, size):
    with pytest.raises(ConfigError, match="out of range"):
        train_tokenizer(kind, ["a text"], size)
