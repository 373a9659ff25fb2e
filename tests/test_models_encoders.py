"""Encoders: what the comparison with torch does not show: kept biases, positions, windows, shared layers, packing, refusals."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.config import Compute
from jaxlm.errors import ConfigError, DataError
from jaxlm.layers.block import HIDDEN, Layers, stack, unstack
from jaxlm.layers.blocks import Group
from jaxlm.layers.cache import make_cache
from jaxlm.layers.linear import Linear, Normal
from jaxlm.layers.sight import Sight
from jaxlm.models import albert, bert, distilbert, electra, init_params, make_model, modernbert, roberta, xlm_roberta
from jaxlm.ops.dropout import dropout

SMALL = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
BERT = bert.Config(**SMALL, max_position_embeddings=20)
ROBERTA = roberta.Config(**SMALL, max_position_embeddings=20, pad_token_id=3)
MODERN = modernbert.Config(**{**SMALL, "num_hidden_layers": 3}, local_attention=4, layer_types=("sliding_attention",) * 3)
TOKENS = np.random.default_rng(0).integers(4, 64, (2, 9)).astype(np.int32)


@functools.cache
def params_of(model):
    """Parameters shaken off their starting values, so that biases and norms are seen."""
    params = jax.device_get(jax.jit(lambda: init_params(model, jax.random.key(0)))())
    leaves, shape = jax.tree.flatten(params)
    random = np.random.default_rng(1)
    return jax.tree.unflatten(shape, [leaf + 0.1 * random.standard_normal(leaf.shape, np.float32) for leaf in leaves])


@functools.partial(jax.jit, static_argnums=0)
def run(model, params, tokens, **arguments):
    return model.apply({"params": params}, tokens, **arguments)


def out_of(config, task, tokens=TOKENS, **arguments):
    model = make_model(config, task=task)
    return run(model, params_of(model), tokens, **arguments)


def count(config, task):
    model = make_model(config, Compute(layout="stacked") if config.model_type != "modernbert" else Compute(), task)
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(lambda: init_params(model, jax.random.key(0)))))


@pytest.mark.parametrize(
    ("config", "task", "number"),
    [
        (bert.SIZES["bert-base"], "features", 109_482_240),
        (bert.SIZES["bert-large"], "features", 335_141_888),
        (roberta.SIZES["roberta-base"], "masked-lm", 124_697_433),
        (xlm_roberta.SIZES["xlm-roberta-base"], "masked-lm", 278_295_186),
        (distilbert.SIZES["distilbert-base"], "features", 66_362_880),
        (electra.SIZES["electra-small-discriminator"], "features", 13_483_008),
        (albert.SIZES["albert-base-v2"], "features", 11_683_584),
        (modernbert.SIZES["modernbert-base"], "masked-lm", 149_655_232),
        (modernbert.SIZES["modernbert-large"], "masked-lm", 395_881_664),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_sizes_have_the_published_number_of_parameters(config, task, number):
    assert count(config, task) == number


def test_the_heads_bias_is_kept(tmp_path):
    """The bias over the vocabulary comes back from a file, and is added."""
    model = make_model(BERT)
    params = params_of(model)
    jaxlm.save(tmp_path, model, params)
    again, read = jaxlm.load(tmp_path)
    np.testing.assert_array_equal(read["vocabulary"]["bias"], params["vocabulary"]["bias"])
    without = {**read, "vocabulary": {"bias": jnp.zeros(64)}}
    gap = run(again, read, TOKENS).logits - run(again, without, TOKENS).logits
    np.testing.assert_allclose(gap, jnp.broadcast_to(params["vocabulary"]["bias"], gap.shape), atol=1e-5)


def test_an_old_checkpoint_that_repeats_the_tied_decoder_loads(tmp_path):
    from safetensors.numpy import load_file, save_file

    model = make_model(BERT)
    jaxlm.save(tmp_path, model, params_of(model))
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    jax.tree.map(np.testing.assert_array_equal, jaxlm.load(tmp_path)[1], params_of(model))


UNTIED = {"tie_word_embeddings": False}


@pytest.mark.parametrize(
    ("config", "bias"),
    [(BERT, "cls.predictions.bias"), (ROBERTA, "lm_head.bias"), (albert.Config(**SMALL, embedding_size=8), "predictions.bias")],
    ids=["bert", "roberta", "albert"],
)
def test_an_untied_head_of_transformers_4_has_its_bias_under_one_name(tmp_path, config, bias):
    from safetensors.numpy import load_file, save_file

    model = make_model(dataclasses.replace(config, **UNTIED))
    params = params_of(model)
    jaxlm.save(tmp_path, model, params)
    tensors = load_file(tmp_path / "model.safetensors")
    (decoder,) = [name for name in tensors if name.endswith("decoder.bias")]
    del tensors[decoder]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    read = jaxlm.load(tmp_path)[1]
    np.testing.assert_array_equal(read["decoder"]["bias"], tensors[bias])
    np.testing.assert_array_equal(read["decoder"]["table"], params["decoder"]["table"])
    del tensors[decoder.replace("bias", "weight")]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="missing .*decoder.weight"):
        jaxlm.load(tmp_path)


def test_features_without_a_pooler_have_none():
    model = make_model(BERT, task="features")
    params = {name: value for name, value in params_of(model).items() if name != "pooler"}
    assert run(model, params, TOKENS).pooled is None
    assert run(model, params_of(model), TOKENS).pooled.shape == (2, 16)


def rows_read(config, **arguments):
    """Which rows of the table of positions the first text reads: those with a gradient."""
    model = make_model(config)
    params = params_of(model)
    loss = lambda table: (model.apply({"params": {**params, "position": table}}, **arguments).hidden[0] ** 3).sum()
    return np.flatnonzero(np.abs(jax.jit(jax.grad(loss))(params["position"])).sum(1)).tolist()


def test_roberta_counts_positions_from_the_padding_on():
    tokens = TOKENS[:1, :4]
    assert rows_read(ROBERTA, tokens=tokens) == [4, 5, 6, 7]
    assert rows_read(BERT, tokens=tokens) == [0, 1, 2, 3]
    assert rows_read(ROBERTA, tokens=tokens, positions=np.array([[2, 3, 4, 5]])) == [6, 7, 8, 9]
    assert rows_read(ROBERTA, tokens=tokens, segments=np.array([[1, 1, 2, 2]])) == [4, 5]


def test_roberta_without_a_mask_counts_tokens_that_are_not_padding():
    tokens = np.array([[3, 9, 3, 10, 3]])
    assert rows_read(ROBERTA, tokens=tokens) == [3, 4, 5]  # row 3 is that of padding, which is seen
    assert rows_read(ROBERTA, tokens=tokens, mask=np.array([[False, True, True, True, False]]))[1:] == [4, 5, 6]


def test_roberta_reads_as_many_tokens_as_it_has_rows_behind_the_padding():
    model = make_model(ROBERTA)
    assert np.isfinite(run(model, params_of(model), np.full((1, 16), 9)).hidden).all()
    with pytest.raises(ValueError, match="17 tokens a row and the model has max_position_embeddings - pad_token_id - 1=16"):
        run(model, params_of(model), np.full((1, 17), 9))


@pytest.mark.parametrize("config", [BERT, ROBERTA], ids=lambda config: config.model_type)
def test_the_texts_of_a_choice_are_as_long_as_rows_may_be(config):
    model = make_model(config, task="multiple-choice")
    assert run(model, params_of(model), np.full((1, 25, 4), 9)).logits.shape == (1, 25)
    with pytest.raises(ValueError, match="21 tokens a row"):
        run(model, params_of(model), np.full((1, 2, 21), 9))


def sees(config, place=6, length=13):
    """Which tokens change the hidden state at `place`."""
    model = make_model(config)
    params, tokens = params_of(model), np.arange(10, 10 + length, dtype=np.int32)[None]
    loss = lambda table: (model.apply({"params": {**params, "word": table}}, tokens).hidden[0, place] ** 3).sum()
    return (np.flatnonzero(np.abs(jax.jit(jax.grad(loss))(params["word"])).sum(1)) - 10).tolist()


def test_modernbert_sees_half_a_window_to_either_side_in_a_local_layer():
    one = dataclasses.replace(MODERN, num_hidden_layers=1, layer_types=("sliding_attention",))
    assert sees(one) == [4, 5, 6, 7, 8]
    assert sees(dataclasses.replace(one, layer_types=("full_attention",))) == list(range(13))


def layers_of(config, monkeypatch):
    """The `Layers` that a model makes."""
    made, kind = [], Layers
    monkeypatch.setattr(f"jaxlm.models.{config.model_type}.Layers", lambda *parts, **more: made.append(kind(*parts, **more)) or made[-1])
    jax.eval_shape(lambda: init_params(make_model(config), jax.random.key(0)))
    return made[0]


def test_modernbert_is_global_in_every_third_layer_from_the_first(monkeypatch):
    deep = dataclasses.replace(modernbert.SIZES["modernbert-base"], **SMALL | {"num_hidden_layers": 7})
    assert layers_of(deep, monkeypatch).kinds == (0, 1, 1, 0, 1, 1, 0)
    with pytest.raises(ConfigError, match="layer_types='linear_attention' is not known"):
        layers_of(dataclasses.replace(MODERN, layer_types=("linear_attention",) * 3), monkeypatch)


def test_modernbert_pools_real_tokens_on_either_side():
    for pooling in ("cls", "mean"):
        config = dataclasses.replace(MODERN, classifier_pooling=pooling, num_labels=3)
        blank, real = np.zeros((2, 3), np.int32), np.ones_like(TOKENS, bool)
        left = np.concatenate([blank, TOKENS], 1), np.concatenate([blank.astype(bool), real], 1)
        want = out_of(config, "sequence-classification").logits
        np.testing.assert_allclose(out_of(config, "sequence-classification", left[0], mask=left[1]).logits, want, atol=1e-5)
    with pytest.raises(ConfigError, match="classifier_pooling='max' is not known"):
        out_of(dataclasses.replace(MODERN, classifier_pooling="max"), "sequence-classification")


ALBERT = albert.Config(**{**SMALL, "num_hidden_layers": 3}, embedding_size=8, num_hidden_groups=2)


def test_albert_has_one_set_of_parameters_a_group(monkeypatch):
    assert set(params_of(make_model(ALBERT))["layers"]) == {"0", "1"}
    deeper = dataclasses.replace(ALBERT, num_hidden_layers=6)
    assert count(deeper, "masked-lm") == count(ALBERT, "masked-lm")
    assert layers_of(deeper, monkeypatch).order == (0, 0, 0, 1, 1, 1)


class Half(nn.Module):
    """A small block, quick to compile."""

    def setup(self):
        self.linear = Linear((8,), ("embed", None), init_kernel=Normal(0.3))

    def __call__(self, x, sight, cache=None, key=None):
        return x + dropout(jnp.tanh(self.linear(x)), 0.3, key, HIDDEN), None


def test_shared_layers_stacked_equal_unrolled_with_dropout_and_gradients():
    x, group = jax.random.normal(jax.random.key(0), (2, 5, 8)), Group((Half(parent=None), Half(parent=None)), parent=None)
    params = Layers((group,) * 2).init(jax.random.key(1), x)

    def graded(layout, params):
        layers = Layers((group,) * 2, layout, order=(0, 0, 1))
        loss = lambda params: (layers.apply(params, x, Sight(), None, jax.random.key(3))[0] ** 2).mean()
        return jax.jit(jax.value_and_grad(loss))(params)

    (one, grads), (other, stacked_grads) = graded("unrolled", params), graded("stacked", stack(params))
    np.testing.assert_allclose(one, other, rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-4), grads, unstack(stacked_grads))


@pytest.mark.parametrize("config", [BERT, ROBERTA, ALBERT, MODERN], ids=lambda config: config.model_type)
def test_an_encoder_refuses_a_cache(config):
    with pytest.raises(ValueError, match="has no use for cache: leave it out"):
        out_of(config, "masked-lm", cache=make_cache(2, (2, 12, 2, 8)))


@pytest.mark.parametrize(
    "config", [distilbert.Config(64, dim=16, n_layers=2, n_heads=2, hidden_dim=24), MODERN], ids=lambda config: config.model_type
)
def test_families_without_token_types_refuse_them(config):
    with pytest.raises(ValueError, match=f"{config.model_type} has no use for token_types: leave it out"):
        out_of(config, "masked-lm", token_types=np.zeros_like(TOKENS))


def test_an_unknown_activation_is_refused_by_name():
    with pytest.raises(ConfigError, match="activation='gleu' is not known: did you mean 'gelu'"):
        jax.eval_shape(lambda: init_params(make_model(dataclasses.replace(BERT, hidden_act="gleu")), jax.random.key(0)))


def test_electras_other_summaries_are_refused():
    config = electra.Config(**SMALL, embedding_size=8, summary_type="attn")
    with pytest.raises(ConfigError, match="summary_type='attn' is not known"):
        out_of(config, "multiple-choice", TOKENS[None])


def test_pretraining_logits():
    """BERT's and ALBERT's are over the vocabulary, beside `relation`; ELECTRA's say of each token whether it was replaced."""
    out = out_of(BERT, "pretraining")
    assert out.logits.shape == (2, 9, 64) and out.relation.shape == (2, 2)
    assert out_of(ALBERT, "pretraining").relation.shape == (2, 2)
    out = out_of(electra.Config(**SMALL, embedding_size=8), "pretraining")
    assert out.logits.shape == (2, 9) and out.relation is None


@pytest.mark.parametrize("tie", [True, False])
def test_the_output_table_is_the_one_that_logits_are_made_with(tie):
    for config in (BERT, electra.Config(**SMALL, embedding_size=8), MODERN):
        model = make_model(dataclasses.replace(config, tie_word_embeddings=tie))
        params = params_of(model)
        table = model.output_table(params)
        assert table.shape == (64, 8 if config.model_type == "electra" else 16)
        other = jax.tree.map(lambda leaf, table=table: leaf + 1 if leaf is table else leaf, params)
        changed = run(model, other, TOKENS).logits - run(model, params, TOKENS).logits
        assert np.abs(changed).max() > 1e-3 and (table is params["word"]) == tie
