"""Attention of one token over a cache that does not hold it yet, against `attend` over the cache that does."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm.config import Compute
from jaxlm.inference import loop, prompts
from jaxlm.inference.settings import make_settings
from jaxlm.models import gpt2, init_params, make_model
from jaxlm.ops.attention import Mask, attend
from jaxlm.ops.step_attention import attend_step

B, S, N, H, SLOT = 2, 9, 4, 8, 5


@pytest.mark.parametrize(("kv_heads", "window"), [*itertools.product((4, 2, 1), (None, 3))])
def test_one_token_sees_what_the_written_cache_would_show(kv_heads, window):
    draw = lambda number, *shape: jax.random.normal(jax.random.key(number), shape)
    query, new = draw(0, B, 1, N, H), (draw(1, B, 1, kv_heads, H), draw(2, B, 1, kv_heads, H))
    cached = (draw(3, B, kv_heads, S, H), draw(4, B, kv_heads, S, H))
    valid = (jnp.arange(S) <= SLOT) & (jnp.arange(S) >= jnp.array([[0], [2]]))
    mask, bias = Mask(causal=True, keys=valid, offset=jnp.int32(SLOT), window=window), draw(5, 1, N, 1, S)
    written = [old.at[:, :, SLOT].set(one[:, 0]).transpose(0, 2, 1, 3) for old, one in zip(cached, new, strict=True)]
    for added, softcap in ((None, None), (bias, None), (None, 2.0)):
        want = attend(query, *written, mask, added, implementation="eager", scale=0.3, softcap=softcap)
        found = attend_step(query, new, cached, mask, added, scale=0.3, softcap=softcap)
        np.testing.assert_allclose(found, want, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 4])
def test_a_compiled_step_holds_no_copy_of_the_cache(rows):
    config = gpt2.Config(vocab_size=64, n_positions=256, n_embd=32, n_layer=2, n_head=4)
    model = make_model(config, Compute())
    params = init_params(model, jax.random.key(0))
    settings = make_settings({})
    read, count, most = prompts.read_prompts(model, np.ones((rows, 16), np.int32), None, settings)
    state, logits = loop.begin(model, params, settings, read, most, 1, count)
    state = loop.first(settings, state, logits)
    text = loop.advance.lower(loop.step, model, params, settings, state).compile().as_text()
    shape = f"f32[{rows},4,128,8]"
    assert shape in text
    assert not [line for line in text.splitlines() if f"{shape}{{3,2,1,0}} copy(" in line or f"{shape}{{3,2,1,0}} transpose(" in line]
