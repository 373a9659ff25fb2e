"""Ids, offsets and token types equal to transformers' fast tokenizers: 2,000 texts in ten scripts (without the slow marker 400).

Small vocabularies are trained here; the real ones of BERT, GPT-2, RoBERTa and a T5-like are read where
JAXLM_REAL or ../shared/data has them.
"""

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from jaxlm.text.tokenizer import load_tokenizer

transformers = pytest.importorskip("transformers")

PLACES = [Path(place) for place in (os.environ.get("JAXLM_REAL"), Path(__file__).parents[2] / "shared" / "data") if place]
# Letters of a script, and words that everybody writes in it.
SCRIPTS = {
    "Latin": ("abcdefghijklmnopqrstuvwxyzäéîõüçñßøÅŁž", "the and naïve café Straße is of to Zürich don't I'm it's"),
    "Cyrillic": ("абвгдежзийклмнопрстуфхцчшщъыьэюяЁ", "и в не на Москва это был"),
    "Greek": ("αβγδεζηθικλμνξοπρσςτυφχψωάΩ", "και το ΟΔΟΣ της είναι"),
    "Arabic": ("ابتثجحخدذرزسشصضطظعغفقكلمنهويءَُّ", "في من على السلام"),
    "Hebrew": ("אבגדהוזחטיכלמנסעפצקרשתךםןףץָּ", "של את לא שלום"),
    "Devanagari": ("अआइईउऊएऐओऔकखगघचछजझटठडढतथदधनपफबभमयरलवशषसहािीुूेैोौ्ं", "है और के नमस्ते"),
    "Thai": ("กขคงจฉชซญดตถทธนบปผฝพฟภมยรลวศษสหอฮะาิีึืุูเแโใไ่้", "และ ที่ สวัสดี"),
    "Chinese": ("的一是不了在人有我他这中大来上个国和地到们", "中国 我们 你好"),
    "Japanese": ("あいうえおかきくけこさしすせそアイウエオカキクケコ日本東京がパ", "です ます こんにちは"),
    "Korean": ("가나다라마바사아자차카타파하한국어서울은는이", "안녕 하세요 그리고"),
}
MIXED = ["\U0001f600", "👩‍👩‍👧", "☃", "½", "ﬁ", "①", "１２"] + [
    "e\u0301",
    "\u200d",
    "\xa0",
    "\u3000",
    "\t",
    "\n",
    "\r\n",
    "  ",
    "…",
    "“x”",
    "a.b@c.de",
]
MARKS = [*".,;:!?'\"()-/%&*+=_~^$#@`\\{}", "...", "--", "1", "42", "1,234.5", "2026-11-22"]


def texts(count, seed=0):
    """Seeded texts of words, random words, numbers and marks, mostly of one script each; empty and blank ones among them."""
    draw, found = random.Random(seed), ["", " ", "\n"]
    while len(found) < count:
        letters, words = SCRIPTS[list(SCRIPTS)[len(found) % 10]]
        parts = []
        for _ in range(draw.randint(1, 14)):
            chance = draw.random()
            made = "".join(draw.choice(letters) for _ in range(draw.randint(1, 9)))
            parts.append(
                draw.choice(words.split()) if chance < 0.4 else made if chance < 0.75 else draw.choice(MARKS if chance < 0.93 else MIXED)
            )
            parts.append(draw.choice([" "] * 6 + ["", "  "]))
        text = "".join(parts)
        found.append(text.title() if draw.random() < 0.1 else text)
    return found


TEXTS = texts(2000)[::-1]  # the empty ones last


def small(kind, folder):
    """A vocabulary trained here, in the files that the kind's published folders hold; the peer's class."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    learn = texts(400, seed=1)
    if kind == "bert":
        engine = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        engine.normalizer, engine.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        engine.train_from_iterator(learn, trainers.WordPieceTrainer(vocab_size=900, special_tokens=names, show_progress=False))
        pieces = sorted(engine.get_vocab().items(), key=lambda row: row[1])
        (folder / "vocab.txt").write_text("\n".join(piece for piece, _ in pieces) + "\n", encoding="utf-8")
        return transformers.BertTokenizer
    if kind == "t5":
        engine = Tokenizer(models.Unigram())
        engine.normalizer = normalizers.NFKC()
        engine.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
        names = ["<pad>", "</s>", "<unk>"]
        engine.train_from_iterator(
            learn, trainers.UnigramTrainer(vocab_size=900, special_tokens=names, unk_token="<unk>", show_progress=False)
        )
        around = {"single": "$A </s>", "pair": "$A </s> $B </s>"}
        engine.post_processor = processors.TemplateProcessing(**around, special_tokens=[("</s>", 1)])
        return _saved(engine, folder)
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if kind == "roberta" else ["<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=names, initial_alphabet=alphabet, show_progress=False)
    engine.train_from_iterator(learn, trainer)
    engine.model.save(str(folder))
    return transformers.RobertaTokenizer if kind == "roberta" else transformers.GPT2Tokenizer


def _saved(engine, folder):
    engine.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}))
    return transformers.PreTrainedTokenizerFast


def real(kind, folder):
    """The real vocabulary of a kind, copied into the folder; skipped where it is not here."""
    wanted = {
        "bert": {"minilm/vocab.txt": "vocab.txt"},
        "gpt2": {"gpt2_tokenizer/vocab.json": "vocab.json", "gpt2_tokenizer/merges.txt": "merges.txt"},
        "roberta": {"roberta-vocab.json": "vocab.json", "roberta-merges.txt": "merges.txt"},
        "t5": {"t5_like_cc_all.32000.100extra.model": "spiece.model"},
    }[kind]
    for pattern, name in wanted.items():
        found = [path for place in PLACES if place.is_dir() for path in sorted(place.rglob(pattern))]
        if not found:
            pytest.skip(f"{pattern} is not here: fetch it (data README), and set JAXLM_REAL to its folder")
        shutil.copyfile(found[0], folder / name)
    if kind == "t5":
        return _unigram(folder)
    return {"bert": transformers.BertTokenizer, "gpt2": transformers.GPT2Tokenizer, "roberta": transformers.RobertaTokenizer}[kind]


def _unigram(folder):
    """The T5-like model as the tokenizer.json that transformers makes of one; its <unk> is 3, for its <s> is 2."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    from jaxlm.text.tokenizers import sentencepiece_model

    data = (folder / "spiece.model").read_bytes()
    pieces = sentencepiece_model.read_pieces(data, "spiece.model")
    settings = next(value for number, value, _, _ in sentencepiece_model.fields(data) if number == 3)
    table = next(value for number, value, _, _ in sentencepiece_model.fields(settings) if number == 2)
    engine = Tokenizer(models.Unigram([(piece.text, piece.score) for piece in pieces], 3, False))
    engine.normalizer = normalizers.Precompiled(table)
    engine.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    engine.decoder = decoders.Metaspace()
    engine.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    engine.add_special_tokens([AddedToken(name, normalized=False) for name in ("<pad>", "</s>", "<s>", "<unk>")])
    (folder / "spiece.model").unlink()
    return _saved(engine, folder)


ALL = [(small, 400), pytest.param(small, 2000, marks=pytest.mark.slow), pytest.param(real, 2000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("source, count", ALL)
@pytest.mark.parametrize("kind", ["bert", "gpt2", "roberta", "t5"])
def test_ids_offsets_and_types_are_transformers_own(kind, source, count, tmp_path):
    texts, some = TEXTS[-count:], count // 10
    peer = source(kind, tmp_path).from_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path)
    wanted = peer(texts, return_offsets_mapping=True)
    found = [ours.encode(text) for text in texts]
    assert found == wanted["input_ids"] == ours.encode_batch(texts)
    assert [row.offsets for row in found] == wanted["offset_mapping"]
    pairs = list(zip(texts[:some], texts[some : 2 * some], strict=True))
    wanted = peer(*map(list, zip(*pairs, strict=True)), return_offsets_mapping=True, return_token_type_ids=True)
    found = [ours.encode(*pair) for pair in pairs]
    assert found == wanted["input_ids"] == ours.encode_batch(pairs)
    assert [row.token_types for row in found] == wanted["token_type_ids"]
    assert [row.offsets for row in found] == wanted["offset_mapping"]
    bare = peer(texts[:some], add_special_tokens=False)["input_ids"]
    assert bare == ours.encode_batch(texts[:some], add_special_tokens=False)
    assert bare == [ours.encode(text, add_special_tokens=False) for text in texts[:some]]
    for row in wanted["input_ids"]:
        assert ours.decode(row) == peer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_the_texts_are_ten_scripts_without_control_strings():
    assert len(TEXTS) == 2000 and len(set(TEXTS)) > 1900 and len(SCRIPTS) == 10
    assert not [text for text in TEXTS if any(name in text for name in ("<", "[", "|"))]
