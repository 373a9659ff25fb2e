"""Fine-tuning an encoder on labelled texts, ours and torch's: the same recipe, one epoch that warms up and one a round, then
the accuracy of both.

Ours packs several texts into a row; the peer is transformers' AutoModelForSequenceClassification with scaled-dot-product
attention, padded to the longest text of a batch. Both keep float32, AdamW, a linear schedule, the checkpoint's own dropout.
Files are label TAB text, without a header.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxlm.benchmarks.pairs import show


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is fine-tuned, and how."""

    model: str  # a Hugging Face folder
    train: str
    test: str
    examples: int | None = None  # of the training file; None: all
    epochs: int = 3  # that the schedule is made for
    seed: int = 0
    learning_rate: float = 5e-5
    batch: int = 32  # texts a step
    length: int = 64  # tokens a text
    packing: str = "packed"


def read(path: str, count: int | None = None) -> tuple[list[str], list[str]]:
    """Labels and texts of a file."""
    with open(path, encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t", 1) for line in lines][:count]
    return [label for label, _ in rows], [text for _, text in rows]


def ours(recipe: Recipe) -> tuple[dict[str, Any], Callable[[], None], Callable[[], None]]:
    """An epoch of our recipe."""
    import jax

    from jaxlm import assembly, feeding
    from jaxlm.evaluation import make_validation
    from jaxlm.training.step import make_step

    run = _run(recipe)
    tokenizer = assembly.make_tokenizer(run, print)
    run = assembly.resolve(run, tokenizer)
    examples, held = _examples(run, recipe, tokenizer)
    run = feeding.with_steps(run, [examples], tokenizer)
    problem = assembly.make_problem(run, None)
    state = {"now": assembly.first_state(problem, tokenizer, print)}
    made, batches = feeding.training_batches(problem, [examples], tokenizer)
    step = make_step(problem.loss, problem.rule, problem.schedule, run.optimizer, run.seed)
    at = {"now": 0}

    def epoch() -> None:
        for _, batch in zip(range(made.count), batches(at["now"]), strict=False):
            state["now"], metrics = step(state["now"], batch)
            at["now"] = (at["now"] + 1) % run.steps
        jax.block_until_ready(metrics)

    def end() -> None:
        metrics = make_validation(problem, [held], tokenizer)(state["now"]["params"])
        print(f"jaxlm: accuracy on {recipe.test} {metrics['accuracy']:.4f}", flush=True)

    return {"tokens": examples.tokens, "batches": made.count}, epoch, end


def _run(recipe: Recipe) -> Any:
    """Half as many packed rows hold about as many texts a step as the peer's batch."""
    from jaxlm.config import Data, Loss, Mesh, Optimizer, Records, Run
    from jaxlm.pretrained import read_config

    packed = recipe.packing == "packed"
    data = Data(source=recipe.train, test_source=recipe.test, sequence_length=recipe.length, packing=recipe.packing, loader="threads")
    rule = Optimizer(learning_rate=recipe.learning_rate, schedule="linear", end=0.0, warmup=50, b2=0.999, weight_decay=0.01)
    return Run(
        read_config(recipe.model), task="sequence-classification", pretrained=recipe.model, epochs=recipe.epochs, seed=recipe.seed,
        batch_size=recipe.batch // 2 if packed else recipe.batch, data=data, records=Records(columns=(("label", 0), ("text", 1))),
        optimizer=rule, loss=Loss(), mesh=Mesh(1),
    )  # fmt: skip


def _examples(run: Any, recipe: Recipe, tokenizer: Any) -> tuple[Any, Any]:
    from jaxlm import labelled
    from jaxlm.data.examples import in_memory

    made = [
        in_memory(
            list(labelled.make_features(((i, f"row {i + 1}", {"label": a, "text": b}) for i, (a, b) in enumerate(rows)), run, tokenizer))
        )
        for rows in (list(zip(*read(path, count), strict=True)) for path, count in ((recipe.train, recipe.examples), (recipe.test, None)))
    ]
    return made[0], made[1]


def torchs(recipe: Recipe) -> tuple[dict[str, Any], Callable[[], None], Callable[[], None]]:
    """The same in torch."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup

    torch.manual_seed(recipe.seed)
    labels, texts = read(recipe.train, recipe.examples)
    names, tokenizer = sorted(set(labels)), AutoTokenizer.from_pretrained(recipe.model)
    model = AutoModelForSequenceClassification.from_pretrained(recipe.model, num_labels=len(names), attn_implementation="sdpa").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.01, fused=True)
    steps = math.ceil(len(texts) / recipe.batch)
    schedule = get_linear_schedule_with_warmup(optimizer, 50, steps * recipe.epochs)
    draw, ids = np.random.default_rng(recipe.seed), np.array([names.index(label) for label in labels])
    encode = lambda rows: tokenizer(rows, truncation=True, max_length=recipe.length, padding="longest", return_tensors="pt")

    def epoch() -> None:
        for part in np.array_split(draw.permutation(len(texts)), steps):
            loss = model(**encode([texts[i] for i in part]), labels=torch.as_tensor(ids[part])).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()

    def end() -> None:
        wanted, rows = read(recipe.test)
        with torch.inference_mode():
            model.eval()
            found = [int(i) for at in range(0, len(rows), 64) for i in model(**encode(rows[at : at + 64])).logits.argmax(-1)]
        right = np.mean([names[i] == label for i, label in zip(found, wanted, strict=True)])
        print(f"torch: accuracy on {recipe.test} {right:.4f}", flush=True)

    return {}, epoch, end


def run(recipe: Recipe, rounds: int, alone: bool) -> None:
    """Print real tokens/s of both, the ratio with its spread, and both accuracies after the last round."""
    from jaxlm.text.tokenizer import load_tokenizer

    tokens = sum(min(len(ids), recipe.length) for ids in load_tokenizer(recipe.model).encode_batch(read(recipe.train, recipe.examples)[1]))
    print(f"fine-tuning {recipe.model} on {recipe.train}: {tokens:,} real tokens a round, {recipe.packing}, seed {recipe.seed}")
    sides = {"jaxlm": (ours, {"recipe": recipe})} | ({} if alone else {"torch": (torchs, {"recipe": recipe})})
    show(sides, rounds, 1, tokens)
