"""Personal data masked: e-mail addresses, phone numbers, public IP addresses, payment cards, IBANs. Precision before recall.

Every pattern is bounded and begins only where a run of its characters does, so that time is linear in the text. What the
patterns find is checked: `ipaddress`, the ranges of issuers and Luhn's sum (ISO/IEC 7812-1), modulo 97 and the length of
the country (ISO 13616), the country's code (ITU E.164). Read next: `numbering.py`.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator

from jaxlm.overrides import choose
from jaxlm.text.cleaning.numbering import CALLING_CODES, CARD_RANGES, COUNTRIES, DOMAINS, IBAN_LENGTHS

# Patterns begin with a set of characters, which `re` seeks quickly, and look behind it afterwards.
DOMAIN = re.compile(r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,6}([A-Za-z]{2,12})(?![\w@(-]|\.[A-Za-z])")
LOCAL = re.compile(r"(?<![\w.%+@/-])\w(?:[\w.%+-]{0,62}[\w%+-])?$")
IBAN = re.compile(r"[A-Z][A-Z](?<![A-Za-z0-9]..)\d\d[ -]?[A-Z0-9]")
# Where cards, IPv4 addresses and phone numbers may be: their patterns look there only.
FIGURES = re.compile(r"[\d+(](?:[ ().+/-]{0,3}\d){5,}")
CARD = re.compile(
    r"\d(?<![\w.,$€£+#=-].)(?<!\d[ /].)"
    r"(?:\d{13,18}|\d{3}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?|\d{3}([ -])\d{6}\2\d{4,5})"
    r"(?!\w|[.,/-]\d| \d{4}\b)"
)
IPV4 = re.compile(r"\d(?<![\w.:/-].)\d{0,2}\.(?:\d{1,3}\.){2}\d{1,3}(?![\w-]|\.\w|/\d{3})")
IPV6 = re.compile(r"[23](?<![\w:.].)[0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![\w:]|\.\w)")
VERSION = re.compile(
    r"(?:\b(?:versions?|release[ds]?|ver\.?|v\.?|sections?|sec\.|chapters?|clauses?)|§|[=<>~^]=?)[ \t:\"'(]{0,3}$", re.IGNORECASE
)
WORLD = re.compile(r"\+(?<![\w.+*/=-].)[1-9]\d{0,2}(?:[ .-]?\(0?\d{1,4}\))?(?:[ .-]?\d{1,5}){1,5}[ .-]?\d{2,5}(?!\w|[.-]\d)")
# National forms, told apart by their area codes and their grouping.
NATION = re.compile(
    r"[(\d](?<![\w.+*/=)-].)(?<!\d .)(?:"
    r"(?:(?<=1)[ .-][(2-9]|)(?:(?<=\()[2-9]\d\d\) ?|(?<=[2-9])\d\d([.-]))[2-9]\d\d(?(1)\1|[.-])\d{4}"  # United States, Canada
    r"|(?:(?<=\()0|(?<=0))(?:2\d\)? \d{4} \d{4}|7\d{3} \d{3} ?\d{3}"  # United Kingdom
    r"|1\d\d\d?\)? \d{3} \d{3,4}|1\d{3}\)? \d{6})"
    r"|(?<=0)[1-9]([ .])(?:\d\d\2){3}\d\d"  # France
    r"|(?<=0)(?:30|40|69|89|[2-9]\d{2,3}|1[567]\d{1,2})[/ ]\d{3,4}[ -]?\d{4,5}|(?<=\()0[2-9]\d{1,3}\) ?\d{5,8}"  # Germany
    r"|(?<=\()0[2378]\) ?\d{4} \d{4}|(?<=0)4\d\d \d{3} \d{3}"  # Australia
    r"|(?<=0)(?:3|6|[5-9]0)-\d{4}-\d{4}"  # Japan
    r")(?![\w/]|[.-]\d| \d)"
)
PASSES = 8  # a mask can lay bare what stood right against it; no more often than this, for a mask may be such data itself
Spans = Iterator[tuple[int, int]]
Regions = list[tuple[int, int]]


def _emails(text: str, regions: Regions) -> Spans:
    for match in DOMAIN.finditer(text):
        domain = match[1]
        known = domain.lower() in DOMAINS or domain.lower() in COUNTRIES
        local = LOCAL.search(text, max(0, match.start() - 65), match.start())
        if known and local and (domain.islower() or domain.isupper()) and ".." not in local[0]:
            yield local.start(), match.end()


def _ibans(text: str, regions: Regions) -> Spans:
    for match in IBAN.finditer(text):
        if stop := _iban_end(text, match.start(), IBAN_LENGTHS.get(match[0][:2], 0)):
            yield match.start(), stop


def _iban_end(text: str, at: int, size: int) -> int:
    """Where the IBAN that begins there ends: so many letters and digits as its country has, with gaps after fours; 0 for none."""
    found = ""
    while len(found) < size:
        letter = text[at : at + 1]
        if letter.isascii() and letter.isalnum() and not letter.islower():
            found += letter
        elif letter not in (" ", "-") or len(found) % 4 or text[at - 1] == letter:
            return 0
        at += 1
    if not size or text[at : at + 1].isalnum():
        return 0
    return at if int("".join(str(int(letter, 36)) for letter in found[4:] + found[:4])) % 97 == 1 else 0


def _figures(text: str, regions: Regions, *patterns: re.Pattern[str]) -> Iterator[re.Match[str]]:
    for start, stop in regions:
        for pattern in patterns:
            yield from pattern.finditer(text, start, min(len(text), stop + 6))  # what follows the figures counts too


def _cards(text: str, regions: Regions) -> Spans:
    for match in _figures(text, regions, CARD):
        digits = re.sub(r"[ -]", "", match[0])
        known = any(low <= digits[: len(low)] <= high and len(digits) in sizes for low, high, sizes in CARD_RANGES)
        if known and luhn(digits) and len(set(digits)) > 1:
            yield match.span()


def luhn(digits: str) -> bool:
    """Whether the check digit fits (ISO/IEC 7812-1, annex B).

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def _addresses(text: str, regions: Regions) -> Spans:
    """Public addresses; one with fewer than two numbers above 31 is more likely a version or a section (0.7 % of addresses look so)."""
    for match in _figures(text, regions, IPV4):
        large = sum(int(part) > 31 for part in match[0].split("."))
        before = text[max(0, match.start() - 16) : match.start()]
        if large > 1 and _public(match[0]) and not VERSION.search(before):
            yield match.span()
    if ":" in text:
        for match in IPV6.finditer(text):
            groups = [part for part in match[0].split(":") if part]
            if (len(groups) > 2 or not match[0].replace(":", "").isdigit()) and _public(match[0]):  # x[2000::2] is a slice
                yield match.span()


def _public(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return found.is_global and not found.is_multicast


def _phones(text: str, regions: Regions) -> Spans:
    for match in _figures(text, regions, WORLD, NATION):
        start, found = match.start(), match[0]
        if not found.startswith("+") or _called(found):
            yield start + (found[0] == "(" and ")" not in found), match.end()


def _called(number: str) -> bool:
    """Whether an international number has a country's code, the right length, and is no decimal number."""
    digits = re.sub(r"\D", "", number)
    known = any(digits[:size] in CALLING_CODES for size in (1, 2, 3))
    least = 8 if len(re.split(r"[ .()-]+", number)) > 2 else 10
    return known and least <= len(digits) <= 15 and len(set(digits)) > 2


# kind -> where it stands in a text; where two overlap, the first kind wins.
KINDS: dict[str, Callable[[str, Regions], Spans]] = {"email": _emails, "iban": _ibans, "card": _cards, "ip": _addresses, "phone": _phones}


def find_pii(text: str, kinds: tuple[str, ...] = tuple(KINDS)) -> list[tuple[int, int, str]]:
    """(start, stop, kind) in characters of all personal data, in order; where two overlap, the kind that is first in KINDS stays."""
    rank = {kind: number for number, kind in enumerate(KINDS)}
    regions = [match.span() for match in FIGURES.finditer(text)]
    found = sorted((*span, kind) for kind in KINDS if kind in kinds for span in KINDS[kind](text, regions))
    apart: list[tuple[int, int, str]] = []
    for span in found:
        if not apart or span[0] >= apart[-1][1]:
            apart.append(span)
        elif rank[span[2]] < rank[apart[-1][2]]:
            apart[-1] = span
    return apart


def pii(text: str, mask: str = "[{kind}]", kinds: tuple[str, ...] = tuple(KINDS)) -> tuple[str, dict[str, int]]:
    """The text with personal data masked, and how many of each kind.

    Args:
      mask: what stands in their place; {kind} is the kind.
      kinds: of "email", "iban", "card", "ip", "phone".

    >>> pii("Write to ada@example.org or call +44 20 7946 0958.")
    ('Write to [email] or call [phone].', {'email': 1, 'phone': 1})
    """
    for kind in kinds:
        choose("pii: kinds", kind, KINDS)
    counts = dict.fromkeys(kinds, 0)
    for _ in range(PASSES):
        found = find_pii(text, kinds)
        if not found:
            break
        pieces, last = [], 0
        for start, stop, kind in found:
            pieces += [text[last:start], mask.replace("{kind}", kind)]
            counts[kind] += 1
            last = stop
        text = "".join([*pieces, text[last:]])
    return text, {kind: count for kind, count in counts.items() if count}
