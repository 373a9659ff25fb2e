"""What a run needs, before it runs: `python -m jaxlm.plan [configs/x.py] [a.b=c ...]`.

Prints parameters, memory of one device, and operations a token. Nothing is allocated and no data is read; a vocabulary
that the tokenizer would fill in is taken as `tokenizer.vocab_size`.
"""

import dataclasses

from jaxlm import assembly, config, default, pretrained, sharding
from jaxlm.command import run_command
from jaxlm.planning.banner import memory_lines, model_lines, plan_memory, token_flops
from jaxlm.planning.blank import batch_rows, row_tokens
from jaxlm.planning.flops import FORMULA


def main(arguments: list[str]) -> None:
    """Shapes only: the same estimator as the banner of a training run."""
    run = config.parse(arguments, default.config, pretrained.read_model)
    if run.model.vocab_size is None:
        run = dataclasses.replace(run, model=dataclasses.replace(run.model, vocab_size=run.tokenizer.vocab_size))
    problem = assembly.make_problem(run, sharding.make_mesh(run.mesh))
    print("\n".join([*model_lines(problem), *memory_lines(plan_memory(problem))]))
    flops = token_flops(problem)
    step = flops * batch_rows(run, problem.mesh) * sum(row_tokens(run))
    print(f"FLOPs: {flops / 1e6:,.1f} M a token ({FORMULA}); {step / 1e12:,.3g} TFLOP a step, {step * run.steps / 1e15:,.3g} PFLOP a run")


if __name__ == "__main__":
    run_command(main, __doc__)
