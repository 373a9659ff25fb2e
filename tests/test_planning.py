"""The memory estimate against what XLA allocates, and the operation count against one by hand."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from jaxlm import assembly, sharding
from jaxlm.config import Compute, Data, Mesh, Optimizer, Risk, Run
from jaxlm.models import gpt2, init_params, make_model, transformer
from jaxlm.planning.banner import memory_lines, parameter_lines, plan_memory
from jaxlm.planning.flops import training_flops
from jaxlm.planning.memory import human
from jaxlm.training.step import make_step

MODEL = gpt2.Config(vocab_size=512, n_positions=128, n_embd=64, n_layer=4, n_head=4, embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0)
RUN = Run(model=MODEL, steps=10, batch_size=16, data=Data(sequence_length=128))


@functools.cache
def problem(remat="none", layout="unrolled", mesh=None, **changes):
    run = dataclasses.replace(RUN, compute=Compute(remat=remat, layout=layout), **changes)
    return assembly.make_problem(run, None if mesh is None else sharding.make_mesh(Mesh(*mesh)))


# XLA's CPU compiler undoes rematerialization outside of a scan, so that only "stacked" shows it there.
@pytest.mark.parametrize(("remat", "layout"), [("none", "unrolled"), ("none", "stacked"), ("dots", "stacked"), ("full", "stacked")])
def test_within_a_factor_of_what_xla_allocates(remat, layout):
    this = problem(remat, layout)
    ids = jax.ShapeDtypeStruct((16, 128), jnp.int32)
    batch = {"tokens": ids, "targets": ids, "weights": jax.ShapeDtypeStruct((16, 128), jnp.float32)}
    step = make_step(this.loss, this.rule, this.schedule, RUN.optimizer, 0)
    analysis = step.lower(this.abstract, batch).compile().memory_analysis()
    real = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes
    assert 0.7 < plan_memory(this).total / real < 1.4, (human(plan_memory(this).total), human(real))


def test_remat_keeps_less():
    none, dots, full = (plan_memory(problem(remat)).activations for remat in ("none", "dots", "full"))
    assert none > 1.2 * dots > 1.2 * 1.2 * full > 0


@pytest.mark.parametrize("name", ["adamw", "sgd", "adafactor"])
def test_parameters_and_optimizer_are_exact(name):
    this = problem(optimizer=Optimizer(name=name, ema=0.9))
    memory, state = plan_memory(this), jax.jit(this.init)(jax.random.key(0))
    size = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    assert memory.parameters == memory.gradients == size(state["params"])
    assert memory.optimizer == size(state) - size(state["params"])


def test_a_device_of_a_mesh_keeps_its_part():
    this = problem(mesh=(2, 2, 2))
    with sharding.use(this.mesh):
        state = jax.jit(this.init)(jax.random.key(0))
    one = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state["params"]))
    whole, part = plan_memory(problem()), plan_memory(this)
    assert part.parameters == one and whole.parameters / 4.5 < one < whole.parameters / 3  # biases and norms are whole
    assert part.logits == whole.logits // 8  # batch in four, vocabulary in two
    assert whole.activations / 8.5 < part.activations < whole.activations / 3


def test_what_a_chunk_and_accumulation_save():
    whole = plan_memory(problem())
    chunked = plan_memory(problem(loss=dataclasses.replace(RUN.loss, chunk=32)))
    pieces = plan_memory(problem(accumulate=4))
    assert chunked.logits == whole.logits // 4 == pieces.logits
    assert pieces.activations < whole.activations / 3 and pieces.parameters == whole.parameters


def test_minimum_risk_holds_the_logits_of_all_candidates():
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    model = transformer.Config(vocab_size=40, d_model=16, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=32, **sizes)
    data = Data(sequence_length=16, target_length=8, packing="padded")
    run = Run(model=model, task="translation", data=data, batch_size=4)
    plain, risky = (plan_memory(assembly.make_problem(dataclasses.replace(run, risk=risk), None)) for risk in (Risk(), Risk("chrf")))
    assert risky.logits == 9 * plain.logits and risky.activations > 4 * plain.activations


def test_flops_by_hand():
    D, L, F, V, T = 64, 4, 256, 512, 128
    projections, feed_forward, scores_and_mix, head = 2 * 4 * D * D, 2 * 2 * D * F, 2 * 2 * T * D, 2 * D * V
    forward = L * (projections + feed_forward + scores_and_mix) + head
    for layout in ("unrolled", "stacked"):
        made = problem(layout=layout)
        assert training_flops(made.model, made.abstract["params"], T) == 3 * forward


def test_a_token_of_a_pair_passes_one_side():
    """The encoder's matrices are met by the sources' tokens, the decoder's and the output table by the targets'."""
    D, F, V, S, T = 32, 48, 64, 24, 8
    sizes = {f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in (("layers", 2), ("attention_heads", 4), ("ffn_dim", F))}
    made = make_model(transformer.Config(vocab_size=V, d_model=D, **sizes))
    params = jax.eval_shape(lambda: init_params(made, jax.random.key(0)))
    encoder, decoder = 2 * (4 * D * D + 2 * D * F), 2 * (8 * D * D + 2 * D * F) + D * V
    scores = 12 * 2 * D * S
    assert training_flops(made, params, S, T) == pytest.approx(6 * (S * encoder + T * decoder) / (S + T) + scores)


def test_the_table_counts_every_parameter_once():
    lines = parameter_lines(problem().abstract["params"])
    counts = [int(line.split()[-1].replace(",", "")) for line in lines]
    assert counts[-1] == sum(counts[:-1]) == sum(leaf.size for leaf in jax.tree.leaves(problem().abstract["params"]))
    assert any("4 x [64, 256]" in line for line in lines)


def test_the_estimate_is_told_and_a_lack_is_warned_of(monkeypatch):
    memory = plan_memory(problem())
    monkeypatch.setattr("jaxlm.planning.banner.device_limit", lambda: memory.total - 1)
    assert human(memory.total) in memory_lines(memory)[0] and memory_lines(memory)[1].startswith("WARNING")
    monkeypatch.setattr("jaxlm.planning.banner.device_limit", lambda: memory.total)
    assert len(memory_lines(memory)) == 1


def test_human():
    assert [human(x) for x in (0, 1023, 1536, 3 * 2**30, 2**40)] == ["0 B", "1023 B", "1.5 KiB", "3.0 GiB", "1.0 TiB"]
