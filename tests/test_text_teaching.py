"""The plain Python tokenizers of the notebook are short, and give the ids of the fast ones."""

import json
import random
import unicodedata
from pathlib import Path

import pytest

from jaxlm.text.training import Settings, train_tokenizer

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "02_tokenizers.ipynb"
RANGES = {
    "latin": (0x41, 0x24F), "greek": (0x391, 0x3C9), "cyrillic": (0x410, 0x44F), "hebrew": (0x5D0, 0x5EA), "arabic": (0x627, 0x64A),
    "devanagari": (0x905, 0x94D), "thai": (0xE01, 0xE3A), "kana": (0x3041, 0x30FE), "chinese": (0x4E00, 0x9FFF), "korean": (0xAC00, 0xD7A3),
}  # fmt: skip
GLUE = [
    " ", "  ", "\n", "\n\n    ", "\t", ", ", ". ", "'s ", "'ll", " '", "—", "$", "^", "…", "²", "12", "3.14",
    "\u00a0", "\u200b", "\x00", "\x1c", "\ufffd", "́", "😀",
]  # fmt: skip


def sources():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def lesson():
    """What the notebook defines before it meets jaxlm."""
    names = {}
    for source in sources():
        if "jaxlm" not in source and "%" not in source:
            exec(source, names)
    return names


def texts(number=250):
    draw = random.Random(0)
    known = lambda low, high: [chr(i) for i in range(low, high + 1) if unicodedata.category(chr(i)) != "Cn"]
    scripts = [known(*ends) for ends in RANGES.values()]
    word = lambda: "".join(draw.choices(draw.choice(scripts)[:60], k=draw.randint(1, 8)))
    made = ["".join(word() + draw.choice(GLUE) for _ in range(draw.randint(1, 25))) for _ in range(number)]
    return [*made, "", " ", "  ", "a", "'s", "x" * 120 + " y", "We'll see:  3 cats,\n    and dogs.  \n"]


TEXTS = texts()


def test_bpe_learns_the_same_merges_and_gives_the_same_ids(lesson):
    fast = train_tokenizer("bpe", TEXTS[:40], 320)
    vocabulary, merges = lesson["train_bpe"](TEXTS[:40], 320)
    assert vocabulary == fast.engine.get_vocab()
    assert [tuple(pair) for pair in json.loads(fast.engine.to_str())["model"]["merges"]] == merges
    for text in TEXTS:
        ids = lesson["encode_bpe"](text, vocabulary, merges)
        assert ids == fast.encode(text), repr(text)
        assert lesson["decode_bpe"](ids, vocabulary) == text


@pytest.mark.parametrize("lower", [True, False])
def test_wordpiece_gives_the_same_ids(lesson, lower):
    fast = train_tokenizer("wordpiece", TEXTS[:150], 3000, Settings(lower=lower))
    vocabulary, unknown = fast.engine.get_vocab(), 0
    for text in TEXTS:
        ids = lesson["encode_wordpiece"](text, vocabulary, lower)
        assert ids == fast.encode(text, add_special_tokens=False), repr(text)
        unknown += fast.unk_id in ids
    assert 0 < unknown < len(TEXTS)


def test_each_is_short():
    bpe, wordpiece = (
        sum(source.count("\n") + 1 for source in sources() if any(name in source for name in names) and "jaxlm" not in source)
        for names in (("def spell", "def words_of", "def train_bpe", "def encode_bpe"), ("def clean",))
    )
    assert 50 < bpe <= 150 and 30 < wordpiece <= 150
