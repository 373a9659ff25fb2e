"""Minimum-risk training: the equations, what a step makes of drawn candidates, and that what is drawn gets better."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlm import sharding
from jaxlm.config import Data, Loss, Mesh, Optimizer, Risk, Run
from jaxlm.errors import ConfigError, DataError
from jaxlm.inference.generate import generate
from jaxlm.models import init_params, make_model, transformer
from jaxlm.ops.positions import shift_right
from jaxlm.tasks.rewards import check_references, make_reward
from jaxlm.training import risk
from jaxlm.training.optimizer import make_optimizer
from jaxlm.training.step import init_state, make_step

START, EOS = 0, 1
CONFIG = transformer.Config(
    vocab_size=12, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
    encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=16, dropout=0.0,
)  # fmt: skip
MODEL = make_model(CONFIG, task="seq2seq-lm")
WIDTH = 6
RUN = Run(
    CONFIG,
    task="translation",
    data=Data(packing="padded", target_length=WIDTH),
    risk=Risk("bleu", candidates=4, sharpness=0.5, cross_entropy=0.0),
)


@functools.cache
def params():
    """Drawn here: to compile `init_params` takes longer."""
    shapes, random = jax.eval_shape(lambda: init_params(MODEL, jax.random.key(0))), np.random.default_rng(1)
    draw = lambda path, leaf: np.float32(0.2 * random.standard_normal(leaf.shape) + (path[-1].key == "scale"))
    return jax.tree_util.tree_map_with_path(draw, shapes)


def pairs(rows=4):
    """Sources of 2 to 5 tokens, whose references are the same tokens; the last row is padding."""
    random = np.random.default_rng(0)
    tokens, real = np.zeros((rows, WIDTH), np.int32), np.zeros((rows, WIDTH), np.int32)
    for line in range(rows - 1):
        length = random.integers(2, WIDTH)
        tokens[line, : length + 1] = [*random.integers(2, 12, length), EOS]
        real[line, : length + 1] = 1
    made = {"tokens": tokens, "segments": real, "targets": tokens, "target_segments": real, "weights": real.astype(np.float32)}
    return {name: jnp.asarray(array) for name, array in made.items()}


def draw(params, tokens, mask, longest, seed):
    options = {"do_sample": True, "num_return_sequences": 4, "max_new_tokens": longest, "eos_token_id": EOS}
    return generate(MODEL, params, tokens, mask=mask, seed=seed, decoder_start_token_id=START, **options)


def dice(params, tokens, mask, longest, seed):
    """Candidates that no model has drawn, quickly."""
    random = np.random.default_rng(seed)
    ids = random.integers(2, 12, (len(tokens) * 4, longest))
    return type("Drawn", (), {"tokens": ids, "lengths": random.integers(1, longest + 1, len(ids))})


def fives(text, reference):
    """Points for the share of fives in a text, of whatever length."""
    words = text.split()
    return 100 * words.count("5") / max(len(words), 1)


spell = lambda ids: " ".join(str(i) for i in ids if i != EOS)


def with_candidates():
    """A batch as a step gets it: four candidates a source, one of them not kept; the fourth source is padding."""
    batch, random = pairs(), np.random.default_rng(1)
    ids, weights = random.integers(2, 12, (4, 5, WIDTH)).astype(np.int32), np.zeros((4, 5, WIDTH), np.float32)
    ids[:, 0], weights[:, 0] = batch["targets"], batch["weights"]
    for k, length in enumerate((3, 6, 2, 4), 1):
        weights[:, k, :length] = 1
    kept = np.array([[1, 1, 1, 1, 0]] * 3 + [[0] * 5], np.float32)
    rewards = random.uniform(0, 100, (4, 5)).astype(np.float32)
    return {**batch, "candidates": ids, "candidate_weights": weights, "kept": kept, "rewards": rewards}


@jax.jit
def one_by_one(params, batch):
    """log p of every candidate [B, C]: each with its source in a call of its own, by masks in place of segments."""

    def one(ids, real):
        inputs, mask = shift_right(ids, START), batch["segments"] > 0
        logits = MODEL.apply({"params": params}, batch["tokens"], inputs, mask=mask, target_mask=real).logits
        logp = jnp.take_along_axis(jax.nn.log_softmax(logits), ids[..., None], -1)[..., 0]
        return jnp.where(real, logp, 0).sum(1)

    return jax.vmap(one, 1, 1)(batch["candidates"], batch["candidate_weights"] > 0)


def test_the_loss_is_the_equation():
    batch = with_candidates()
    plain = dataclasses.replace(RUN.risk, cross_entropy=0.0)
    loss = jax.jit(risk.make_loss(MODEL, None, START, plain, Loss()))
    logp = np.asarray(one_by_one(params(), batch), np.float64)
    wanted = 0.0
    for line in range(3):
        p = np.exp(0.5 * logp[line, :4])
        wanted -= (p / p.sum() * batch["rewards"][line, :4]).sum()
    total, weight = loss(params(), batch, None)
    np.testing.assert_allclose(total, wanted, rtol=1e-5)
    assert weight == 3
    both = jax.jit(risk.make_loss(MODEL, None, START, dataclasses.replace(plain, cross_entropy=2.0), Loss()))
    lengths = np.asarray(batch["weights"]).sum(1)[:3]
    np.testing.assert_allclose(both(params(), batch, None)[0], wanted - 2 * (logp[:3, 0] / lengths).sum(), rtol=1e-5)


def test_the_gradient_is_the_papers():
    """d risk = - sharpness sum_k Q_k (reward_k - sum_j Q_j reward_j) d log p_k."""
    batch = with_candidates()
    loss = risk.make_loss(MODEL, None, START, RUN.risk, Loss())
    found = jax.jit(jax.grad(lambda p: loss(p, batch, None)[0]))(params())
    logp, back = jax.vjp(lambda p: one_by_one(p, batch), params())
    scores = np.where(batch["kept"] > 0, np.exp(0.5 * np.asarray(logp, np.float64)), 0)
    q = scores / np.maximum(scores.sum(1, keepdims=True), 1e-30)
    slope = -0.5 * q * (batch["rewards"] - (q * batch["rewards"]).sum(1, keepdims=True))
    (wanted,) = back(jnp.asarray(slope, jnp.float32))
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(found)) > 0.1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), found, wanted)


def test_a_batch_without_candidates_has_the_tasks_loss():
    assert risk.make_loss(MODEL, lambda params, batch, key: ("plain", key), START, RUN.risk, Loss())({}, pairs(), 7) == ("plain", 7)


def seen(drawn, reward=fives, run=RUN):
    """What a step is given of a batch whose candidates are these."""
    got = {}

    def step(state, batch):
        got.update(batch)
        return state, {"loss": 0.0}

    def fixed(params, tokens, mask, longest, seed):
        got.update(sources=tokens, seed=seed, longest=longest)
        ids = np.zeros((len(tokens) * 4, WIDTH), np.int32)
        for line, one in enumerate(drawn * len(tokens)):
            ids[line, : len(one)] = one
        return type("Drawn", (), {"tokens": ids, "lengths": np.array([len(one) for one in drawn * len(tokens)])})

    _, metrics = risk.wrap(step, fixed, spell, reward, run)({"step": jnp.int32(3), "params": {}}, pairs())
    return got, metrics


def test_candidates_are_different_and_the_first_is_the_reference():
    drawn = [[5, 5, EOS], [2, 3, 5, EOS], [5, 5, EOS], [7, EOS]]
    batch, metrics = seen(drawn)
    assert batch["candidates"].shape == (4, 5, WIDTH) and batch["longest"] == WIDTH
    np.testing.assert_array_equal(batch["kept"], [[1, 1, 1, 1, 0]] * 3 + [[0] * 5])
    np.testing.assert_array_equal(batch["candidates"][:3, 0], pairs()["targets"][:3])
    np.testing.assert_array_equal(batch["candidate_weights"][:, 0], pairs()["weights"])
    assert batch["candidates"][1, 2].tolist() == [2, 3, 5, EOS, 0, 0] and batch["candidate_weights"][1, 2].tolist() == [1, 1, 1, 1, 0, 0]
    np.testing.assert_allclose(batch["rewards"][0, 1:], [100, 100 / 3, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(metrics["reward"], (100 + 100 / 3 + 100 + 0) / 4, rtol=1e-6)  # of the draws, twins counted
    np.testing.assert_array_equal(batch["sources"][3], batch["sources"][0])  # no prompt is empty


def test_the_reference_may_stand_beside():
    """It is weighed where it was drawn alone, and the cross-entropy is of it all the same."""
    run = dataclasses.replace(RUN, risk=dataclasses.replace(RUN.risk, reference=False))
    first = [int(i) for i in pairs()["targets"][0] if i]
    batch, metrics = seen([[5, 5, EOS], [2, 3, 5, EOS], first, [7, EOS]], run=run)
    np.testing.assert_array_equal(batch["kept"], [[1, 1, 1, 1, 0], [0, 1, 1, 1, 1], [0, 1, 1, 1, 1], [0] * 5])
    drawn = {**with_candidates(), "kept": np.array([[0, 1, 1, 1, 0]] * 3 + [[0] * 5], np.float32)}
    plain = dataclasses.replace(run.risk, cross_entropy=2.0)
    total, weight = jax.jit(risk.make_loss(MODEL, None, START, plain, Loss()))(params(), drawn, None)
    logp, lengths = np.asarray(one_by_one(params(), drawn), np.float64)[:3], np.asarray(drawn["weights"]).sum(1)[:3]
    q = np.exp(0.5 * logp[:, 1:4])
    wanted = -(q / q.sum(1, keepdims=True) * drawn["rewards"][:3, 1:4]).sum() - 2 * (logp[:, 0] / lengths).sum()
    np.testing.assert_allclose(total, wanted, rtol=1e-5)
    assert weight == 3


def test_candidates_may_be_longer_than_the_bucket_of_their_pair():
    """Drawn, and laid out, for data.target_length whatever the batch's width: none is cut where a longer reference would fit."""
    run, seen = dataclasses.replace(RUN, data=Data(packing="buckets", target_length=9)), {}
    drawn = lambda params, tokens, mask, longest, seed: seen.update(longest=longest) or dice(params, tokens, mask, longest, seed)
    risk.wrap(lambda state, batch: (seen.update(batch) or state, {}), drawn, spell, fives, run)(
        {"step": jnp.int32(0), "params": {}}, pairs()
    )
    assert seen["longest"] == 9 and seen["candidates"].shape == (4, 5, 9) and seen["targets"].shape == (4, WIDTH)
    np.testing.assert_array_equal(seen["candidate_weights"][:, 0, :WIDTH], pairs()["weights"])


def test_a_reward_that_sees_no_word_of_the_references_is_refused():
    greek = ["ένα δύο", ["τρία", "τέσσερα"]]
    with pytest.raises(DataError, match="no reference has any: take the reward chrf"):
        check_references("rougeL", greek)
    check_references("chrf", greek)
    check_references("rougeL", [*greek, "one"])


def test_rewards_are_points_of_a_sentence():
    text, reference = "a man looks at a red car", "a man looks at the red car"
    for name in ("bleu", "chrf", "rougeL"):
        reward = make_reward(name, "en")
        assert reward(reference, reference) == pytest.approx(100) and reward("a man", "a man") == pytest.approx(100)
        assert 0 == reward("", reference) <= reward("zzz", reference) < reward("a man", reference) < reward(text, reference) < 100
    assert make_reward("rougeL")(text, reference) == pytest.approx(100 * 6 / 7)
    counts = np.array([6 / 7, 4 / 6, 2 / 5, 1 / 4])  # one to four words in a row; both texts have seven words
    assert make_reward("bleu")(text, reference) == pytest.approx(100 * np.prod(counts) ** 0.25)


def test_a_reward_sees_both_texts():
    texts = []
    seen([[5, EOS]] * 4, lambda text, reference: texts.append((text, reference)) or 1.0)
    first = spell(np.asarray(pairs()["tokens"])[0][: int(pairs()["segments"][0].sum())])
    assert texts[:2] == [(first, first), ("5", first)] and len(texts) == 6


@functools.cache
def machine(name, accumulate, mesh):
    """The rule and the step inside; compiled once for all tests."""
    config = Optimizer(name=name, learning_rate=0.02, warmup=0, schedule="constant", weight_decay=0.0, momentum=0.0)
    rule, schedule = make_optimizer(config, 100)
    loss = risk.make_loss(MODEL, None, START, RUN.risk, Loss())
    return rule, make_step(loss, rule, schedule, config, 0, accumulate)


def train(batch, steps, draw=dice, name="sgd", accumulate=1, *, seed=0, mesh=None):
    """Parameters, and the metrics of every step; each step is of a state that was kept on the host, as a checkpoint is."""
    rule, step = machine(name, accumulate, mesh)
    state, rows = init_state(jax.tree.map(jnp.array, params()), rule), []
    for _ in range(steps):
        state, metrics = risk.wrap(step, draw, spell, fives, dataclasses.replace(RUN, seed=seed))(state, batch)
        state = state if mesh else jax.tree.map(jnp.array, jax.device_get(state))
        rows.append({name: float(value) for name, value in metrics.items()})
    return jax.device_get(state["params"]), rows


def test_the_reward_of_what_is_drawn_rises():
    rows = train(pairs(8), 25, draw, "adamw")[1]
    rewards = [row["reward"] for row in rows]
    assert rows[-1]["skipped"] == 0 and np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 30, rewards


def close(one, other):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), one, other)


def test_a_step_is_a_function_of_the_seed_and_accumulates():
    whole, rows = train(pairs(8), 2)
    again, same = train(pairs(8), 2)
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    assert rows == same != train(pairs(8), 2, seed=1)[1] and rows[0]["reward"] != rows[1]["reward"]
    parts, pieces = train({name: array.reshape(2, 4, -1) for name, array in pairs(8).items()}, 2, accumulate=2)
    close((whole, rows), (parts, pieces))


def test_a_mesh_changes_nothing():
    whole = train(pairs(8), 2, draw)
    mesh = sharding.make_mesh(Mesh(data=2), jax.devices()[:2])
    with sharding.use(mesh):
        placed = {name: jax.device_put(array, sharding.batch_sharding(mesh)) for name, array in pairs(8).items()}
        close(whole, train(placed, 2, draw, mesh=mesh))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"risk": Risk("blue")}, "risk.reward='blue'.*did you mean 'bleu'"),
        ({"data": Data()}, "data.packing=buckets"),
        ({"loss": Loss(scheduled_sampling=0.1)}, "loss.scheduled_sampling"),
        ({"task": "causal-lm"}, "task=causal-lm has none"),
        ({"risk": Risk("bleu", candidates=0)}, "risk.candidates=0: it is at least 1"),
        ({"risk": Risk("bleu", sharpness=0.0)}, "risk.sharpness=0.0: it is a positive number"),
        ({"risk": Risk("bleu", cross_entropy=-1.0)}, "risk.cross_entropy=-1.0"),
    ],
)
def test_what_cannot_be_is_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        risk.check(dataclasses.replace(RUN, **changes))
    assert risk.check(dataclasses.replace(RUN, risk=Risk(), **{k: v for k, v in changes.items() if k != "risk"})) is None
