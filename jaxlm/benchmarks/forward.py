"""The forward pass of an encoder or decoder, ours and transformers': fixed shapes, and texts of mixed lengths.

The peer runs scaled-dot-product attention in inference mode, without pooler; weights are random on both sides. Mixed lengths:
ours are packed (`inference/encode.py`), theirs padded to the longest of each batch, as they come; only real tokens count.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxlm.benchmarks.pairs import beside, show

# --size -> model_type, transformers' class of the body, and what differs from the family's defaults.
SIZES = {
    "bert-base": ("bert", "BertModel", {}),
    "minilm": ("bert", "BertModel", {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536}),
    "gpt2": ("gpt2", "GPT2LMHeadModel", {}),
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """What is computed; `mixed` is the number of texts of mixed lengths, 0 for one full batch."""

    size: str = "bert-base"
    batch: int = 8
    length: int = 128
    dtype: str = "float32"
    mixed: int = 0


def ours(shape: Shape) -> tuple[dict[str, Any], Callable[[], None], Callable[[], int | None]]:
    """Our forward pass."""
    import jax

    from jaxlm.config import Compute
    from jaxlm.inference.encode import encode_tokens
    from jaxlm.models import family_named, init_params, make_model

    model_type, kind, changes = SIZES[shape.size]
    task = "causal-lm" if "LMHead" in kind else "features"
    model = make_model(family_named(model_type).Config(**changes), Compute(dtype=shape.dtype), task)
    params = jax.jit(lambda: init_params(model, jax.random.key(0)))()
    params = jax.tree.map(lambda leaf: leaf.astype(shape.dtype), params)
    forward = jax.jit(
        lambda params, tokens: (lambda out: out.hidden if out.logits is None else out.logits)(model.apply({"params": params}, tokens))
    )
    tokens, texts = _tokens(shape), _texts(shape)

    def one() -> None:
        if shape.mixed:
            encode_tokens(model, params, texts, length=shape.length, batch_tokens=shape.batch * shape.length)
        else:
            jax.block_until_ready(forward(params, tokens))

    one()
    return {}, one, lambda: (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def _tokens(shape: Shape) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 30_000, (shape.batch, shape.length)).astype(np.int32)


def _texts(shape: Shape) -> list[np.ndarray]:
    """Lengths with a mean of 40 % of the longest."""
    random = np.random.default_rng(1)
    lengths = np.clip((random.beta(1.6, 2.4, shape.mixed) * shape.length).astype(int), 4, shape.length)
    return [random.integers(0, 30_000, length).astype(np.int32) for length in lengths]


def torchs(shape: Shape, compiled: bool) -> tuple[dict[str, Any], Callable[[], None], Callable[[], int | None]]:
    """The same in torch."""
    import torch
    import transformers

    device, (_, kind, changes) = "cuda" if torch.cuda.is_available() else "cpu", SIZES[shape.size]
    kind = getattr(transformers, kind)
    more = {"add_pooling_layer": False} if kind.__name__ == "BertModel" else {}
    model = (
        kind(kind.config_class(**changes, attn_implementation="sdpa", use_cache=False), **more)
        .eval()
        .to(device, getattr(torch, shape.dtype))
    )
    run = torch.compile(model) if compiled else model
    tokens, texts = torch.as_tensor(_tokens(shape)).long().to(device), _texts(shape)

    def one() -> None:
        with torch.inference_mode():
            if shape.mixed:
                for at in range(0, len(texts), shape.batch):
                    run(**_padded(texts[at : at + shape.batch], device))[0].float().cpu()
            else:
                run(input_ids=tokens)[0]
        if device == "cuda":
            torch.cuda.synchronize()

    one()
    return {}, one, lambda: torch.cuda.max_memory_allocated() if device == "cuda" else None


def _padded(texts: list[np.ndarray], device: str) -> dict[str, Any]:
    import torch

    longest = max(map(len, texts))
    tokens = torch.tensor(np.stack([np.pad(text, (0, longest - len(text))) for text in texts])).long()
    mask = torch.tensor(np.stack([np.arange(longest) < len(text) for text in texts])).long()
    return {"input_ids": tokens.to(device), "attention_mask": mask.to(device)}


def run(shape: Shape, rounds: int, steps: int, compiled: bool, alone: bool) -> None:
    """Print tokens/s, peak memory, and the ratio to torch with its spread."""
    sides = beside(ours, torchs, shape, compiled, alone)
    real = sum(map(len, _texts(shape))) if shape.mixed else shape.batch * shape.length
    what = f"{shape.mixed} texts of {real} tokens, at most {shape.length}" if shape.mixed else f"batch {shape.batch} x {shape.length}"
    print(f"forward {shape.size}, {what}, {shape.dtype}")
    show(sides, rounds, steps, real)
