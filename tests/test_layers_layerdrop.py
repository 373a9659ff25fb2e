"""LayerDrop: layers that are left out of a training step, in both layouts; never without a key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import Compute
from jaxlm.models import bart, init_params, make_model, opt

LAYERS = 4
TOKENS = jnp.arange(6)[None] + 3


def tiny(rate, layout="unrolled"):
    config = opt.Config(
        vocab_size=20, hidden_size=16, num_hidden_layers=LAYERS, num_attention_heads=2, ffn_dim=32, max_position_embeddings=16, dropout=0.0,
        word_embed_proj_dim=16, layerdrop=rate,
    )  # fmt: skip
    model = make_model(config, Compute(layout=layout))
    return model, init_params(model, jax.random.key(0))


@pytest.mark.parametrize("layout", ["unrolled", "stacked"])
def test_all_layers_left_out_leaves_what_no_layer_has_touched(layout):
    model, params = tiny(0.999999, layout)
    none = jax.tree.map(jnp.zeros_like, params["layers"])  # a pre-norm layer of zeros adds nothing
    wanted = model.apply({"params": {**params, "layers": none}}, TOKENS).logits
    found = model.apply({"params": params}, TOKENS, key=jax.random.key(1)).logits
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert not np.allclose(model.apply({"params": params}, TOKENS).logits, wanted, atol=1e-3)  # no key: no layer is left out


def test_a_layer_is_left_out_as_often_as_asked_and_gets_no_gradient_then():
    model, params = tiny(0.3)
    loss = lambda params, key: model.apply({"params": params}, TOKENS, key=key).logits[0, 0, 0]
    grads = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(params, jax.random.split(jax.random.key(2), 400))
    skipped = np.stack([np.abs(grads["layers"][str(i)]["mlp"]["down"]["bias"]).max(-1) == 0 for i in range(LAYERS)])
    assert abs(skipped.mean() - 0.3) < 0.05
    assert abs(np.corrcoef(skipped)[np.triu_indices(LAYERS, 1)]).max() < 0.2  # each layer by itself


def test_encoder_and_decoder_have_their_own_rates():
    sides = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = bart.Config(
        vocab_size=20, d_model=16, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=16, dropout=0.0, **sides,
        encoder_layerdrop=0.999999,
    )  # fmt: skip
    model = make_model(config)
    params = init_params(model, jax.random.key(0))
    run = lambda params, key: model.apply({"params": params}, TOKENS, TOKENS, key=key)
    changed = jax.tree.map(lambda leaf: leaf + 0.5, params["encoder"]["layers"])
    other = {**params, "encoder": {**params["encoder"], "layers": changed}}
    key = jax.random.key(3)
    np.testing.assert_array_equal(run(other, key).logits, run(params, key).logits)
    assert not np.allclose(run(other, None).logits, run(params, None).logits, atol=1e-3)
