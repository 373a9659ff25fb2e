"""A training step of GPT-2, ours and torch's: forward, backward, AdamW, on the same shapes and random tokens.

The peer is transformers' GPT2LMHeadModel with scaled-dot-product attention, plain and, if asked, under torch.compile;
on a GPU in bfloat16 autocast with fused AdamW. Both keep float32 parameters.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxlm.benchmarks.pairs import beside, show
from jaxlm.models import gpt2

# GPT-2's sizes, and nanoGPT's character model for a CPU.
SIZES = {**gpt2.SIZES, "shakespeare": gpt2.Config(vocab_size=65, n_positions=64, n_embd=128, n_layer=4, n_head=4)}


@dataclasses.dataclass(frozen=True)
class Shape:
    """What is trained."""

    size: str = "gpt2"
    batch: int = 2
    length: int = 256
    dropout: float = 0.0
    dtype: str = "float32"
    layout: str = "unrolled"


def ours(shape: Shape) -> tuple[dict[str, Any], Callable[[], None], Callable[[], int | None]]:
    """Our step, as training runs it."""
    import jax

    from jaxlm import assembly
    from jaxlm.config import Compute, Data, Mesh, Run
    from jaxlm.planning.flops import training_flops
    from jaxlm.training.step import make_step

    imported = time.perf_counter()
    rates = dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), shape.dropout)
    model = dataclasses.replace(SIZES[shape.size], **rates)
    compute = Compute(dtype=shape.dtype, layout=shape.layout)
    run = Run(model, batch_size=shape.batch, steps=10_000, data=Data(sequence_length=shape.length), compute=compute, mesh=Mesh(1))
    problem = assembly.make_problem(run, None)
    state = {"now": jax.jit(problem.init)(jax.random.key(0))}
    step = make_step(problem.loss, problem.rule, problem.schedule, run.optimizer, 0)
    batch = _batch(shape, model.vocab_size)

    def one() -> None:
        state["now"], metrics = step(state["now"], batch)
        jax.block_until_ready(metrics)

    begun = time.perf_counter()
    one()
    facts = {"first step": time.perf_counter() - imported, "compile": time.perf_counter() - begun}
    facts["flops"] = training_flops(problem.model, problem.abstract["params"], shape.length)
    return facts, one, lambda: (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def _batch(shape: Shape, vocabulary: int) -> dict[str, np.ndarray]:
    tokens = np.random.default_rng(0).integers(0, vocabulary, (shape.batch, shape.length + 1)).astype(np.int32)
    weights = np.ones((shape.batch, shape.length), np.float32)
    return {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "weights": weights}


def torchs(shape: Shape, compiled: bool) -> tuple[dict[str, Any], Callable[[], None], Callable[[], int | None]]:
    """The same step in torch."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    imported = time.perf_counter()
    device, config = "cuda" if torch.cuda.is_available() else "cpu", SIZES[shape.size]
    rates = dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), shape.dropout)
    sizes = {name: getattr(config, name) for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")}
    model = GPT2LMHeadModel(GPT2Config(**sizes, **rates, attn_implementation="sdpa", use_cache=False)).to(device).train()
    run = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    batch = {name: torch.as_tensor(array).to(device) for name, array in _batch(shape, config.vocab_size).items()}
    labels = batch["targets"].long().reshape(-1)

    def one() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=shape.dtype == "bfloat16"):
            logits = run(input_ids=batch["tokens"].long()).logits
            loss = torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()

    begun = time.perf_counter()
    one()
    facts = {"first step": time.perf_counter() - imported, "compile": time.perf_counter() - begun}
    return facts, one, lambda: torch.cuda.max_memory_allocated() if device == "cuda" else None


def run(shape: Shape, rounds: int, steps: int, compiled: bool, alone: bool) -> None:
    """Print tokens/s, FLOP/s, peak memory, time to the first step, and the ratio to torch with its spread."""
    sides = beside(ours, torchs, shape, compiled, alone)
    print(f"train {shape.size}, batch {shape.batch} x {shape.length}, dropout {shape.dropout}, {shape.dtype}, {shape.layout} layers")
    show(sides, rounds, steps, shape.batch * shape.length)
