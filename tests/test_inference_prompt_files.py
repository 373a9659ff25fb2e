"""Files of prompts: a line for a line, in order, continued where they were left."""

import json

import pytest

from jaxlm.errors import DataError
from jaxlm.inference.prompt_files import Job, read_rows, write_rows

ROWS = [{"prompt": f"p{i}\N{LINE SEPARATOR}x", "id": i} for i in range(7)]


def write(prompts, seeds):
    """Says the prompt and the seed."""
    copies = len(seeds) // len(prompts)
    return [f"{prompts[i // copies]}/{seed}" for i, seed in enumerate(seeds)], len(seeds)


def lines(path):
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def test_every_row_has_its_completion_and_keeps_what_it_had(tmp_path):
    said = []
    write_rows(write, ROWS, tmp_path / "out.jsonl", Job(3, 1, 10), said.append)
    assert lines(tmp_path / "out.jsonl") == [{**row, "completion": f"{row['prompt']}/{10 + i}"} for i, row in enumerate(ROWS)]
    assert said and said[-1].startswith("7 of 7 prompts")


@pytest.mark.parametrize("kept", [0, 1, 4])
def test_a_half_written_output_becomes_what_an_undisturbed_run_writes(tmp_path, kept):
    whole, half = tmp_path / "whole.jsonl", tmp_path / "half.jsonl"
    write_rows(write, ROWS, whole, Job(3, 2, 5), lambda text: None)
    text = [f"{line}\n" for line in whole.read_text().split("\n")[:-1]]
    half.write_text("".join(text[:kept]) + text[kept][:9])  # and a line that was cut off
    write_rows(write, ROWS, half, Job(2, 2, 5), lambda text: None)
    assert half.read_text() == whole.read_text()


def test_an_output_of_other_prompts_is_not_touched(tmp_path):
    path = tmp_path / "out.jsonl"
    write_rows(write, ROWS, path, Job(), lambda text: None)
    before = path.read_text()
    with pytest.raises(DataError, match="out.jsonl:2 is of another prompt"):
        write_rows(write, [ROWS[0], *ROWS[2:]], path, Job(), lambda text: None)
    with pytest.raises(DataError, match="has 7 lines and there are 3 prompts"):
        write_rows(write, ROWS[:3], path, Job(), lambda text: None)
    assert path.read_text() == before


def test_prompts_are_read_from_lines_of_text_and_of_json(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.jsonl").write_text('{"prompt": "one"}\n{"messages": [{"role": "user", "content": "hi"}]}\n')
    assert read_rows(tmp_path / "a.txt") == [{"prompt": "one"}, {"prompt": "two"}]
    assert len(read_rows(tmp_path / "b.jsonl")) == 2
    for text, said in (("{", "no JSON"), ('{"text": "x"}', '"prompt" or "messages"'), ("", "no line")):
        (tmp_path / "c.jsonl").write_text(text)
        with pytest.raises(DataError, match=f"c.jsonl.*{said}"):
            read_rows(tmp_path / "c.jsonl")
