"""Constrained decoding: whatever the tokenizer and the seed the text matches, and of what may follow the likeliest is taken."""

import functools
import io
import itertools
import json
import random
import re
import string
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sentencepiece

from jaxlm import sharding
from jaxlm.config import Mesh
from jaxlm.errors import ConfigError
from jaxlm.inference import constrain, loop
from jaxlm.inference.generate import generate, generate_tokens, stream_tokens
from jaxlm.inference.spelling import silent_tokens, spellings
from jaxlm.inference.texts import generate_text, stream_text, until
from jaxlm.models import bart, gpt2, make_model, mistral
from jaxlm.ops.penalties import keep
from jaxlm.text.tokenizer import load_tokenizer
from jaxlm.text.tokenizers.bytes import Bytes
from jaxlm.text.tokenizers.characters import train as train_characters
from jaxlm.text.training import train_tokenizer

pytest.importorskip("llguidance")
LEARN = ['The cat sat on the mat; naïve café 東京 123 {"a": [1, 2]} don\'t.'] * 20
VOCABULARY = 512  # of one model for all tokenizers


def piece_model(**options):
    made = io.BytesIO()
    sentences = iter([*LEARN, *"abcdefghijklmnopqrstuvwxyz0123456789"] * 5)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=sentences, model_writer=made, vocab_size=400, hard_vocab_limit=False, minloglevel=2, **options
    )
    return made.getvalue()


def of_pieces(folder, kind, **options):
    """A SentencePiece tokenizer of a family."""
    folder.mkdir()
    (folder / "spiece.model").write_bytes(piece_model(**options))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind, "extra_ids": 5}))
    return load_tokenizer(folder)


def of_marian(folder):
    folder.mkdir()
    data = piece_model()
    library = sentencepiece.SentencePieceProcessor(model_proto=data)
    pieces = [library.id_to_piece(i) for i in range(3, len(library))]
    names = ["</s>", "<unk>", *pieces, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({name: i for i, name in enumerate(names)}))
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(data)
    return load_tokenizer(folder)


@functools.cache
def trained(kind):
    return train_characters([string.printable]) if kind == "char" else train_tokenizer(kind, LEARN, 320)


LLAMA = {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False}
T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
KINDS = {
    **{kind: lambda folder, kind=kind: trained(kind) for kind in ("bpe", "wordpiece", "unigram", "word", "char")},
    "byt5": lambda folder: Bytes(),
    "t5": lambda folder: of_pieces(folder, "T5Tokenizer", **T5),
    "llama": lambda folder: of_pieces(folder, "LlamaTokenizer", **LLAMA),
    "marian": of_marian,
}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokenizers")
    return functools.cache(lambda kind: KINDS[kind](root / kind))


@functools.cache
def made():
    config = gpt2.Config(VOCABULARY, n_positions=80, n_embd=16, n_layer=1, n_head=2, initializer_range=0.3)
    model = make_model(config)
    return model, jax.jit(model.init)(jax.random.key(3), jnp.zeros((1, 4), jnp.int32))["params"]


# --- the bytes of tokens


@pytest.mark.parametrize("kind", KINDS)
def test_spellings_side_by_side_are_what_decode_gives(kind, tokenizers):
    tokenizer, draw = tokenizers(kind), random.Random(0)
    later, first = spellings(tokenizer)
    silent = silent_tokens(tokenizer)
    joined = lambda ids: (first[ids[0]] + b"".join(later[i] for i in ids[1:])).decode()
    words = [c for c in "the cat naïve café 東京 12 a {".split(" ") if kind != "char" or c.isascii()]
    for _ in range(30):
        ids = tokenizer.encode(" ".join(draw.choices(words, k=6)), add_special_tokens=False)
        assert not set(ids) & set(silent) or kind in ("word", "marian", "t5")  # an unknown word
        ids = [i for i in ids if i not in silent]
        assert joined(ids) == tokenizer.decode(ids)
    whole = [i for i in range(tokenizer.vocab_size) if first[i] and "\N{REPLACEMENT CHARACTER}" not in later[i].decode(errors="replace")]
    for _ in range(30):
        ids = draw.choices(whole, k=8)
        assert joined(ids) == tokenizer.decode(ids)
    assert not any(later[i] or first[i] for i in silent)


def test_parts_of_characters_have_their_bytes(tokenizers):
    for kind in ("bpe", "byt5", "llama"):
        later, _ = spellings(tokenizers(kind))
        assert {bytes([byte]) for byte in range(256)} <= set(later) | ({b"\x00"} if kind == "llama" else set()), kind


def test_a_tokenizer_whose_tokens_change_each_other_is_refused():
    class Odd(Bytes):
        def decode(self, ids):
            return super().decode(ids)[:5]

    with pytest.raises(ConfigError, match="not their tokens side by side"):
        spellings(Odd())


# --- texts match


SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 999}, "b": {"enum": ["cat", "the mat"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
NESTED = 'start: "a" inner\ninner: "(" inner ")" | /[0-9]{1,2}/'


def fits_schema(text):
    value = json.loads(text)
    return list(value) == ["a", "b"] and 0 <= value["a"] <= 999 and value["b"] in ("cat", "the mat") and text == json.dumps(value)


def is_nested(text):
    depth = text.count("(")
    pairs = f"{{{depth}}}"
    return re.fullmatch(rf"a\({pairs}[0-9]{{1,2}}\){pairs}", text) or depth > 20  # cut by max_new_tokens


PATTERN = r"(the|a|\d) (cat|mat)( (sat|on)){0,2}"
CONSTRAINTS = [
    ({"regex": PATTERN}, re.compile(PATTERN).fullmatch),
    ({"regex": r"[a-z]{2,4}"}, re.compile(r"[a-z]{2,4}").fullmatch),
    ({"json_schema": SCHEMA}, fits_schema),
    ({"json_schema": json.dumps(SCHEMA)}, fits_schema),
    ({"grammar": NESTED}, is_nested),
]
SOME = {"word": 1, "wordpiece": 2, "unigram": 2}  # with these a word cannot follow a quotation mark without a space


@pytest.mark.parametrize("kind", KINDS)
def test_texts_match_whatever_is_drawn(kind, tokenizers):
    tokenizer = tokenizers(kind)
    for named, fits in CONSTRAINTS[: SOME.get(kind)]:
        for seed in range(2):
            draw = {"do_sample": True, "num_return_sequences": 8, "max_new_tokens": 48, "seed": seed}
            texts = generate_text(*made(), tokenizer, ["the cat", "a"], **draw, **named)
            assert len(texts) == 16 and len(set(texts)) > 1
            assert all(map(fits, texts)), [text for text in texts if not fits(text)]


def test_the_stream_says_the_same():
    for kind in ("bpe", "char"):
        (text,) = generate_text(*made(), trained(kind), ["the cat"], max_new_tokens=30, regex=PATTERN)
        assert re.fullmatch(PATTERN, text)
        assert "".join(stream_text(*made(), trained(kind), "the cat", max_new_tokens=30, regex=PATTERN)) == text


# --- of what may follow the likeliest


def by_hand(ids, language, tokenizer):
    """Greedy decoding among the characters that some text of the language goes on with, a whole forward pass for each."""
    (model, params), said = made(), ""
    while options := {text[len(said)] for text in language if text.startswith(said) and text != said}:
        row = ids + list(tokenizer.encode(said))
        logits = whole_pass(model, params, jnp.array([row + [0] * (32 - len(row))]))[0, len(row) - 1]
        said += max(options, key=lambda letter: float(logits[tokenizer.encode(letter)[0]]))
    return said


@functools.partial(jax.jit, static_argnums=0)
def whole_pass(model, params, tokens):
    return model.apply({"params": params}, tokens).logits


def test_greedy_takes_the_likeliest_token_that_is_allowed():
    tokenizer, prompts = trained("char"), ["the cat ", "on", "x"]
    language = ["".join(parts) + "." for parts in itertools.product(("ab", "ba", "c", "cd"), repeat=3)]
    wanted = [by_hand(list(tokenizer.encode(prompt)), language, tokenizer) for prompt in prompts]
    assert generate_text(*made(), tokenizer, prompts, max_new_tokens=20, regex=r"(ab|ba|c|cd){3}\.") == wanted
    assert len({*wanted}) > 1 and {len(text) for text in wanted} != {7}


def test_a_grammar_of_all_texts_changes_nothing_not_even_where_the_window_is_shorter():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24}
    letters = trained("char")
    model = make_model(mistral.Config(letters.vocab_size, **sizes, max_position_embeddings=200, sliding_window=8, initializer_range=0.3))
    params = jax.jit(model.init)(jax.random.key(3), jnp.zeros((1, 4), jnp.int32))["params"]
    run = lambda **named: generate_text(model, params, letters, ["the cat sat on a", "on"], max_new_tokens=30, **named)
    assert run(regex=r"(.|\n)*") == run()


def test_rows_without_an_end_token_end_where_nothing_follows():
    tokens = np.array([[5, 6], [7, 8], [9, 3]])
    named = {"tokenizer": trained("char"), "regex": "a|cc|def", "max_new_tokens": 9, "pad_token_id": 77, "do_sample": True}
    out = generate(*made(), tokens, **named, logprobs=0)
    texts = [trained("char").decode(row[:length]) for row, length in zip(out.tokens, out.lengths, strict=True)]
    assert set(texts) <= {"a", "cc", "def"} and out.lengths.tolist() == [len(text) for text in texts]
    assert all((row[length:] == 77).all() for row, length in zip(out.tokens, out.lengths, strict=True))
    assert (out.logprobs != 0).sum(1).tolist() == out.lengths.tolist() and len({*out.lengths.tolist()}) > 1
    assert np.stack([*stream_tokens(*made(), tokens, **named)], axis=1).tolist() == out.tokens.tolist()
    assert generate_text(*made(), trained("char"), ["a"], regex="") == [""]
    assert list(stream_text(*made(), trained("char"), "a", regex="")) == []


def test_several_ends_end_only_what_is_complete():
    ends, letters = [500, 501], trained("char")
    rows = generate_tokens(*made(), np.array([[5, 6]] * 2), tokenizer=letters, regex="[ab]{3,5}", eos_token_id=ends, max_new_tokens=9)
    for row in rows:
        assert re.fullmatch("[ab]{3,5}", letters.decode(until(row, ends))) and set(row[-1:]) <= {*ends}


def test_a_control_token_is_meant_by_its_name_alone():
    tokenizer = trained("bpe")
    (row,) = generate_tokens(*made(), np.array([[5]]), tokenizer=tokenizer, grammar='start: "a" <|endoftext|> "b"', eos_token_id=500)
    assert row.tolist() == [*tokenizer.encode("a"), tokenizer.eos_id, *tokenizer.encode("b"), 500]
    (row,) = generate_tokens(*made(), np.array([[5]]), tokenizer=tokenizer, regex="<.endoftext.>", eos_token_id=500)
    assert tokenizer.eos_id not in row and tokenizer.decode(row[:-1])[2:-2] == "endoftext"


@functools.cache
def made_bart():
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes |= {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 64, "init_std": 0.3}
    model = make_model(bart.Config(VOCABULARY, **sizes, eos_token_id=2, decoder_start_token_id=2))
    row = jnp.zeros((1, 4), jnp.int32)
    return model, jax.jit(model.init)(jax.random.key(3), row, row)["params"]


def test_an_encoder_decoder_with_its_forced_tokens(tokenizers):
    tokenizer = tokenizers("llama")  # whose </s> is 2, and <s> 1
    named = {"forced_bos_token_id": 1, "forced_eos_token_id": 2}
    texts = generate_text(*made_bart(), tokenizer, ["the cat sat", "a"], regex=PATTERN, max_new_tokens=40, **named)
    assert all(re.fullmatch(PATTERN, text) for text in texts)
    row, _ = generate_tokens(*made_bart(), np.array([[5, 6]] * 2), tokenizer=tokenizer, regex="a{9}b", max_new_tokens=4, **named)
    assert row[0] == 1 and row[-1] == 2 and re.fullmatch("a+", tokenizer.decode(row)) and len(row) == 4


def test_a_mesh_says_the_same():
    tokenizer = trained("bpe")
    run = lambda: generate_text(*made(), tokenizer, ["the cat", "a", "on"], regex=PATTERN, max_new_tokens=30)
    wanted = run()
    with sharding.use(sharding.make_mesh(Mesh(data=4, fsdp=2))):
        assert run() == wanted


def test_another_grammar_compiles_nothing():
    programs = (constrain._choose, constrain._go_on, loop._read, loop.seen)
    run = lambda **named: generate_text(*made(), trained("bpe"), ["the cat", "a", "on"], max_new_tokens=30, **named)
    run(regex="a{3,5}")
    compiled = [program._cache_size() for program in programs]
    run(regex="[b-z]{2}")
    run(json_schema=SCHEMA)
    run(grammar=NESTED)
    assert compiled == [program._cache_size() for program in programs] and constrain.alphabet.cache_info().hits


# --- what is refused

REFUSED = [
    ({"regex": "(a"}, "regex cannot be read: unclosed group"),
    ({"regex": "a(?=b)"}, "look-around"),
    ({"json_schema": {"type": "foo"}}, "json_schema cannot be read: .*Invalid type: foo"),
    ({"json_schema": {"not": {}}}, "Unimplemented keys"),
    ({"json_schema": "{"}, "json_schema is no JSON"),
    ({"json_schema": {"enum": {1}}}, "json_schema is no JSON"),
    ({"json_schema": [1]}, "this key takes str"),
    ({"grammar": "start: ((("}, "grammar cannot be read: .*Expected token"),
    ({"grammar": 'start: "a" <nobody>'}, "unknown special token: .*nobody"),
    ({"regex": "é+"}, "after 0 tokens none of the tokenizer's can follow"),
    ({"regex": "a", "grammar": "start: /b/\n"}, "grammar=start: /b/: one at a time: there is regex too"),
    ({"regex": "a", "num_beams": 2}, "leave out beams"),
    ({"regex": "a", "penalty_alpha": 0.6, "top_k": 4}, "leave out beams"),
    ({"regex": "a", "prompt_lookup_num_tokens": 2}, "leave out beams"),
    ({"regex": "a", "assistant": None}, "leave out the assistant"),
    ({"regex": "a", "tokenizer": None}, "regex is about texts: give tokenizer= too"),
    ({"regex": "(ab)+", "no_repeat_ngram_size": 2}, "other settings ban all that may follow 3 tokens"),
]


@pytest.mark.parametrize(("named", "said"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_is_refused_in_one_line(named, said):
    named = {"tokenizer": trained("char"), **named} | ({"assistant": made()} if "assistant" in named else {})
    with pytest.raises(ConfigError, match=said) as error:
        generate_tokens(*made(), np.array([[5]]), max_new_tokens=8, **named)
    assert "\n" not in str(error.value)


def test_without_the_library_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ConfigError, match=r'llguidance is not installed: pip install "jaxlm\[constrain\]"'):
        generate_text(*made(), trained("char"), ["a"], regex="b")


def test_the_command_takes_patterns_as_they_are():
    from jaxlm.generate import parse, settings_of

    options = parse(["DIR", "regex=[1]", 'json_schema={"type": "null"}'])
    assert {name: settings_of(options)[name] for name in ("regex", "json_schema")} == {"regex": "[1]", "json_schema": {"type": "null"}}


def test_bits_are_tokens():
    allowed = np.random.default_rng(0).random((3, 64)) < 0.3
    words = np.packbits(allowed, axis=1, bitorder="little").view(np.int32)
    logits = np.random.default_rng(1).normal(size=(3, 50)).astype(np.float32)
    np.testing.assert_array_equal(keep(jnp.array(logits), words), np.where(allowed[:, :50], logits, -np.inf))
    np.testing.assert_array_equal(keep(jnp.array(logits), words * 0), logits)
