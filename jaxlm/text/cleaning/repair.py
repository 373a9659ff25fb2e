"""Steps text -> text that mend characters and white space and change no word. Each is idempotent. Read next: `markup.py`."""

import re
import unicodedata

from jaxlm.errors import extra
from jaxlm.overrides import choose
from jaxlm.text.unicode import well_formed

FORMS = ("NFC", "NFD", "NFKC", "NFKD")
# C0 and C1 without tab and line ends, soft hyphen, zero-width space, bidirectional overrides, byte order mark, noncharacters.
# Zero-width joiners stay: Persian, Hindi and emoji are spelt with them.
CONTROLS = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufdd0-\ufdef\ufffe\uffff"
    + "".join(chr(plane << 16 | last) for plane in range(1, 17) for last in (0xFFFE, 0xFFFF))
    + "]+"
)
ASCII_CONTROLS = bytes([*range(9), 0xB, 0xC, *range(0xE, 0x20), 0x7F])
ENDS = re.compile("\r\n?|[\x85\u2028\u2029]")
SPACES = re.compile("[\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
RUNS = re.compile(r"(?<=\S)[ \t]{2,}")
EMPTY = re.compile(r"\n{3,}")


def unicode(text: str) -> str:
    """Mend what was decoded with the wrong table ("schÃ¶n"), by ftfy; quotes keep their shape, HTML entities go where there is no tag.

    Lines of plain ASCII without `&` and control characters are left out: ftfy would not change them.
    """
    if _plain(text):
        return text
    with extra("clean", "ftfy"):
        import ftfy
    kept = {"uncurl_quotes": False, "fix_line_breaks": False, "normalization": None, "explain": False}
    settings = ftfy.TextFixerConfig(unescape_html="<" not in text, **kept)
    lines = text.split("\n")
    return "\n".join(well_formed(ftfy.fix_text(line, settings)) if not _plain(line) else line for line in lines)


def _plain(text: str) -> bool:
    """Whether there is nothing for ftfy: no character beyond ASCII, no control, no `&`."""
    return text.isascii() and "&" not in text and len(text.encode().translate(None, ASCII_CONTROLS)) == len(text)


def normalize(text: str, form: str = "NFC") -> str:
    """Unicode's normal form NFC, NFD, NFKC or NFKD (UAX 15)."""
    choose("normalize: form", form, FORMS)
    return text if text.isascii() else unicodedata.normalize(form, text)


def controls(text: str) -> str:
    r"""Take out control, invisible and bidirectional characters and noncharacters; tab, line ends and joiners stay.

    >>> controls("a\u200bb\x00c")
    'abc'
    """
    if text.isascii():
        return text.encode().translate(None, ASCII_CONTROLS).decode()
    return CONTROLS.sub("", text)


def whitespace(text: str, runs: bool = False) -> str:
    r"""One kind of line end and of space; no space at the end of a line; at most one empty line; nothing around the text.

    Args:
      runs: also make one space of several within a line; indentation stays.

    >>> whitespace("a  b \r\n\n\n\nc\n")
    'a  b\n\nc'
    """
    if "\r" in text or not text.isascii():
        text = SPACES.sub(" ", ENDS.sub("\n", text))
    lines = [line.rstrip() for line in text.split("\n")]
    if runs:
        lines = [RUNS.sub(" ", line) for line in lines]
    text = "\n".join(lines).strip("\n")
    return EMPTY.sub("\n\n", text) if "\n\n\n" in text else text
