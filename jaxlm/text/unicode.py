"""Text that UTF-8 can write: what a tokenizer is given and what a store counts. Read next: `tokenizer.py`."""

from jaxlm.errors import DataError

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def well_formed(text: str) -> str:
    """The text without lone surrogates: halves that belong together are joined, lone ones become U+FFFD.

    Raises DataError for what is no `str`: bytes are decoded where they are read, `data.decode("utf-8", "replace")`.

    >>> well_formed("a" + chr(0xD800)) == "a" + chr(0xFFFD)
    True
    """
    if not isinstance(text, str):
        raise DataError(f'a tokenizer takes str, not {type(text).__name__}: decode bytes by data.decode("utf-8", "replace")')
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def repaired(text: str) -> int:
    """How many lone surrogates `well_formed` replaces.

    >>> repaired("a" + chr(0xD800)), repaired(chr(0xD83D) + chr(0xDE00))
    (1, 0)
    """
    fixed = well_formed(text)
    return 0 if fixed is text else fixed.count(REPLACEMENT) - text.count(REPLACEMENT)


def places(text: str) -> list[int] | None:
    """Where each character of `well_formed(text)` begins in the text, and its length at the end; None where nothing changed.

    Only halves that are joined change lengths: a lone surrogate is one character before and after.
    """
    fixed = well_formed(text)
    if len(fixed) == len(text):
        return None
    found, place = [], 0
    for character in fixed:
        found.append(place)
        joined = ord(character) > 0xFFFF and text[place] != character
        place += 2 if joined else 1
    return [*found, place]
