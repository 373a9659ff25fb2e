"""GPT-2: its parameters, who sees whom (by gradients), its layouts, its cache. `parity.py` holds it to torch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxlm.config import Compute
from jaxlm.layers.block import REMAT, stack, unstack
from jaxlm.layers.cache import make_cache
from jaxlm.models import gpt2, make_model
from jaxlm.tasks import causal_lm

CONFIG = gpt2.Config(vocab_size=96, n_positions=32, n_embd=32, n_layer=2, n_head=4, embd_pdrop=0.1, resid_pdrop=0.1, attn_pdrop=0.1)
MODEL = make_model(CONFIG)
TOKENS = np.random.default_rng(0).integers(0, 96, (2, 12)).astype(np.int32)


@functools.cache
def params_of(model):
    """Parameters of a model, biases and norms shaken off their starting values so that tests see them."""
    params = jax.jit(lambda: model.init(jax.random.key(0), TOKENS)["params"])()
    leaves, shape = jax.tree.flatten(jax.device_get(params))
    random = np.random.default_rng(1)
    return jax.tree.unflatten(shape, [leaf + 0.1 * random.standard_normal(leaf.shape, np.float32) for leaf in leaves])


@functools.partial(jax.jit, static_argnums=0)
def run(model, params, tokens, arguments):
    return model.apply({"params": params}, tokens, **arguments)


def logits(tokens, model=MODEL, **arguments):
    return np.asarray(run(model, params_of(model), jnp.asarray(tokens), arguments).logits)


def close(one, other):
    np.testing.assert_allclose(one, other, atol=2e-5)


LAYER = {
    "ln_1/scale": (32,), "ln_1/bias": (32,), "ln_2/scale": (32,), "ln_2/bias": (32,),
    "attn/q/kernel": (32, 4, 8), "attn/q/bias": (4, 8), "attn/k/kernel": (32, 4, 8), "attn/k/bias": (4, 8),
    "attn/v/kernel": (32, 4, 8), "attn/v/bias": (4, 8), "attn/o/kernel": (4, 8, 32), "attn/o/bias": (32,),
    "mlp/up/kernel": (32, 128), "mlp/up/bias": (128,), "mlp/down/kernel": (128, 32), "mlp/down/bias": (32,),
}  # fmt: skip
OUTSIDE = {"wte": (96, 32), "wpe": (32, 32), "ln_f/scale": (32,), "ln_f/bias": (32,)}


def shapes(model):
    made = jax.eval_shape(lambda: model.init(jax.random.key(0), TOKENS)["params"])
    return {"/".join(entry.key for entry in path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(made)}


def test_parameter_paths_are_golden():
    assert shapes(MODEL) == {**OUTSIDE, **{f"h/{i}/{name}": shape for i in range(2) for name, shape in LAYER.items()}}
    stacked = shapes(make_model(CONFIG, Compute(layout="stacked")))
    assert stacked == {**OUTSIDE, **{f"h/stacked/{name}": (2, *shape) for name, shape in LAYER.items()}}
    untied = shapes(make_model(dataclasses.replace(CONFIG, tie_word_embeddings=False)))
    assert untied == {**shapes(MODEL), "lm_head": (96, 32)}


def test_initialization_is_the_table():
    wide = dataclasses.replace(CONFIG, n_embd=128, n_layer=8, tie_word_embeddings=False)
    params = jax.jit(lambda: make_model(wide, Compute(layout="stacked")).init(jax.random.key(3), TOKENS)["params"])()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [entry.key for entry in path]
        if names[-1] in ("bias", "scale"):
            assert (leaf == (names[-1] == "scale")).all()
        else:
            std = 0.02 / 4 if {"o", "down"} & set(names) else 0.02  # sqrt(2 * 8 layers) = 4
            np.testing.assert_allclose(leaf.std(), std, rtol=0.05)
            assert abs(leaf.mean()) < std / 10


@pytest.mark.parametrize(
    ("name", "count"), [("gpt2", 124_439_808), ("gpt2-medium", 354_823_168), ("gpt2-large", 774_030_080), ("gpt2-xl", 1_557_611_200)]
)
def test_sizes_have_the_published_number_of_parameters(name, count):
    model = make_model(gpt2.SIZES[name], Compute(layout="stacked"))
    made = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 8), jnp.int32))["params"])
    assert sum(leaf.size for leaf in jax.tree.leaves(made)) == count


@pytest.mark.parametrize("implementation", ["eager", "xla"])
def test_causality_through_gradients(implementation):
    """d logits[t] / d (embedding read at s) is zero for s > t and only there."""
    model, T = make_model(CONFIG, Compute(attention=implementation)), 6
    tokens = jnp.arange(T)[None]  # each token once: the row of the table is the input at its place

    def at(wte):
        return model.apply({"params": {**params_of(MODEL), "wte": wte}}, tokens).hidden[0].sum(-1)

    reads = jnp.abs(jax.jit(jax.jacrev(lambda wte: at(wte) ** 2))(jnp.asarray(params_of(MODEL)["wte"])))[:, :T].sum(-1)
    assert ((np.asarray(reads) > 0) == np.tril(np.ones((T, T), bool))).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(side):
    blank = np.full((2, 4), 7, np.int32)
    ones, zeros = np.ones_like(TOKENS, bool), np.zeros_like(blank, bool)
    order = slice(None, None, -1) if side == "left" else slice(None)
    padded, mask = np.concatenate([TOKENS, blank][order], 1), np.concatenate([ones, zeros][order], 1)
    real = slice(4, None) if side == "left" else slice(12)
    close(logits(padded, mask=mask)[:, real], logits(TOKENS))


def test_packed_documents_are_as_if_alone():
    first, second = TOKENS[:1, :5], TOKENS[1:, :7]
    packed = np.concatenate([first, second, np.zeros((1, 3), np.int32)], 1)
    segments = np.array([[1] * 5 + [2] * 7 + [0] * 3], np.int32)
    out = logits(packed, segments=segments)
    close(out[:, :5], logits(first))
    close(out[:, 5:12], logits(second))


@jax.jit
def summed_gradient(params, batch):
    return jax.value_and_grad(lambda params: causal_lm.loss(MODEL, params, batch, None)[0])(params)


def batch_of(tokens, segments=None):
    weights = np.ones(tokens.shape, np.float32) if segments is None else (segments > 0).astype(np.float32)
    extra = {} if segments is None else {"segments": segments}
    return {"tokens": tokens, "targets": (tokens + 1) % 96, "weights": weights, **extra}


def test_packed_gradients_are_the_sum_of_those_alone():
    first, second = TOKENS[:1, :5], TOKENS[1:, :7]
    packed = np.concatenate([first, second, np.zeros((1, 3), np.int32)], 1)
    whole = summed_gradient(params_of(MODEL), batch_of(packed, np.array([[1] * 5 + [2] * 7 + [0] * 3], np.int32)))
    alone = jax.tree.map(np.add, *(summed_gradient(params_of(MODEL), batch_of(x)) for x in (first, second)))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4, rtol=1e-4), whole, alone)


def test_stacked_and_unrolled_start_with_the_same_values():
    stacked = make_model(CONFIG, Compute(layout="stacked"))
    one, other = (jax.jit(lambda model=model: model.init(jax.random.key(5), TOKENS)["params"])() for model in (MODEL, stacked))
    jax.tree.map(np.testing.assert_array_equal, stack(one), other)


def test_stack_and_unstack_are_inverse_on_optimizer_states_too():
    params = params_of(MODEL)
    tree = {"params": params, "optimizer": optax.adamw(1e-3).init(params), "step": jnp.zeros((), jnp.int32)}
    back = unstack(stack(tree))
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    jax.tree.map(np.testing.assert_array_equal, back, tree)
    shape = stack(tree)["optimizer"][0].mu["h"]["stacked"]["mlp"]["up"]["kernel"].shape
    assert shape == (2, 32, 128)


def graded(compute):
    """Loss and gradients with dropout on, in the unrolled layout."""
    model = make_model(CONFIG, compute)
    loss = lambda params: causal_lm.loss(model, params, batch_of(TOKENS), jax.random.key(4))[0]
    stacked = compute.layout == "stacked"
    value, grads = jax.jit(jax.value_and_grad(loss))((stack if stacked else lambda x: x)(params_of(MODEL)))
    return value, unstack(grads) if stacked else grads


@functools.cache
def usual():
    return graded(Compute())


@pytest.mark.parametrize("compute", [Compute(layout="stacked"), *(Compute(remat=name) for name in REMAT if name != "none"),
                                     Compute(layout="stacked", remat="full")], ids=lambda c: f"{c.layout}-{c.remat}")  # fmt: skip
def test_layout_and_remat_change_nothing(compute):
    value, grads = graded(compute)
    np.testing.assert_allclose(value, usual()[0], rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4, rtol=1e-4), grads, usual()[1])


@pytest.mark.parametrize(("remat", "kept"), [("none", 0), ("full", 1), ("dots", 1), ("attention", 1)])
def test_remat_is_there(remat, kept):
    """The program without it has none: the comparison above is of two different programs."""
    model = make_model(CONFIG, Compute(remat=remat))
    loss = lambda params: causal_lm.loss(model, params, batch_of(TOKENS), None)[0]
    assert ("remat" in str(jax.make_jaxpr(jax.grad(loss))(params_of(MODEL)))) == bool(kept)


def test_dropout_needs_a_key():
    key = lambda seed: {"key": jax.random.key(seed)}
    assert (logits(TOKENS) == logits(TOKENS)).all()
    assert (logits(TOKENS, **key(0)) == logits(TOKENS, **key(0))).all()
    assert (logits(TOKENS, **key(0)) != logits(TOKENS, **key(1))).any()


def test_untied_head_is_used():
    model = make_model(dataclasses.replace(CONFIG, tie_word_embeddings=False))
    params = params_of(model)
    out = run(model, params, TOKENS, {})
    close(out.logits, out.hidden @ params["lm_head"].T)
    tied = run(MODEL, params_of(MODEL), TOKENS, {})
    close(tied.logits, tied.hidden @ params_of(MODEL)["wte"].T)


@pytest.mark.parametrize("wrong", [96, 1000, -1, -96])
def test_an_id_outside_is_nan_and_touches_no_other_row(wrong):
    tokens = TOKENS.copy()
    tokens[0, 5] = wrong
    out = logits(tokens)
    assert np.isnan(out[0, 5:]).all()
    close(out[1], logits(TOKENS)[1])


def test_a_row_longer_than_the_positions_is_refused():
    with pytest.raises(ValueError, match="33 tokens a row and the model has n_positions=32"):
        MODEL.apply({"params": params_of(MODEL)}, jnp.zeros((1, 33), jnp.int32))


@pytest.mark.parametrize("layout", ["unrolled", "stacked"])
def test_cached_token_by_token_is_the_whole_forward(layout):
    model = make_model(CONFIG, Compute(layout=layout))
    params = stack(params_of(MODEL)) if layout == "stacked" else params_of(MODEL)
    cache, columns = make_cache(2, (2, 16, 4, 8), layout=layout), []
    for piece in (TOKENS[:, :5], *(TOKENS[:, i : i + 1] for i in range(5, 12))):
        out = run(model, params, piece, {"cache": cache})
        cache, columns = out.cache, [*columns, out.logits]
    assert int(cache["index"]) == 12 and cache["valid"].sum() == 24
    close(np.concatenate(columns, 1), logits(TOKENS))


def test_left_padded_prompts_in_a_cache_are_as_unpadded():
    tokens = np.concatenate([np.zeros((2, 3), np.int32), TOKENS[:, :6]], 1)
    mask = np.concatenate([np.zeros((2, 3), bool), np.ones((2, 6), bool)], 1)
    out = run(MODEL, params_of(MODEL), tokens, {"mask": mask, "cache": make_cache(2, (2, 16, 4, 8))})
    close(out.logits[:, 3:], logits(TOKENS[:, :6]))
    following = run(MODEL, params_of(MODEL), TOKENS[:, 6:7], {"cache": out.cache})
    close(following.logits, logits(TOKENS[:, :7])[:, 6:])


def test_bfloat16_activations_stay_near():
    out = run(make_model(CONFIG, Compute(dtype="bfloat16")), params_of(MODEL), TOKENS, {})
    assert (out.hidden.dtype, out.logits.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(out.logits, logits(TOKENS), atol=0.15)


def test_predictions_and_metrics():
    batch = batch_of(TOKENS)
    assert (causal_lm.predictions(MODEL, params_of(MODEL), batch) == logits(TOKENS).argmax(-1)).all()
    values = causal_lm.metrics(20.0, 10.0, {"bytes": 40})
    assert values == pytest.approx({"loss": 2.0, "perplexity": np.exp(2.0), "bits_per_byte": 0.5 / np.log(2)})
    assert "bits_per_byte" not in causal_lm.metrics(20.0, 10.0, {"bytes": 0})
