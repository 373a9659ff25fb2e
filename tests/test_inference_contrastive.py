"""Contrastive search is the paper's equation 5, stated here with whole forward passes and no cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.errors import ConfigError
from jaxlm.inference import loop
from jaxlm.inference.generate import generate, generate_tokens
from jaxlm.models import bart, gpt2, has_decoder, make_model, t5

GPT2 = gpt2.Config(vocab_size=29, n_positions=64, n_embd=32, n_layer=1, n_head=4, initializer_range=0.3)
BART = {"vocab_size": 29, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "init_std": 0.3}
BART |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 64}
MODELS = {
    "gpt2": GPT2,
    "long": gpt2.Config(vocab_size=29, n_positions=192, n_embd=16, n_layer=1, n_head=2, initializer_range=0.3),
    "t5": t5.Config(29, 16, 8, 24, 1, None, 2, relative_attention_num_buckets=8, tie_word_embeddings=False, initializer_factor=0.5),
    "bart": bart.Config(**BART, eos_token_id=None),
}
ROWS = [[3, 1, 4, 1, 5], [9, 2], [6]]
TOKENS = np.array([[0] * (5 - len(row)) + row for row in ROWS])
MASK = np.array([[False] * (5 - len(row)) + [True] * len(row) for row in ROWS])


@functools.cache
def made(name):
    model = make_model(MODELS[name])
    tokens = jnp.zeros((1, 4), jnp.int32)
    inputs = (tokens, tokens) if has_decoder(model) else (tokens,)
    params = jax.jit(model.init)(jax.random.key(3), *inputs)["params"]
    # One program for texts of every length: what stands after a causal model's token does not matter.
    apply = lambda *inputs: model.apply({"params": params}, *inputs)
    return model, params, jax.jit(lambda *inputs: (lambda out: (out.logits, out.hidden))(apply(*inputs)))


def read(name, source, texts, width):
    """Logits of what follows each text [k, V], and the hidden states [k, T, D] of its tokens."""
    rows = np.array([[*text, *[0] * (width - len(text))] for text in texts])
    inputs = (np.array([source] * len(rows)), rows) if source is not None else (rows,)
    logits, hidden = made(name)[2](*inputs)
    at = len(texts[0])
    return np.asarray(logits, np.float64)[:, at - 1], np.asarray(hidden, np.float64)[:, :at]


def paper(name, prompt, count, alpha, k, banned=()):
    """Su et al. 2022, equation 5: argmax over the k likeliest v of (1 - alpha) p(v | x) - alpha max_j cos(h_v, h_x_j)."""
    over = has_decoder(made(name)[0])
    source, text = (prompt, [start(name)]) if over else (None, list(prompt))
    begin, width = len(text), len(text) + count
    for _ in range(count):
        logits = read(name, source, [text] * k, width)[0][0]
        logits[list(banned)] = -np.inf
        p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        candidates = np.argsort(-p, kind="stable")[:k]
        hidden = read(name, source, [[*text, v] for v in candidates], width)[1]
        unit = hidden / np.linalg.norm(hidden, axis=-1, keepdims=True)
        nearest = [(unit[i, :-1] @ unit[i, -1]).max() for i in range(k)]
        scores = (1 - alpha) * p[candidates] - alpha * np.array(nearest)
        text.append(int(candidates[np.where(p[candidates] > 0, scores, -np.inf).argmax()]))
    return text[begin:]


def start(name):
    return getattr(MODELS[name], "decoder_start_token_id", 0)


@pytest.mark.parametrize(("name", "alpha", "k"), [("gpt2", 0.6, 4), ("t5", 0.6, 4), ("bart", 0.6, 4)])
def test_rows_of_unlike_lengths_are_the_papers_token_for_token(name, alpha, k):
    found = generate_tokens(*made(name)[:2], TOKENS, mask=MASK, penalty_alpha=alpha, top_k=k, max_new_tokens=12)
    assert found.tolist() == [paper(name, row, 12, alpha, k) for row in ROWS]
    assert found.tolist() != generate_tokens(*made(name)[:2], TOKENS, mask=MASK, max_new_tokens=12).tolist()


def test_the_state_grows_by_buckets():
    found = generate_tokens(*made("long")[:2], np.array([[3, 1]]), penalty_alpha=0.6, top_k=3, max_new_tokens=110)
    assert found.tolist() == [paper("long", [3, 1], 110, 0.6, 3)]


def test_without_a_penalty_it_is_greedy_and_all_penalty_is_still_one_of_the_likeliest():
    run = lambda **more: generate_tokens(*made("gpt2")[:2], TOKENS, mask=MASK, max_new_tokens=12, **more).tolist()
    assert run(penalty_alpha=0.0, top_k=4) == run()
    assert run(penalty_alpha=1.0, top_k=1) == run()
    assert run(penalty_alpha=1.0, top_k=4) == [paper("gpt2", row, 12, 1.0, 4) for row in ROWS]


def test_what_is_banned_is_never_the_way_out():
    banned = [i for i in range(29) if i not in (3, 8, 20)]
    settings = {"penalty_alpha": 0.9, "top_k": 4, "max_new_tokens": 12, "suppress_tokens": banned}
    found = generate_tokens(*made("gpt2")[:2], TOKENS, mask=MASK, **settings)
    assert found.tolist() == [paper("gpt2", row, 12, 0.9, 4, banned) for row in ROWS] and set(found.flat) <= {3, 8, 20}


def test_rows_end_unlike_early_and_few_tokens_are_few():
    model, params, _ = made("gpt2")
    run = lambda count, **more: generate(model, params, TOKENS, mask=MASK, penalty_alpha=0.6, top_k=4, max_new_tokens=count, **more)
    whole = run(12).tokens
    ends = [int(whole[0, 3]), int(whole[1, 7])]
    cut = run(12, eos_token_id=ends, pad_token_id=0)
    wanted = [next((i + 1 for i, token in enumerate(row) if token in ends), 12) for row in whole]
    assert cut.lengths.tolist() == wanted and len(set(wanted)) > 1
    assert all((row[:n] == full[:n]).all() and not row[n:].any() for row, full, n in zip(cut.tokens, whole, wanted, strict=True))
    assert run(0).tokens.shape == (3, 0) and run(1).tokens.tolist() == whole[:, :1].tolist()


def test_log_probabilities_are_the_models_own():
    model, params, _ = made("gpt2")
    made_ = generate(model, params, TOKENS[:1], mask=MASK[:1], penalty_alpha=0.6, top_k=4, max_new_tokens=6, logprobs=1)
    for at, token in enumerate(made_.tokens[0]):
        logits = read("gpt2", None, [[*ROWS[0], *made_.tokens[0][:at]]] * 4, 17)[0][0]
        assert made_.logprobs[0, at] == pytest.approx(logits[token] - np.log(np.exp(logits).sum()), abs=1e-4)


def test_another_length_of_the_bucket_compiles_nothing_and_blocks_without_the_host_say_the_same(monkeypatch):
    model, params, _ = made("gpt2")
    run = lambda width, count: generate_tokens(model, params, np.full((1, width), 3), penalty_alpha=0.6, top_k=4, max_new_tokens=count)
    first = run(5, 9)
    compiled = loop.advance._cache_size() + loop._read._cache_size()
    run(7, 12)
    assert loop.advance._cache_size() + loop._read._cache_size() == compiled
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert run(5, 9).tolist() == first.tolist()


@pytest.mark.parametrize("more", [{}, {"top_k": 4, "do_sample": True}, {"top_k": 4, "num_beams": 2}])
def test_it_needs_top_k_and_nothing_else(more):
    with pytest.raises(ConfigError, match="penalty_alpha=0.6: contrastive search takes"):
        generate_tokens(*made("gpt2")[:2], TOKENS, mask=MASK, penalty_alpha=0.6, max_new_tokens=4, **more)
