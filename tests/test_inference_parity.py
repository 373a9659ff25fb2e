"""Whole generations beside transformers' `generate` on random small models: the same tokens, the same log-probabilities.

Transformers counts the padding of its batch in lengths and n-grams, here it counts for nothing: where it would matter its rows
go one by one.
"""

import dataclasses
import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.inference import loop
from jaxlm.inference.generate import generate, generate_tokens, settings_for
from jaxlm.inference.prompts import read_prompts
from jaxlm.inference.rules import adjust
from jaxlm.models import has_decoder
from jaxlm.ops.sampling import filter_logits
from tests.foreign import write
from tests.parity import Case, torch_model
from tests.parity_decoders import CAPS, GEMMA, GPT2, LLAMA
from tests.parity_seq2seq import BART, ENDS, SINUSOIDS, T5
from tests.test_weights_real import real

CASES = [
    Case("gpt2", "causal-lm", GPT2),
    Case("llama", "causal-lm", LLAMA),
    Case("mistral", "causal-lm", {**LLAMA, "sliding_window": 4}),
    Case("gemma2", "causal-lm", {**GEMMA, **CAPS}),
    Case("t5", "seq2seq-lm", {**T5, "decoder_start_token_id": 0}),
    Case("bart", "seq2seq-lm", {**BART, **ENDS, "forced_eos_token_id": 2}),
    Case("marian", "seq2seq-lm", {**SINUSOIDS, "scale_embedding": True, "activation_function": "swish"}),
    Case("pegasus", "seq2seq-lm", {**SINUSOIDS, "scale_embedding": True, "activation_function": "relu"}),
]
NEW, PAD = 12, 0
LENGTHS = (6, 1, 4)
TOKENS = np.random.default_rng(4).integers(3, 61, (3, 6)).astype(np.int32)
MASK = np.arange(6) >= 6 - np.array(LENGTHS)[:, None]


@functools.cache
def both(case_type: str):
    """Transformers' model, ours, and our parameters."""
    case = next(case for case in CASES if case.model_type == case_type)
    torch_side = lively(torch_model(case))
    with tempfile.TemporaryDirectory() as folder:
        torch_side.save_pretrained(Path(folder))
        return torch_side, *jaxlm.load(folder)


def lively(torch_side):
    """With layers that outdo the embeddings, so that a text does not repeat its first token."""
    import torch

    with torch.no_grad():
        for name, parameter in torch_side.named_parameters():
            parameter *= 3 if parameter.ndim == 2 and any(part.isdigit() for part in name.split(".")) else 1
    return torch_side


def theirs(torch_side, tokens, mask, **named):
    """Transformers' new tokens [rows, up to max_new_tokens], and its raw logits of each; an encoder's padding stands on the right."""
    import torch

    if torch_side.config.is_encoder_decoder:  # its learned positions would count padding on the left
        tokens, mask = to_the_left(tokens, mask)
    given = {"input_ids": torch.tensor(tokens.astype(np.int64)), "attention_mask": torch.tensor(mask.astype(np.int64))}
    named = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": PAD, **named}
    out = torch_side.generate(**given, **named, return_dict_in_generate=True, output_logits=True)
    skip = 1 if torch_side.config.is_encoder_decoder else tokens.shape[1]
    return out.sequences[:, skip:].numpy(), torch.stack(out.logits, 1)


def to_the_left(tokens, mask):
    """The same rows with their padding on the right."""
    order = np.argsort(~mask, axis=1, stable=True)
    return np.take_along_axis(tokens, order, 1), np.take_along_axis(mask, order, 1)


def alone(torch_side, **named):
    """The same, row by row without padding."""
    rows = [theirs(torch_side, tokens[real][None], real[real][None], **named)[0][0] for tokens, real in zip(TOKENS, MASK, strict=True)]
    width = max(map(len, rows))
    return np.array([[*row, *[PAD] * (width - len(row))] for row in rows])


def no_echo(case_type: str) -> dict:
    """A decoder with tied tables over an encoder says its last token again and again; no padding stands before what it says."""
    return {"no_repeat_ngram_size": 2} if case_type in ("t5", "bart", "marian", "pegasus") else {}


@functools.cache
def ends_of(case_type: str) -> tuple[int, ...]:
    """Two tokens that end the first and the last row early."""
    free = theirs(both(case_type)[0], TOKENS, MASK, eos_token_id=60, **no_echo(case_type))[0]
    fresh = lambda row, least: next((token for place, token in enumerate(row) if place >= least and token not in row[:place]), row[-1])
    return fresh(free[0].tolist(), 3), fresh(free[2].tolist(), 6)


@pytest.mark.parametrize("name", [case.model_type for case in CASES])
def test_greedy_tokens_and_their_logprobs_are_those_of_transformers(name):
    torch_side, model, params = both(name)
    named = {"eos_token_id": list(ends_of(name)), "pad_token_id": PAD, "max_new_tokens": NEW, **no_echo(name)}
    want, logits = theirs(torch_side, TOKENS, MASK, **named)
    got = generate(model, params, TOKENS, mask=MASK, logprobs=3, **named)
    assert got.tokens.tolist() == want.tolist() and len(np.unique(want)) > 4
    check_details(got, logits.log_softmax(-1))


def check_details(got, chances):
    there = np.arange(got.tokens.shape[1]) < got.lengths[:, None]
    chosen = np.take_along_axis(chances.numpy(), got.tokens[..., None].astype(np.int64), -1)[..., 0]
    np.testing.assert_allclose(got.logprobs, np.where(there, chosen, 0), atol=1e-4)
    np.testing.assert_allclose(got.entropies, np.where(there, -(chances.exp() * chances).sum(-1), 0), atol=1e-4)
    best = chances.topk(3)
    np.testing.assert_allclose(got.top_logprobs, np.where(there[..., None], best.values, 0), atol=1e-4)
    assert (got.top_ids == np.where(there[..., None], best.indices, 0)).all()


DECODER_PAIRS = [
    {"repetition_penalty": 1.6, "no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3, "bad_words_ids": "some"},
    {"min_length": 9, "suppress_tokens": "some"},
    {"min_new_tokens": 8, "forced_eos_token_id": 5},
    {"sequence_bias": "some", "begin_suppress_tokens": "first"},
]
ENCODER_PAIRS = [
    {"encoder_repetition_penalty": 3.0, "encoder_no_repeat_ngram_size": 2},
    {"repetition_penalty": 1.3, "encoder_no_repeat_ngram_size": 2},
    {"forced_bos_token_id": 7, "forced_eos_token_id": [5, 9]},
    {"min_length": 9, "no_repeat_ngram_size": 2},
]
PAIRS = [("gpt2", pair) for pair in DECODER_PAIRS] + [("mistral", DECODER_PAIRS[0])] + [("t5", pair) for pair in ENCODER_PAIRS]


def filled(pair: dict, free: list[list[int]]) -> dict:
    """The arguments, with what the free text would say where they say "some"."""
    made = {"bad_words_ids": [[free[0][1], free[0][2]], [free[2][0]]], "suppress_tokens": [free[0][0], free[1][2]]}
    made |= {"sequence_bias": {(free[0][0], free[0][1]): -9.0, (free[1][0],): -2.0, (free[2][1],): 3.0}}
    made |= {"begin_suppress_tokens": [row[0] for row in free]}
    return {name: made[name] if value in ("some", "first") else value for name, value in pair.items()}


@pytest.mark.parametrize(("name", "pair"), PAIRS, ids=lambda part: part if isinstance(part, str) else " ".join(part))
def test_pairs_of_rules_give_the_tokens_of_transformers(name, pair):
    torch_side, model, params = both(name)
    ends = list(ends_of(name))
    free = theirs(torch_side, TOKENS, MASK, eos_token_id=ends)[0].tolist()
    named = filled(pair, free) | {"eos_token_id": ends}
    want = alone(torch_side, **named)
    assert want.tolist() != free
    assert generate_tokens(model, params, TOKENS, mask=MASK, max_new_tokens=NEW, pad_token_id=PAD, **named).tolist() == want.tolist()


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_the_distribution_of_every_draw_is_that_of_transformers(name):
    """Drawn token by token: the filtered distribution after a text is what transformers' list makes of torch's logits after it."""
    import torch
    from transformers import GenerationConfig

    torch_side, model, params = both(name)
    named = {"do_sample": True, "temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.9, "repetition_penalty": 1.2}
    settings = settings_for(model, {**named, "eos_token_id": 60, "max_new_tokens": NEW, "seed": 3})
    prompts, count, most = read_prompts(model, TOKENS, MASK, settings)
    state, logits = loop.begin(model, params, settings, prompts, most, 1, count)
    forward, choose = jax.jit(functools.partial(loop.forward, model)), jax.jit(functools.partial(loop.choose, settings=settings))
    for step in range(5):
        ours = jax.nn.softmax(filter_logits(adjust(logits, state, settings), settings.sampling))
        for row in range(3):
            text = torch.tensor(np.asarray(state["tokens"])[row][np.asarray(state["real"])[row]].astype(np.int64))[None]
            source = torch.tensor(TOKENS[row][MASK[row]].astype(np.int64))[None]
            raw = torch_side(**({"input_ids": source, "decoder_input_ids": text} if has_decoder(model) else {"input_ids": text}))
            config = GenerationConfig(**named)
            config._eos_token_tensor = torch.tensor([60])
            made = torch_side._get_logits_processor(config, text.shape[1] - step, source, device="cpu", model_kwargs={})
            want = made(text, raw.logits[:, -1]).softmax(-1)[0].detach()
            np.testing.assert_allclose(ours[row], want, atol=1e-5)
        state = choose(logits, state)
        drawn = state["tokens"][:3, state["now"] - 1]
        assert (jnp.take_along_axis(ours[:3], drawn[:, None], 1) > 0).all()
        state, logits = forward(params, state)


def draw(rows, **named):
    model, params = both("gpt2")[1:]
    return generate_tokens(
        model, params, TOKENS[rows], mask=MASK[rows], max_new_tokens=NEW, do_sample=True, eos_token_id=60, **named
    ).tolist()


def test_a_rows_draws_depend_on_its_seed_alone():
    many = draw([0, 1, 2], seed=[5, 6, 7])
    assert draw([1], seed=[6]) == many[1:2] and draw([2, 0, 1], seed=[7, 5, 6]) == [many[2], many[0], many[1]]
    assert draw([0, 0, 0, 1, 1], seed=[5, 9, 5, 6, 6])[::2] == [many[0], many[0], many[1]]
    assert draw([0], seed=[6]) != many[:1]


def test_one_seed_gives_every_row_its_own_whatever_comes_after_it():
    many = draw([0] * 5, seed=8)
    assert draw([0] * 3, seed=8) == many[:3] and draw([0], seed=8) == many[:1] and len(set(map(tuple, many))) == 5
    assert draw([0], seed=8, num_return_sequences=5) == many


def test_smollm2_goes_on_as_it_is_known_to():
    path = real("SmolLM2-135M*.gguf")
    tokenizer = BegunBy(jaxlm.load_tokenizer(path), 1)
    (text,) = jaxlm.generate_text(*jaxlm.load(path), tokenizer, ["The capital of France is"], max_new_tokens=15)
    assert text == " Paris.\n\nThe capital of the United States is New York City."


@dataclasses.dataclass(frozen=True)
class BegunBy:
    """A tokenizer that puts a token before every text."""

    tokenizer: Any
    first: int

    def encode(self, text):
        return [self.first, *self.tokenizer.encode(text)]

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)


@dataclasses.dataclass(frozen=True)
class Letters:
    """The tokenizer of the grapheme-to-phoneme model: letters in, phonemes out."""

    graphemes: str
    phonemes: str
    controls = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    eos_id = 2

    def as_target(self):
        return self

    def encode(self, word):
        return [1, *(max(self.graphemes.find(letter), 3) for letter in word), 2]

    def decode(self, ids):
        return "".join(self.phonemes[i] for i in ids)


def test_a_real_bart_spells_words(tmp_path):
    """Reference: about 67 % of its training words exactly right."""
    file = real("oov_bart_en_us.npz")
    tensors = dict(np.load(file))
    meta = json.loads(str(tensors.pop("meta_json")))
    sizes = {key: meta[key] for key in ("d_model", "max_position_embeddings", "pad_token_id", "eos_token_id", "decoder_start_token_id")}
    for side in ("encoder", "decoder"):
        sizes |= {f"{side}_layers": 1, f"{side}_ffn_dim": meta["ffn_dim"], f"{side}_attention_heads": meta["num_heads"]}
    config = {"model_type": "bart", "architectures": ["BartForConditionalGeneration"], "vocab_size": 63, **sizes}
    model, params = jaxlm.load(write(tmp_path, config, tensors))
    tokenizer = Letters(meta["grapheme_chars"], meta["phoneme_chars"])
    assert tokenizer.encode("hello") == [1, 12, 52, 16, 16, 54, 2]
    gold = json.loads((file.parent / "us_gold.json").read_text())
    words = sorted(word for word in gold if word.isascii() and word.isalpha())[:: len(gold) // 400][:300]
    said = jaxlm.generate_text(model, params, tokenizer, words, max_new_tokens=40)
    assert 0.6 < np.mean([text == gold[word] for word, text in zip(words, said, strict=True)]) < 0.75
