"""Apache Beam makes the same bytes as the local preparation; `.ci/run` tests it in an environment of its own."""

import json
import subprocess
import sys

import pytest

from jaxlm import config
from jaxlm.data import sources
from jaxlm.data.beam import prepare_on_beam
from jaxlm.data.prepare import prepare
from jaxlm.errors import DataError
from jaxlm.text.training import train_tokenizer

STEPS = ("whitespace", "exact_duplicates", "near_duplicates")


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def corpus(tmp_path):
    texts = [f"document  {i} speaks of {i * i} and of {i**3}, at some length and with no copy\n" for i in range(40)]
    for name, part in (("a.jsonl", texts[:30]), ("b.jsonl", texts[20:])):
        (tmp_path / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    return f"{tmp_path}/*.jsonl", train_tokenizer("bpe", texts, 300)


def test_shards_of_beam_are_byte_equal(corpus, tmp_path, monkeypatch):
    pytest.importorskip("apache_beam", reason="needs Apache Beam: pip install jaxlm[beam]")
    monkeypatch.setattr(sources, "UNIT_BYTES", 1000)  # every file a unit
    source, tokenizer = corpus
    local, cluster = (config.Data(source=source, cache=str(tmp_path / name), validation=0.2, clean=STEPS) for name in ("a", "b"))
    here = prepare(local, source, tokenizer)[0].directory.parent
    there = prepare_on_beam(cluster, source, tokenizer, ["--runner=DirectRunner"], print)
    assert files_of(here) == files_of(there) and here.name == there.name
    assert len(list(there.glob("train/*.arrow"))) == 2
    assert json.loads((there / "card.json").read_text())["dropped"] == {"exact_duplicates": 10}
    assert prepare(cluster, source, tokenizer)[0].directory.parent == there  # a run finds it


def test_a_failed_pipeline_is_one_line(corpus, tmp_path):
    pytest.importorskip("apache_beam", reason="needs Apache Beam: pip install jaxlm[beam]")
    (tmp_path / "c.jsonl").write_text('{"text": 3}\n')
    data = config.Data(source=corpus[0], cache=str(tmp_path / "c"))
    with pytest.raises(DataError, match="c.jsonl:1"):
        prepare_on_beam(data, corpus[0], corpus[1], ["--runner=DirectRunner"], print)


def test_without_beam_the_line_that_installs_it(tmp_path):
    if "apache_beam" in sys.modules or subprocess.run([sys.executable, "-c", "import apache_beam"], capture_output=True).returncode == 0:
        pytest.skip("Apache Beam is installed here")
    (tmp_path / "a.txt").write_text("one two three " * 50)
    line = [
        sys.executable,
        "-m",
        "jaxlm.prepare",
        f"data.source={tmp_path}/a.txt",
        f"data.cache={tmp_path}/c",
        "tokenizer.vocab_size=257",
        "--runner",
        "DirectRunner",
    ]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 78 and 'pip install "jaxlm[beam]"' in done.stderr
