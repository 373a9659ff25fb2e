"""The decoders: what Transformers' Flax models got wrong, sizes, config.json of both versions, windows, experts, soft caps."""

import dataclasses
import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.config import Compute
from jaxlm.errors import ConfigError, DataError
from jaxlm.frozen import Frozen
from jaxlm.inference.generate import generate_tokens
from jaxlm.inference.texts import until
from jaxlm.layers.experts import Experts, routing
from jaxlm.models import configuration, dims, family_named, gemma2, gemma3, gpt_neox, llama, make_model, mistral, qwen2
from jaxlm.ops.losses import plain_cross_entropy, token_cross_entropy
from jaxlm.tasks import causal_lm

SMALL = {"vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {**SMALL, "num_key_value_heads": 2, "max_position_embeddings": 16, "initializer_range": 0.3}
TOKENS = np.random.default_rng(0).integers(3, 61, (2, 12)).astype(np.int32)


@functools.cache
def params_of(model):
    return jax.jit(lambda: model.init(jax.random.key(0), TOKENS)["params"])()


@functools.partial(jax.jit, static_argnums=0)
def run(model, params, tokens):
    return model.apply({"params": params}, tokens)


def hidden(config, tokens=TOKENS):
    return np.asarray(run(make_model(config), params_of(make_model(config)), tokens).hidden)


# Promises: what the old Flax models got wrong.


def test_mistral_without_a_window_sees_more_than_itself():
    other = np.concatenate([(TOKENS[:, :1] + 1) % 61, TOKENS[:, 1:]], 1)
    change = lambda window: np.abs(
        hidden(mistral.Config(**LLAMA, sliding_window=window), other) - hidden(mistral.Config(**LLAMA, sliding_window=window))
    )
    assert change(None)[:, -1].max() > 1e-3
    near = change(4).max((0, 2))  # two layers of four tokens: six places further at most
    assert near[6] > 1e-3 and (near[7:] == 0).all()


def test_rope_theta_is_respected():
    assert np.abs(hidden(llama.Config(**LLAMA)) - hidden(llama.Config(**LLAMA, rope_theta=50.0))).max() > 1e-2


@pytest.mark.parametrize("scaling", [{"type": "linear", "factor": 2.0}, {"rope_type": "yarn", "factor": 4.0}])
def test_rope_scaling_is_respected(scaling):
    assert np.abs(hidden(llama.Config(**LLAMA)) - hidden(llama.Config(**LLAMA, rope_scaling=Frozen(scaling)))).max() > 1e-2


def test_ids_beyond_the_vocabulary_are_refused_on_the_host_and_nan_inside_jit():
    model, wrong = make_model(llama.Config(**LLAMA)), TOKENS.copy()
    wrong[1, 3] = 61
    with pytest.raises(DataError, match=r"id 61 at \[1, 3\]"):
        model.apply({"params": params_of(model)}, jnp.asarray(wrong))
    bad = np.isnan(run(model, params_of(model), wrong).logits).all(-1)
    assert bad[1, 3:].all() and not bad[0].any()


def test_a_list_of_eos_ids_ends_a_text_at_any_of_them():
    values = {"model_type": "llama", **LLAMA, "eos_token_id": [7, 9]}
    model = make_model(configuration.from_json(llama.Config, values))
    assert configuration.to_json(model.config, "")["eos_token_id"] == [7, 9]
    free = generate_tokens(model, params_of(model), TOKENS[:, :4], max_new_tokens=6)
    ends = [int(free[0, 2]), int(free[1, 1])]
    ended = generate_tokens(model, params_of(model), TOKENS[:, :4], max_new_tokens=6, eos_token_id=ends)
    for row, before in zip(ended, free, strict=True):
        kept = until(before, ends)
        assert until(row, ends) == kept and (row[len(kept) + 1 :] == ends[0]).all()
    assert until(free[0], None) == free[0].tolist() and until(free[0], ends[0]) == free[0].tolist()[: free[0].tolist().index(ends[0])]


# config.json, as Transformers 4 and 5 write it.

V4_AND_V5 = {
    "llama": (
        {"rope_theta": 500.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_theta": 500.0, "rope_type": "linear", "factor": 2.0}},
    ),
    "qwen2": ({"rope_theta": 500.0, "rope_scaling": None}, {"rope_parameters": {"rope_theta": 500.0, "rope_type": "default"}}),
    "gpt_neox": (
        {"rotary_emb_base": 500, "rotary_pct": 0.5},
        {"rope_parameters": {"rope_theta": 500, "partial_rotary_factor": 0.5, "rope_type": "default"}},
    ),
    "gemma3_text": (
        {"rope_theta": 500.0, "rope_local_base_freq": 20.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
            }
        },
    ),
}


@pytest.mark.parametrize("model_type", V4_AND_V5)
def test_both_versions_of_rope_keys_are_read_and_kept(model_type):
    kind = family_named(model_type).Config
    old, new = (configuration.from_json(kind, values) for values in V4_AND_V5[model_type])
    assert dataclasses.replace(new, extra=Frozen()) == old
    saved = json.loads(json.dumps(configuration.to_json(new, "")))
    assert saved["rope_parameters"] == V4_AND_V5[model_type][1]["rope_parameters"]
    assert "rope_parameters" not in configuration.to_json(old, "")


def test_what_is_changed_after_loading_is_what_is_saved():
    loaded = configuration.from_json(llama.Config, V4_AND_V5["llama"][1])
    saved = configuration.to_json(dataclasses.replace(loaded, rope_theta=9.0, rope_scaling=None), "")
    assert saved["rope_parameters"] == {"rope_theta": 9.0, "rope_type": "default"}


def test_scaled_positions_of_windowed_layers_are_refused():
    with pytest.raises(DataError, match="only whole attention"):
        configuration.from_json(gemma3.Config, {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}})


DECODERS = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma2", "gemma3_text", "gpt_neox", "opt")


@pytest.mark.parametrize("model_type", DECODERS)
def test_transformers_reads_our_sizes(model_type):
    transformers = pytest.importorskip("transformers")
    family = family_named(model_type)
    for config in family.SIZES.values():
        values = json.loads(json.dumps(configuration.to_json(config, "")))
        theirs = transformers.AutoConfig.for_model(**values).to_dict()
        again = configuration.from_json(family.Config, theirs)
        assert dims(again) == dims(config)


COUNTS = {
    "llama-7b": 6_738_415_616, "llama-3-8b": 8_030_261_248, "smollm2-135m": 134_515_008, "smollm2-360m": 361_821_120,
    "mistral-7b-v0.1": 7_241_732_096, "mistral-7b-v0.3": 7_248_023_552, "mixtral-8x7b": 46_702_792_704,
    "qwen2.5-0.5b": 494_032_768, "qwen2.5-1.5b": 1_543_714_304, "qwen2.5-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920, "qwen3-8b": 8_190_735_360,
    "gemma-2-2b": 2_614_341_888, "gemma-2-9b": 9_241_705_984, "gemma-2-27b": 27_227_128_320,
    "gemma-3-270m": 268_098_176, "gemma-3-1b": 999_885_952,
    "pythia-70m": 70_426_624, "pythia-160m": 162_322_944, "pythia-410m": 405_334_016,
    "opt-125m": 125_239_296, "opt-350m": 331_196_416, "opt-1.3b": 1_315_758_080,
}  # fmt: skip


@pytest.mark.parametrize("model_type", DECODERS)
def test_sizes_have_the_published_number_of_parameters(model_type):
    for name in COUNTS.keys() & family_named(model_type).SIZES.keys():
        model = make_model(family_named(model_type).SIZES[name], Compute(layout="stacked"))
        made = jax.eval_shape(lambda model=model: model.init(jax.random.key(0), jnp.zeros((1, 8), jnp.int32))["params"])
        assert sum(leaf.size for leaf in jax.tree.leaves(made)) == COUNTS[name], name


# Parts.


def test_upper_layers_of_qwen_have_windows():
    windows = {"use_sliding_window": True, "sliding_window": 2, "num_hidden_layers": 1}
    seen = lambda config: np.abs(hidden(config, (TOKENS + np.eye(12, dtype=np.int32)[0]) % 61) - hidden(config))[:, -1].max() > 0
    assert seen(qwen2.Config(**{**LLAMA, **windows}, max_window_layers=1))
    assert not seen(qwen2.Config(**{**LLAMA, **windows}, max_window_layers=0))
    assert not seen(qwen2.Config(**{**LLAMA, **windows}, layer_types=("sliding_attention",)))


def test_a_row_may_be_longer_than_the_trained_context():
    """Rotary positions have no table: only generation asks how far they reach."""
    config = llama.Config(**LLAMA, rope_scaling=Frozen(type="dynamic", factor=4.0))
    assert np.isfinite(hidden(config, np.tile(TOKENS, 3))).all()
    assert dims(config).context == 64 and dims(llama.Config(**LLAMA)).context == 16


def test_experts_are_the_sum_over_the_chosen():
    layer, x = Experts(5, 2, 7), jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 8)), jnp.float32)
    params = jax.tree.map(lambda leaf: 30 * leaf, layer.init(jax.random.key(0), x)["params"])
    got = layer.apply({"params": params}, x)
    for b, t in np.ndindex(2, 3):
        scores = np.exp(x[b, t] @ params["router"]["kernel"])
        chosen = np.argsort(scores)[-2:]
        each = [(jax.nn.silu(x[b, t] @ params["gate"][e]) * (x[b, t] @ params["up"][e])) @ params["down"][e] for e in chosen]
        want = sum(scores[e] / scores[chosen].sum() * value for e, value in zip(chosen, each, strict=True))
        np.testing.assert_allclose(got[b, t], want, rtol=2e-4, atol=1e-5)


def test_routing_takes_the_first_of_equal_scores():
    np.testing.assert_allclose(routing(jnp.zeros((1, 1, 4)), 2)[0, 0], [0.5, 0.5, 0, 0])


@pytest.mark.parametrize("chunk", [None, 3])
def test_the_fused_loss_of_capped_logits_has_their_gradient(chunk):
    random = np.random.default_rng(0)
    h, table = (jnp.asarray(3 * random.standard_normal(shape), jnp.float32) for shape in ((2, 6, 4), (9, 4)))
    labels, weights = jnp.asarray(random.integers(0, 9, (2, 6))), jnp.asarray(random.random((2, 6)), jnp.float32)
    plain = lambda h, table: plain_cross_entropy(5 * jnp.tanh(h @ table.T / 5), labels, weights)[0]
    fused = lambda h, table: token_cross_entropy(h, table, labels, weights, softcap=5.0, chunk=chunk)[0]
    want, got = (jax.value_and_grad(loss, (0, 1))(h, table) for loss in (plain, fused))
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5), got, want)


def test_training_and_logits_of_gemma2_have_the_same_cap():
    model = make_model(gemma2.Config(**LLAMA, head_dim=8, final_logit_softcapping=0.5))
    out = run(model, params_of(model), TOKENS)
    assert 0.4 < np.abs(out.logits).max() <= 0.5
    weights = jnp.ones(TOKENS.shape)
    batch = {"tokens": jnp.asarray(TOKENS), "targets": jnp.roll(TOKENS, -1, 1), "weights": weights}
    got, _ = causal_lm.loss(model, params_of(model), batch, None)
    np.testing.assert_allclose(got, plain_cross_entropy(out.logits, batch["targets"], weights)[0], rtol=1e-5)


def test_what_a_decoder_cannot_use_is_refused():
    model = make_model(gpt_neox.Config(**SMALL))
    with pytest.raises(ValueError, match="gpt_neox has no use for token_types"):
        model.init(jax.random.key(0), TOKENS, token_types=TOKENS)
    with pytest.raises(ConfigError, match="gemma3_text"):
        family_named("gemma3")


REFUSED = {
    "opt": {"layer_norm_elementwise_affine": False},
    "gemma2": {"use_bidirectional_attention": True},
    "gemma3_text": {"use_bidirectional_attention": True},
}


@pytest.mark.parametrize("model_type", REFUSED)
def test_variants_that_we_lack_are_refused_when_the_config_is_read(model_type):
    (key,), kind = REFUSED[model_type], family_named(model_type).Config
    with pytest.raises(ConfigError, match=f"{model_type}: {key}=.* is not supported"):
        configuration.from_json(kind, REFUSED[model_type])
    configuration.from_json(kind, {key: not REFUSED[model_type][key]})


WORDS = {
    "layer_types='chunked_attention' is not known": {"layer_types": ("chunked_attention", "full_attention")},
    "layer_types names 1 layers and num_hidden_layers=2": {"layer_types": ("full_attention",)},
    "activation='relu2' is not known": {"hidden_activation": "relu2"},
    "rope_scaling type='longrope' is not known": {"rope_scaling": Frozen(rope_type="longrope")},
}


@pytest.mark.parametrize("message", WORDS)
def test_words_of_a_config_that_we_do_not_know_are_refused_before_there_are_weights(message):
    model = make_model(gemma2.Config(**LLAMA, head_dim=8, **WORDS[message]))
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(lambda: model.init(jax.random.key(0), TOKENS))


@pytest.mark.parametrize("model_type", DECODERS)
def test_a_family_writes_out_its_own_assembly(model_type):
    kind = type(make_model(family_named(model_type).Config()))
    assert kind.__bases__ == (nn.Module,) and kind.__module__ == family_named(model_type).__name__


GREEDY = {
    "llama": {},
    "mistral": {"sliding_window": 4},
    "gemma2": {"sliding_window": 4, "head_dim": 8, "query_pre_attn_scalar": 8, "final_logit_softcapping": 3.0, "num_hidden_layers": 3},
}


@pytest.mark.parametrize("model_type", GREEDY)
def test_greedy_tokens_are_those_of_transformers(model_type, tmp_path):
    """Rows of unequal length, padded on the left, longer than the window."""
    torch = pytest.importorskip("torch")
    from tests.parity import Case, torch_model

    theirs = torch_model(Case(model_type, "causal-lm", {**LLAMA, "max_position_embeddings": 64, **GREEDY[model_type]}))
    theirs.save_pretrained(tmp_path)
    mask = np.ones_like(TOKENS, bool)
    mask[1, :5] = False
    prompt = torch.tensor(np.where(mask, TOKENS, 0).astype(np.int64))
    theirs.generation_config.eos_token_id = None
    asked = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": 0}
    want = theirs.generate(prompt, attention_mask=torch.tensor(mask.astype(np.int64)), **asked)[:, 12:].numpy()
    model, params = jaxlm.load(tmp_path)
    assert (generate_tokens(model, params, TOKENS, mask=mask, max_new_tokens=10) == want).all()
