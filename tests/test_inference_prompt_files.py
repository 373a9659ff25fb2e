"""Files of prompts: a line for a line, in order, continued where they were left."""

import json
from pathlib import Path

import pytest

from jaxlm.errors import ConfigError, DataError
from jaxlm.inference.prompt_files import Job, check_rows, read_rows, write_rows

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


@pytest.mark.parametrize("copies", [1, 2])
def test_rows_with_an_answer_of_their_own_are_continued(tmp_path, copies):
    """A line of the output is read again as a prompt, say by another model."""
    rows = [{**row, "completion": "old", "completions": ["older"]} for row in ROWS]
    whole, half = tmp_path / "whole.jsonl", tmp_path / "half.jsonl"
    write_rows(write, rows, whole, Job(3, copies, 5), lambda text: None)
    half.write_text("".join(f"{line}\n" for line in whole.read_text().split("\n")[:4]))
    write_rows(write, rows, half, Job(2, copies, 5), lambda text: None)
    assert half.read_text() == whole.read_text() and "p0" in str(lines(whole)[0]["completion" if copies == 1 else "completions"])


@pytest.mark.parametrize("broken", ["[1]", '{"prompt": "p', "3", ""])
def test_a_broken_line_of_the_output_is_named(tmp_path, broken):
    path = tmp_path / "out.jsonl"
    write_rows(write, ROWS, path, Job(), lambda text: None)
    text = path.read_text().split("\n")[:-1]
    path.write_text("\n".join([*text[:2], broken, *text[3:]]) + "\n")
    with pytest.raises(DataError, match="out.jsonl:3 is no object of JSON: remove it and what follows"):
        write_rows(write, ROWS, path, Job(), lambda text: None)


def test_files_that_are_not_utf_8_are_named_with_the_line(tmp_path):
    path = tmp_path / "in.txt"
    path.write_bytes("one\ntwo é\n".encode("latin-1"))
    with pytest.raises(DataError, match="in.txt:2 is not UTF-8 text .*: convert the file"):
        read_rows(path)
    with pytest.raises(DataError, match="in.txt:2 is not UTF-8 text"):
        write_rows(write, ROWS, path, Job(), lambda text: None)
    path.write_bytes("one\r\ntwo é\r\n".encode())
    assert read_rows(path) == [{"prompt": "one"}, {"prompt": "two é"}]


@pytest.mark.parametrize("messages", ["3", '"hi"', '{"role": "user"}'])
def test_messages_are_a_list(tmp_path, messages):
    (tmp_path / "in.jsonl").write_text(f'{{"prompt": "a"}}\n{{"prompt": "a", "messages": {messages}}}\n')
    with pytest.raises(DataError, match='in.jsonl:2: an object with "prompt" or "messages"'):
        read_rows(tmp_path / "in.jsonl")


def test_a_prompt_that_is_refused_is_named_with_its_line():
    def check(prompt):
        if prompt.startswith("p3"):
            raise ConfigError("too long")

    with pytest.raises(DataError, match="^in.jsonl:4: too long$"):
        check_rows(Path("in.jsonl"), ROWS, check)
    check_rows(Path("in.jsonl"), ROWS[:3], check)


def test_a_failure_at_the_start_leaves_no_empty_file(tmp_path):
    def fail(prompts, seeds):
        raise ConfigError("no")

    there = tmp_path / "there.jsonl"
    there.touch()
    for path in (tmp_path / "new.jsonl", there):
        with pytest.raises(ConfigError):
            write_rows(fail, ROWS, path, Job(), lambda text: None)
    assert list(tmp_path.iterdir()) == [there]  # a file of somebody else stays
