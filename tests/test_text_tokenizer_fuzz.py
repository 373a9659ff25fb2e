"""Crafted tokenizer files: whatever is in them gives a tokenizer that works, or exactly one DataError of one line; nothing else."""

import copy
import io
import json
import random

import pytest
import sentencepiece

from jaxlm.errors import DataError
from jaxlm.text.tokenizer import load_tokenizer
from jaxlm.text.tokenizers.sentencepiece_model import fields
from jaxlm.text.training import train_tokenizer

LEARN = ["the cat sat on the mat; the dog sat", "naïve café 東京"] * 20
NONSENSE = [None, True, -1, 0, 2**31, 2**32 - 1, 2**40, 1e308, "", "x", "\0", "##", "a b", [], [[]], {}, {"type": "BPE"}, ["a", "b"]]
NONSENSE += ["a" * 5000]


def use(folder):
    """Load, encode, decode: True where it all works, False for a DataError."""
    try:
        tokenizer = load_tokenizer(folder)
        for text in ("the cat </s> naïve 1", "", "東\0 \ud800"):
            ids = tokenizer.encode(text, "b")
            assert len(ids) == len(ids.offsets) == len(ids.token_types) and all(0 <= i < tokenizer.vocab_size for i in ids)
            tokenizer.decode(ids), tokenizer.encode_batch([text]), tokenizer.encode(text, allow_special=True)
    except DataError as error:
        assert "\n" not in str(error) and str(folder) in str(error) or "the tokenizer cannot read" in str(error), str(error)
        return False
    return True


def places(value, path=()):
    """The path of every value in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(items)[:6]:
        yield from places(part, (*path, key))


def changed(value, draw):
    """The JSON value with one to three of its parts replaced, dropped or doubled."""
    value = json.loads(json.dumps(value))
    for _ in range(draw.randint(1, 3)):
        *path, last = draw.choice([path for path in places(value) if path])
        parent = value
        for key in path:
            parent = parent[key]
        if draw.random() < 0.2:
            del parent[last]
        elif draw.random() < 0.2:
            parent[last] = [copy.deepcopy(parent[last]) for _ in range(3)]
        else:
            parent[last] = copy.deepcopy(draw.choice(NONSENSE))
    return value


def engines():
    """A small tokenizer.json of each kind, as parsed JSON."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    bpe = json.loads(train_tokenizer("bpe", LEARN, 300).engine.to_str())
    uni = Tokenizer(models.Unigram([("<unk>", 0.0), ("</s>", 0.0), ("▁", -1.0), ("a", -2.0), ("the", -3.0)], 0, False))
    uni.pre_tokenizer, uni.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    uni.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("``", '"'), normalizers.Lowercase()])
    uni.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", 1)])
    uni.add_special_tokens(["</s>", "<unk>"])
    piece = Tokenizer(models.WordPiece({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "the": 3, "##a": 4}, unk_token="[UNK]"))
    piece.normalizer, piece.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    piece.post_processor, piece.decoder = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1)), decoders.WordPiece()
    piece.add_special_tokens(["[CLS]", "[SEP]", "[UNK]"])
    word = Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1}, unk_token="[UNK]"))
    word.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Split("a", "isolated")])
    word.enable_padding(length=5)
    return {"bpe": bpe, **{name: json.loads(made.to_str()) for name, made in {"uni": uni, "piece": piece, "word": word}.items()}}


ENGINES = engines()
COUNTS = [80, pytest.param(1000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", ENGINES)
def test_tokenizer_json(kind, count, tmp_path, capfd):
    draw, worked, path = random.Random(7), 0, tmp_path / "tokenizer.json"
    path.write_text(json.dumps(ENGINES[kind]))
    assert use(tmp_path)
    for _ in range(count):
        path.write_text(json.dumps(changed(ENGINES[kind], draw)))
        worked += use(tmp_path)
    text = json.dumps(ENGINES[kind]).encode()
    for _ in range(count):
        cut = bytearray(text)
        for _ in range(draw.randint(1, 4)):
            cut[draw.randrange(len(cut))] = draw.randrange(256)
        path.write_bytes(bytes(cut[: draw.randrange(len(cut))] if draw.random() < 0.3 else cut))
        worked += use(tmp_path)
    assert 0 < worked < 2 * count


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 99}] * 9}},
        {"padding": {"strategy": {"Fixed": 2**40}, "direction": "Right", "pad_id": 0, "pad_type_id": 0, "pad_token": "a"}},
        {"post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2**31], "cls": ["[CLS]", 1]}},
        {"added_tokens": [{"id": 2**32 - 1, "content": "x" * 9, "single_word": False, "lstrip": False, "rstrip": 0, "normalized": False}]},
        {"model": {"type": "WordPiece", "vocab": {"[UNK]": 2**31}, "unk_token": "[UNK]", "max_input_chars_per_word": 100}},
        {"model": {"type": "WordPiece", "vocab": {"[UNK]": -1}, "unk_token": "[UNK]", "max_input_chars_per_word": 100}},
        {"model": {"type": "WordPiece", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]", "max_input_chars_per_word": 2**40}},
        {"model": {"type": "WordLevel", "vocab": {}, "unk_token": "[UNK]"}},
        {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]}},
        {"model": {"type": "Unigram", "vocab": [], "unk_id": 5}},
    ],
)
def test_what_would_fill_the_memory_or_panic_is_refused_or_harmless(change, tmp_path, capfd):
    (tmp_path / "tokenizer.json").write_text(json.dumps(ENGINES["piece"] | change))
    assert use(tmp_path) == ("padding" in change)


def test_depth_and_settings(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text('{"a":' * 100_000)
    assert not use(tmp_path)
    path.write_text(json.dumps(ENGINES["piece"]))
    for settings in (
        "[]",
        "{",
        "[" * 100_000,
        '{"eos_token": {"content": 3}}',
        '{"chat_template": 3}',
        '{"a": 1, "a": 2}',
        '{"eos_token": ["a"]}',
    ):
        (tmp_path / "tokenizer_config.json").write_text(settings)
        use(tmp_path)


def spiece(**options):
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LEARN), model_writer=made, vocab_size=120, hard_vocab_limit=False, minloglevel=2, **options
    )
    return made.getvalue()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_sentencepiece_files(kind, count, tmp_path, capfd):
    data, draw, worked = spiece(model_type=kind), random.Random(3), 0
    path = tmp_path / "tokenizer.model"
    path.write_bytes(data)
    assert use(tmp_path)
    rules = next((start, stop) for number, _, start, stop in fields(data) if number == 3)  # the normalizer's table
    for number in range(2 * count):
        bad = bytearray(data)
        for _ in range(draw.randint(1, 5)):
            anywhere = draw.choice([draw.randrange(rules[0]), draw.randrange(len(bad))])
            bad[draw.randrange(*rules) if number % 2 else anywhere] = draw.randrange(256)
        path.write_bytes(bytes(bad[: draw.randrange(len(bad))] if draw.random() < 0.1 else bad))
        worked += use(tmp_path)
    assert 0 < worked < 2 * count


@pytest.mark.parametrize("data", [b"", b"\0", b"\xff" * 40, b"\n\xff\xff\xff\xff\x0f", b"\n\x02\n\0"])
def test_sentencepiece_shreds(data, tmp_path, capfd):
    (tmp_path / "spiece.model").write_bytes(data)
    assert not use(tmp_path)


def test_vocabularies(tmp_path):
    for name, content in {"vocab.json": '{"a": -1}', "merges.txt": "a b"}.items():
        (tmp_path / name).write_text(content)
    for vocabulary in ('{"a": -1}', '{"a": 4000000000, "b": 1, "ab": 2}', "[]", '{"a": "b"}', "{" * 9999, '{"a": 0}'):
        (tmp_path / "vocab.json").write_text(vocabulary)
        assert not use(tmp_path)
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1, "ab": 2}')
    assert use(tmp_path)
    for added in ('{"x": 7}', '{"x": -1}', '{"x": "y"}', '{"x": null}', "[]"):
        (tmp_path / "added_tokens.json").write_text(added)
        assert not use(tmp_path)
