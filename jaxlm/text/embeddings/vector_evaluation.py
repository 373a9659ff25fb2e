"""How good word vectors are: rank correlation with people's judgements, and analogies by section.

WordSim-353 (Finkelstein et al. 2002), SimLex-999 (Hill et al. 2015), the Google analogies (Mikolov et al. 2013,
arXiv:1301.3781). Words are compared without regard to case, as word2vec's tool does. Read next: `vector_training.py`.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from jaxlm.errors import DataError
from jaxlm.text.vectors import Vectors

BLOCK = 256  # questions answered by one matrix product


@dataclasses.dataclass(frozen=True)
class Similarity:
    """Spearman's rho over the pairs whose words both have a vector."""

    spearman: float
    covered: int
    pairs: int


@dataclasses.dataclass(frozen=True)
class Analogies:
    """Questions of one section: right answers among the covered, and all that were asked."""

    section: str
    right: int
    covered: int
    asked: int

    @property
    def accuracy(self) -> float:
        """Share of the covered questions; nan where there are none."""
        return self.right / self.covered if self.covered else float("nan")


def read_pairs(path: str | Path) -> list[tuple[str, str, float]]:
    """Lines `word TAB word TAB score`; empty lines, lines with # and a line of column names at the top are left out.

    Raises DataError naming the line that is none.
    """
    pairs = []
    for number, line in _lines(path):
        fields = line.split("\t") if "\t" in line else line.replace(",", " ").split()
        try:
            pairs.append((fields[0].strip(), fields[1].strip(), float(fields[2])))
        except (IndexError, ValueError) as error:
            if number > 1 or len(fields) < 3:
                raise DataError(f"{path}:{number} is no pair with a score: write word TAB word TAB number") from error
    return pairs


def similarity(vectors: Vectors, pairs: list[tuple[str, str, float]]) -> Similarity:
    """Spearman's rank correlation of the vectors' cosines with the scores of pairs, which `read_pairs` gives."""
    rows, known = _folded(vectors, None), []
    for one, two, score in pairs:
        if one.upper() in rows and two.upper() in rows:
            known.append((rows[one.upper()], rows[two.upper()], score))
    if len(known) < 2:
        return Similarity(float("nan"), len(known), len(pairs))
    one, two, scores = map(np.array, zip(*known, strict=True))
    cosines = (vectors.unit[one] * vectors.unit[two]).sum(1)
    return Similarity(spearman(cosines, scores), len(known), len(pairs))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation of ranks, equal values sharing their mean rank; nan where one side is constant.

    >>> round(spearman(np.array([1, 2, 3, 4]), np.array([1, 3, 2, 4])), 3)
    0.8
    """
    x, y = (ranks - ranks.mean() for ranks in (_ranks(np.asarray(x)), _ranks(np.asarray(y))))
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def read_analogies(path: str | Path) -> dict[str, list[tuple[str, ...]]]:
    """Section -> questions (a, b, c, answer), from lines of four words under lines `: section`."""
    sections: dict[str, list[tuple[str, ...]]] = {}
    for number, line in _lines(path):
        if line.startswith(":"):
            current = sections.setdefault(line[1:].strip(), [])
        elif not sections or len(line.split()) != 4:
            raise DataError(f"{path}:{number} is no question: write four words a line, under a line `: section`")
        else:
            current.append(tuple(line.split()))
    return sections


def analogies(vectors: Vectors, sections: dict[str, list[tuple[str, ...]]], limit: int = 100_000) -> list[Analogies]:
    """3CosAdd among the `limit` most frequent words, the question's own words left out; a row for each section.

    Questions with a word outside that vocabulary are not covered: they are neither right nor wrong.
    """
    rows = _folded(vectors, limit)
    unit = vectors.unit[:limit]
    repeated = np.setdiff1d(np.arange(len(unit)), np.fromiter(rows.values(), int, len(rows)))  # another case of a more frequent word
    results = []
    for section, questions in sections.items():
        known = [[rows[word.upper()] for word in question] for question in questions if all(word.upper() in rows for word in question)]
        places = np.array(known, int).reshape(-1, 4)
        right = sum(_right(unit, places[at : at + BLOCK], repeated) for at in range(0, len(places), BLOCK))
        results.append(Analogies(section, right, len(places), len(questions)))
    return results


def total(results: list[Analogies]) -> Analogies:
    """All sections as one."""
    return Analogies("total", *(sum(getattr(row, key) for row in results) for key in ("right", "covered", "asked")))


def report(vectors: Vectors, pairs: Iterable[str | Path], questions: str | Path | None, limit: int = 100_000) -> Iterator[str]:
    """A line for each set of pairs and each section of the questions."""
    for path in pairs:
        result = similarity(vectors, read_pairs(path))
        yield f"{Path(path).name}: Spearman {result.spearman:.3f}, {result.covered} of {result.pairs} pairs covered"
    if questions:
        results = analogies(vectors, read_analogies(questions), limit)
        for row in (*results, total(results)):
            yield f"{row.section}: {row.accuracy:.1%} right of {row.covered} covered, {row.asked} asked"


def _right(unit: np.ndarray, places: np.ndarray, repeated: np.ndarray) -> int:
    a, b, c, answer = places.T
    scores = (unit[b] - unit[a] + unit[c]) @ unit.T
    scores[:, repeated] = -np.inf
    scores[np.arange(len(places))[:, None], places[:, :3]] = -np.inf
    return int((scores.argmax(1) == answer).sum())


def _folded(vectors: Vectors, limit: int | None) -> dict[str, int]:
    """Word in upper case -> row of its most frequent spelling."""
    rows: dict[str, int] = {}
    for row, word in enumerate(vectors.words[:limit]):
        rows.setdefault(word.upper(), row)
    return rows


def _lines(path: str | Path) -> list[tuple[int, str]]:
    """Numbered lines that say something. Raises DataError for a file that is missing or no UTF-8."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}): give a text file of the published form") from error
    rows = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    return [(number, line) for number, line in rows if line and not line.startswith("#")]
