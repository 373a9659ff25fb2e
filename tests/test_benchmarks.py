"""The benchmark's own machinery: two processes in turn, failures that are told; and a peer that learns exactly what we learn."""

import dataclasses
import time

import numpy as np
import pytest

from jaxlm import bench
from jaxlm.benchmarks import decode, translate
from jaxlm.benchmarks.pairs import alternate, quiet, spread
from jaxlm.errors import ConfigError, DataError
from jaxlm.models import gpt2


def sleeper(seconds: float):
    return {"asked": seconds}, lambda: time.sleep(seconds), lambda: 123


def broken():
    raise ValueError("no such thing")


def test_sides_take_turns_and_tell_their_facts():
    (short, long), others = alternate({"short": (sleeper, {"seconds": 0.02}), "long": (sleeper, {"seconds": 0.06})}, rounds=3, steps=2)
    assert (short.name, short.facts, short.peak_bytes) == ("short", {"asked": 0.02}, 123)
    assert len(short.seconds) == len(others) == 3
    assert (long.seconds > short.seconds).all() and (short.seconds >= 0.02).all()


def test_a_side_that_fails_is_named():
    with pytest.raises(RuntimeError, match="peer: ValueError: no such thing"):
        alternate({"peer": (broken, {})}, rounds=1, steps=1)


def test_only_quiet_rounds_count():
    assert quiet(np.array([0.01, 0.5, 0.02])).tolist() == [True, False, True]
    assert quiet(np.array([0.4, 0.5])).tolist() == [True, True]
    assert spread(np.array([1.0, 1.1, 1.2])) == "1.10 [1.02, 1.18]"


def test_classify_has_the_rounds_of_its_recipe():
    assert bench.parse(["classify", "model", "train.tsv", "test.tsv"]).rounds == 2
    assert bench.parse(["train"]).rounds == 7
    assert bench.parse(["classify", "model", "train.tsv", "test.tsv", "--rounds", "5"]).rounds == 5


def test_wrong_options_are_told():
    with pytest.raises(ConfigError, match="did you mean 'gpt2-medium'"):
        bench.main(["train", "--size", "gpt2-mediun"])
    with pytest.raises(ConfigError, match="--help"):
        bench.main(["train", "--batch", "two"])


def parallel(folder, lines=20, targets=20):
    """Two aligned files: line i has i + 1 words on the left, two on the right."""
    (folder / "a.txt").write_text("".join(" ".join(["word"] * (i + 1)) + "\n" for i in range(lines)))
    (folder / "b.txt").write_text("".join(f"wort {i}\n" for i in range(targets)))
    return str(folder / "a.txt"), str(folder / "b.txt")


def test_translate_pads_pairs_and_goes_round(tmp_path):
    shape = translate.Shape(4, 8, files=parallel(tmp_path))
    made = [batch for batch, _ in zip(translate.batches(shape), range(10), strict=False)]
    lengths = lambda part: sorted(int(n) for batch in part for n in batch["segments"].sum(1))
    assert lengths(made[:5]) == lengths(made[5:]) == sorted(min(i + 2, 8) for i in range(20))  # every pair once in five batches
    for batch in made:
        assert batch["tokens"].shape == batch["targets"].shape == (4, 8) and (batch["tokens"][batch["segments"] == 0] == 0).all()
        assert (batch["weights"] == batch["target_segments"]).all() and (np.diff(batch["segments"]) <= 0).all()
    for files, kind, words in (
        ((shape.files[0],), ConfigError, "two files"),
        (parallel(tmp_path, targets=19), DataError, "20 and 19 lines"),
    ):
        with pytest.raises(kind, match=words):
            next(translate.batches(translate.Shape(4, 8, files=files)))


def test_translate_trains_torch_to_the_same_losses(tmp_path, monkeypatch, capsys):
    """Weights, loss, gradient, clipping, AdamW and schedule are the same on both sides."""
    small = {"d_model": 16} | {f"{side}_{key}": 1 for side in ("encoder", "decoder") for key in ("layers", "attention_heads")}
    whole = translate.sizes(translate.Shape())
    monkeypatch.setattr(translate, "sizes", lambda shape: whole | small | {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16})
    monkeypatch.setattr(translate, "RULE", dataclasses.replace(translate.RULE, learning_rate=0.02, warmup=2))
    found = translate.curve(translate.Shape(4, 8, files=parallel(tmp_path)), 6)
    assert "largest difference" in capsys.readouterr().out and found["jaxlm"][-1] < found["jaxlm"][0] - 0.5
    np.testing.assert_allclose(found["jaxlm"], found["torch"], rtol=1e-4)


def test_decoding_and_its_peer_make_as_many_tokens(monkeypatch):
    """Both sides check the shape of what they made; ours tells what it read."""
    tiny = gpt2.Config(vocab_size=30_000, n_positions=32, n_embd=16, n_layer=1, n_head=2)
    monkeypatch.setitem(gpt2.SIZES, "gpt2", tiny)
    monkeypatch.setattr(decode, "_bandwidth", lambda: 1e9)
    shape = decode.Shape(batch=2, length=4, new=3)
    facts, one, _ = decode.ours(shape)
    one()
    weights = 30_000 * 16 + 12 * 16**2 + 13 * 16 + 2 * 16  # the table, the block's matrices, its biases and norms, the last norm
    assert facts["bytes"] == 4 * weights and facts["bandwidth"] == 1e9 and facts["prefill"] > 0
    decode.torchs(shape, compiled=False)[1]()
