"""Text that UTF-8 can write: what a tokenizer is given and what a store counts. Read next: `tokenizer.py`."""


def well_formed(text: str) -> str:
    """The text without lone surrogates: halves that belong together are joined, lone ones become U+FFFD.

    >>> well_formed("a" + chr(0xD800)) == "a" + chr(0xFFFD)
    True
    """
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
