"""What every family promises, whatever it is: padding, packing, meshes, layouts, caches, ids out of range, dropout."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import sharding
from jaxlm.config import Compute, Mesh
from jaxlm.errors import ConfigError, DataError
from jaxlm.layers.cache import make_cache
from jaxlm.models import FAMILIES, configuration, dims, family_named, init_params, make_model

# Sizes that the mesh divides, under all the names that they have; a family takes those that it knows.
TINY = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "intermediate_size": 64, "max_position_embeddings": 40, "embedding_size": 16, "sliding_window": 4, "num_local_experts": 4,
    "n_positions": 40, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_layers": 2, "n_heads": 4, "dim": 32, "hidden_dim": 64,
    "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "ffn_dim": 64,
    "word_embed_proj_dim": 32, "query_pre_attn_scalar": 8, "pad_token_id": 1, "global_attn_every_n_layers": 2, "local_attention": 8,
    "layer_types": None, "sliding_window_pattern": 2, "nhead": 4,
}  # fmt: skip
SEQ2SEQ = [name for name in FAMILIES if "seq2seq-lm" in family_named(name).NAMES.architectures]
DECODERS = [name for name in FAMILIES if next(iter(family_named(name).NAMES.architectures)) == "causal-lm"]
SINGLE = [name for name in FAMILIES if name not in SEQ2SEQ]
EITHER = [name for name in SINGLE if name not in DECODERS and "is_decoder" in family_named(name).Config.__dataclass_fields__]
# Built of the same layers as another family that is always tested: `pytest -m slow` tests them too.
KIN = {"mt5", "mbart", "marian", "pegasus", "xlm-roberta", "distilbert", "mistral", "qwen2", "gemma2", "opt"}
each = lambda names: [pytest.param(name, marks=pytest.mark.slow if name in KIN else ()) for name in names]
A, B, C, D = np.random.default_rng(0).integers(4, 64, (4, 1, 6)).astype(np.int32)
ALONE = np.concatenate([A, B, C, D])  # one shape for most tests: one compile
PAD = np.ones((1, 2), np.int32)


def config_of(model_type):
    kind = family_named(model_type).Config
    known = {field.name for field in dataclasses.fields(kind)}
    return configuration.from_json(kind, {"model_type": model_type, **{key: value for key, value in TINY.items() if key in known}})


@functools.cache
def model_of(model_type, compute=Compute()):
    return make_model(config_of(model_type), compute)


@functools.cache
def params_of(model_type):
    """Parameters shaken off their starting values, so that biases and norms are seen."""
    params = jax.device_get(jax.jit(lambda: init_params(model_of(model_type), jax.random.key(0)))())
    leaves, shape = jax.tree.flatten(params)
    random = np.random.default_rng(1)
    return jax.tree.unflatten(shape, [leaf + 0.1 * random.standard_normal(leaf.shape, np.float32) for leaf in leaves])


@functools.partial(jax.jit, static_argnums=0)
def run(model, params, tokens, arguments):
    targets = (tokens,) if "seq2seq-lm" in family_named(model.config.model_type).NAMES.architectures else ()
    out = model.apply({"params": params}, tokens, *targets, **arguments)
    return out.hidden, out.logits


def logits(model_type, tokens, **arguments):
    return np.asarray(run(model_of(model_type), params_of(model_type), tokens, arguments)[1])


def close(one, other):
    np.testing.assert_allclose(one, other, atol=5e-5 * (1 + np.abs(other).max()))


def padded():
    """A and B padded on the right, C and D on the left, and the mask."""
    tokens = np.concatenate([np.concatenate(parts, 1) for parts in ((A, PAD), (B, PAD), (PAD, C), (PAD, D))])
    return tokens, np.array([[True] * 6 + [False] * 2] * 2 + [[False] * 2 + [True] * 6] * 2)


@pytest.mark.parametrize("model_type", each(FAMILIES))
def test_padding_and_packing_change_nothing(model_type):
    """Short texts alone, padded on either side, and side by side in one row."""
    alone = logits(model_type, ALONE)
    tokens, mask = padded()
    masks = {"mask": mask, "target_mask": mask} if model_type in SEQ2SEQ else {"mask": mask}
    out = logits(model_type, tokens, **masks)
    close(out[:2, :6], alone[:2])
    close(out[2:, 2:], alone[2:])
    segments = np.array([[1] * 6 + [2] * 6 + [0] * 2] * 2, np.int32)
    packs = {"segments": segments, "target_segments": segments} if model_type in SEQ2SEQ else {"segments": segments}
    out = logits(model_type, np.concatenate([np.concatenate([A, B, PAD], 1), np.concatenate([C, D, PAD], 1)]), **packs)
    close(np.stack([out[0, :6], out[0, 6:12], out[1, :6], out[1, 6:12]]), alone)


WHOLE_TEXT = ("sequence-classification", "multiple-choice")
HEADS = [(name, task, "cls") for name in FAMILIES for task in WHOLE_TEXT if task in family_named(name).NAMES.architectures]


@pytest.mark.parametrize(("model_type", "task", "pooling"), [*HEADS, ("modernbert", "sequence-classification", "mean")])
def test_every_token_of_a_packed_row_has_the_logits_of_its_own_text(model_type, task, pooling):
    """Heads over a whole text: of packed rows as of each text alone, whichever token one looks at."""
    config = dataclasses.replace(config_of(model_type), num_labels=3)
    config = dataclasses.replace(config, **{"classifier_pooling": pooling} if hasattr(config, "classifier_pooling") else {})
    texts = ALONE[:3].copy()
    texts[:, -1] = getattr(config, "eos_token_id", 2)  # BART reads where a text ends
    model = make_model(config, task=task)
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    random = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: 0.3 * random.standard_normal(leaf.shape, np.float32), shapes)
    call = jax.jit(lambda tokens, segments: model.apply({"params": params}, tokens, segments=segments).logits)
    alone = np.asarray(call(texts[:, None] if task == "multiple-choice" else texts, None)).reshape(3, -1)
    segments = np.repeat([[1, 2, 3, 0]], [6, 6, 6, 2], axis=1).astype(np.int32)
    packed = np.asarray(call(np.concatenate([texts.reshape(1, -1), PAD], 1), segments))[0, :18].reshape(3, 6, -1)
    close(packed, np.broadcast_to(alone[:, None], packed.shape))


@pytest.mark.parametrize("model_type", each(FAMILIES))
def test_a_mesh_and_the_stacked_layout_change_nothing(model_type):
    want = logits(model_type, ALONE)
    mesh = sharding.make_mesh(Mesh(data=2, fsdp=2, tensor=2))
    with sharding.use(mesh):
        model, params = model_of(model_type), params_of(model_type)
        abstract = jax.eval_shape(lambda: init_params(model, jax.random.key(0), 4))
        placed = jax.tree.map(lambda leaf, like: jax.device_put(leaf, jax.NamedSharding(mesh, like.sharding.spec)), params, abstract)
        divided = {axis for leaf in jax.tree.leaves(abstract) for axis in leaf.sharding.spec if axis}
        assert {"fsdp", "tensor"} <= divided
        got = run(model, placed, jax.device_put(ALONE, sharding.batch_sharding(mesh)), {})[1]
    close(np.asarray(got), want)
    stacked = make_model(config_of(model_type), Compute(layout="stacked"))
    try:
        shapes = jax.eval_shape(lambda: init_params(stacked, jax.random.key(0)))
    except ConfigError as error:
        assert "compute.layout=unrolled" in str(error)
        return
    close(np.asarray(run(stacked, stack_like(params_of(model_type), shapes), ALONE, {})[1]), want)


def stack_like(params, shapes):
    """Parameters in the stacked layout; models with several piles of layers have several of them."""
    if not isinstance(shapes, dict):
        return params
    if set(shapes) == {"stacked"} and set(params) != {"stacked"}:
        return {"stacked": jax.tree.map(lambda *leaves: np.stack(leaves), *(params[str(i)] for i in range(len(params))))}
    return {name: stack_like(params[name], shapes[name]) for name in shapes}


@pytest.mark.parametrize("model_type", each([*DECODERS, *EITHER]))
def test_step_by_step_with_a_cache_is_the_whole(model_type):
    """BERT's descendants too, where they are decoders: their parameters are those of the encoder."""
    known, (tokens, mask) = dims(config_of(model_type)), padded()
    cache = make_cache(known.layers, (4, 8, known.kv_heads, known.head_size))
    model, params = model_of(model_type), params_of(model_type)
    if model_type in EITHER:
        model = make_model(dataclasses.replace(model.config, is_decoder=True), task="causal-lm")
    apply = lambda cache, tokens, mask: model.apply({"params": params}, tokens, mask=mask, cache=cache)
    step = jax.jit(lambda *inputs: (lambda out: (out.logits, out.cache))(apply(*inputs)))
    columns = []
    for part in (slice(0, 4), slice(4, 8)):  # the second call goes on with what the first one left
        new, cache = step(cache, tokens[:, part], mask[:, part])
        columns.append(new)
    out, alone = np.concatenate(columns, 1), np.asarray(run(model, params, ALONE, {})[1])
    close(out[:2, :6], alone[:2])
    close(out[2:, 2:], alone[2:])


@pytest.mark.parametrize("model_type", each(FAMILIES))
@pytest.mark.parametrize("wrong", [64, -1])
def test_an_id_outside_the_vocabulary_is_refused_and_gives_nan_inside_jit(model_type, wrong):
    tokens = np.array(ALONE)
    tokens[1, 3] = wrong
    out = logits(model_type, tokens)
    assert np.isnan(out[1, -1]).all() and np.isfinite(out[0]).all()
    targets = (jnp.asarray(ALONE),) if model_type in SEQ2SEQ else ()
    with pytest.raises(DataError, match=rf"id {wrong} at \[1, 3\] is outside the 64 rows"):
        model_of(model_type).apply({"params": params_of(model_type)}, jnp.asarray(tokens), *targets)


@pytest.mark.parametrize("model_type", each(FAMILIES))
def test_dropout_needs_a_key_and_only_a_key(model_type):
    config = config_of(model_type)
    rates = [field.name for field in dataclasses.fields(config) if "drop" in field.name and isinstance(getattr(config, field.name), float)]
    rates = [name for name in rates if not any(word in name for word in ("qa_", "classif", "summary"))]  # of other heads
    assert rates, "every published family has a rate of dropout"
    none, key = dict.fromkeys(rates, 0.0), {"key": jax.random.key(0)}
    for rate in rates:  # each of them draws random bits
        model = make_model(dataclasses.replace(config, **{**none, rate: 0.5}))
        program = jax.make_jaxpr(lambda params, model=model: run(model, params, ALONE, key))(params_of(model_type))
        assert "random_bits" in str(program), rate
    model = make_model(dataclasses.replace(config, **dict.fromkeys(rates, 0.5)))
    one, two, again = (run(model, params_of(model_type), ALONE, {"key": jax.random.key(i)})[0] for i in (0, 1, 0))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, two)
    close(run(model, params_of(model_type), ALONE, {})[1], logits(model_type, ALONE))  # without a key no rate matters


@pytest.mark.parametrize("model_type", each(SINGLE))
def test_what_a_family_cannot_use_it_refuses(model_type):
    apply = functools.partial(model_of(model_type).apply, {"params": params_of(model_type)}, jnp.asarray(ALONE))
    known = dims(config_of(model_type))
    if model_type not in DECODERS:
        with pytest.raises(ValueError, match="cache"):
            apply(cache=make_cache(known.layers, (4, 16, known.kv_heads, known.head_size)))
    elif model_type != "gpt2":
        with pytest.raises(ValueError, match="token_types"):
            apply(token_types=jnp.zeros_like(jnp.asarray(ALONE)))
