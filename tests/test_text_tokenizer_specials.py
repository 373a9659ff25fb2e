"""The protocol of every kind: control tokens are text unless allowed, offsets are the given text's, long runs are quick."""

import json
import pickle
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.errors import DataError
from jaxlm.text import unicode
from jaxlm.text.tokenizer import load_tokenizer
from jaxlm.text.tokenizers import fast
from jaxlm.text.tokenizers.bytes import Bytes
from jaxlm.text.tokenizers.encoding import Encoding
from jaxlm.text.training import train_tokenizer

LEARN = ["the cat sat on the mat; the dog sat on the cat [ ] < > / |", "naïve café, 東京 x y z A B C"] * 4


def wordlevel(models, pre_tokenizers):
    from tokenizers import Tokenizer

    engine = Tokenizer(models.WordLevel({"[UNK]": 0, "[MASK]": 1, "</s>": 2, "the": 3, "cat": 4}, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    engine.add_special_tokens(["[UNK]", "[MASK]", "</s>"])
    return fast.finish(engine, "</s>", None)


def unigram(models, pre_tokenizers):
    from tokenizers import AddedToken, Tokenizer, decoders

    rows = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("the", -3.0), ("</", -4.0), *((c, -5.0) for c in "thecasdo<>/[]|")]
    engine = Tokenizer(models.Unigram([row for i, row in enumerate(rows) if row[0] not in {r[0] for r in rows[:i]}], 2, False))
    engine.pre_tokenizer, engine.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    engine.add_special_tokens(["<pad>", "</s>", "<unk>"])
    engine.add_tokens([AddedToken("dog", special=False, normalized=False)])
    return fast.finish(engine, "</s>", "<pad>")


def wordpiece(models, pre_tokenizers):
    from tokenizers import Tokenizer, processors

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "[", "]", "mask", "MASK"]
    engine = Tokenizer(models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    engine.add_special_tokens(names[:5])
    return fast.finish(engine, "[SEP]", "[PAD]")


def bpe_with_merged_controls(models, pre_tokenizers):
    """As Llama's conversions are: merges that spell </s>."""
    from tokenizers import Tokenizer

    vocabulary = {name: i for i, name in enumerate(["<unk>", "<s>", "</s>", "<", "/", "s", ">", "</", "s>", "a", "▁"])}
    merges = [("<", "/"), ("s", ">"), ("</", "s>"), ("<", "s>")]
    engine = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    engine.add_special_tokens(["<unk>", "<s>", "</s>"])
    return fast.finish(engine, "</s>", None)


@pytest.fixture(scope="module")
def tokenizers():
    from tokenizers import models, pre_tokenizers

    made = {make.__name__: make(models, pre_tokenizers) for make in (wordlevel, unigram, wordpiece, bpe_with_merged_controls)}
    return made | {"bpe": train_tokenizer("bpe", LEARN, 300), "char": train_tokenizer("char", LEARN, 0), "bytes": Bytes()}


KINDS = ["wordlevel", "unigram", "wordpiece", "bpe_with_merged_controls", "bpe", "char", "bytes"]


@pytest.mark.parametrize("kind", KINDS)
def test_control_tokens_in_text_are_text_unless_allowed(kind, tokenizers):
    ours = tokenizers[kind]
    plain = lambda text: ours.encode(text, add_special_tokens=False)
    for name, i in ours.controls.items():
        for text in (name, f" {name} ", f"the{name}{name}"):
            assert i == ours.unk_id or i not in plain(text), text
            assert ours.encode(text, add_special_tokens=False, allow_special=True).count(i) == text.count(name) or i == ours.unk_id
            assert ours.encode_batch([text], allow_special=True) == [ours.encode(text, allow_special=True)]
        assert ours.piece(i) == name
    texts = ["the cat", "", "the </s> [MASK]", ("the", "cat"), "A"] if kind != "char" else ["the cat", "", ("the", "cat")]
    single = [ours.encode(*text) if isinstance(text, tuple) else ours.encode(text) for text in texts]
    assert ours.encode_batch(texts) == single and all(type(row) is list for row in ours.encode_batch(texts))


@pytest.mark.parametrize("kind", KINDS)
def test_everything_else_has_the_same_ids_either_way(kind, tokenizers):
    for text in ("the cat", "cat the  dog", "s a / <", "catsdog"):
        found = [tokenizers[kind].encode(text, allow_special=flag) for flag in (False, True)] if kind != "char" else [0, 0]
        assert found[0] == found[1]


def test_added_words_that_are_no_control_tokens_are_found(tokenizers):
    ours = tokenizers["unigram"]
    assert "dog" not in ours.controls and ours.encode("the dog").count(ours.engine.token_to_id("dog")) == 1


def test_flags_are_safe_among_threads(tokenizers):
    ours, wrong = tokenizers["unigram"], []

    def work(allowed):
        for _ in range(300):
            if (1 in ours.encode("the </s>", allow_special=allowed)) != allowed:
                wrong.append(allowed)

    threads = [threading.Thread(target=work, args=(n % 2 == 0,)) for n in range(4)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    assert wrong == []


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "bytes", "unigram"])
def test_offsets_count_the_characters_that_were_given(kind, tokenizers):
    text = "the \ud83d\ude00 \ud800cat"  # two halves that become one character, and a lone one
    found = tokenizers[kind].encode(text, text[::-1])
    spans = [span for span in found.offsets if span != (0, 0)]
    assert ("cat" in [text[a:b] for a, b in spans]) or max(b for _, b in spans) == len(text)
    assert {(4, 6)} <= set(spans) and unicode.repaired(text) == 1
    assert len(found) == len(found.offsets) == len(found.token_types)


def test_an_encoding_is_a_list():
    asked = []
    found = Encoding([3, 4], lambda: asked.append(1) or ([0, 0], [(0, 1), (1, 2)]))
    assert found == [3, 4] and found + [5] == [3, 4, 5] and json.dumps(found) == "[3, 4]" and not asked
    assert found.offsets == [(0, 1), (1, 2)] and found.token_types == [0, 0] and len(asked) == 1
    again = pickle.loads(pickle.dumps(found))
    assert again == found and again.offsets == found.offsets


def test_byt5_is_transformers_own(tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs, ours = transformers.ByT5Tokenizer(), Bytes()
    for text in ("Hello", "naïve 東京 \U0001f600", "a\0b", "", "x</s>y<extra_id_0>z"):
        assert ours.encode(text, allow_special=True) == theirs(text)["input_ids"]
    assert ours.encode("ab", "c") == theirs("ab", "c")["input_ids"] and ours.vocab_size == len(theirs)
    assert all(ours.controls[f"<extra_id_{n}>"] == theirs.convert_tokens_to_ids(f"<extra_id_{n}>") for n in (0, 124))
    ours.save(tmp_path)
    assert load_tokenizer(tmp_path) == ours and transformers.AutoTokenizer.from_pretrained(tmp_path)("é")["input_ids"] == ours.encode("é")
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "config.json").write_text('{"model_type": "t5", "vocab_size": 384}')
    assert load_tokenizer(tmp_path).digest == ours.digest
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer", "extra_ids": 1e9}')
    with pytest.raises(DataError, match="extra_ids is 1000000000.0"):
        load_tokenizer(tmp_path)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_bytes_and_characters_come_back(text):
    assert Bytes().decode(Bytes().encode(text)) == text
    if text:
        characters = train_tokenizer("char", [text], 0)
        assert characters.decode(characters.encode(text)) == text
        assert [text[a:b] for a, b in characters.encode(text).offsets] == list(text)


@settings(max_examples=100, deadline=None)
@given(text=st.text(alphabet="the cat[]MASK"))
def test_wordpiece_comes_back_as_its_words(text, tokenizers):
    ours = tokenizers["wordpiece"]
    ids = ours.encode(text)
    assert ours.encode(" ".join(ours.piece(i) for i in ids[1:-1]).replace(" ##", "").replace("[UNK]", "?")) == ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", ["a", " ", "\u0301"])
def test_a_megabyte_of_one_letter_is_linear(kind, unit, tokenizers):
    if kind == "char":
        if unit not in "a ":
            pytest.skip("not among its characters")
    seconds = []
    for size in (20_000, 160_000):
        text, start = (unit * size)[:size], time.perf_counter()
        tokenizers[kind].encode(text)
        seconds.append(time.perf_counter() - start)
    assert seconds[1] < max(40 * seconds[0], 2)  # eightfold, and quadratic would be 64-fold


@pytest.mark.parametrize("wrong", [b"bytes", None, 3, ["a"]])
def test_what_is_no_text_is_refused(wrong, tokenizers):
    for kind in ("bpe", "char", "bytes"):
        with pytest.raises(DataError, match="takes str"):
            tokenizers[kind].encode(wrong)


def test_families_of_vocab_and_merges(tmp_path):
    transformers = pytest.importorskip("transformers")
    train_tokenizer("bpe", LEARN, 300).engine.model.save(str(tmp_path))
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    for name in ("<s>", "<pad>", "</s>", "<unk>", "<mask>"):
        vocabulary[name] = len(vocabulary)
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    ours = load_tokenizer(tmp_path)  # known by its pieces
    theirs = transformers.RobertaTokenizer.from_pretrained(tmp_path)
    assert ours.encode("the cat", "x") == theirs("the cat", "x")["input_ids"] and ours.cls_id == vocabulary["<s>"]
    assert ours.encode("a <mask>", allow_special=True)[-2] == ours.mask_id
    ours.save(tmp_path / "saved")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")("the cat")["input_ids"] == ours.encode("the cat")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    gpt2 = load_tokenizer(tmp_path)
    assert gpt2.encode("the") == gpt2.encode("the", add_special_tokens=False)
    (tmp_path / "config.json").write_text('{"model_type": "opt"}')
    assert load_tokenizer(tmp_path).encode("the")[0] == vocabulary["<s>"]
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BartTokenizer", "add_prefix_space": true}')
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<new>": len(vocabulary)}))
    bart = load_tokenizer(tmp_path)
    assert bart.encode("the") == load_tokenizer(tmp_path).encode(" the") and bart.encode("<new>")[1] == len(vocabulary)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')
    with pytest.raises(DataError, match="'clip' is not read"):
        load_tokenizer(tmp_path)
