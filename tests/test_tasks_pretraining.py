"""Pre-training of encoders: heads at chosen places alone, losses by their formulas and beside torch, on meshes, and learning."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_models_contract import TINY, config_of

from jaxlm import sharding
from jaxlm.config import Data, Loss, Masking, Mesh, Run
from jaxlm.data.batches import Kind, evaluation_batches, make_batches
from jaxlm.data.store import open_store, write_manifest, write_shard
from jaxlm.errors import ConfigError
from jaxlm.models import FAMILIES, electra_pair, family_named, init_params, make_model
from jaxlm.ops.noise import Vocabulary
from jaxlm.pretrained import outgoing
from jaxlm.tasks import masked_lm, replaced_tokens, sentence_pairs, task_named

V, T, B = TINY["vocab_size"], 16, 8
MASKED = [name for name in FAMILIES if "masked-lm" in family_named(name).NAMES.architectures]
VOCABULARY = Vocabulary(4, 2, 3, np.arange(V) < 5, np.arange(5, V, dtype=np.int32), np.arange(V) % 3 == 0)
RUN = Run(masking=Masking(rate=0.3), data=Data(sequence_length=T))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Documents of one of two alphabets, four tokens each; [CLS] and [SEP] around them."""
    random = np.random.default_rng(0)
    texts = [5 + 4 * (i % 2) + random.integers(0, 4, random.integers(10, 40)) for i in range(200)]
    folder = tmp_path_factory.mktemp("store") / "train"
    folder.mkdir()
    shard = write_shard(folder / "00000.arrow", [[2, *text.tolist(), 3] for text in texts], [1] * 200, V)
    write_manifest(folder, [shard], "digest", V)
    return open_store(folder)


def kind_of(name):
    return Kind(getattr(task_named(name), "ROWS", name), VOCABULARY)


def batch_of(store, name, step=0, start=0, stop=B):
    made = make_batches([store], [1.0], RUN.data, B, 0, kind_of(name))
    return task_named(name).features(made.rows(step, start, stop), VOCABULARY, made.draws(step, start, stop), RUN)


@functools.cache
def made(name, model_type):
    """The model of a task, and parameters shaken off their starting values."""
    model = make_model(
        dataclasses.replace(config_of(model_type), **NO_DROPOUT),
        task=getattr(task_named(name), "HEAD", name),
        masking=Masking(generator=0.5),
    )
    leaves, tree = jax.tree.flatten(jax.jit(lambda: init_params(model, jax.random.key(0)))())
    random = np.random.default_rng(1)
    return model, jax.tree.unflatten(tree, [np.asarray(leaf) + 0.1 * random.standard_normal(leaf.shape, np.float32) for leaf in leaves])


NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
TASKS = [("masked-lm", "bert"), ("next-sentence", "bert"), ("sentence-order", "albert"), ("replaced-tokens", "electra")]


@pytest.mark.parametrize("model_type", MASKED)
def test_the_head_at_some_places_is_the_head_at_these_places(model_type):
    """In value and in gradient: nothing but time is saved."""
    config = config_of(model_type)
    deep = "n_layers" if model_type == "distilbert" else "num_hidden_layers"
    model = make_model(dataclasses.replace(config, **{deep: 1}), task="masked-lm")
    params = jax.jit(lambda: init_params(model, jax.random.key(0)))()
    tokens, places = np.random.default_rng(0).integers(5, V, (2, 8)).astype(np.int32), np.array([[6, 1], [0, 0]], np.int32)
    weights = np.random.default_rng(1).standard_normal((2, 2, V)).astype(np.float32)

    def total(params, some):
        logits = model.apply({"params": params}, tokens, places=places if some else None).logits
        return ((logits if some else jnp.take_along_axis(logits, places[..., None], 1)) * weights).sum()

    both = jax.jit(lambda params: [jax.value_and_grad(total)(params, some) for some in (True, False)])(params)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5), *both)


@pytest.mark.parametrize("name", [name for name, _ in TASKS])
def test_hosts_and_micro_batches_agree_and_steps_differ(store, name):
    whole = batch_of(store, name, 1)
    parts = [batch_of(store, name, 1, start, start + 4) for start in (0, 4)]
    for column in whole:
        np.testing.assert_array_equal(whole[column], np.concatenate([part[column] for part in parts]))
    assert not np.array_equal(whole["places"], batch_of(store, name, 2)["places"])
    rows = make_batches([store], [1.0], RUN.data, B, 0, kind_of(name))
    stacked = {column: np.stack([array[:4], array[4:]]) for column, array in rows.rows(1, 0, B).items()}
    features = task_named(name).features(stacked, VOCABULARY, rows.draws(1, 0, B).reshape(2, 4), RUN)
    assert all(np.array_equal(features[column].reshape(whole[column].shape), whole[column]) for column in whole)


def written_out(logits, batch):
    """Cross-entropy of each hidden token, [B, P]."""
    log_p = np.asarray(jax.nn.log_softmax(logits))
    return -np.take_along_axis(log_p, batch["targets"][..., None], -1)[..., 0] * batch["weights"]


def test_the_loss_of_masked_tokens_and_what_is_counted(store):
    model, params = made("masked-lm", "bert")
    batch = batch_of(store, "masked-lm")
    total, weight, units = jax.jit(lambda params, batch: masked_lm.measure(model, params, batch))(params, batch)
    logits = np.asarray(model.apply({"params": params}, jnp.asarray(batch["tokens"])).logits)
    logits = np.take_along_axis(logits, batch["places"][..., None], 1)
    np.testing.assert_allclose(total, written_out(logits, batch).sum(), rtol=1e-5)
    right = (logits.argmax(-1) == batch["targets"]) * batch["weights"]
    assert weight == batch["weights"].sum() and units["right"] == right.sum()
    assert np.array_equal(masked_lm.predictions(model, params, batch), logits.argmax(-1))
    smooth = jax.jit(lambda params, batch: masked_lm.loss(model, params, batch, None, Loss(label_smoothing=0.1, z_loss=0.1))[0])
    assert smooth(params, batch) > total
    found = masked_lm.metrics(20.0, 10.0, {"right": 5.0})
    assert found == {"loss": 2.0, "perplexity": pytest.approx(np.exp(2)), "accuracy": 0.5}


@pytest.mark.parametrize(("name", "model_type"), [("next-sentence", "bert"), ("sentence-order", "albert")])
def test_the_loss_of_pairs_adds_both_means(store, name, model_type):
    """Rows of one length have as many hidden tokens: then the loss is the sum of the two means."""
    model, params = made(name, model_type)
    batch = batch_of(store, name)
    batch["weights"] = np.ones_like(batch["weights"])
    total, weight, units = jax.jit(lambda params, batch: sentence_pairs.measure(model, params, batch))(params, batch)
    names = {"token_types": batch["token_types"], "mask": batch["segments"] > 0, "places": batch["places"]}
    out = model.apply({"params": params}, jnp.asarray(batch["tokens"]), **names)
    hidden = written_out(out.logits, batch)
    relation = -np.take_along_axis(np.asarray(jax.nn.log_softmax(out.relation)), batch["labels"][:, None], 1)
    np.testing.assert_allclose(total / weight, hidden.mean() + relation.mean(), rtol=1e-5)
    np.testing.assert_allclose(units["hidden"], hidden.sum(), rtol=1e-5)
    assert units["pairs"] == B and units["related"] == (out.relation.argmax(-1) == batch["labels"]).sum()
    assert sentence_pairs.predictions(model, params, batch).shape == (B,)
    found = sentence_pairs.metrics(30.0, 10.0, {"hidden": 20.0, "right": 5.0, "pairs": 4.0, "related": 3.0})
    assert found == {"loss": 3.0, "perplexity": pytest.approx(np.exp(2)), "accuracy": 0.5, "relation_accuracy": 0.75}


@pytest.mark.parametrize(("name", "model_type"), TASKS)
def test_a_mesh_changes_no_loss(store, name, model_type):
    (model, params), batch = made(name, model_type), batch_of(store, name)
    measure = jax.jit(lambda params, batch: task_named(name).measure(model, params, batch))
    want = measure(params, batch)
    mesh = sharding.make_mesh(Mesh(data=2, fsdp=2, tensor=2))
    with sharding.use(mesh):
        abstract = jax.eval_shape(lambda: init_params(model, jax.random.key(0), 4))
        placed = jax.tree.map(lambda leaf, like: jax.device_put(leaf, jax.NamedSharding(mesh, like.sharding.spec)), params, abstract)
        rows = {column: jax.device_put(array, sharding.batch_sharding(mesh)) for column, array in batch.items()}
        graded = jax.jit(jax.grad(lambda params: task_named(name).loss(model, params, rows, jax.random.key(0))[0]))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(graded(placed)))
        got = measure(placed, rows)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4), got, want)


def test_electra_beside_torch(store):
    """Both losses on copied weights, the discriminator on the tokens that our generator drew."""
    torch, hf = pytest.importorskip("torch"), pytest.importorskip("transformers")
    pair, params = made("replaced-tokens", "electra")
    batch = batch_of(store, "replaced-tokens")
    generator, discriminator = electra_pair.generator(params), electra_pair.discriminator(params)
    logits = jax.jit(lambda params, batch: pair.generate(params, batch, None))(params, batch)
    tokens, replaced = map(np.asarray, replaced_tokens.corrupt(batch, replaced_tokens.sample(logits, jax.random.key(0))))

    def peer(kind, model, params):
        keys = ("vocab_size", "embedding_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        config = hf.ElectraConfig(**{key: getattr(model.config, key) for key in keys}, max_position_embeddings=40)
        twin = kind(config).eval()
        state = {tensor.name: torch.tensor(np.array(tensor.make())) for tensor in outgoing(model, params)}
        assert not twin.load_state_dict(state, strict=False).unexpected_keys
        return twin

    with torch.no_grad():
        masked = peer(hf.ElectraForMaskedLM, pair.generator, generator)
        theirs = masked(torch.tensor(batch["tokens"], dtype=torch.long)).logits
        picked = torch.gather(theirs, 1, torch.tensor(batch["places"], dtype=torch.long)[..., None].expand(-1, -1, V))
        targets, weights = torch.tensor(batch["targets"], dtype=torch.long), torch.tensor(batch["weights"])
        hidden = (torch.nn.functional.cross_entropy(picked.flatten(0, 1), targets.flatten(), reduction="none") * weights.flatten()).sum()
        judge = peer(hf.ElectraForPreTraining, pair.discriminator, discriminator)
        labels = torch.tensor(replaced)
        detection = judge(torch.tensor(tokens, dtype=torch.long), labels=labels.float()).loss
    total, weight, units = jax.jit(lambda params, batch: replaced_tokens.measure(pair, params, batch))(params, batch)
    assert len(set(batch["weights"].sum(1))) > 1  # as many hidden tokens in every row: then the total is the sum of the two means
    rows = batch["weights"].sum(1) / batch["weights"].sum()
    found = pair.discriminate(params, jnp.asarray(tokens), None, None)
    each = optax.sigmoid_binary_cross_entropy(found, replaced).mean(1)
    np.testing.assert_allclose(each.mean(), detection, rtol=1e-4)
    np.testing.assert_allclose(units["hidden"], hidden, rtol=1e-4)
    np.testing.assert_allclose(total, float(hidden) + pair.detection * weight * (rows * each).sum(), rtol=1e-4)
    assert units["real"] == B * T and units["detected"] == ((found > 0) == replaced).sum()


def test_electras_replacements_are_drawn_from_the_generator_and_carry_no_gradient(store):
    pair, params = made("replaced-tokens", "electra")
    batch = batch_of(store, "replaced-tokens")
    p = np.array([0.5, 0.3, 0.0, 0.2])
    logits = jnp.log(jnp.broadcast_to(jnp.asarray(p, jnp.float32), (40, 500, 4)))
    drawn = np.asarray(replaced_tokens.sample(logits, jax.random.key(1)))
    np.testing.assert_allclose(np.bincount(drawn.ravel(), minlength=4) / drawn.size, p, atol=0.01)
    tokens, replaced = map(np.asarray, replaced_tokens.corrupt(batch, np.full_like(batch["places"], 7)))
    for row in range(B):
        places = batch["places"][row][batch["weights"][row] > 0]
        true = np.array(batch["tokens"][row])
        true[places] = batch["targets"][row][batch["weights"][row] > 0]
        assert (tokens[row][places] == 7).all() and np.array_equal(replaced[row], tokens[row] != true)
    alone = dataclasses.replace(pair, detection=0.0)
    graded = lambda model: jax.jit(jax.grad(lambda params: replaced_tokens.loss(model, params, batch, None)[0]))(params)
    both, only = graded(pair), graded(alone)
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, atol=1e-4), both["generator"], only["generator"])
    words = [grads["discriminator"]["word"] for grads in (both, only)]
    assert np.abs(words[0] - words[1]).max() > 1e-3 and np.abs(words[1]).max() > 1e-3  # both losses train the shared tables
    assert set(params["generator"]).isdisjoint({"word", "position", "type", "ln"}) and pair.generator.config.hidden_size == 16
    one, two = (replaced_tokens.measure(pair, params, batch)[0] for _ in range(2))
    assert one == two


def test_replaced_tokens_are_of_electra_alone():
    with pytest.raises(ConfigError, match="task=replaced-tokens trains an ELECTRA"):
        make_model(config_of("bert"), task="replaced-tokens")


def test_padding_is_not_seen_in_an_evaluation(store):
    """The last row of an evaluation: what lies behind its end changes nothing."""
    model, params = made("masked-lm", "bert")
    batches = evaluation_batches(store, RUN.data, B, None, kind_of("masked-lm"))
    last = batches.count - 1
    batch = masked_lm.features(batches.rows(last, 0, B), VOCABULARY, batches.draws(last, 0, B), RUN)
    assert (batch["segments"] == 0).any()
    other = {**batch, "tokens": np.where(batch["segments"] > 0, batch["tokens"], 9)}
    measure = jax.jit(lambda batch: masked_lm.loss(model, params, batch, None)[0])
    np.testing.assert_allclose(measure(batch), measure(other), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "model_type", "share"), [("masked-lm", "bert", 0.6), ("next-sentence", "bert", 0.7), ("replaced-tokens", "electra", 0.8)]
)
def test_training_learns(store, name, model_type, share):
    """A few updates on the two alphabets: every loss falls far below its start."""
    task, (model, _) = task_named(name), made(name, model_type)
    params = jax.jit(lambda: init_params(model, jax.random.key(0)))()
    rule = optax.adam(1e-2)
    state = rule.init(params)

    @jax.jit
    def step(params, state, batch, key):
        mean = lambda params: (lambda total, weight: total / weight)(*task.loss(model, params, batch, key))
        loss, grads = jax.value_and_grad(mean)(params)
        updates, state = rule.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    losses = []
    for i in range(40):
        params, state, loss = step(params, state, batch_of(store, name, i), jax.random.key(i))
        losses.append(float(loss))
    assert np.mean(losses[-5:]) < share * np.mean(losses[:3]), losses
