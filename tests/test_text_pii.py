"""Personal data: found where it is, nothing taken for it in clean text, in time linear in the text."""

import random
import time

import pytest

from jaxlm.data.stdlib import stdlib_documents
from jaxlm.errors import ConfigError
from jaxlm.text.cleaning.pii import KINDS, find_pii, luhn, pii

# All made up, from ranges kept for examples (Ofcom's drama numbers, 555-01xx, test cards of the issuers) or of public servers.
POSITIVES = {
    "email": """ada@example.org|john.smith+news@mail.example.co.uk|x_y-z@sub.domain.io|O.Brien%home@uni-bonn.de|a1@b2.fr|SALES@ACME.COM
        |first.last@company.travel|123@qq.com|user@xn--bcher-kva.ch|ümit.k@posta.tr""",
    "phone": """+44 20 7946 0958|+1 212-555-0123|+14155552671|(212) 555-0123|212-555-0123|212.555.0123|1-800-555-0199|1 (415) 555-2671
        |020 7946 0958|(020) 7946 0958|07700 900123|07700 900 123|01632 960123|0161 496 0123|01 42 68 53 00|06.12.34.56.78
        |+33 1 42 68 53 00|+49 30 901820|030 1234 5678|0171/1234567|(030) 901820|+49 (0)30 901820|+81 3-1234-5678|03-1234-5678
        |090-1234-5678|+91 98765 43210|+61 2 9374 4000|(02) 9374 4000|0412 345 678|+39 06 698 83145|+55 11 91234-5678|+86 138 0013 8000""",
    "ip": """8.8.40.44|185.199.108.153|91.198.174.192|104.16.132.229|2606:4700:4700::1111|2a00:1450:4001:81b::200e|2a00::1
        |2001:4860:4860:0:0:0:0:8888""",
    "card": """4111111111111111|4111 1111 1111 1111|5500-0000-0000-0004|378282246310005|3782 822463 10005|6011111111111117
        |3530111333300000|30569309025904|6200000000000005|2223003122003222""",
    "iban": """GB82 WEST 1234 5698 7654 32|DE89370400440532013000|FR14 2004 1010 0505 0001 3M02 606|NL91ABNA0417164300
        |CH93 0076 2011 6238 5295 7|ES9121000418450200051332|BE68 5390 0754 7034|NO93 8601 1117 947
        |MT84 MALT 0110 0001 2345 MTLC AST0 01S
        |PL61 1090 1014 0000 0712 1981 2874""",
}
NEGATIVES = """4111111111111112|1.2.3.4|version 185.199.108.153|==91.198.174.192|127.0.0.1|192.168.1.1|10.0.0.1|192.0.2.1
        |256.300.1.1|x[2000::2]
    |a@b.shape|@property|A@B.T|user@host|2024-01-02 10:11:12|0.4111111111111111|+35236450.6|1234567890|3.14159265358979|2,147,483,648
    |978-3-16-148410-0|ISSN 1234-5679|DE89370400440532013001|GB82 WEST 1234 5698 7654 33|2021-03-04-1234|0123456789|12:34:56:78:9a:bc
    |x@y@example.org|17.10.24.31
    |1e-10|00 11 22 33 44 55|10 20 30 40 50|01 02 03 04 05 06|+0100|1.2.840.113549.1.1.11|std::vector|0000000000000000
        |18446744073709551616"""


def cases(text):
    return [case.strip() for case in text.split("|")]


@pytest.mark.parametrize("kind", POSITIVES)
@pytest.mark.parametrize("frame", ["{}", "Reach me: {}.", "at {}, please", "({})", "tel {}\n", "{} is it"])
def test_what_is_there_is_found(kind, frame):
    for case in cases(POSITIVES[kind]):
        text = frame.format(case)
        assert [(text[start:stop], name) for start, stop, name in find_pii(text)] == [(case, kind)], text


def test_what_looks_like_it_stays():
    assert [case for case in cases(NEGATIVES) if find_pii(f"text {case} text")] == []


def test_clean_text_stays():
    """In 12 MB of sources and documentation: authors' real addresses, and one address that stands for an address."""
    found = [(text[start:stop], kind) for text in stdlib_documents() for start, stop, kind in find_pii(text, tuple(KINDS)[1:])]
    written = {"2001:1::1", "2001:1::2", "2001:4:112::"}  # public addresses, which newer versions of `ipaddress` list
    assert {case for case, _ in found} <= {"123.45.67.89", *written}, found


def test_masks_and_counts():
    text = "ada@example.org, bob@example.org, 212-555-0123"
    assert pii(text) == ("[email], [email], [phone]", {"email": 2, "phone": 1})
    assert pii(text, mask="*", kinds=("phone",)) == ("ada@example.org, bob@example.org, *", {"phone": 1})
    assert pii(pii(text)[0]) == (pii(text)[0], {})
    with pytest.raises(ConfigError, match="did you mean 'email'"):
        pii(text, kinds=("emails",))


def test_luhn_finds_every_wrong_digit():
    """Any one digit changed is noticed (ISO/IEC 7812-1)."""
    number = "4111111111111111"
    wrong = [number[:at] + digit + number[at + 1 :] for at in range(16) for digit in "0123456789" if digit != number[at]]
    assert luhn(number) and not any(map(luhn, wrong))


def seconds(text):
    best = float("inf")
    for _ in range(2):
        start = time.process_time()
        find_pii(text)
        best = min(best, time.process_time() - start)
    return best


HOSTILE = ["1", "@", "a.", "a@", "a@a.", "+1 ", "1 ", "1-", "0123 ", "GB82 ", "1.", "2a00:", "::", "(212) ", "a" * 60 + "@", "4111 "]


@pytest.mark.parametrize("unit", HOSTILE)
def test_time_is_linear(unit):
    """Four times the text takes some four times as long, not sixteen; the sum keeps noise small."""
    small, large = (unit * (size // len(unit)) for size in (25_000, 100_000))
    assert seconds(large) < 9 * seconds(small) + 0.05


def test_any_text_is_taken():
    random.seed(0)
    signs = "0123456789@.:+-() aZ[é\0\ud800"
    for _ in range(2000):
        text = "".join(random.choices(signs, k=40))
        masked, counts = pii(text)
        assert masked.count("[") - text.count("[") == sum(counts.values())


def test_what_stood_against_a_mask_is_masked_too():
    assert pii("0@0.org+1000000002")[0] == "[email][phone]"
    assert pii("ada@example.org", mask="a@example.org")[0] == "a@example.org"
