"""Preparation: cleaned and without duplicates, the same on one process and on several, resumed, counted."""

import concurrent.futures
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxlm import config
from jaxlm.data import portions, sources
from jaxlm.data import prepare as preparing
from jaxlm.data.card import empty_card
from jaxlm.data.drops import find_cleaning, sign_portion
from jaxlm.data.portions import Portion
from jaxlm.data.prepare import prepare, store_directory, training_documents
from jaxlm.data.shards import Cleaning, Recipe, make_shards
from jaxlm.data.split import ByHash
from jaxlm.data.workers import ordered_map
from jaxlm.errors import ConfigError, DataError
from jaxlm.frozen import Frozen
from jaxlm.text.training import train_tokenizer

WORDS = "time year people way day man thing woman life child world school state family student group country problem".split()
STEPS = ("whitespace", "pii", ("length", Frozen(minimum_words=5)), "exact_duplicates", ("near_duplicates", Frozen(threshold=0.7)))


def sentence(seed, length=60):
    return " ".join(np.random.default_rng(seed).choice(WORDS, length))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Jsonl in two files: 60 documents, 10 exact copies, 10 near copies, an empty-ish one, one with an address."""
    folder = tmp_path_factory.mktemp("corpus")
    texts = [sentence(i) for i in range(60)] + [sentence(i) for i in range(10)] + [f"{sentence(i)} indeed" for i in range(10, 20)]
    texts += ["too short", f"write to jane@example.org {sentence(99)}   "]
    for name, part in (("a.jsonl", texts[:50]), ("b.jsonl", texts[50:])):
        (folder / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    return folder, train_tokenizer("bpe", texts, 300)


def data_of(corpus, cache, **keys):
    return config.Data(**{"source": f"{corpus[0]}/*.jsonl", "cache": str(cache), "validation": 0.1, "clean": STEPS, **keys})


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(portions, "PORTION_BYTES", 6000)
    monkeypatch.setattr(sources, "UNIT_BYTES", 1000)  # every file a unit


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_duplicates_are_dropped_and_counted(corpus, tmp_path):
    data = data_of(corpus, tmp_path)
    train, validation = prepare(data, data.source, corpus[1])
    card = json.loads((train.directory.parent / "card.json").read_text())
    assert (card["documents"], card["kept"]) == (82, 61)
    assert card["dropped"] == {"exact_duplicates": 10, "near_duplicates": 10, "length:few_words": 1}
    assert card["changed"] == {"pii": 1, "whitespace": 1} and card["counted"] == {"pii:email": 1}
    assert card["examples"]["length:few_words"] == ["too short"] and len(card["examples"]["exact_duplicates"]) == 3
    assert card["tokens"] == {"train": train.tokens, "validation": validation.tokens}
    texts = {corpus[1].decode(store.slice(i, 0, 10**6)[:-1]) for store in (train, validation) for i in range(len(store.lengths))}
    assert len(texts) == 61 and {sentence(i) for i in range(60)} < texts
    assert not any("jane@example.org" in text for text in texts)
    page = (train.directory.parent / "card.md").read_text()
    assert "82 in, 61 out" in page and "| near_duplicates | 10 |" in page
    assert list(training_documents(data, data.source)) == [
        corpus[1].decode(train.slice(i, 0, 10**6)[:-1]) for i in range(len(train.lengths))
    ]  # the tokenizer learns from what is trained on


def test_a_shard_is_the_same_from_one_process_and_from_two(corpus, tmp_path):
    stores = []
    for workers in (0, 2):
        data = data_of(corpus, tmp_path / str(workers))
        stores.append(prepare(data, data.source, corpus[1], workers=workers)[0].directory.parent)
    one, two = map(files_of, stores)
    assert len([name for name in one if name.startswith("train/") and name.endswith(".arrow")]) > 4
    assert one == two and stores[0].name == stores[1].name


def test_the_cleaning_and_the_list_of_duplicates_enter_the_key(corpus, tmp_path):
    kept = [
        prepare(data_of(corpus, tmp_path, clean=clean), data_of(corpus, tmp_path).source, corpus[1])[0].directory.parent.name
        for clean in (STEPS, STEPS[:3], ())
    ]
    assert len(set(kept)) == 3
    data = data_of(corpus, tmp_path)
    assert preparing.store_key(data, data.source, corpus[1], "one list") != preparing.store_key(data, data.source, corpus[1], "another")


def test_dictionaries_in_a_config_file_are_options(corpus, tmp_path):
    data = data_of(corpus, tmp_path, clean=(("length", {"minimum_words": 5}),))
    card = prepare(data, data.source, corpus[1])[0].directory.parent / "card.json"
    assert json.loads(card.read_text())["dropped"] == {"length:few_words": 1}


def test_an_interrupted_list_of_duplicates_goes_on(corpus, tmp_path, monkeypatch):
    from jaxlm.text.cleaning import duplicates

    data, calls, real = data_of(corpus, tmp_path), [], duplicates.sign

    def sign(ids, texts, options, dies=False):
        calls.append(len(ids))
        if dies and len(calls) == 3:
            raise KeyboardInterrupt
        return real(ids, texts, options)

    monkeypatch.setattr(duplicates, "sign", functools.partial(sign, dies=True))
    with pytest.raises(KeyboardInterrupt):
        prepare(data, data.source, corpus[1])
    seen, calls[:] = len(calls), []
    monkeypatch.setattr(duplicates, "sign", sign)
    prepare(data, data.source, corpus[1])
    total = sum(1 for _ in portions.source_portions(data, data.source))
    assert len(calls) == total - (seen - 1) and not list((tmp_path / "drops").glob("*.partial"))


def test_everything_dropped_is_said(corpus, tmp_path):
    data = data_of(corpus, tmp_path, clean=(("length", Frozen(minimum=10**6)),))
    with pytest.raises(DataError, match="data.clean drops all"):
        prepare(data, data.source, corpus[1])


@pytest.mark.parametrize(("step", "word"), [("whitespac", "whitespace"), (("html", "b"), "is no step"), ((), "is no step")])
def test_a_wrong_step_is_named(step, word, corpus, tmp_path):
    data = data_of(corpus, tmp_path, clean=(step,))
    with pytest.raises(ConfigError, match=word):
        prepare(data, data.source, corpus[1])


def _die(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_killed_worker_is_one_line():
    with pytest.raises(DataError, match="fewer --workers"):
        list(ordered_map(_die, range(8), 2))


def test_results_come_in_order_and_few_wait():
    taken = []
    items = (taken.append(i) or i for i in range(20))
    results = ordered_map(abs, items, 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2] and len(taken) < 8
    assert list(results) == list(range(3, 20))


ENDLESS = """
import time
from jaxlm.data.workers import ordered_map
print(sum(1 for _ in ordered_map(time.sleep, [0.05] * 100_000, 2)))
"""


def test_workers_end_with_a_killed_parent():
    running = subprocess.Popen([sys.executable, "-c", ENDLESS], start_new_session=True)
    while len(workers := [child for child in _children(running.pid) if "spawn_main" in _line(child)]) < 2:
        assert running.poll() is None
        time.sleep(0.05)
    time.sleep(1)  # they have begun to work
    running.kill()
    running.wait()
    deadline = time.monotonic() + 10
    while (alive := [worker for worker in workers if "spawn_main" in _line(worker)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for worker in alive:
        os.kill(worker, signal.SIGKILL)
    assert not alive


def _line(process):
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


def test_what_was_made_of_other_texts_is_made_again(corpus, tmp_path):
    """A note and a signature count for the very texts they were made of."""
    cleaning = Cleaning(("exact_duplicates",))
    recipe = Recipe(cleaning, ByHash(0.0, 0.0, 1.0), corpus[1], str(tmp_path))
    one, other = (Portion("00000-00000", 0, texts) for texts in (("first text", "second"), ("another text", "second")))
    assert make_shards(recipe, one) == make_shards(recipe, one) != make_shards(recipe, other)
    read = lambda: (tmp_path / "signed" / "00000-00000.npz").read_bytes()
    signed = [sign_portion(cleaning, str(tmp_path / "signed"), portion) and read() for portion in (one, other)]
    assert signed[0] != signed[1]


def test_a_list_that_changes_is_read_again_and_not_mixed(corpus, tmp_path):
    """Every worker reads the files that options name: what it finds must be what the key was made of."""
    (tmp_path / "words.txt").write_text("zzzz\n")
    steps = (("profanity", {"words": str(tmp_path / "words.txt")}),)
    data = data_of(corpus, tmp_path / "cache", clean=steps)
    cleaning = find_cleaning(data, data.source)
    before = prepare(data, data.source, corpus[1])[0]
    (tmp_path / "words.txt").write_text("time\nyear\n")
    after = prepare(data, data.source, corpus[1])[0]
    assert after.directory != before.directory and len(after.lengths) < len(before.lengths)
    with pytest.raises(DataError, match="changed during the preparation"):
        list(cleaning(Portion("00000-00000", 0, ("a text",)), empty_card()))


def test_two_may_list_duplicates_at_once(corpus, tmp_path):
    data = data_of(corpus, tmp_path)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: find_cleaning(data, data.source), range(4)))
    assert len(set(found)) == 1 and not list((tmp_path / "drops").glob("*.partial"))


def test_what_a_killed_process_left_is_cleared_away(corpus, tmp_path):
    data = data_of(corpus, tmp_path)
    path = store_directory(data, data.source, corpus[1], find_cleaning(data, data.source))
    left = path.with_name(f"{path.name}.partial") / "train" / ".00000-00000.arrow.abc"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    store, _ = prepare(data, data.source, corpus[1])
    assert {file.suffix for file in store.directory.iterdir()} == {".arrow", ".json"}


def test_paragraphs_taken_out_are_counted(tmp_path):
    shared = "a paragraph that stands on every page of the site"
    texts = [f"{shared}\n\n{sentence(i)}" for i in range(25)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    data = config.Data(source=f"{tmp_path}/a.jsonl", cache=str(tmp_path), clean=(("paragraph_duplicates", {"minimum": 20}),))
    store, _ = prepare(data, data.source, train_tokenizer("char", texts, 0))
    assert json.loads((store.directory.parent / "card.json").read_text())["changed"] == {"paragraph_duplicates": 24}


def test_a_document_ends_once(tmp_path):
    """Some tokenizers' own templates end a text; the store adds no second end."""
    texts = [sentence(i) for i in range(25)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    tokenizer = train_tokenizer("wordpiece", texts, 300)
    data = config.Data(source=f"{tmp_path}/a.jsonl", cache=str(tmp_path / "cache"), validation=0.0)
    store, _ = prepare(data, data.source, tokenizer)
    assert store.slice(0, 0, 10**6).tolist() == tokenizer.encode(texts[0]) and tokenizer.encode(texts[0])[-1] == tokenizer.eos_id


COMMAND = [sys.executable, "-m", "jaxlm.prepare"]


def test_the_command_prints_the_card_and_a_killed_one_leaves_no_process(corpus, tmp_path):
    line = [
        *COMMAND, f"data.source={corpus[0]}/*.jsonl", f"data.cache={tmp_path}", "tokenizer.vocab_size=300", "--workers", "2",
        'data.clean=("whitespace", "exact_duplicates")',
    ]  # fmt: skip
    running = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (children := _children(running.pid)) and running.poll() is None:
        time.sleep(0.05)
    running.kill()
    running.communicate()
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "82 in, 72 out" in done.stdout and done.stdout.rstrip().splitlines()[-1].startswith(f"{tmp_path}/stores/")
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{child}") for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert children and not [child for child in children if os.path.exists(f"/proc/{child}")]


def _children(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def test_flags_of_beam_need_a_runner():
    done = subprocess.run([*COMMAND, "--streaming"], capture_output=True, text=True)
    assert done.returncode == 78 and "--runner" in done.stderr and done.stderr.count("\n") == 1


def test_prepare_is_found_by_train(corpus, tmp_path, monkeypatch):
    """What the command made is what a run opens."""
    data = data_of(corpus, tmp_path)
    made = prepare(data, data.source, corpus[1], workers=2)[0].directory
    monkeypatch.setattr(preparing, "build", None)
    assert prepare(data, data.source, corpus[1])[0].directory == made
