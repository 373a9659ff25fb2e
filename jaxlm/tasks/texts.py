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


def fit_texts(tokenizer: Any, text: str, pair: str | None, length: int, key: str = "data.sequence_length") -> Fitted:
    """The ids of a text, or of a pair, with the tokenizer's special tokens: at most `length` of them.

    Tokens are taken from the end of the longer text first; `key` is what sets the length. Raises DataError for an empty text, or where not
    even the special tokens fit.
    """
    for given in (text, pair) if pair is not None else (text,):
        if not isinstance(given, str) or not given.strip():
            raise DataError("the text is empty: remove the record, or fill it in")
        if not any(map(str.isalnum, given)) and not len(tokenizer.encode(given, add_special_tokens=False)):  # a letter has a token always
            raise DataError(f"the tokenizer leaves nothing of the text {given[:40]!r}: remove the record, or fill it in")
    texts = [text] if pair is None else [text, pair]
    whole = tokenizer.encode(*texts)
    if len(whole) <= length:
        return Fitted(list(whole), list(whole.token_types), 0)
    template = read_template(tokenizer, text, len(texts))
    parts = [list(tokenizer.encode(each, add_special_tokens=False)) for each in texts]
    room = length - template.size
    if room < len(texts):
        raise DataError(f"a row of {length} tokens has no room for a text between the special tokens: raise {key}")
    kept = _kept([len(part) for part in parts], room)
    tokens, types, _ = join(template, [part[:count] for part, count in zip(parts, kept, strict=True)])
    return Fitted(tokens, types, len(whole) - len(tokens))


def _kept(counts: list[int], room: int) -> list[int]:
    """How many tokens of each text stay where all together are too many: the longer one is cut first, then both to halves.

    >>> _kept([5, 9], 8), _kept([3, 3], 5), _kept([2, 9], 8)
    ([4, 4], [2, 3], [2, 6])
    """
    if len(counts) == 1:
        return [room]
    short = min(counts)
    long = max(short, room - short)
    if short + long > room:
        short, long = room // 2, room - room // 2
    return [long, short] if counts[0] > counts[1] else [short, long]
