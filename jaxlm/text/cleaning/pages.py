"""C4's rules for web pages (Raffel et al. 2020, section 2.2) and a list of words that a page must not hold. Read next: `pii.py`."""

import dataclasses
import functools
import hashlib
import itertools
import re
from collections import Counter
from pathlib import Path

from jaxlm.errors import ConfigError

MARKS = (".", "!", "?", '"')
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
CITATION = re.compile(r"\[(?:\d{1,4}|edit|citation needed)\]")
SENTENCE = re.compile(r"[.!?][\"')\]]*(?=\s|$)")


def c4(
    text: str,
    marks: tuple[str, ...] = MARKS,
    words: int = 5,
    longest: int = 1000,
    sentences: int = 3,
    policies: tuple[str, ...] = POLICIES,
) -> tuple[str | None, dict[str, int]]:
    """The lines of a page that are prose: (text, counts of what was taken out), or (None, {the reason: 1}).

    Lines go that do not end in a terminal mark (or end in an ellipsis), have fewer than `words` words or one longer than
    `longest` characters, or speak of JavaScript or of policies; citation marks go. Pages go that hold "lorem ipsum" or a curly
    bracket, or keep fewer than `sentences` sentences. The page rules look at lines that passed the first three, as the
    published code does; sentences are terminal marks before white space. Bad words and languages are `profanity` and `language`.
    """
    kept, counts = [], Counter()
    for raw in text.split("\n"):
        line = raw.strip()
        reason = "long_word" if len(line) > longest and max(map(len, line.split())) > longest else None
        line, citations = CITATION.subn("", line) if "[" in line else (line, 0)
        reason = reason or _line_reason(line, marks, words, policies)
        if reason in PAGE:
            return None, {reason: 1}
        if reason:
            counts[reason] += bool(raw.strip())
        else:
            counts["citations"] += citations
            kept.append(line)
    if sum(max(1, len(SENTENCE.findall(line))) for line in kept) < sentences:
        return None, {"few_sentences": 1}
    return "\n".join(kept).strip(), {name: count for name, count in counts.items() if count}


PAGE = ("lorem_ipsum", "curly_bracket")


def _line_reason(line: str, marks: tuple[str, ...], words: int, policies: tuple[str, ...]) -> str | None:
    if not line.endswith(marks) or line.endswith("..."):
        return "no_mark"
    if len(line.split()) < words:
        return "few_words"
    lower = line.lower()
    if "lorem ipsum" in lower:
        return "lorem_ipsum"
    if "javascript" in lower:
        return "javascript"
    if "{" in line:
        return "curly_bracket"
    return "policy" if any(policy in lower for policy in policies) else None


@dataclasses.dataclass(frozen=True)
class WordList:
    """Words and phrases, lower case."""

    words: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of the words."""
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        """Finds any of them as whole words."""
        ranked = sorted(self.words, key=lambda word: (-len(word), word))
        return re.compile(r"(?<!\w)(?:" + "|".join(r"\s+".join(map(re.escape, word.split())) for word in ranked) + r")(?!\w)")


def load_words(words: str | tuple[str, ...]) -> WordList:
    """A list of words from a file (a word or phrase a line; empty lines and those that begin with `#` are none) or a tuple.

    Raises ConfigError for a file that cannot be read and for an empty list.
    """
    if isinstance(words, str):
        try:
            words = tuple(Path(words).expanduser().read_text(encoding="utf-8").splitlines())
        except (OSError, ValueError) as error:
            raise ConfigError(f"profanity: words={words!r} cannot be read ({error}): name a UTF-8 file with a word a line") from error
        words = tuple(word for word in words if not word.startswith("#"))
    bare = sorted({" ".join(word.lower().split()) for word in words} - {""})
    if not bare:
        raise ConfigError("profanity: words holds no word: name a file with a word a line, or a tuple")
    return WordList(tuple(bare))


def profanity(text: str, words: str | tuple[str, ...] | WordList, most: int = 0) -> str | None:
    """Drop a text that holds more than `most` of the words, as whole words, in any case. No list comes with the package."""
    found = words if isinstance(words, WordList) else load_words(words)
    matches = itertools.islice(found.pattern.finditer(text.lower()), most + 1)
    return "word" if sum(1 for _ in matches) > most else None
