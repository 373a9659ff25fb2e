"""Minimum-risk training (Shen et al. 2016): a model learns from the scores of texts that it draws itself.

A step draws candidates for each source from the model as it is, has the host score them against the reference, and lowers the
expected loss over them. `wrap` puts the drawing in front of a step of `step.py`, `make_loss` gives that step its loss. How
candidates are drawn, read and scored are functions that the command passes: nothing of inference is known here. Read first: `step.py`,
`../tasks/rewards.py`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Float, Int

from jaxlm.config import Loss, Risk, Run
from jaxlm.errors import ConfigError
from jaxlm.ops.dropout import split
from jaxlm.ops.losses import MASKED, plain_cross_entropy
from jaxlm.ops.positions import shift_right
from jaxlm.sharding import spec
from jaxlm.tasks import head_of, task_named
from jaxlm.tasks.pair_sides import target_length
from jaxlm.tasks.rewards import make_reward
from jaxlm.training.step import LossFn, State
from jaxlm.training.tuning import assemble

Ids = tuple[int, ...]
# (params, tokens [R, S], mask [R, S], new tokens at most, seed) -> what has `tokens` [R * candidates, N], those of a source side
# by side, and `lengths` [R * candidates], as inference's Generated has
Draw = Callable[[Any, np.ndarray, np.ndarray, int, int], Any]


def check(run: Run) -> None:
    """Refuse what cannot be, or would do nothing, with the key to change."""
    risk = run.risk
    if risk.reward is None:
        return
    make_reward(risk.reward, run.records.target_language)
    if head_of(run.task) != "seq2seq-lm" or not task_named(run.task).RECORDS:
        raise ConfigError(f"risk.reward={risk.reward} scores outputs against references: task={run.task} has none, leave it out")
    if run.data.packing in (None, "packed"):
        raise ConfigError(f"risk.reward={risk.reward} draws candidates of one pair a row: set data.packing=buckets, or padded")
    if run.loss.scheduled_sampling:
        raise ConfigError("loss.scheduled_sampling is of cross-entropy training alone: leave it out, or risk.reward")
    for key, fits, range_ in (
        ("candidates", risk.candidates >= 1, "at least 1"),
        ("sharpness", risk.sharpness > 0, "a positive number"),
        ("temperature", risk.temperature > 0, "a positive number"),
        ("cross_entropy", risk.cross_entropy >= 0, "at least 0"),
    ):
        if not fits:
            raise ConfigError(f"risk.{key}={getattr(risk, key)}: it is {range_}")


def make_loss(model: Any, plain: LossFn, start_id: int, risk: Risk, options: Loss) -> LossFn:
    """(params, batch, key) -> the summed risk of a batch's sources, and their number, for `make_step`.

    risk of x = - sum_k Q(y_k) reward(y_k) + cross_entropy * (mean cross-entropy of the reference's tokens, in nats)
    Q(y_k) = p(y_k | x) ** sharpness / sum_j p(y_j | x) ** sharpness          (equations 10 to 13; a reward is a negative loss)

    The source is encoded once; the logits of all candidates exist at once, [B * C, T, V]: raise `accumulate` where they do not fit.

    Args:
      plain: the task's own loss, for batches without candidates.
      start_id: what the decoder reads first.
      options: label smoothing and z-loss, of the cross-entropy.
    """

    def loss(params: Any, batch: dict[str, Array], key: Array | None) -> tuple[Float[Array, ""], Float[Array, ""]]:
        if "candidates" not in batch:
            return plain(params, batch, key)
        labels, weights = _flat(batch["candidates"]), _flat(batch["candidate_weights"])
        logits = _logits(model, params, batch, start_id, key).astype(jnp.float32)
        scores = risk.sharpness * _apart(log_probability(logits, labels, weights), batch["kept"])
        q = jax.nn.softmax(jnp.where(batch["kept"] > 0, scores, MASKED), axis=-1)
        real = batch["candidate_weights"][:, 0].max(-1)  # rows of padding have no reference
        total = -(real * (q * batch["rewards"]).sum(-1)).sum()
        if risk.cross_entropy:
            smooth = {"label_smoothing": options.label_smoothing, "z_loss": options.z_loss}
            total += risk.cross_entropy * plain_cross_entropy(logits, labels, _reference_weights(batch), **smooth)[0]
        return total, real.sum()

    return loss


def log_probability(logits: Float[Array, "R T V"], labels: Int[Array, "R T"], weights: Float[Array, "R T"]) -> Float[Array, "R"]:
    """log p of each row's labels, in nats, where the weights are 1."""
    picked = jnp.where(jnp.arange(logits.shape[-1]) == labels[..., None], logits, 0).sum(-1)
    return ((picked - jax.nn.logsumexp(logits, axis=-1)) * weights).sum(-1)


def _reference_weights(batch):
    """[B * C, T]: every source's first candidate, its reference, counts 1 in all."""
    weights = batch["candidate_weights"]
    first = (jnp.arange(weights.shape[1]) == 0)[:, None]
    return _flat(weights * first / jnp.maximum(weights.sum(-1, keepdims=True), 1))


def _logits(model, params, batch, start_id, key):
    keys, count = split(key, 2), batch["candidates"].shape[1]
    many = lambda array: _flat(jnp.broadcast_to(array[:, None], (len(array), count, *array.shape[1:])))
    memory = model.apply({"params": params}, batch["tokens"], segments=batch["segments"], key=keys[0]).memory
    targets, real = _flat(batch["candidates"]), (_flat(batch["candidate_weights"]) > 0).astype(jnp.int32)
    inputs = shift_right(targets, start_id, real)
    sides = {"segments": many(batch["segments"]), "target_segments": real, "memory": many(memory)}
    return model.apply({"params": params}, None, inputs, **sides, key=keys[1]).logits


def _flat(array):
    """[B, C, ...] as [B * C, ...]: rows stay where they are on the mesh."""
    return jnp.reshape(array, (-1, *array.shape[2:]), out_sharding=spec("batch", *[None] * (array.ndim - 2)))


def _apart(array, like):
    return jnp.reshape(array, like.shape, out_sharding=spec("batch", None))


def wrap(
    step: Callable[[State, Any], tuple[State, dict]],
    draw: Draw,
    decode: Callable[[Ids], str],
    reward: Callable[[str, str], float],
    run: Run,
) -> Callable[[State, Any], tuple[State, dict]]:
    """A step that gives every batch its candidates first: a function of the state, the batch and the seed alone.

    Args:
      step: of `make_step` over the loss of `make_loss`.
      draw: see `Draw`; it is given whole models.
      decode: ids of a candidate, or of a reference, to their text.
      reward: (text, reference) -> points, from 0 to 100.

    Candidates of every batch may be as long as data.target_length, whatever its bucket: one program, and none is cut where its
    reference would fit. One that has not ended there is scored as it is. The metrics say the mean "reward" of what was drawn.
    A batch holds one pair a row, in arrays on their devices.
    """
    whole, width = jax.jit(assemble), target_length(run)

    def risky(state: State, batch: dict[str, jax.Array]) -> tuple[State, dict[str, Any]]:
        params = whole(state["params"], state["frozen"]) if "frozen" in state else state["params"]
        rows = {name: _host(batch[name]) for name in ("tokens", "segments", "targets", "weights")}
        lead = rows["targets"].shape[:-1]
        rows = {name: array.reshape(-1, array.shape[-1]) for name, array in rows.items()}
        references = [tuple(ids[real > 0].tolist()) for ids, real in zip(rows["targets"], rows["weights"], strict=True)]
        drawn = _drawn(draw, params, rows, references, width, _seed(run.seed, int(state["step"])))
        worth = [_worth(one, many, decode, reward) for one, many in zip(references, drawn, strict=True)]
        table = _table(worth, run.risk.candidates + 1, width)
        if not run.risk.reference:
            table["kept"][:, 0] = [reference in many for reference, many in zip(references, drawn, strict=True)]
        place = lambda array: _placed(array.reshape(*lead, *array.shape[1:]), batch["targets"].sharding)
        state, metrics = step(state, {**batch, **{name: place(array) for name, array in table.items()}})
        points = [found[ids] for found, many in zip(worth, drawn, strict=True) for ids in many]
        return state, {**metrics, "reward": np.float32(np.mean(points) if points else 0)}

    return risky


def _seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, step)).generate_state(1)[0])


def _drawn(draw: Draw, params: Any, rows: dict[str, np.ndarray], references: list[Ids], width: int, seed: int) -> list[list[Ids]]:
    """The candidates of every source; none where a row has no reference."""
    wanted = np.array([bool(reference) for reference in references])
    if not wanted.any():
        return [[] for _ in references]
    line = np.where(wanted, np.arange(len(wanted)), wanted.argmax())  # rows of padding draw for another: one shape, one program
    made = draw(params, rows["tokens"][line], rows["segments"][line] > 0, width, seed)
    ids = [tuple(row[:length]) for row, length in zip(made.tokens.tolist(), made.lengths.tolist(), strict=True)]
    count = len(ids) // len(wanted)
    return [ids[i * count : (i + 1) * count] if wanted[i] else [] for i in range(len(wanted))]


def _worth(reference: Ids, drawn: list[Ids], decode: Callable, reward: Callable) -> dict[Ids, float]:
    """What every different candidate of a source is worth, its reference first; nothing where there is none."""
    if not reference:
        return {}
    text = decode(reference)
    return {ids: float(reward(decode(ids), text)) for ids in dict.fromkeys((reference, *drawn))}


def _table(worth: Sequence[dict[Ids, float]], count: int, width: int) -> dict[str, np.ndarray]:
    """Candidates as columns: "candidates" int32 and "candidate_weights" [B, C, T], "kept" (weighed by Q) and "rewards" [B, C]."""
    ids, weights = np.zeros((len(worth), count, width), np.int32), np.zeros((len(worth), count, width), np.float32)
    kept, rewards = np.zeros((len(worth), count), np.float32), np.zeros((len(worth), count), np.float32)
    for line, found in enumerate(worth):
        for k, (candidate, points) in enumerate(found.items()):
            ids[line, k, : len(candidate)], weights[line, k, : len(candidate)] = candidate, 1
            kept[line, k], rewards[line, k] = 1, points
    return {"candidates": ids, "candidate_weights": weights, "kept": kept, "rewards": rewards}


def _host(array: jax.Array) -> np.ndarray:
    return np.asarray(array if array.is_fully_addressable else multihost_utils.process_allgather(array, tiled=True))


def _placed(array: np.ndarray, layout: Any) -> jax.Array:
    """On the devices that have the batch; every host has made all of it."""
    return jax.make_array_from_callback(array.shape, layout, lambda part: array[part])
