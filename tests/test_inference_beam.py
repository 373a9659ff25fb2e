"""Beam search: the texts, their order and their scores are those of transformers; a draw has the distribution that it should."""

import contextlib
import functools
import itertools
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm import sharding
from jaxlm.config import Mesh
from jaxlm.errors import ConfigError
from jaxlm.inference import beam, loop
from jaxlm.inference.generate import generate
from jaxlm.models import gpt2, init_params, make_model, t5
from tests.parity import Case, torch_model
from tests.parity_decoders import CAPS, GEMMA, GPT2, LLAMA
from tests.parity_seq2seq import BART, ENDS, SINUSOIDS, T5

SHARP = {"init_std": 0.6}
CASES = {
    "gpt2": Case("gpt2", "causal-lm", {**GPT2, "n_layer": 1}),
    "llama": Case("llama", "causal-lm", LLAMA),
    "mistral": Case("mistral", "causal-lm", {**LLAMA, "sliding_window": 4}),
    "gemma2": Case("gemma2", "causal-lm", {**GEMMA, **CAPS}),
    "t5": Case("t5", "seq2seq-lm", {**T5, "num_layers": 1, "decoder_start_token_id": 0}),
    "bart": Case("bart", "seq2seq-lm", {**BART, **ENDS, **SHARP, "forced_eos_token_id": 2}),
    "marian": Case("marian", "seq2seq-lm", {**SINUSOIDS, **SHARP}),
    "pegasus": Case("pegasus", "seq2seq-lm", {**SINUSOIDS, **SHARP, "decoder_layers": 1}),
}
NEW = 9


@functools.cache
def pair(name):
    """A random model of transformers, and what we load of it."""
    torch_one = torch_model(CASES[name])
    with tempfile.TemporaryDirectory() as folder:
        torch_one.save_pretrained(folder)
        return torch_one, jaxlm.load(folder)


def prompts(rows=3, right=False):
    """Rows of unlike lengths; on the right, as encoders with positions of their own want it, or on the left."""
    tokens = np.random.default_rng(7).integers(3, 61, (rows, 7)).astype(np.int32)
    mask = np.ones((rows, 7), bool)
    mask[1:2, :4], mask[2:, :1] = False, False
    mask = mask[:, ::-1].copy() if right else mask
    return np.where(mask, tokens, 0), mask


def theirs(name, tokens, mask, **named):
    """New tokens [R, N] of transformers' generate, and the scores."""
    import torch

    model = pair(name)[0]
    shown = {"return_dict_in_generate": True, "output_scores": True}
    named = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0, **named}
    with torch.no_grad():
        out = model.generate(torch.tensor(tokens).long(), attention_mask=torch.tensor(mask).long(), **shown, **named)
    first = 1 if model.config.is_encoder_decoder else tokens.shape[1]
    return out.sequences[:, first:].numpy(), out.sequences_scores.numpy()


def check(name, rows=3, **named):
    """The same tokens up to each end, the same lengths, the same scores; returns them."""
    tokens, mask = prompts(rows, right=CASES[name].task == "seq2seq-lm")
    want, scores = theirs(name, tokens, mask, **named)
    ours = generate(*pair(name)[1], tokens, mask=mask, pad_token_id=0, **{"max_new_tokens": NEW, **named})
    ends = np.atleast_1d(named.get("eos_token_id", ()))
    assert ours.tokens.shape == want.shape
    for row, length, their_row in zip(ours.tokens, ours.lengths, want, strict=True):
        whole = np.flatnonzero(np.isin(their_row, ends))
        assert length == (whole[0] + 1 if len(whole) else len(their_row))
        assert row[:length].tolist() == their_row[:length].tolist() and not row[length:].any()
    np.testing.assert_allclose(ours.scores, scores, rtol=2e-5, atol=2e-5)
    return ours


FAMILIES = {
    "gpt2": {"num_beams": 3, "eos_token_id": [5, 39]},
    "llama": {"num_beams": 4, "eos_token_id": list(range(3, 12)), "num_return_sequences": 2},
    "mistral": {"num_beams": 3, "eos_token_id": list(range(3, 9)), "length_penalty": 0.0},
    "gemma2": {"num_beams": 2, "eos_token_id": list(range(3, 20)), "early_stopping": True},
    "t5": {"num_beams": 4, "eos_token_id": list(range(1, 13)), "num_return_sequences": 4},
    "bart": {"num_beams": 4, "eos_token_id": 2, "early_stopping": True},
    "marian": {"num_beams": 3, "eos_token_id": [1, 7, 11, 30], "length_penalty": 2.0},
    "pegasus": {"num_beams": 4, "eos_token_id": [1, 8, 40], "early_stopping": "never", "num_return_sequences": 3},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_finds_the_texts_of_transformers(name):
    check(name, **FAMILIES[name])


ENDING = {"eos_token_id": [6, 13, 36]}  # likely ones, so that texts of many lengths compete
SEARCHES = list(zip((2, 3, 4) * 4, np.repeat([0.0, 1.0, 2.0, -1.0], 3).tolist(), (False, True, "never") * 4, strict=True))


@pytest.mark.parametrize(("beams", "penalty", "early"), SEARCHES)
def test_length_penalties_and_ways_to_stop(beams, penalty, early):
    found = check("gpt2", num_beams=beams, length_penalty=penalty, early_stopping=early, num_return_sequences=beams, **ENDING)
    assert penalty == 2 or len(set(found.lengths.tolist())) > 1


RULES = [
    {"no_repeat_ngram_size": 2, "min_length": 10},
    {"repetition_penalty": 1.7, "bad_words_ids": [[14, 14], [39]], "min_new_tokens": 4},
    {"forced_eos_token_id": 8, "suppress_tokens": [14], "begin_suppress_tokens": [47], "sequence_bias": [[[8, 39], -3.0]]},
]


@pytest.mark.parametrize("rules", RULES, ids=lambda rules: next(iter(rules)))
def test_rules_hold_for_log_probabilities(rules):
    check("gpt2", num_beams=3, num_return_sequences=2, **ENDING, **rules)


def test_a_forced_beginning_and_the_encoders_text():
    rules = {"forced_bos_token_id": 9, "encoder_no_repeat_ngram_size": 2, "encoder_repetition_penalty": 1.4}
    found = check("t5", num_beams=3, eos_token_id=[1, 20], **rules)
    assert (found.tokens[:, 0] == 9).all()


@pytest.mark.parametrize("rows", [1, 3])
def test_one_new_token_and_an_end_at_once(rows):
    assert check("gpt2", rows, num_beams=3, num_return_sequences=3, max_new_tokens=1, **ENDING).tokens.shape == (3 * rows, 1)
    first = generate(
        *pair("gpt2")[1], prompts(rows)[0], mask=prompts(rows)[1], num_beams=2, num_return_sequences=2, max_new_tokens=1
    ).tokens
    ends = sorted({int(token) for token in first[:, 0]})
    assert (check("gpt2", rows, num_beams=2, eos_token_id=ends, num_return_sequences=2, early_stopping=True).lengths == 1).all()


def test_greedy_is_one_beam():
    tokens, mask = prompts()
    one = generate(*pair("gpt2")[1], tokens, mask=mask, num_beams=1, max_new_tokens=4)
    assert one.scores is None and one.tokens.shape == (3, 4)
    none = generate(*pair("gpt2")[1], tokens, mask=mask, num_beams=2, max_new_tokens=0, num_return_sequences=2)
    assert none.tokens.shape == (6, 0) and none.scores.shape == (6,)


def test_what_beams_cannot_do_is_refused():
    for named in ({"logprobs": 0}, {"stop_strings": ("a",), "tokenizer": object()}):
        with pytest.raises(ConfigError, match="token by token: leave it out with num_beams"):
            generate(*pair("gpt2")[1], np.array([[3]]), num_beams=2, max_new_tokens=2, **named)


def test_a_second_length_of_the_bucket_compiles_nothing():
    tokens, mask = prompts(1)
    named = {"num_beams": 3, **ENDING}
    generate(*pair("gpt2")[1], tokens, max_new_tokens=5, **named)
    programs = lambda: [program._cache_size() for program in (loop._read, loop.advance, loop.seen, beam._first)]
    before = programs()
    generate(*pair("gpt2")[1], tokens[:, :4], max_new_tokens=7, num_return_sequences=2, **named)
    assert programs() == before and min(before) > 0


def test_the_cache_grows_under_the_beams():
    config = {**GPT2, "n_layer": 1, "n_positions": 300}
    CASES["long"] = Case("gpt2", "causal-lm", config)
    check("long", num_beams=2, max_new_tokens=120, no_repeat_ngram_size=2)


WORDS = gpt2.Config(vocab_size=6, n_positions=8, n_embd=8, n_layer=1, n_head=2, initializer_range=0.7)
T, K, END = 0.8, 5, 2


@functools.cache
def little():
    model = make_model(WORDS)
    return model, jax.jit(lambda: init_params(model, jax.random.key(1)))()


def chances(prompt):
    """log p / T of every token after a text, those after the K likeliest at -inf."""
    model, params = little()
    log_p = np.asarray(jax.nn.log_softmax(model.apply({"params": params}, jnp.array([prompt])).logits[0, -1]), np.float64) / T
    return np.where(log_p < np.sort(log_p)[-K], -np.inf, log_p)


def draws(sums, count):
    """Every ordered draw of `count` without replacement, with its probability under the softmax of the sums."""
    weights = {way: np.exp(value) for way, value in sums.items() if value > -np.inf}
    for drawn in itertools.permutations(weights, count):
        left, probability = sum(weights.values()), 1.0
        for way in drawn:
            probability, left = probability * weights[way] / left, left - weights[way]
        yield drawn, probability


def enumerated(prompt):
    """Chance of every best text of two tokens, by two beams: transformers' steps, for all that can be drawn."""
    first = {(token,): value for token, value in enumerate(chances(prompt))}
    found = {}
    for drawn, probability in draws(first, 4):
        ended = {way: first[way] for way in drawn[:2] if way[-1] == END}  # / 1 ** 1
        running = sorted((way for way in drawn if way[-1] != END), key=first.get)[-2:]
        second = {(*way, token): first[way] + value for way in running for token, value in enumerate(chances([*prompt, *way]))}
        for pair_drawn, more in draws(second, 2):  # the last step: only the first two count, and all end
            scores = ended | {way: second[way] / 2 for way in pair_drawn}
            best = max(scores, key=scores.get)
            found[best] = found.get(best, 0.0) + probability * more
    return found


def test_beam_sampling_has_its_distribution():
    want, rows, prompt = enumerated([3, 1]), 2048, [3, 1]
    assert abs(sum(want.values()) - 1) < 1e-9 and len(want) > 10
    named = {"num_beams": 2, "do_sample": True, "temperature": T, "top_k": K, "eos_token_id": END, "early_stopping": "never"}
    seen = {way: 0 for way in want}
    for seed in range(2):
        out = generate(*little(), np.array([prompt] * rows), max_new_tokens=2, seed=seed, **named)
        for row, length in zip(out.tokens.tolist(), out.lengths, strict=True):
            seen[tuple(row[:length])] += 1
    counted = [(seen[way], 2 * rows * p) for way, p in want.items() if 2 * rows * p >= 5]
    rest = (2 * rows - sum(n for n, _ in counted), 2 * rows - sum(n for _, n in counted))
    square = sum((n - expected) ** 2 / expected for n, expected in [*counted, rest] if expected > 1)
    freedom = len(counted)
    assert square < freedom + 4 * np.sqrt(2 * freedom)


def test_drawn_beams_keep_one_token_more_than_there_are_ends():
    likeliest = np.argsort(chances([3, 1]))[::-1]
    named = {"num_beams": 2, "do_sample": True, "top_k": 1, "num_return_sequences": 2, "max_new_tokens": 1}
    assert generate(*little(), np.array([[3, 1]]), eos_token_id=END, **named).tokens[:, 0].tolist() == likeliest[:2].tolist()


def test_a_seed_of_its_own_makes_a_prompt_independent():
    named = {"num_beams": 2, "do_sample": True, "max_new_tokens": 5, "num_return_sequences": 2}
    both = generate(*little(), np.array([[3, 1], [4, 2]]), seed=(5, 5, 6, 6), **named)
    alone = generate(*little(), np.array([[4, 2]]), seed=(6, 6), **named)
    assert both.tokens[2:].tolist() == alone.tokens.tolist()


MESHED = {
    "gpt2": (gpt2.Config(vocab_size=64, n_positions=24, n_embd=32, n_layer=1, n_head=4, initializer_range=0.3), "causal-lm"),
    "t5": (t5.Config(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, initializer_factor=3.0), "seq2seq-lm"),
}


def under(mesh, config, task, **named):
    model = make_model(config, task=task)
    with sharding.use(mesh) if mesh else contextlib.nullcontext():
        params = jax.jit(lambda: init_params(model, jax.random.key(3), rows=2))()
        tokens, mask = prompts()
        return generate(model, params, tokens, mask=mask, max_new_tokens=6, num_beams=3, eos_token_id=[8, 14, 47], **named)


@pytest.mark.parametrize("name", MESHED)
def test_a_mesh_changes_nothing(name):
    alone = under(None, *MESHED[name])
    meshed = under(sharding.make_mesh(Mesh(data=2, tensor=2), jax.devices()[:4]), *MESHED[name])
    assert meshed.tokens.tolist() == alone.tokens.tolist()
    np.testing.assert_allclose(meshed.scores, alone.scores, rtol=1e-5)
