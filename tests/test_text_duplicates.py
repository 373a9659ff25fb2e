"""Duplicates: the same as brute force over plain Python sets, whatever the shards; files that come back or say what is wrong."""

import itertools
import os
import random
import re
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

from jaxlm.data.stdlib import stdlib_documents
from jaxlm.errors import ConfigError, DataError
from jaxlm.text.cleaning import minhash, near
from jaxlm.text.cleaning.duplicates import REASONS, Duplicates, apply, find_duplicates, load_drops, sign
from jaxlm.text.cleaning.near import jaccard
from jaxlm.text.cleaning.shingles import shingles, words

COUNT = 2000  # documents


@pytest.fixture(scope="module")
def texts():
    """Paragraphs of the standard library and copies with a few to many words exchanged, in random order."""
    random.seed(1)
    paragraphs = [piece for text in stdlib_documents() for piece in text.split("\n\n") if len(piece.split()) > 40]
    made = []
    while len(made) < COUNT:
        original = random.choice(paragraphs).split()[:200]
        made.append(" ".join(original))
        for _ in range(random.randint(0, 4)):
            noise = random.choice([0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.1])
            made.append(" ".join(word if random.random() >= noise else f"w{random.randrange(10**6)}" for word in original))
    random.shuffle(made)
    return made[:COUNT]


def plain_set(text, n=5):
    found = [word.lower() for word in re.findall(r"\w+", text, re.ASCII)]
    return {tuple(found[at : at + n]) for at in range(max(1, len(found) - n + 1))} if found else set()


@pytest.fixture(scope="module")
def similarities(texts):
    """{(i, j): Jaccard similarity} of all pairs that share a shingle: every other pair's is 0."""
    sets = [plain_set(text) for text in texts]
    holders = {}
    for at, shingle in ((at, shingle) for at, found in enumerate(sets) for shingle in found):
        holders.setdefault(shingle, []).append(at)
    pairs = set().union(*(itertools.combinations(rows, 2) for rows in holders.values()))
    return {(i, j): len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for i, j in pairs}


def components(pairs, count):
    """The first of each document's group."""
    first = list(range(count))
    for i, j in pairs:
        low, high = sorted((first[i], first[j]))
        if low != high:
            first = [low if one == high else one for one in first]
    return first


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9])
def test_near_duplicates_are_those_of_brute_force(texts, similarities, threshold):
    close = sum(abs(value - threshold) < 0.05 for value in similarities.values())
    assert close > 150  # pairs that an approximate answer would get wrong
    first = components([pair for pair, value in similarities.items() if value >= threshold], len(texts))
    expected = {at: one for at, one in enumerate(first) if at != one}
    options = Duplicates(threshold=threshold)
    drops = find_duplicates([sign(np.arange(len(texts)), texts, options)], options)
    assert dict(zip(drops.documents.tolist(), drops.originals.tolist(), strict=True)) == expected
    assert len(expected) > 300 and set(drops.reasons.tolist()) == {1}


def test_estimates_are_those_of_minhash(texts):
    """Shares of equal minima lie about the true similarity as far as the binomial law says, no further than datasketch's."""
    datasketch = pytest.importorskip("datasketch")
    some = texts[:200]
    hashes, offsets = shingles(some, 5)
    minima = minhash.minima(hashes, offsets, 128)
    sketches = []
    for text in some:
        sketch = datasketch.MinHash(num_perm=128, seed=3)
        sketch.update_batch([repr(shingle).encode() for shingle in plain_set(text)])
        sketches.append(sketch)
    ours, theirs = [], []
    for i, j in itertools.combinations(range(len(some)), 2):
        true = jaccard(hashes[offsets[i] : offsets[i + 1]], hashes[offsets[j] : offsets[j + 1]])
        if 0.1 < true < 0.95:
            ours.append(np.mean(minima[:, i] == minima[:, j]) - true)
            theirs.append(sketches[i].jaccard(sketches[j]) - true)
    assert len(ours) > 15
    assert abs(np.mean(ours)) < 0.03 and np.sqrt(np.mean(np.square(ours))) < 1.25 * np.sqrt(np.mean(np.square(theirs))) + 0.005


def test_a_pair_at_the_threshold_shares_a_band():
    """Sets of exactly the threshold's similarity: of 10,000 some 1 is missed, as the formula says; at half of it few are candidates."""
    bands, rows = minhash.bands_and_rows(0.8, 128)
    assert bands * rows <= 128 and (1 - 0.8**rows) ** bands < 1e-4
    random_numbers = np.random.default_rng(0)
    for similarity, least, most in ((0.8, 9994, 10_000), (0.4, 0, 3000)):
        both = round(90 * 2 * similarity / (1 + similarity))
        found = random_numbers.integers(0, 2**64, (10_000, 2 * 90 - both), dtype=np.uint64)
        keys = []
        for chosen in (found[:, :90], found[:, -90:]):
            signature = minhash.minima(chosen.reshape(-1), np.arange(10_001) * 90, bands * rows)
            keys.append(minhash.band_keys(signature, bands, rows))
        assert least <= np.any(keys[0] == keys[1], axis=0).sum() <= most


def test_words_and_shingles_are_those_of_plain_python(texts):
    for some in (texts[:200], ["", "one", "", "Two,two", "a_b 1.5\n\n-- x"]):
        hashes, offsets = shingles(some, 5)
        assert np.diff(offsets).tolist() == [len(plain_set(text)) for text in some]
        assert words(some).lengths.tolist() == [len(word) for text in some for word in re.findall(r"\w+", text, re.ASCII)]
    exact = words(["Ünï  cödé 東京\tx\n", "a"], exact=True)
    assert exact.lengths.tolist() == [3, 4, 2, 1, 1] and exact.texts.tolist() == [0, 0, 0, 0, 1]
    assert words(["東京tower 😀“quoted”—naïve\xa0x"]).lengths.tolist() == [1, 1, 5, 1, 6, 5, 1]


def test_shingles_do_not_depend_on_neighbours_or_case():
    alone = [shingles([text], 3)[0].tolist() for text in ("A b, c! d", "x y", "a  B (c) D")]
    together, offsets = shingles(["A b, c! d", "x y", "a  B (c) D"], 3)
    assert [together[start:stop].tolist() for start, stop in itertools.pairwise(offsets)] == alone
    assert alone[0] == alone[2] != alone[1] and len(alone[1]) == 1


DOCUMENTS = [
    "an old story about the sea\n\n" + "a paragraph that is told again and again " * 4,
    "something else entirely, about mountains and the snow on them",
    "an old story about the sea\n\n" + "a paragraph that is told again and again " * 4,
    "",
    "?!",
    "a third story of ships\n\n  " + "a paragraph that is told again and again " * 4 + "\n\nand its end",
    "something else entirely about mountains and the snow on THEM",
    "a paragraph that is told again and again " * 4,
    "",
    "?!.",
]
OPTIONS = Duplicates(exact=True, threshold=0.8, ngram=3, paragraph=50)


def signed(cuts, folder=None, options=OPTIONS):
    """Signatures of the documents, whose ids are 10, 13, 16, ..., cut into shards."""
    edges = [0, *cuts, len(DOCUMENTS)]
    shards = [sign(10 + 3 * np.arange(start, stop), DOCUMENTS[start:stop], options) for start, stop in itertools.pairwise(edges)]
    if folder is None:
        return shards
    for number, shard in enumerate(shards):
        shard.save(folder / f"{number}.npz")
    return [folder / f"{number}.npz" for number in range(len(shards))]


def test_the_three_kinds_in_their_order():
    drops = find_duplicates(signed([]), OPTIONS)
    numbers = zip((drops.documents - 10) // 3, drops.reasons, (drops.originals - 10) // 3, strict=True)
    named = {int(at): (REASONS[reason], int(original)) for at, reason, original in numbers}
    assert named == {2: ("exact_duplicates", 0), 6: ("near_duplicates", 1), 8: ("exact_duplicates", 3)}
    assert drops.paragraphs.tolist() == [[25, 1], [31, 0]]  # documents without words are like no other
    assert apply(drops, 10, DOCUMENTS[0]) == (DOCUMENTS[0], None)
    assert apply(drops, 16, DOCUMENTS[2]) == (None, "exact_duplicates")
    assert apply(drops, 25, DOCUMENTS[5]) == ("a third story of ships\n\nand its end", None)
    assert apply(drops, 28, DOCUMENTS[6]) == (None, "near_duplicates")
    assert apply(drops, 31, DOCUMENTS[7]) == (None, "paragraph_duplicates")


def test_at_the_threshold_and_in_chains():
    """Four words of five are 0.8; an exact copy of a near duplicate stands for the same document; ends of a chain are one group."""
    options = Duplicates(exact=True, threshold=0.8, ngram=1, permutations=256)
    texts = ["a b c d e", "other", "a b c d", "a b c d", "a b c", "b c"]
    drops = find_duplicates([sign(np.arange(6), texts, options)], options)
    assert drops.documents.tolist() == [2, 3] and drops.originals.tolist() == [0, 0] and drops.reasons.tolist() == [1, 0]
    options = Duplicates(threshold=0.7, ngram=1)
    assert find_duplicates([sign(np.arange(6), texts, options)], options).originals.tolist() == [0, 0, 0]


def test_shards_and_files_make_no_difference(tmp_path):
    whole = find_duplicates(signed([]), OPTIONS)
    for cuts in ([1, 2, 3, 4, 5, 6, 7, 8, 9], [5], [0, 4, 4]):
        assert find_duplicates(signed(cuts, tmp_path), OPTIONS).digest == whole.digest
    whole.save(tmp_path / "drops.npz")
    assert load_drops(tmp_path / "drops.npz").digest == whole.digest
    part = whole.within(16, 29)
    assert part.documents.tolist() == [16, 28] and part.paragraphs.tolist() == [[25, 1]]
    for number, text in enumerate(DOCUMENTS[2:7], 2):
        assert apply(part, 10 + 3 * number, text) == apply(whole, 10 + 3 * number, text)
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_paragraphs_part_by_part(monkeypatch):
    whole = find_duplicates(signed([4]), OPTIONS)
    monkeypatch.setattr("jaxlm.text.cleaning.duplicates.PART", 1)
    assert find_duplicates(signed([4]), OPTIONS).digest == whole.digest


@pytest.mark.parametrize("options", [Duplicates(exact=True), Duplicates(paragraph=50), Duplicates(threshold=0.8)])
def test_each_kind_alone_and_of_nothing(options, tmp_path):
    assert len(find_duplicates([], options).documents) == 0
    empty = sign(np.zeros(0, np.int64), [], options)
    empty.save(tmp_path / "empty.npz")
    assert len(find_duplicates([empty, tmp_path / "empty.npz"], options).documents) == 0
    alone, all_kinds = find_duplicates(signed([3], options=options), options), find_duplicates(signed([3]), OPTIONS)
    assert len(alone.documents) + len(alone.paragraphs) > 0
    assert alone.digest != all_kinds.digest


@pytest.mark.parametrize("name", ["0.npz", "0.shingles.npy"])
def test_damaged_files_are_one_line(tmp_path, name):
    paths = signed([4], tmp_path)
    content = (tmp_path / name).read_bytes()
    for damaged in (b"", content[: len(content) // 2], content[:50] + b"\xff" * 50 + content[100:], None):
        if damaged is None:
            (tmp_path / name).unlink()
        else:
            (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match="cannot be read .* delete it"):
            find_duplicates(paths, OPTIONS)


def test_what_does_not_belong_together_is_refused():
    shards = signed([4])
    with pytest.raises(DataError, match="not Duplicates.*make them again"):
        find_duplicates(shards, Duplicates(exact=True))
    with pytest.raises(DataError, match="document 10 come after those of 37"):
        find_duplicates(shards[::-1], OPTIONS)
    with pytest.raises(ConfigError, match="no similarity"):
        Duplicates(threshold=1.5)
    with pytest.raises(ConfigError, match="raise them"):
        Duplicates(threshold=0.05, permutations=16)
    with pytest.raises(ConfigError, match="at least 1"):
        Duplicates(paragraph=0)


def test_nothing_depends_on_the_process():
    """The digest of signatures and drops, made under other hash seeds."""
    code = """
import hashlib, numpy as np
from jaxlm.text.cleaning.duplicates import *
options = Duplicates(exact=True, threshold=0.8, paragraph=10)
texts = ["one two three four five six seven"] * 2 + ["one two three four five six seven, eight", "naïve 東京\\n\\nparagraphs and so on"] * 9
shard = sign(np.arange(len(texts)), texts, options)
state = hashlib.sha256(shard.shingles().tobytes() + b"".join(shard.band(n).tobytes() for n in range(options.bands)))
print(state.hexdigest(), find_duplicates([shard], options).digest)
"""
    seen = set()
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        seen.add(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment).stdout)
    assert len(seen) == 1 and len(seen.pop().split()) == 2


def test_many_copies_take_no_quadratic_time():
    """5,000 copies of one text, not equal to the letter: all in one group, after 5,000 comparisons and not 12 million."""
    copies = [f"{' '.join(f'word{number}' for number in range(60))} {extra}" for extra in range(5000)]
    options = Duplicates(threshold=0.8)
    with mock.patch.object(near, "_common", None), mock.patch.object(near, "jaccard", mock.Mock(wraps=near.jaccard)) as compared:
        found = find_duplicates([sign(np.arange(5000), copies, options)], options)
    assert found.documents.tolist() == list(range(1, 5000)) and compared.call_count == 4999


def test_pages_of_one_template_are_compared_by_products():
    """Below the threshold each with all others: the same result as one by one, and not a comparison a pair."""
    draw = random.Random(3)
    word = lambda: f"w{draw.randrange(20_000)}"
    head = [word() for _ in range(140)]
    texts = [" ".join([*head, *(word() for _ in range(draw.choice((12, 30))))]) for _ in range(90)]
    options = Duplicates(threshold=0.8)
    found = find_duplicates([sign(np.arange(len(texts)), texts, options)], options)
    with mock.patch.object(near, "FEW", 10**6):
        slow = find_duplicates([sign(np.arange(len(texts)), texts, options)], options)
    with mock.patch.object(near, "TILE", 20), mock.patch.object(near, "COLUMNS", 64), mock.patch.object(near, "jaccard", lambda *_: 0.0):
        with mock.patch.object(near, "FEW", 0):
            tiles = find_duplicates([sign(np.arange(len(texts)), texts, options)], options)
    assert found.digest == slow.digest == tiles.digest and 10 < len(found.documents) < 80


def test_gaps_between_paragraphs_may_hold_blanks():
    options, shared = Duplicates(paragraph=20), "a paragraph that stands on every page of the site"
    texts = [f"{shared}{gap}page {i}" for i, gap in enumerate(("\n\n", "\r\n\r\n", "\n \t\n", "\n\n\n"))]
    found = find_duplicates([sign(np.arange(4), texts, options)], options)
    assert found.paragraphs.tolist() == [[1, 0], [2, 0], [3, 0]]
    assert [apply(found, i, text)[0] for i, text in enumerate(texts)] == [texts[0], "page 1", "page 2", "page 3"]
    last = f"y\n\nz\n\n{shared}"
    found = find_duplicates([sign(np.arange(2), [shared, last], options)], options)
    assert apply(found, 1, last)[0] == "y\n\nz"
