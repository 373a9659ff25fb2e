"""Going on from a checkpoint: the same run, maybe on another mesh, in another layer layout, with more steps."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jaxlm import config, sharding
from jaxlm.atomic import write_atomically
from jaxlm.config import Run
from jaxlm.errors import CheckpointError, ConfigError
from jaxlm.training import checkpoint, manifest
from jaxlm.training.step import init_state

DIGESTS = ("tokenizer_digest", "data_digest")  # of config.json, beside the keys of the run
# What a resumed run may not change, and what of it it may.
FIXED = (
    "model",
    "task",
    "pretrained",
    "seed",
    "batch_size",
    "loss",
    "evaluation",
    "data",
    "records",
    "masking",
    "denoising",
    "risk",
    "tuning",
    "tokenizer",
    "target_tokenizer",
    "optimizer",
)
FREE_WITHIN = {"data": {"loader", "prefetch", "cache", "test_source"}, "records": {"null_threshold", "n_best", "answer"}}
FREE_WITHIN["evaluation"] = {"every", "batches", "patience", "generate", "num_beams", "max_new_tokens", "scores"}


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The keys that a resumed run may not change, as `key: old -> new` lines."""
    rows, fresh = [], config.to_dict(Run())  # a key that is younger than the old run had its default
    for group in FIXED:
        before, after = old.get(group, fresh[group]), new.get(group)
        if isinstance(before, dict) and isinstance(after, dict):
            before = {**(fresh[group] if group != "model" and isinstance(fresh[group], dict) else {}), **before}
        else:
            before, after = {"": before}, {"": after}
        for key in sorted(set(before) | set(after)):
            if key in FREE_WITHIN.get(group, ()) or json.dumps(before.get(key)) == json.dumps(after.get(key)):
                continue
            rows.append(f"{group}{'.' + key if key else ''}: {before.get(key)!r} -> {after.get(key)!r}")
    return rows


def check_same_run(run: Run, tokenizer: Any, newest: Path | None) -> None:
    """Refuse to go on with another model, data, tokenizer, task or optimizer.

    Raises:
      ConfigError: with the keys that differ, old -> new.
    """
    old = stored_config(newest) if newest else None
    if old is None:
        return
    rows = differences(old, config.to_dict(run))
    if not rows and old["tokenizer_digest"] != tokenizer.digest:
        rows = ["the tokenizer that the data gives now is not the one of the checkpoint; has the data changed?"]
    if rows:
        raise ConfigError(f"{run.workdir} holds another run: {'; '.join(rows)}. Give the old values, or another workdir=...")


def check_same_data(run: Run, data_digest: str, newest: Path | None) -> None:
    """Refuse to go on with data whose content has changed, though its name has not."""
    if newest and stored_config(newest)["data_digest"] != data_digest:
        mend = "put it back, or take another workdir=..."
        raise ConfigError(f"{run.workdir} was trained on other data: what data.source names has changed; {mend}")


def resolved_config(run: Run, tokenizer: Any, data_digest: str) -> dict[str, Any]:
    """What config.json holds: the run, and the digests of its tokenizer and of its data."""
    return {**config.to_dict(run), **dict(zip(DIGESTS, (tokenizer.digest, data_digest), strict=True))}


def keep_files(run: Run, tokenizer: Any, data_digest: str, owner: bool) -> dict[str, Path | bytes]:
    """What a checkpoint holds beside the state; the `owner` of the run directory writes it there too."""
    content = json.dumps(resolved_config(run, tokenizer, data_digest), indent=1).encode()
    kept = {"tokenizer": tokenizer}
    if hasattr(tokenizer, "target"):  # two of them: text/sides.py
        kept = {"tokenizer": tokenizer.source, "target_tokenizer": tokenizer.target}
    if owner:
        for name, one in kept.items():
            one.save(Path(run.workdir) / name)
        write_atomically(Path(run.workdir) / "config.json", content)
    return {"config.json": content} | {name: Path(run.workdir) / name for name in kept}


def stored_config(directory: Path) -> dict[str, Any]:
    """The config.json of a checkpoint."""
    return json.loads(checkpoint.read_file(directory, "config.json"))


def trained_beside_lora(workdir: str) -> set[str] | None:
    """The paths that a run with low-rank updates trains beside them, from its newest checkpoint; None before the first.

    So that a run goes on without the pretrained model that it has started from.
    """
    for step in reversed(manifest.checkpoint_steps(workdir)):
        with contextlib.suppress(CheckpointError):
            names = (name.partition("/") for name in checkpoint.leaves(manifest.folder(workdir) / str(step)))
            return {path for top, _, path in names if top == "params" and not path.startswith("lora/")}
    return None


def restore_state(problem: Any, newest: Path, layouts: dict[str, Callable[[Any], Any]]) -> Any:
    """The state of a checkpoint, laid out as this run wants it.

    Args:
      layouts: name of a layer layout -> the function that turns a tree into it.
    """
    old = stored_config(newest).get("compute", {}).get("layout", problem.run.compute.layout)
    if old == problem.run.compute.layout:
        return checkpoint.restore(newest, problem.abstract, problem.mesh)
    convert, back = layouts[problem.run.compute.layout], layouts[old]
    with sharding.use(problem.mesh):
        target = jax.eval_shape(back, problem.abstract)
        again = lambda params, frozen: init_state(params, problem.rule, problem.run.optimizer.ema, frozen)
        rebuilt = jax.eval_shape(again, target["params"], target.get("frozen"))
        _check_convertible(target, rebuilt, old, problem.run.compute.layout)
        return jax.jit(convert)(checkpoint.restore(newest, target, problem.mesh))


def _check_convertible(converted: Any, rebuilt: Any, old: str, new: str) -> None:
    """Adafactor factors a stack of matrices otherwise than each of them: its state cannot follow."""
    shapes = lambda tree: {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    if shapes(converted) != shapes(rebuilt):
        raise CheckpointError(f"this optimizer's state cannot be turned from compute.layout={old} to {new}: keep compute.layout={old}")
