"""A training step of a small Transformer for translation, ours and torch's: the same batches, forward, backward, AdamW.

The peer is transformers' MarianMTModel with scaled-dot-product attention; both keep float32 parameters and are given the same padded
pairs, of two aligned files or drawn. `curve` trains both from the same weights, by the same schedule, and compares their losses.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxlm.benchmarks.pairs import beside, show
from jaxlm.config import Compute, Optimizer
from jaxlm.errors import ConfigError, DataError
from jaxlm.models import marian

VOCABULARY = 8000  # with two ids that no text has: what a decoder reads first, and transformers' padding
START, PADDING = VOCABULARY - 1, VOCABULARY - 2
KEPT = 8  # different batches that a measurement goes round
RULE = Optimizer(learning_rate=5e-4, schedule="inverse_sqrt", warmup=100, b2=0.98, eps=1e-9, weight_decay=0.01)


@dataclasses.dataclass(frozen=True)
class Shape:
    """What is trained."""

    batch: int = 64
    length: int = 32  # tokens of a source, and of a target, at most
    dropout: float = 0.0
    dtype: str = "float32"
    files: tuple[str, ...] = ()  # source, target: a sentence a line; none: drawn


def sizes(shape: Shape) -> dict[str, Any]:
    """Keys of config.json that both sides read."""
    sides = {
        f"{side}_{key}": size for side in ("encoder", "decoder") for key, size in (("layers", 3), ("attention_heads", 4), ("ffn_dim", 1024))
    }
    more = {"activation_function": "swish", "scale_embedding": True, "dropout": shape.dropout, "max_position_embeddings": 512}
    return {"vocab_size": VOCABULARY, "d_model": 256, "eos_token_id": 0, "decoder_start_token_id": START, **sides, **more}


def batches(shape: Shape) -> Iterator[dict[str, np.ndarray]]:
    """Padded pairs without end, each pair once in every round through the files."""
    random = np.random.default_rng(0)
    pairs = _read(shape) if shape.files else None
    while True:
        order = random.permutation(KEPT * shape.batch if pairs is None else len(pairs))
        for at in range(0, len(order) - shape.batch + 1, shape.batch):
            yield _padded(shape, [_drawn(shape, random) if pairs is None else pairs[i] for i in order[at : at + shape.batch]])


def _drawn(shape: Shape, random: np.random.Generator) -> tuple[list[int], list[int]]:
    lengths = random.integers(shape.length // 4, shape.length, 2)
    return tuple([*random.integers(1, PADDING, length).tolist(), 0] for length in lengths)


def _read(shape: Shape) -> list[tuple[list[int], ...]]:
    """The pairs of two files, by byte-level BPE learnt from both; what is too long is cut."""
    from jaxlm.text.training import train_tokenizer

    if len(shape.files) != 2:
        raise ConfigError(f"translate is given {', '.join(shape.files)}: it takes two files, of sources and of targets, or none")
    sides = [_lines(path) for path in shape.files]
    if len(sides[0]) != len(sides[1]):
        raise DataError(f"{' and '.join(shape.files)} have {len(sides[0]):,} and {len(sides[1]):,} lines: give files that are aligned")
    tokenizer = train_tokenizer("bpe", [line for side in sides for line in side], PADDING)
    ids = [[[*row[: shape.length - 1], tokenizer.eos_id] for row in tokenizer.encode_batch(side)] for side in sides]
    return list(zip(*ids, strict=True))


def _lines(path: str) -> list[str]:
    import gzip

    with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8", newline="\n") as lines:
        return [line.rstrip("\n") for line in lines]


def _padded(shape: Shape, pairs: list[tuple[list[int], ...]]) -> dict[str, np.ndarray]:
    table = lambda: np.zeros((shape.batch, shape.length), np.int32)
    made = {name: table() for name in ("tokens", "segments", "targets", "target_segments")}
    for line, (source, target) in enumerate(pairs):
        made["tokens"][line, : len(source)], made["segments"][line, : len(source)] = source, 1
        made["targets"][line, : len(target)], made["target_segments"][line, : len(target)] = target, 1
    return {**made, "weights": made["target_segments"].astype(np.float32)}


def our_step(shape: Shape, folder: str | None = None) -> Callable[[dict[str, np.ndarray]], Any]:
    """batch -> loss, as training runs it; from the weights of a folder, or fresh ones."""
    import jax

    from jaxlm.models import init_params, make_model
    from jaxlm.pretrained import load
    from jaxlm.tasks import text_to_text
    from jaxlm.training.optimizer import make_optimizer
    from jaxlm.training.step import init_state, make_step

    model = make_model(marian.Config(**sizes(shape)), Compute(dtype=shape.dtype), "seq2seq-lm")
    params = load(folder)[1] if folder else jax.jit(lambda: init_params(model, jax.random.key(0)))()
    rule, schedule = make_optimizer(RULE, 10_000)
    state = {"now": jax.jit(lambda params: init_state(params, rule))(params)}
    step = make_step(lambda params, batch, key: text_to_text.loss(model, params, batch, key), rule, schedule, RULE, 0)

    def one(batch: dict[str, np.ndarray]) -> Any:
        state["now"], metrics = step(state["now"], batch)
        return metrics["loss"]

    return one


def their_step(shape: Shape, folder: str | None = None, compiled: bool = False) -> Callable[[dict[str, np.ndarray], float], Any]:
    """(batch, learning rate) -> loss, in torch; its first weights are saved to a folder."""
    import torch
    from transformers import MarianConfig, MarianMTModel

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = MarianConfig(**sizes(shape), pad_token_id=PADDING, attn_implementation="sdpa", use_cache=False)
    model = MarianMTModel(config).to(device).train()
    if folder:
        model.save_pretrained(folder)
    run, trained = torch.compile(model) if compiled else model, [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trained if p.ndim > 1]}, {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(RULE.b1, RULE.b2), eps=RULE.eps, weight_decay=RULE.weight_decay, fused=True)

    def one(batch: dict[str, np.ndarray], rate: float = RULE.learning_rate) -> Any:
        for group in optimizer.param_groups:
            group["lr"] = rate
        tokens, seen, targets, real = (torch.as_tensor(batch[name]).to(device).long() for name in COLUMNS)
        inputs = torch.nn.functional.pad(targets[:, :-1], (1, 0), value=START)
        labels = targets.masked_fill(real == 0, -100)
        with torch.autocast(device, torch.bfloat16, enabled=shape.dtype == "bfloat16"):
            logits = run(input_ids=tokens, attention_mask=seen, decoder_input_ids=inputs).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, RULE.clip)
        optimizer.step()
        return loss.detach()

    return one


COLUMNS = ("tokens", "segments", "targets", "target_segments")


def ours(shape: Shape) -> tuple[dict[str, Any], Callable[[], None], Callable[[], int | None]]:
    """Our step over batches in turn."""
    import jax

    begun, step, given = time.perf_counter(), our_step(shape), _in_turn(shape)
    one = lambda: jax.block_until_ready(step(next(given)))
    return _facts(one, begun), one, lambda: (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def torchs(shape: Shape, compiled: bool) -> tuple[dict[str, Any], Callable[[], None], Callable[[], int | None]]:
    """The same in torch."""
    import torch

    begun, step, given = time.perf_counter(), their_step(shape, compiled=compiled), _in_turn(shape)
    one = lambda: step(next(given)).item()
    return _facts(one, begun), one, lambda: torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None


def _in_turn(shape: Shape) -> Iterator[dict[str, np.ndarray]]:
    made = [batch for batch, _ in zip(batches(shape), range(KEPT), strict=False)]
    while True:
        yield from made


def _facts(one: Callable[[], Any], begun: float) -> dict[str, float]:
    called = time.perf_counter()
    one()
    return {"first step": time.perf_counter() - begun, "compile": time.perf_counter() - called}


def run(shape: Shape, rounds: int, steps: int, compiled: bool, alone: bool) -> None:
    """Print real tokens/s, both sides' counted, peak memory, time to the first step, and the ratio to torch with its spread."""
    given = [batch for batch, _ in zip(batches(shape), range(KEPT), strict=False)]
    tokens = round(sum(int(batch[name].sum()) for batch in given for name in ("segments", "target_segments")) / KEPT)
    print(f"translate, batch {shape.batch} x 2 x {shape.length}, {tokens:,} tokens no padding, dropout {shape.dropout}, {shape.dtype}")
    show(beside(ours, torchs, shape, compiled, alone), rounds, steps, tokens)


def curve(shape: Shape, steps: int) -> dict[str, np.ndarray]:
    """Train both sides from torch's first weights on the same batches; print and return their losses, float64 [steps]."""
    from jaxlm.training.optimizer import make_optimizer

    rates, found = make_optimizer(RULE, 10_000)[1], {}
    with tempfile.TemporaryDirectory() as folder:
        theirs = their_step(shape, folder)
        sides = {"jaxlm": our_step(shape, folder), "torch": lambda batch, at=iter(range(steps)): theirs(batch, float(rates(next(at))))}
    for name, step in sides.items():
        begun = time.perf_counter()
        found[name] = np.array([float(step(batch)) for batch, _ in zip(batches(shape), range(steps), strict=False)])
        print(f"{name}: {steps} steps in {time.perf_counter() - begun:.1f} s, the first one's compilation included", flush=True)
    for at in sorted({*range(0, steps, max(1, steps // 10)), steps - 1}):
        print(f"step {at + 1:>6}  jaxlm {found['jaxlm'][at]:.5f}  torch {found['torch'][at]:.5f}")
    apart, tenth = np.abs(found["jaxlm"] - found["torch"]), max(1, steps // 10)
    print(f"largest difference {apart.max():.2g}, at step {apart.argmax() + 1}; mean of the last tenth {apart[-tenth:].mean():.2g}")
    return found
