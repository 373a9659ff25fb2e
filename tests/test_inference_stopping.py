"""Strings that end a text: the tokens kept are those of transformers, wherever the string lies across tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.errors import ConfigError
from jaxlm.inference import stopping
from jaxlm.inference.generate import generate, generate_tokens
from jaxlm.inference.prompts import Prompts
from jaxlm.inference.settings import make_settings
from jaxlm.inference.texts import generate_text
from jaxlm.models import gpt2, make_model

CORPUS = [
    "the cat sat on the mat",
    "a cat and a hat and the other one",
    "one, two, three: stop it there",
    "this is that. and so on\n\nthen",
]
PROMPTS = ["the cat", "one, two", "a"]
NEW, PAD = 24, 1


def tokenizers(folder, alphabet=()):
    """A small byte-level BPE, as transformers and as we open it; it has no bytes but those of the corpus and the alphabet."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer, engine.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    engine.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=60 + len(alphabet), special_tokens=["<|end|>", "<|pad|>"], initial_alphabet=alphabet)
    )
    PreTrainedTokenizerFast(tokenizer_object=engine, eos_token="<|end|>", pad_token="<|pad|>").save_pretrained(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder, clean_up_tokenization_spaces=False), jaxlm.load_tokenizer(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Both tokenizers, a model whose draws say something, and its texts when nothing stops them."""
    theirs, ours = tokenizers(tmp_path_factory.mktemp("tokenizer"))
    config = gpt2.Config(vocab_size=ours.vocab_size, n_positions=64, n_embd=16, n_layer=1, n_head=2, initializer_range=0.3)
    model = make_model(config)
    params = jax.jit(model.init)(jax.random.key(3), jnp.zeros((1, 4), jnp.int32))["params"]
    return theirs, ours, model, params


HOW = {"max_new_tokens": NEW, "do_sample": True, "temperature": 2.0, "seed": 4, "suppress_tokens": [0, 1], "pad_token_id": PAD}


def rows_of(tokenizer):
    rows = [tokenizer.encode(prompt) for prompt in PROMPTS]
    width = max(map(len, rows))
    return np.array([[0] * (width - len(row)) + row for row in rows]), np.arange(width) >= width - np.array(list(map(len, rows)))[:, None]


def kept_by_transformers(tokenizer, strings, tokens, mask, new):
    """What its criterion keeps of rows that were written without it."""
    import torch
    from transformers import StopStringCriteria

    criterion, kept = StopStringCriteria(tokenizer, list(strings)), []
    for row, real, text in zip(tokens, mask, new, strict=True):
        ids = row[real].tolist()
        over = (n for n in range(1, len(text) + 1) if bool(criterion(torch.tensor([[*ids, *text[:n].tolist()]]), None)[0]))
        kept.append(text[: next(over, len(text))].tolist())
    return kept


def test_the_tokens_kept_are_those_of_transformers(made):
    theirs, ours, model, params = made
    tokens, mask = rows_of(ours)
    free = generate_tokens(model, params, tokens, mask=mask, **HOW)
    texts, cuts = [ours.decode(row.tolist()) for row in free], set()
    for place in range(0, 18, 2):
        strings = (texts[0][place : place + 3], texts[1][place + 1 : place + 3], texts[2][place : place + 5])
        got = generate(model, params, tokens, mask=mask, tokenizer=ours, stop_strings=strings, **HOW)
        want = kept_by_transformers(theirs, strings, tokens, mask, free)
        assert [row[:length].tolist() for row, length in zip(got.tokens, got.lengths, strict=True)] == want
        assert got.tokens.shape[1] == max(map(len, want)) and all(
            (row[n:] == PAD).all() for row, n in zip(got.tokens, got.lengths, strict=True)
        )
        cuts |= {len(row) for row in want}
        said = generate_text(model, params, ours, PROMPTS, stop_strings=strings, eos_token_id=0, **HOW)
        assert said == [ours.decode(row) for row in want]
    assert len(cuts) > 4


def watching(tokenizer, prompt, *strings, **named):
    ids = np.array([tokenizer.encode(prompt)])
    return stopping.watch(make_settings({"stop_strings": strings, **named}), tokenizer, Prompts(ids, np.ones(ids.shape, bool)), 1)


@pytest.mark.parametrize(("prompt", "string"), [("the cat", "cat and"), ("one", "one"), ("the", "the"), ("a", "a"), ("so on\n", "\n\n")])
def test_a_string_may_begin_in_the_prompt_but_not_end_there(made, prompt, string):
    theirs, ours, *_ = made
    for continuation in ("\nthen", " and the one, a cat", "\n\n", "one the", "a the"):
        new = np.array([ours.encode(continuation)])
        ids = np.array([ours.encode(prompt)])
        want = kept_by_transformers(theirs, [string], ids, np.ones(ids.shape, bool), new)[0]
        assert watching(ours, prompt, string).lengths(new)[0] == len(want), (prompt, string, continuation)


@pytest.mark.parametrize("string", ["ü", "ü a", "é", "\N{SNOWMAN}", "o"])
def test_a_characters_bytes_may_be_several_tokens(tmp_path, string):
    from tokenizers import pre_tokenizers

    theirs, ours = tokenizers(tmp_path, sorted(pre_tokenizers.ByteLevel.alphabet()))
    new = np.array([ours.encode("the ü and é, \N{SNOWMAN} or")])
    want = kept_by_transformers(theirs, [string], np.array([[2]]), np.ones((1, 1), bool), new)[0]
    assert watching(ours, "a", string).lengths(new)[0] == len(want) and string in ours.decode(want)


def test_a_control_token_is_named_and_an_end_comes_first(made):
    _, ours, *_ = made
    row = np.array([[*ours.encode("the cat"), 0, *ours.encode("one")]])
    before = len(ours.encode("the cat"))
    assert watching(ours, "a", "<|end|>").lengths(row)[0] == before + 1
    assert watching(ours, "a", "one", eos_token_id=0).lengths(row)[0] == before + 1
    assert watching(ours, "a", "cat", eos_token_id=0).lengths(row)[0] <= before


def test_it_is_looked_for_every_few_tokens_and_after_a_block(made):
    ours = made[1]
    stops, row = watching(ours, "a", "cat"), np.array([ours.encode("the cat sat on the mat and the other one")])
    assert stops.all_met(row[:, : stopping.LOOK]) and not stops.all_met(row[:, : stopping.LOOK + 1])
    assert stops.all_met(row[:, : stopping.LOOK + 1], new=stopping.LOOK)
    assert not watching(ours, "a", "nowhere").all_met(row[:, : stopping.LOOK])


def test_strings_need_a_tokenizer(made):
    with pytest.raises(ConfigError, match="stop_strings are looked for in texts: give tokenizer="):
        generate_tokens(*made[2:], np.array([[1]]), stop_strings="x", max_new_tokens=2)
