"""Public benchmarks by EleutherAI's LM Evaluation Harness: `python -m jaxlm.harness --model_args pretrained=DIR --tasks hellaswag`.

Everything else is the harness's own command line (`python -m jaxlm.harness run --help`); `--model jaxlm` is added where no model is
named. DIR is whatever `jaxlm.load` takes: a causal or an encoder-decoder model. --model_args may say pretrained, dtype, max_length,
batch_size, max_batch_size, add_bos_token, prefix_token_id, with commas between.
"""

import importlib
import sys

from jaxlm.command import run_command
from jaxlm.errors import extra


def main(arguments: list[str]) -> None:
    """Register the model `jaxlm` and hand over to `lm_eval`."""
    with extra("harness", "lm_eval"):
        from lm_eval.__main__ import cli_evaluate

        importlib.import_module("jaxlm.harness_model")  # registers the model
    sys.argv[1:] = with_model(arguments)
    cli_evaluate()


def with_model(arguments: list[str]) -> list[str]:
    """The arguments of a run, with `--model jaxlm` where they name no model.

    >>> with_model(["--tasks", "piqa"])
    ['run', '--tasks', 'piqa', '--model', 'jaxlm']
    >>> with_model(["ls", "tasks"])
    ['ls', 'tasks']
    """
    verb, rest = (arguments[:1], arguments[1:]) if arguments and not arguments[0].startswith("-") else (["run"], arguments)
    named = any(word.split("=")[0] in ("--model", "-M") for word in rest)
    return verb + rest + ([] if named or verb != ["run"] else ["--model", "jaxlm"])


if __name__ == "__main__":
    run_command(main, __doc__)
