"""Every file in configs/ is a run that can be planned, whatever task it is of."""

import dataclasses
from pathlib import Path

import jax
import pytest

from jaxlm import assembly, config
from jaxlm.models import bert
from jaxlm.planning.banner import plan_memory, token_flops

FILES = sorted((Path(__file__).parent.parent / "configs").glob("*.py"))
SMALL = bert.Config(vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, num_labels=3)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_can_be_planned(path):
    run = config.load_file(path)
    if run.model is None:
        run = dataclasses.replace(run, model=SMALL, pretrained=None, tuning=config.Tuning())
    vocabulary = run.model.vocab_size or run.tokenizer.vocab_size
    rows = dataclasses.replace(run, model=dataclasses.replace(run.model, vocab_size=vocabulary), batch_size=2, accumulate=1)
    problem = assembly.make_problem(rows, None)
    assert plan_memory(problem).total > 0 and token_flops(problem) > 0
    assert sum(leaf.size for leaf in jax.tree.leaves(problem.abstract["params"])) > 1000
    assert f"configs/{path.name}" in path.read_text().split('"""')[1], "the docstring gives the command"
