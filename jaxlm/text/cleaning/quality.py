"""Rules on whole documents: text -> None to keep it, or the reason to drop it. Length, symbols, and all of Gopher's rules.

Rae et al. 2021, "Scaling language models: methods, analysis and insights from training Gopher", appendix A.1.1: every
threshold is an option with the paper's value. Words are what stands between white space. Read next: `repetition.py`, `pages.py`.
"""

from jaxlm.text.cleaning.repetition import repetition

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
BULLETS = ("•", "‣", "▪", "◦", "●", "–", "-", "*")
ELLIPSES = ("...", "…")


def length(text: str, minimum: int = 1, maximum: int | None = None, minimum_words: int = 0, maximum_words: int | None = None) -> str | None:
    """Drop what has fewer or more characters or words; None: no bound.

    >>> length("three words here", minimum_words=4)
    'few_words'
    """
    if len(text) < minimum:
        return "few_characters"
    if maximum is not None and len(text) > maximum:
        return "many_characters"
    count = len(text.split()) if minimum_words or maximum_words is not None else 0
    if count < minimum_words:
        return "few_words"
    return "many_words" if maximum_words is not None and count > maximum_words else None


def symbols(text: str, words: float = 0.1, bullets: float = 0.9, ellipses: float = 0.3, alphabetic: float = 0.8) -> str | None:
    """Gopher's rules on signs.

    Args:
      words: most hash signs a word, and most ellipses a word.
      bullets: greatest share of lines that begin with a bullet point.
      ellipses: greatest share of lines that end with an ellipsis.
      alphabetic: least share of words with at least one letter.
    """
    split = text.split()
    if text.count("#") > words * len(split):
        return "hashes"
    if sum(map(text.count, ELLIPSES)) > words * len(split):
        return "ellipses"
    if sum(map(_has_letter, split)) < alphabetic * len(split):
        return "few_letters"
    lines = [line.strip() for line in text.split("\n") if not line.isspace() and line]
    if sum(line.startswith(BULLETS) for line in lines) > bullets * len(lines):
        return "bullets"
    return "ellipsis_lines" if sum(line.endswith(ELLIPSES) for line in lines) > ellipses * len(lines) else None


def _has_letter(word: str) -> bool:
    return word.isalpha() or any(map(str.isalpha, word))


def gopher(
    text: str,
    words: tuple[int, int] = (50, 100_000),
    mean: tuple[float, float] = (3, 10),
    stop_words: int = 2,
    stops: tuple[str, ...] = STOP_WORDS,
) -> str | None:
    """All of Gopher's rules: length, then those of `symbols` and of `repetition` with their defaults.

    Args:
      words: least and most words.
      mean: least and greatest mean length of a word, in characters.
      stop_words: least number of different stop words.
      stops: the stop words; English ones in the paper.
    """
    split = text.split()
    if reason := length(text, minimum_words=words[0], maximum_words=words[1]):
        return reason
    average = sum(map(len, split)) / max(len(split), 1)
    if not mean[0] <= average <= mean[1]:
        return "word_length"
    if len(set(stops) & {word.strip(".,;:!?\"'()").lower() for word in split}) < stop_words:
        return "few_stop_words"
    return symbols(text) or repetition(text)
