"""`model.embedding_init`: a run that starts from word vectors learns faster than one from random numbers."""

import json
import random

import jax
import numpy as np
import pytest

from jaxlm import assembly, config, overrides
from jaxlm.errors import DataError
from jaxlm.frozen import Frozen
from jaxlm.models import FAMILIES, configuration, family_named, gpt2, init_params, input_table, make_model
from jaxlm.text.embeddings.vector_files import save_text
from jaxlm.text.vectors import Vectors
from tests.running import run_here

TOPICS = 8
CONFIG = """
from jaxlm.config import Checkpoint, Data, Evaluation, Logging, Optimizer, Run, Tokenizer
from jaxlm.models import gpt2

config = Run(
    model=gpt2.Config(vocab_size=None, n_positions=32, n_embd=32, n_layer=1, n_head=2, embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0),
    steps=30, batch_size=8,
    data=Data(source={text!r}, validation=0.1, sequence_length=24, loader="threads", cache={cache!r}),
    tokenizer=Tokenizer(kind="word", vocab_size=1000), optimizer=Optimizer(learning_rate=3e-3, warmup=1),
    evaluation=Evaluation(every=30), checkpoint=Checkpoint(every=30), logging=Logging(every=1, tensorboard=False, samples=0),
)
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Sentences each of one topic's words, and vectors that tell the topics apart, as vectors trained on such texts do."""
    folder, draw = tmp_path_factory.mktemp("topics"), random.Random(0)
    words = [[f"w{topic}x{i}" for i in range(25)] for topic in range(TOPICS)]
    lines = [" ".join(draw.choices(draw.choice(words), k=12)) for _ in range(600)]
    (folder / "text.txt").write_text("\n".join(lines))
    noise = np.random.default_rng(0).normal(size=(TOPICS * 25, 32))
    centers = np.repeat(np.random.default_rng(1).normal(size=(TOPICS, 32)), 25, axis=0)
    save_text(folder / "vectors.txt", Vectors(tuple(word for topic in words for word in topic), (centers + 0.3 * noise).astype(np.float32)))
    (folder / "config.py").write_text(CONFIG.format(text=str(folder / "text.txt"), cache=str(folder / "cache")))
    return folder


def final_loss(corpus, name, *extra):
    workdir = corpus / name
    assert run_here(str(corpus / "config.py"), f"workdir={workdir}", *extra) == 0
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [row["validation_loss"] for row in rows if "validation_loss" in row][-1]


def test_the_loss_is_lower_after_as_many_steps(corpus, capsys):
    vectors = final_loss(corpus, "vectors", f"model.embedding_init={corpus / 'vectors.txt'}")
    assert "embeddings from" in (said := capsys.readouterr().out) and "200 by their word" in said
    assert vectors < final_loss(corpus, "random") - 0.1


def test_the_table_is_where_the_model_embeds(corpus):
    """On a mesh too, the moving average included; all else stays as it is drawn."""
    run = config.load_file(corpus / "config.py")
    run = overrides.override(run, [f"model.embedding_init={corpus / 'vectors.txt'}", "mesh.fsdp=2", "mesh.data=1", "optimizer.ema=0.9"])
    tokenizer = assembly.make_tokenizer(run, print)
    mesh = assembly.sharding.make_mesh(run.mesh, devices=jax.devices()[:2])
    problem = assembly.make_problem(assembly.resolve(run, tokenizer), mesh)
    with assembly.sharding.use(mesh):
        state = assembly.first_state(problem, tokenizer, print)
        plain = jax.jit(problem.init)(jax.random.key(run.seed))
    i = tokenizer.encode("w0x3")[0]
    made, drawn = np.asarray(state["params"]["wte"]), np.asarray(plain["params"]["wte"])
    assert state["params"]["wte"].sharding == plain["params"]["wte"].sharding
    assert not np.allclose(made[i], drawn[i]) and np.array_equal(made, np.asarray(state["ema"]["wte"]))
    assert 0.9 < made.std() / drawn.std() < 1.1
    assert np.array_equal(np.asarray(state["params"]["wpe"]), np.asarray(plain["params"]["wpe"]))


def test_the_key_belongs_to_every_model_and_not_to_hugging_face():
    for name in FAMILIES:
        kind = family_named(name).Config
        model = overrides.override(config.Run(model=kind()), ["model.embedding_init=a.txt"]).model
        assert model.extra == Frozen(embedding_init="a.txt")
        assert "embedding_init" not in configuration.to_json(model, "X")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_an_input_table(name):
    family = family_named(name)
    model = make_model(next(iter(family.SIZES.values())))
    params = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    assert params[input_table(params)].shape[0] == model.config.vocab_size


def test_vectors_that_are_not_there_are_named(corpus, capsys):
    assert run_here(str(corpus / "config.py"), f"workdir={corpus / 'none'}", "model.embedding_init=nowhere.txt") == 65
    assert "nowhere.txt" in capsys.readouterr().err
    with pytest.raises(DataError):
        assembly.load_vectors("nowhere.txt")
    assert gpt2.Config().extra == Frozen()
