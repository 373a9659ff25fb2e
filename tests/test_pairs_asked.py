"""Which texts a run of pairs and its tokenizer learn, and what is asked of it afterwards."""

import dataclasses
import json

import pytest

from jaxlm import assembly, finished, labelled
from jaxlm.config import Data, Records, Run, Tokenizer
from jaxlm.errors import DataError
from jaxlm.text.training import train_tokenizer
from tests import running
from tests.text_pairs import WORDS, pairs, write, written


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A config file a family beside the pairs."""
    return written(tmp_path_factory.mktemp("pairs"))


def test_odd_pairs_are_not_learnt_and_yet_measured(place, tmp_path):
    """A ratio is of training: scores are of all test pairs, of predictions all lines."""
    rows = write(tmp_path / "rows.jsonl", [("a", "A " * 9), ("cat", "CAT")])
    data = Data(source=str(place / "pairs.jsonl"), test_source=rows, validation_source=rows, cache=str(tmp_path / "cache"))
    run, said = Run(task="translation", data=data, records=Records(ratio=2.0)), []
    tokenizer = train_tokenizer("word", labelled.read_texts(run), 40)
    for split in ("test", "validation"):
        assert len(labelled.make_examples(run, tokenizer, said.append, split)[0]) == 2
    with pytest.raises(DataError, match="rows.jsonl:1: the pair has sides of 1 and 9 tokens"):
        labelled.make_examples(dataclasses.replace(run, data=dataclasses.replace(data, source=rows)), tokenizer, said.append)


def test_a_tokenizer_learns_the_texts_that_the_run_learns(tmp_path):
    """It is found again by what it was made of: the direction of a translation, the share of the records."""
    rows = ({"en": source, "de": target} for source, target in pairs(60))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = Data(source=str(tmp_path / "rows.jsonl"), cache=str(tmp_path / "cache"))
    base = Run(task="translation", data=data, tokenizer=Tokenizer("word", 40), target_tokenizer=Tokenizer("word", 40))
    known = lambda run: assembly.make_tokenizer(run, lambda _: None).source.encode("cat CAT")
    directed = lambda one, other: dataclasses.replace(base, records=Records(source_language=one, target_language=other))
    forth, back = directed("en", "de"), directed("de", "en")
    there, here = known(forth), known(back)
    assert there[0] != there[1] and here[0] != here[1] and there[0] != here[0] and there == known(forth)
    few = dataclasses.replace(forth, data=dataclasses.replace(data, fraction=0.02))
    assert len(set(assembly.make_tokenizer(few, lambda _: None).source.encode(" ".join(WORDS)))) < len(WORDS)


def test_a_mixture_is_asked_with_the_prefix_that_is_named(place, tmp_path):
    source = str(place / "pairs.jsonl")
    mixed = f"data.source=[[{source!r},1.0,'turn: '],[{source!r},1.0,'again: ']]"
    given = [str(place / "transformer.py"), mixed, "epochs=none", "steps=1", f"workdir={tmp_path / 'run'}"]
    assert running.run_here(*given) == 0
    wanted, said = finished.Wanted((str(tmp_path / "run"),), "test", source), []
    starts = lambda *changes: _starts(dataclasses.replace(wanted, changes=changes), said)
    assert [starts(), starts("records.prefix='again: '")] == ["turn:", "again:"]
    assert said[0].endswith("learnt a mixture: sources begin with records.prefix='turn: ' (its first one's unless one is named)")
    assert said[2].endswith("records.prefix='again: ' (its first one's unless one is named)")


def _starts(wanted, said):
    """The first word of what the encoder is given."""
    (member,) = finished.open_members(wanted)
    return member.tokenizer.decode(finished.split_examples(member, wanted, said.append).column("tokens", 0)).split()[0]


def test_a_finished_run_is_measured_in_batches_that_fit(place, tmp_path):
    """As large as the micro-batches it was trained in, or as --batch-size says."""
    given = [str(place / "transformer.py"), "data.packing=buckets", "data.batch_tokens=224", "accumulate=2", "epochs=none", "steps=1"]
    assert running.run_here(*given, f"workdir={tmp_path / 'run'}") == 0
    asked = lambda size: finished.open_member(str(tmp_path / "run"), size).run
    assert (asked(None).data.batch_tokens, asked(3).data.batch_tokens, asked(3).batch_size) == (112, None, 3)
