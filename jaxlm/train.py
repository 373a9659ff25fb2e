"""Train a model: `python -m jaxlm.train [configs/x.py] [a.b=c ...]`.

Without a config: a small GPT-2 on the Python standard library of this machine (`default.py`). `workdir=DIR` says where the run
lives; the same line goes on where it stands. Keys: those of `config.Run`, as in steps=2000 mesh.fsdp=8 data.source='texts/*.txt'.
"""

import contextlib
import json
from pathlib import Path

import jax

from jaxlm import assembly, config, default, sharding
from jaxlm.command import run_command
from jaxlm.config import Run
from jaxlm.data.compression import lzma_bits_per_byte
from jaxlm.errors import Stopped
from jaxlm.inference.generate import sample_texts
from jaxlm.layers.block import LAYOUTS
from jaxlm.planning.banner import print_banner
from jaxlm.pretrained import on_one_device
from jaxlm.training import checkpoint, manifest, summary
from jaxlm.training.lock import lock
from jaxlm.training.loop import Parts, fit, worn_out
from jaxlm.training.report import Report
from jaxlm.training.resume import check_same_data, check_same_run, resolved_config, restore_state
from jaxlm.training.signals import stop_requests, terminable
from jaxlm.training.step import best_params, make_evaluation, make_step


def main(arguments: list[str]) -> None:
    """Resolve the configuration, join the other hosts, own the run directory, train, and say how it ended."""
    run = config.parse(arguments, default.config)
    sharding.join_hosts()
    mesh = sharding.make_mesh(run.mesh)
    owner = jax.process_index() == 0
    with lock(run.workdir, owner), terminable():
        try:
            texts = train(run, mesh, print if owner else lambda *_: None)
        except Stopped as stopped:
            if owner:
                raise
            raise SystemExit(stopped.code) from None  # one of them says it for all
        if owner:
            summary.tell(run, texts, lambda: lzma_bits_per_byte(assembly.held_out_texts(run)), arguments)


def train(run: Run, mesh: jax.sharding.Mesh | None, say: assembly.Say) -> list[str]:
    """Prepare the data, go on from the newest checkpoint, train; returns samples of the model (of one process: none of several)."""
    owner = jax.process_index() == 0
    tokenizer = assembly.make_tokenizer(run, say)
    run = assembly.resolve(run, tokenizer)
    problem = assembly.make_problem(run, mesh)
    newest = checkpoint.latest(run.workdir, say, owner)
    check_same_run(run, tokenizer, newest)
    stores, held = assembly.make_stores(run, tokenizer, say)
    check_same_data(run, assembly.data_digest(stores), newest)
    with sharding.use(mesh):
        state = restore_state(problem, newest, LAYOUTS) if newest else assembly.first_state(problem, tokenizer, say)
        step, best = int(state["step"]), manifest.best(run.workdir)
        if step >= run.steps or worn_out(step, run, best):
            say(f"step {step} of {run.steps}: this run is done" + (f", stopped early (best at step {best[0]})" if step < run.steps else ""))
        else:
            say(f"step {step} of {run.steps}: {'goes on' if newest else 'starts'}")
            with contextlib.closing(Report(run, print_banner(problem, stores, held, say), step, owner)) as report:
                state = _fit(problem, state, stores, held, tokenizer, report)
    count = run.logging.samples if jax.process_count() == 1 else 0
    return sample_texts(problem.model, on_one_device(best_params(state)), tokenizer, count, run.seed) if count else []


def _fit(problem, state, stores, held, tokenizer, report):
    run = problem.run
    made, batches = assembly.training_batches(problem, stores)
    evaluate = assembly.make_validation(problem, held, tokenizer, make_evaluation(problem.loss))
    files = _files(run, tokenizer, stores, report.owner)
    with contextlib.closing(checkpoint.Writer(run.workdir, run.checkpoint.keep, files)) as writer, stop_requests() as stop:
        parts = Parts(
            step=make_step(problem.loss, problem.rule, problem.schedule, run.optimizer, run.seed, run.accumulate),
            batches=batches,
            evaluate=lambda state: evaluate(best_params(state)),
            save=writer.save,
            check=writer.check,
            stop=stop,
            describe=lambda step: ", ".join(made.example_ids(step)[:4]),
            report=report,
        )
        return fit(state, run, parts, manifest.best(run.workdir))


def _files(run: Run, tokenizer, stores: list, owner: bool) -> dict[str, Path | bytes]:
    """What a checkpoint holds beside the state; the run directory too."""
    content = json.dumps(resolved_config(run, tokenizer, assembly.data_digest(stores)), indent=1).encode()
    if owner:
        tokenizer.save(Path(run.workdir) / "tokenizer")
        manifest.write_atomically(Path(run.workdir) / "config.json", content)
    return {"config.json": content, "tokenizer": Path(run.workdir) / "tokenizer"}


if __name__ == "__main__":
    run_command(main, __doc__)
