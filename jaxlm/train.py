"""Train a model: `python -m jaxlm.train [configs/x.py] [a.b=c ...]`.

Without a config: a small GPT-2 on the Python standard library of this machine (`default.py`). `workdir=DIR` says where the
run lives; the same line goes on where it stands. Keys are those of `config.Run`, such as steps=2000 model.n_layer=6
optimizer.learning_rate=1e-3 mesh.fsdp=8 data.source='texts/*.txt'.
"""

import json
import tempfile
from pathlib import Path

import jax

from jaxlm import assembly, config, sharding
from jaxlm.command import run_command
from jaxlm.config import Run
from jaxlm.inference.generate import sample_texts
from jaxlm.planning.banner import print_banner
from jaxlm.pretrained import on_one_device
from jaxlm.training import checkpoint, manifest, summary
from jaxlm.training.lock import lock
from jaxlm.training.loop import Parts, fit
from jaxlm.training.report import Report
from jaxlm.training.resume import check_same_run, resolved_config, restore_state
from jaxlm.training.signals import stop_requests
from jaxlm.training.step import best_params, make_evaluation, make_step


def main(arguments: list[str]) -> None:
    """Resolve the configuration, join the other hosts, own the run directory, train."""
    run = parse(arguments)
    sharding.join_hosts()
    mesh = sharding.make_mesh(run.mesh)
    owner = jax.process_index() == 0
    with lock(run.workdir, owner), stop_requests() as stop:
        train(run, mesh, stop, owner)


def parse(arguments: list[str]) -> Run:
    """The configuration named on the command line, with its overrides."""
    from jaxlm import default

    named = [argument for argument in arguments if "=" not in argument]
    if len(named) > 1:
        raise config.ConfigError(f"{named[1]!r}: one config file at most; overrides are of the form key=value")
    run = config.load_file(named[0]) if named else default.config
    return config.override(run, [argument for argument in arguments if "=" in argument])


def train(run: Run, mesh: jax.sharding.Mesh | None, stop, owner: bool) -> None:
    """Prepare the data, go on from the newest checkpoint, train, and say how it ended."""
    say = print if owner else lambda *_: None
    tokenizer = assembly.make_tokenizer(run, say)
    run = assembly.resolve(run, tokenizer)
    problem = assembly.make_problem(run, mesh)
    newest = checkpoint.latest(run.workdir, say, owner)
    check_same_run(run, tokenizer, newest, owner)
    stores, held = assembly.make_stores(run, tokenizer, say)
    with sharding.use(mesh), tempfile.TemporaryDirectory() as scratch:
        state = restore_state(problem, newest) if newest else jax.jit(problem.init)(jax.random.key(run.seed))
        rates = print_banner(problem, stores, held, say)
        say(f"step {int(state['step'])} of {run.steps}: " + ("goes on" if newest else "starts") if int(state["step"]) < run.steps else "this run is done")
        tokenizer.save(Path(scratch) / "tokenizer")
        kept = {"config.json": json.dumps(resolved_config(run, tokenizer)).encode(), "tokenizer": Path(scratch) / "tokenizer"}
        writer = checkpoint.Writer(run.workdir, run.checkpoint.keep, kept)
        report = Report(run, rates, int(state["step"]), owner)
        try:
            state = _fit(problem, state, stores, held, tokenizer, writer, report, stop)
        finally:
            report.close()
            writer.close()
    if owner:
        texts = []
        if jax.process_count() == 1:
            texts = sample_texts(problem.model, on_one_device(best_params(state)), tokenizer, run.logging.samples, run.seed)
        summary.tell(run, texts, assembly.held_out_texts(run))


def _fit(problem, state, stores, held, tokenizer, writer, report, stop):
    run = problem.run
    made, batches = assembly.training_batches(problem, stores)
    evaluate = assembly.make_validation(problem, held, tokenizer, make_evaluation(problem.loss))
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


if __name__ == "__main__":
    run_command(main, __doc__)
