"""What Transformers' Flax models got wrong and no other file here holds: each a promise kept.

Elsewhere: Mistral without a window, rope_theta and rope_scaling, several ends of a text (`test_models_decoders.py`), the bias of
MLM heads (`test_models_encoders.py`), ids out of range (`test_models_contract.py`), T5 on today's JAX (`test_parity.py`), memory
of loading (`test_weights_real.py`), a training that resumes whole and averages over tokens (`test_train_stopping.py`,
`test_training_step.py`).
"""

import subprocess
import sys

import jax
import numpy as np
import pytest

import jaxlm
from jaxlm.errors import ConfigError
from jaxlm.inference import loop
from jaxlm.models import gpt2, init_params, make_model, t5

CONFIG = gpt2.Config(vocab_size=40, n_positions=64, n_embd=16, n_layer=2, n_head=2)
MODEL = make_model(CONFIG)


@pytest.fixture(scope="module")
def params():
    return jax.jit(lambda: init_params(MODEL, jax.random.key(0)))()


def test_an_argument_that_is_not_supported_is_refused_not_ignored(params):
    with pytest.raises(ConfigError, match="repetition_penalti is not supported: did you mean repetition_penalty"):
        jaxlm.generate_tokens(MODEL, params, np.array([[1, 2]]), max_new_tokens=2, repetition_penalti=1.3)


def test_another_call_of_near_length_traces_nothing_anew(params):
    jaxlm.generate_tokens(MODEL, params, np.array([[1, 2, 3]]), max_new_tokens=4)
    traced = loop.advance._cache_size() + loop._read._cache_size()
    jaxlm.generate_tokens(MODEL, params, np.array([[4, 5, 6, 7, 8]]), max_new_tokens=4)
    assert loop.advance._cache_size() + loop._read._cache_size() == traced


def test_safetensors_are_loaded_and_saved_without_torch(params, tmp_path):
    jaxlm.save(tmp_path / "first", MODEL, params)
    code = f"""
import sys
sys.modules["torch"] = sys.modules["transformers"] = None  # an import of either fails
import jaxlm
model, params = jaxlm.load({str(tmp_path / "first")!r})
jaxlm.save({str(tmp_path / "second")!r}, model, params)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second"))
    assert one == two


def test_an_encoder_decoder_runs_under_jit_twice_with_one_trace():
    model = make_model(t5.Config(vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2))
    params = jax.jit(lambda: init_params(model, jax.random.key(0)))()
    run = jax.jit(lambda tokens: model.apply({"params": params}, tokens, tokens).logits)
    first, second = run(np.array([[1, 2, 3]])), run(np.array([[4, 5, 6]]))
    assert run._cache_size() == 1 and np.isfinite(first).all() and not np.allclose(first, second)
