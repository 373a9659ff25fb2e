"""Train a model: `python -m jaxlm.train [configs/x.py] [a.b=c ...]`.

Without a config: a small GPT-2 on the Python standard library of this machine (`default.py`). `workdir=DIR` says where the run
lives; the same line goes on where it stands. Keys: those of `config.Run`, as in steps=2000 mesh.fsdp=8 data.source='texts/*.txt'.
"""

import contextlib

import jax

from jaxlm import assembly, config, default, feeding, sharding
from jaxlm.command import run_command
from jaxlm.config import Run
from jaxlm.data.compression import lzma_bits_per_byte
from jaxlm.errors import Stopped
from jaxlm.evaluation import make_validation
from jaxlm.inference.texts import sample_texts
from jaxlm.layers.block import LAYOUTS
from jaxlm.planning.banner import print_banner
from jaxlm.pretrained import on_one_device, read_model
from jaxlm.studies import study
from jaxlm.training import checkpoint, manifest, summary
from jaxlm.training.lock import lock
from jaxlm.training.loop import Parts, fit, worn_out
from jaxlm.training.report import Report
from jaxlm.training.resume import check_same_data, check_same_run, keep_files, restore_state
from jaxlm.training.signals import stop_requests, terminable
from jaxlm.training.step import best_params


def main(arguments: list[str]) -> None:
    """Resolve the configuration, join the other hosts, own the run directory, train, and say how it ended."""
    run = config.parse(arguments, default.config, read_model)
    sharding.join_hosts()
    mesh = sharding.make_mesh(run.mesh)
    owner = jax.process_index() == 0
    say = print if owner else lambda *_: None
    with lock(run.workdir, owner), terminable():
        try:
            texts = study(run, lambda one: _locked(one, mesh, say), say) if run.folds or run.fractions else train(run, mesh, say)
        except Stopped as stopped:
            if owner:
                raise
            raise SystemExit(stopped.code) from None  # one of them says it for all
        if owner and texts is not None:
            summary.tell(run, texts, lambda: lzma_bits_per_byte(feeding.held_out_texts(run)), arguments)


def _locked(run: Run, mesh: jax.sharding.Mesh | None, say: assembly.Say) -> None:
    with lock(run.workdir, jax.process_index() == 0):
        train(run, mesh, say)


def train(run: Run, mesh: jax.sharding.Mesh | None, say: assembly.Say) -> list[str]:
    """Prepare the data, go on from the newest checkpoint, train; returns samples of the model (of one process: none of several)."""
    owner = jax.process_index() == 0
    tokenizer = assembly.make_tokenizer(run, say)
    run = assembly.resolve(run, tokenizer)
    assembly.check_run(run, mesh)
    newest = checkpoint.latest(run.workdir, say, owner)
    check_same_run(run, tokenizer, newest)
    stores, held = feeding.make_stores(run, tokenizer, say)
    run = feeding.with_steps(run, stores, tokenizer, mesh)
    check_same_data(run, feeding.data_digest(stores), newest)
    problem = assembly.make_problem(run, mesh)
    with sharding.use(mesh):
        state = restore_state(problem, newest, LAYOUTS) if newest else assembly.first_state(problem, tokenizer, say)
        step, best = int(state["step"]), manifest.best(run.workdir)
        if step >= run.steps or worn_out(step, run, best):
            say(f"step {step} of {run.steps}: this run is done" + (f", stopped early (best at step {best[0]})" if step < run.steps else ""))
        else:
            say(f"step {step} of {run.steps}: {'goes on' if newest else 'starts'}")
            with contextlib.closing(Report(run, print_banner(problem, stores, held, say), step, owner)) as report:
                state = _fit(problem, state, stores, held, tokenizer, report)
    count = run.logging.samples if jax.process_count() == 1 and run.task == "causal-lm" else 0
    return sample_texts(problem.model, on_one_device(best_params(state)), tokenizer, count, run.seed) if count else []


def _fit(problem, state, stores, held, tokenizer, report):
    run = problem.run
    made, batches = feeding.training_batches(problem, stores, tokenizer)
    evaluate = make_validation(problem, held, tokenizer)
    files = keep_files(run, tokenizer, feeding.data_digest(stores), report.owner)
    with contextlib.closing(checkpoint.Writer(run.workdir, run.checkpoint.keep, files)) as writer, stop_requests() as stop:
        parts = Parts(
            step=assembly.training_step(problem, tokenizer),
            batches=batches,
            evaluate=lambda state: evaluate(best_params(state)),
            save=writer.save,
            check=writer.check,
            stop=stop,
            describe=lambda step: ", ".join(made.example_ids(step)[:4]),
            report=report,
        )
        return fit(state, run, parts, manifest.best(run.workdir))


if __name__ == "__main__":
    run_command(main, __doc__)
