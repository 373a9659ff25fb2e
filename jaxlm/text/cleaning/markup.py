"""HTML to text, by selectolax (the Lexbor parser): what a reader sees, a block a line. Read next: `quality.py`."""

import html as entities
import re
from typing import Any

from jaxlm.errors import extra

BLOCKS = (
    "address article aside blockquote body br caption center dd details dialog dir div dl dt fieldset figcaption figure footer form "
    "frameset h1 h2 h3 h4 h5 h6 header hgroup hr legend li main menu nav ol option p pre search section summary table tbody tfoot "
    "thead title tr ul"
)
INLINE = "a abbr b body button cite code em font head html i img input label link meta script small span strong style sub sup td th u"
DROPPED = ["script", "style", "template", "noscript", "svg", "iframe", "object", "textarea", "select"]
TAG = re.compile(rf"<(/?)({'|'.join(sorted({*BLOCKS.split(), *INLINE.split()}))})(?=[\s/>])[^<>]{{0,2000}}>", re.IGNORECASE)
BEGINS = re.compile(r"\s*(?:<\?xml[^<>]{0,200}>\s*)?(?:<!--(?s:.{0,2000}?)-->\s*)?<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
NESTING = re.compile(r"<(/?)(?:a|b|i|u|em|font|span|div|ul|ol|dl|table|blockquote|section|article|form|center|strong)\b", re.IGNORECASE)
ANY_TAG = re.compile(r"<!--|<[/!?]?[a-zA-Z][^<>]*>")
SHARE, FEWEST = 0.04, 3  # closing tags a word, and at least, from which a text is HTML
DEEP = 512  # open elements beyond which a parser's time is no longer linear
BREAK, LINE, SPACE = "\ufdd0", "\ufdd1", "\ufdd2"  # noncharacters: never interchanged
MARKS = re.compile(f"[{BREAK}{LINE}{SPACE}]")


def is_html(text: str) -> bool:
    """Whether a text is HTML: it begins with a document type, <html>, <head> or <body>; or it begins with a known tag and ends with
    one; or it holds three closing tags of known names, and one for every 25 words. So a text that mentions or quotes some tags is none."""
    if "<" not in text or ">" not in text:
        return False
    if BEGINS.match(text):
        return True
    bare = text.strip()
    if TAG.match(bare) and bare.endswith(">") and "</" in bare:
        return True
    if text.count("</") < FEWEST:
        return False
    return sum(1 for tag in TAG.finditer(text) if tag[1]) >= max(FEWEST, SHARE * len(text.split()))


def html(text: str, always: bool = False) -> str:
    """The text of an HTML document: scripts and styles dropped, blocks as lines, entities decoded, white space as a browser shows it.

    Args:
      always: treat every text as HTML; else one that `is_html` denies comes back untouched.
    """
    if not always and not is_html(text):
        return text
    text = MARKS.sub("", text).replace("\0", "")
    if _too_deep(text):
        return _lines(entities.unescape(ANY_TAG.sub(" ", text)))
    with extra("clean", "selectolax"):
        from selectolax.lexbor import LexborHTMLParser
    tree = LexborHTMLParser(text)
    if tree.root is None:
        return ""
    tree.strip_tags(DROPPED)
    _mark(tree)
    return _lines(tree.root.text())


def _mark(tree: Any) -> None:
    """Put marks for line breaks around blocks and into preformatted text, and spaces between the cells of a table."""
    for preformatted in tree.css("pre"):
        for node in list(preformatted.traverse(include_text=True)):
            if node.tag == "-text":
                node.replace_with(node.text(deep=False).replace("\n", LINE).replace(" ", SPACE))
    for block in tree.css(",".join(BLOCKS.split())):
        block.insert_before(BREAK)
        block.insert_after(BREAK)
    for cell in tree.css("td,th"):
        cell.insert_after(" ")


def _lines(text: str) -> str:
    lines = (" ".join(line.split()) for line in text.split(BREAK))
    return "\n".join(line for line in lines if line).replace(LINE, "\n").replace(SPACE, " ")


def _too_deep(text: str) -> bool:
    depth = 0
    for tag in NESTING.finditer(text):
        depth += -1 if tag[1] else 1
        if depth > DEEP:
            return True
    return False
