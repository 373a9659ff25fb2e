"""SQuAD's scores by its official definitions: exact match, F1 over words, and the best null threshold.

Rajpurkar et al. 2016 (section 6.1) and 2018. All scores are percentages. Read next: `question_answering.py`.
"""

import collections
import re
import string
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> str:
    """An answer in lower case, without punctuation, articles and extra blanks.

    >>> normalized("The  Normans, a.k.a. Northmen!")
    'normans aka northmen'
    """
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(PUNCTUATION)).split())


def exact(gold: str, answer: str) -> float:
    """1.0 where two answers are the same once normalized, else 0.0."""
    return float(normalized(gold) == normalized(answer))


def f1(gold: str, answer: str) -> float:
    """Harmonic mean of precision and recall of the answer's words, as a share; of two where one is empty, whether both are.

    >>> f1("in the 10th century", "10th century France")
    0.6666666666666666
    """
    wanted, given = normalized(gold).split(), normalized(answer).split()
    if not wanted or not given:
        return float(wanted == given)
    shared = sum((collections.Counter(wanted) & collections.Counter(given)).values())
    return 2 * shared / (len(wanted) + len(given))


def answer_scores(golds: Sequence[str], answer: str) -> tuple[float, float]:
    """(exact, F1) of an answer, each the best over the gold answers; a question without any wants the empty answer."""
    golds = [gold for gold in golds if normalized(gold)] or [""]
    return max(exact(gold, answer) for gold in golds), max(f1(gold, answer) for gold in golds)


def mean(scores: Sequence[float]) -> float:
    """Their mean as a percentage; 0.0 of none."""
    return 100 * sum(scores) / len(scores) if scores else 0.0


def best_threshold(scores: Sequence[float], answerable: Sequence[bool], differences: Sequence[float]) -> tuple[float, float]:
    """(best mean score in per cent, threshold): no answer is given where the null difference is above the threshold.

    Args:
      scores: what the best answer to each question gets, as a share, where it is given.
      answerable: has the question an answer? Giving none gets 1 where it has none, else 0.
      differences: score of no answer minus that of the best answer.

    The threshold is one of the differences, the lowest of those that are best; one below them all where it is best never to answer
    (the official script tells 0.0 there, which answers wherever a difference is negative).
    """
    order = sorted(range(len(scores)), key=lambda i: differences[i])
    total = best = float(sum(not known for known in answerable))
    threshold = min(differences, default=1.0) - 1.0
    for place, i in enumerate(order):
        total += scores[i] - (not answerable[i])
        tied = place + 1 < len(order) and differences[order[place + 1]] == differences[i]  # no threshold lies between them
        if total > best and not tied:
            best, threshold = total, differences[i]
    return 100 * best / max(len(scores), 1), float(threshold)
