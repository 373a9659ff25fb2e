"""A text, or a pair of texts, as the ids of one example: cut to a length as Hugging Face's tokenizers cut, the longest text first.

Read next: `sequence_classification.py`.
"""

from typing import Any, NamedTuple

from jaxlm.errors import DataError
from jaxlm.tasks.template import join, read_template


class Fitted(NamedTuple):
    """Ids and token types of one length, and how many tokens were lost."""

    tokens: list[int]
    token_types: list[int]
    cut: int


def fit_texts(tokenizer: Any, text: str, pair: str | None, length: int) -> Fitted:
    """The ids of a text, or of a pair, with the tokenizer's special tokens: at most `length` of them.

    Tokens are taken from the end of the text that is longer at that moment. Raises DataError for an empty text, or where not
    even the special tokens fit.
    """
    for given in (text, pair) if pair is not None else (text,):
        if not isinstance(given, str) or not given.strip():
            raise DataError("the text is empty: remove the record, or fill it in")
    texts = [text] if pair is None else [text, pair]
    whole = tokenizer.encode(*texts)
    if len(whole) <= length:
        return Fitted(list(whole), list(whole.token_types), 0)
    template = read_template(tokenizer, text, len(texts))
    parts = [list(tokenizer.encode(each, add_special_tokens=False)) for each in texts]
    over = sum(map(len, parts)) + template.size - length
    if template.size + len(texts) > length:
        raise DataError(f"a row of {length} tokens has no room for a text between the special tokens: raise data.sequence_length")
    lost = _longest_first([len(part) for part in parts], over)
    tokens, types, _ = join(template, [part[: len(part) - count] for part, count in zip(parts, lost, strict=True)])
    return Fitted(tokens, types, over)


def _longest_first(counts: list[int], over: int) -> list[int]:
    """How many tokens each text loses, one by one from the longer; of two equal ones from the second.

    >>> _longest_first([5, 9], 6), _longest_first([3, 3], 1)
    ([1, 5], [0, 1])
    """
    left = list(counts)
    for _ in range(over):
        longest = max(range(len(left)), key=lambda i: (left[i], i))
        left[longest] -= 1
    return [before - after for before, after in zip(counts, left, strict=True)]
