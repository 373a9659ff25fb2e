"""The mean of a run's checkpoints: NumPy's mean of what was saved, as a run and as a folder; what is refused."""

import contextlib
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from running import damage

import jaxlm
from jaxlm import config, convert
from jaxlm.errors import CheckpointError, ConfigError, DataError
from jaxlm.models import gpt2
from jaxlm.text.training import train_tokenizer
from jaxlm.training import checkpoint, manifest
from jaxlm.training.tuning import nested, paths
from tests.foreign import made

GPT2 = gpt2.Config(vocab_size=300, n_positions=16, n_embd=8, n_layer=2, n_head=2)
STEPS = (10, 20, 30, 40)
MATRIX = "h/0/mlp/up/kernel"


def drawn(seed):
    """Another set of parameters for every checkpoint."""
    random = np.random.default_rng(seed)
    return {path: jnp.asarray(random.standard_normal(leaf.shape), jnp.float32) for path, leaf in paths(made(GPT2, "causal-lm")[1]).items()}


def ordinary(step):
    return {"params": nested(drawn(step)), "optimizer": {"mu": nested(drawn(step + 1))}, "step": jnp.int32(step)}


def run_of(folder, state=ordinary):
    """A run directory with four checkpoints, the first of them marked as the best."""
    tokenizer = train_tokenizer("bpe", ["the cat sat on the mat"] * 5, 300)
    run = config.Run(model=GPT2, workdir=str(folder))
    content = json.dumps(config.to_dict(run) | {"tokenizer_digest": tokenizer.digest, "data_digest": None}).encode()
    tokenizer.save(folder / "tokenizer")
    (folder / "config.json").write_bytes(content)
    files = {"config.json": content, "tokenizer": folder / "tokenizer", "target_tokenizer": folder / "tokenizer"}
    with contextlib.closing(checkpoint.Writer(folder, len(STEPS), files)) as writer:
        for step in STEPS:
            writer.save(step, state(step), best=1.0 if step == 10 else None, block=True)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("averaging") / "run")


def mean(*trees):
    return {path: np.mean([np.asarray(tree[path], np.float64) for tree in trees], axis=0) for path in trees[0]}


def close(found, wanted):
    found = paths(found)
    assert found.keys() == wanted.keys() and all(leaf.dtype == np.float32 for leaf in found.values())
    for path in wanted:
        np.testing.assert_allclose(found[path], wanted[path], rtol=1e-6, atol=1e-6, err_msg=path)


def test_the_newest_checkpoints_become_a_folder(run, tmp_path, capsys):
    convert.main([str(run), str(tmp_path / "hf"), "--average", "3"])
    printed = capsys.readouterr().out
    assert "mean of the checkpoints 20, 30, 40) -> " in printed and "a Hugging Face folder" in printed
    assert float(printed.split("largest difference ")[1]) == 0
    close(jaxlm.load(tmp_path / "hf")[1], mean(*map(drawn, STEPS[1:])))
    assert [path.name for path in tmp_path.iterdir()] == ["hf"] and jaxlm.load_tokenizer(tmp_path / "hf").encode("the")


def test_they_become_a_run_with_all_that_a_run_has(run, tmp_path, capsys):
    convert.main([str(run), str(tmp_path / "mean"), "--average", "2", "--run"])
    assert "checkpoints 30, 40) -> " in (out := capsys.readouterr().out) and "a run directory" in out
    model, params = jaxlm.load(tmp_path / "mean")
    close(params, mean(drawn(30), drawn(40)))
    assert model.config == GPT2 and manifest.checkpoint_steps(tmp_path / "mean") == [40]
    for name in ("tokenizer", "target_tokenizer"):
        assert jaxlm.load_tokenizer(tmp_path / "mean" / name).digest == jaxlm.load_tokenizer(run).digest
    assert json.loads((tmp_path / "mean" / "config.json").read_text())["workdir"] == str(tmp_path / "mean")


def test_the_newest_alone_is_a_run_where_another_is_the_best(run, tmp_path):
    convert.main([str(run), str(tmp_path / "last"), "--average", "1", "--run"])
    assert manifest.best(run)[0] == 10 and manifest.checkpoint_steps(tmp_path / "last") == [40]
    close(jaxlm.load(tmp_path / "last")[1], drawn(40))


def test_the_moving_average_counts_where_there_is_one(tmp_path):
    run_of(tmp_path / "run", lambda step: {**ordinary(step), "ema": nested(drawn(step + 5))})
    convert.main([str(tmp_path / "run"), str(tmp_path / "mean"), "--average", "2", "--run"])
    close(jaxlm.load(tmp_path / "mean")[1], mean(drawn(35), drawn(45)))


def test_low_rank_updates_are_put_together_first(tmp_path):
    a, b = (
        lambda step, shape=shape: np.random.default_rng(step + shape[0]).standard_normal(shape).astype(np.float32)
        for shape in ((8, 2), (2, 32))
    )

    def state(step):
        updates = {f"lora/{MATRIX}/a": jnp.asarray(a(step)), f"lora/{MATRIX}/b": jnp.asarray(b(step))}
        return {"params": nested(updates), "frozen": {**nested(drawn(0)), "lora": {"scale": jnp.float32(0.5)}}, "step": jnp.int32(step)}

    run_of(tmp_path / "run", state)
    convert.main([str(tmp_path / "run"), str(tmp_path / "mean"), "--average", "2", "--run"])
    wholes = [{**drawn(0), MATRIX: drawn(0)[MATRIX] + 0.5 * a(step) @ b(step)} for step in (30, 40)]
    close(jaxlm.load(tmp_path / "mean")[1], mean(*wholes))


def test_what_cannot_be_is_refused(run, tmp_path):
    for arguments, kind, words in (
        (["--average", "5"], ConfigError, "keeps 4 checkpoints.*checkpoint.keep=5"),
        (["--average", "0"], ConfigError, "at least 1"),
        (["--run"], ConfigError, "--run is of --average"),
    ):
        with pytest.raises(kind, match=words):
            convert.main([str(run), str(tmp_path / "a"), *arguments])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    for more in ([], ["--run"]):
        with pytest.raises(DataError, match="is not empty"):
            convert.main([str(run), str(tmp_path / "full"), "--average", "2", *more])
    with pytest.raises(ConfigError, match="takes the checkpoints of a run"):
        convert.main([str(tmp_path / "full"), str(tmp_path / "a"), "--average", "2"])
    shutil.copytree(run, tmp_path / "damaged")
    damage(manifest.folder(tmp_path / "damaged") / "30")
    with pytest.raises(CheckpointError, match="30 is damaged.*move it away"):
        convert.main([str(tmp_path / "damaged"), str(tmp_path / "a"), "--average", "2"])
