"""Real checkpoints: MiniLM and SmolLM2, wherever JAXLM_REAL or ../shared/data has them; reference numbers of their README."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlm
from jaxlm.text.tokenizers import wordpiece

ROOT = Path(__file__).parent.parent
PLACES = [Path(place) for place in (os.environ.get("JAXLM_REAL"), ROOT.parent / "shared" / "data") if place]


def real(pattern: str) -> Path:
    """The first file of this name, at any depth."""
    found = [path for place in PLACES if place.is_dir() for path in sorted(place.rglob(pattern))]
    if not found:
        pytest.skip(f"{pattern} is not here: fetch it, and set JAXLM_REAL to its folder")
    return found[0]


def test_minilm_says_which_sentences_are_alike():
    folder = real("minilm/model.safetensors").parent
    model, params = jaxlm.load(folder)
    tokenizer = jaxlm.load_tokenizer(folder)
    assert tokenizer.encode("A man is eating food.") == [101, 1037, 2158, 2003, 5983, 2833, 1012, 102]
    assert wordpiece.load(folder).encode("Ünder 東京 don't!") == tokenizer.encode("Ünder 東京 don't!")

    def embedded(text):
        hidden = model.apply({"params": params}, jnp.array([tokenizer.encode(text)])).hidden[0].mean(0)
        return hidden / jnp.linalg.norm(hidden)

    texts = ("A man is eating food.", "A man is eating a piece of bread.", "The stock market fell sharply on Monday.")
    food, bread, stocks = map(embedded, texts)
    assert abs(float(food @ bread) - 0.7553) < 1e-4 and abs(float(food @ stocks) - 0.0157) < 1e-4


@pytest.fixture(scope="module")
def smollm2():
    path = real("SmolLM2-135M*.gguf")
    return *jaxlm.load(path), jaxlm.load_tokenizer(path)


def test_smollm2_knows_the_capital_of_france(smollm2):
    model, params, tokenizer = smollm2
    ids = [1, *tokenizer.encode("The capital of France is")]
    assert ids == [1, 504, 3575, 282, 4649, 314]
    logits = np.asarray(model.apply({"params": params}, jnp.array([ids])).logits[0, -1])
    top = np.argsort(-logits)[:3]
    assert [tokenizer.decode([i]) for i in top] == [" Paris", " Mon", " Le"]
    assert np.abs(logits[top] - [15.414, 11.647, 11.250]).max() < 2e-3
    new = jaxlm.generate_tokens(model, params, np.array([ids], np.int32), max_new_tokens=15, eos_token_id=tokenizer.eos_id)
    assert tokenizer.decode(new[0]) == " Paris.\n\nThe capital of the United States is New York City."


PEAK = """
import sys

import jax
import jaxlm

def memory(key):  # not getrusage, which begins with the peak of the process that started this one
    return int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1]) * 1024

jaxlm.load(sys.argv[2])  # everything is imported
before = memory("VmRSS")
_, params = jaxlm.load(sys.argv[1])
print(memory("VmHWM") - before, sum(leaf.nbytes for leaf in jax.tree.leaves(params)), max(leaf.nbytes for leaf in jax.tree.leaves(params)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_peaks_at_the_file_the_parameters_and_one_tensor(smollm2, tmp_path, dtype):
    from tests.foreign import bert_folder

    if not Path("/proc/self/status").exists():
        pytest.skip("memory is read from /proc")
    model, params, _ = smollm2
    jaxlm.save(tmp_path / "m", model, jax.tree.map(lambda leaf: leaf.astype(dtype), params))
    small = bert_folder(tmp_path / "small")
    code = [sys.executable, "-c", PEAK, str(tmp_path / "m"), str(small)]
    done = subprocess.run(code, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    peak, parameters, largest = map(int, done.stdout.split())
    file = (tmp_path / "m" / "model.safetensors").stat().st_size
    print(
        f"{dtype}: peak {peak / 2**20:.0f} MiB; file {file / 2**20:.0f}, parameters {parameters / 2**20:.0f}, largest {largest / 2**20:.0f}"
    )
    assert peak < file + parameters + largest + 64 * 2**20
