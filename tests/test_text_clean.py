"""Cleaning: each step by hand-made examples and against other implementations; the cleaner by its properties on any text."""

import collections
import json
import os
import pickle
import re
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlm.data.stdlib import stdlib_documents
from jaxlm.errors import ConfigError, DataError
from jaxlm.text.clean import COUNTED, EDITS, GLOBAL, RULES, STEPS, make_cleaner
from jaxlm.text.cleaning.decontaminate import decontaminate, load_grams
from jaxlm.text.cleaning.markup import html, is_html
from jaxlm.text.cleaning.pages import c4, profanity
from jaxlm.text.cleaning.quality import gopher, length, symbols
from jaxlm.text.cleaning.repair import controls, normalize, unicode, whitespace
from jaxlm.text.cleaning.repetition import duplicate_runs, repetition, top_runs
from jaxlm.text.cleaning.shingles import words as find_words

pytest.importorskip("ftfy")
pytest.importorskip("py3langid")
pytest.importorskip("selectolax")

ENGLISH = "The committee will have to decide which of these plans is better, and that decision has to be made with care. "
PAGE = "<!DOCTYPE html><html><head><title>A title</title><style>p {color: red}</style></head><body>{}</body></html>"


@pytest.mark.parametrize("step, dirty, clean", [
    (unicode, "schÃ¶n â€” l&#39;Ã©tÃ©\nplain\r\n", "schön — l'été\nplain\r\n"),
    (unicode, "“curly” &amp; <b>", "“curly” &amp; <b>"),
    (normalize, "e\u0301\u212b", "\u00e9\u00c5"),
    (controls, "a\x00b\u200b\x9fc\t\r\n\ufeffd\u202e\U0001ffff नि\u200dx", "abc\t\r\nd नि\u200dx"),
    (whitespace, "\n\n  a\u00a0b  \r\n\r\n\n\n\tc\u2028d \n", "  a b\n\n\tc\nd"),
])  # fmt: skip
def test_what_is_mended(step, dirty, clean):
    assert step(dirty) == clean


def test_options_of_edits():
    assert normalize("ﬁ①", form="NFKC") == "fi1"
    assert whitespace("  if x:    y  # z\n", runs=True) == "  if x: y # z"


def test_html_as_a_reader_sees_it():
    body = "<p>One &lt;b&gt; &eacute;<br>two\n  <b>thr</b>ee</p><script>x < 1</script><ul><li>a<li>b</ul>"
    body += "<pre>k\n  l</pre><table><tr><td>x<td>y</table>"
    assert html(PAGE.replace("{}", body)) == "A title\nOne <b> é\ntwo three\na\nb\nk\n  l\nx y"
    assert html("<p>A fragment &amp; more</p>") == "A fragment & more"
    assert html("1 < 2 &amp; 3", always=True) == "1 < 2 & 3"


def test_text_that_is_no_html_stays():
    """Sources of html.parser and its like speak of tags on every page."""
    for text in ("if a < b and c > d:", "Use the <b> tag, closed by </b>, for bold type and <i> for italics in what you write.", "x", ""):
        assert not is_html(text) and html(text) == text
    assert not [text[:80] for text in stdlib_documents() if is_html(text)]


def test_language():
    keep = make_cleaner([("language", {"keep": ("en", "de"), "probability": 0.4})])
    assert keep(ENGLISH).text and keep("Der Ausschuss muss entscheiden, welcher dieser Pläne besser ist.").text
    assert keep("Le comité devra décider lequel de ces projets est le meilleur.").dropped == "language:fr"


# Hand-computed: (rule, text, the reason). Gopher's thresholds, each just inside and just outside.
FIFTY = " ".join(f"word{number} of the" for number in range(20))
GOPHER = [
    (length, "", "few_characters"), (length, "x", None),
    (symbols, "# " + "word " * 9, None), (symbols, "# # " + "word " * 10, "hashes"),
    (symbols, "word… " + "word " * 9, None), (symbols, "word... word… " + "word " * 10, "ellipses"),
    (symbols, "1 " + "word " * 4, None), (symbols, "1 2 " + "word " * 7, "few_letters"),
    (symbols, "• a b c d\n" * 9 + "d", None), (symbols, "• a b c d\n" * 10, "bullets"),
    (symbols, "a b c d e f g h i j\n" * 7 + "k l m n o p q r s...\n" * 3, None),
    (symbols, "a b c d e f g h i j k l m\n" * 2 + "k l m n o p q r s t u v w...\n", "ellipsis_lines"),
    (gopher, "the of " + "word " * 47, "few_words"), (gopher, "word " * 100_001, "many_words"),
    (gopher, "a b c d e " * 20, "word_length"), (gopher, "incomprehensibility " * 60, "word_length"),
    (gopher, FIFTY.replace("the", "zee"), "few_stop_words"),
]  # fmt: skip


@pytest.mark.parametrize("rule, text, reason", GOPHER)
def test_gopher_by_hand(rule, text, reason):
    assert rule(text) == reason


def test_gopher_keeps_prose_and_its_options_move():
    prose = next(text for text in stdlib_documents() if text.startswith("Assignment statements"))
    paragraph = " ".join(piece for piece in prose.split("\n\n") if "::=" not in piece)
    assert gopher(paragraph) is None
    assert gopher(paragraph, words=(10_000, 20_000)) == "few_words" and gopher(paragraph, mean=(8, 9)) == "word_length"
    assert length("one two", maximum=6) == "many_characters" and length("one two", maximum_words=1) == "many_words"


def plain_duplicates(words, n):
    seen, covered = set(), set()
    for at in range(len(words) - n + 1):
        run = tuple(words[at : at + n])
        covered |= set(range(at, at + n)) if run in seen else set()
        seen.add(run)
    return sum(len(words[at]) for at in covered) / max(1, sum(map(len, words)))


def plain_top(words, n):
    counts = collections.Counter(tuple(words[at : at + n]) for at in range(len(words) - n + 1))
    most = max(counts.values(), default=0)
    longest = max((len("".join(run)) for run, count in counts.items() if count == most), default=0)
    return min(1, most * longest / sum(map(len, words))) if most > 1 else 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["a", "bb", "dé", "eeeee"]), max_size=50))
def test_shares_of_runs_are_those_of_plain_python(words):
    found = find_words([" ".join(words)], exact=True)
    assert duplicate_runs(found, [5, 6, 7, 10]) == {n: plain_duplicates(words, n) for n in (5, 6, 7, 10)}
    assert top_runs(found, [2, 3, 4]) == {n: plain_top(words, n) for n in (2, 3, 4)}


LETTERS = [f"{first}{second}" for first in "abcdefghij" for second in "abcdefghij"]  # a hundred words of two letters
LINES = {"top": {}, "duplicate": {}, "paragraphs": (1, 1)}
PARAGRAPHS = {"top": {}, "duplicate": {}, "lines": (1, 1)}
TOP = {"duplicate": {}}
RUNS = {"top": {}}
REPEATED = [
    ("a\na\nbbb\nccc\nddd\n", LINES, None), ("ab\nab\ncd", LINES, "duplicate_lines"),  # 1 line of 5 and 1 character of 11; 1 of 3
    ("aaaa\naaaa\nbbbb\ncccc\ndddd", LINES, None), ("aaaa\naaaa\nbbbb\ncccc\ndd", LINES, "duplicate_lines_characters"),  # 4 of 20, 4 of 18
    ("aa\n\naa\n\nb b\n\nc c\n\nd d", PARAGRAPHS, None), ("a\n\nb\n\na", PARAGRAPHS, "duplicate_paragraphs"),
    ("aaaa\n\naaaa\n\nb\n\nc\n\nd", PARAGRAPHS, "duplicate_paragraphs_characters"),
    (" ".join(["aa ab", *LETTERS[2:10]] + ["aa ab", *LETTERS[10:18]]), TOP, None),  # 8 of 40 characters: at the limit of .20
    (" ".join(["aa ab", *LETTERS[2:10]] + ["aa ab", *LETTERS[10:17]]), TOP, "top_2gram"),  # 8 of 38
    (" ".join(LETTERS[:3] + LETTERS[10:40] + LETTERS[:3]), TOP, None),  # 12 of 72: .167
    (" ".join(LETTERS[:3] + LETTERS[10:37] + LETTERS[:3]), TOP, "top_3gram"),  # 12 of 66: .182, and 2 words 8 of 66
    (" ".join(LETTERS[:4] + LETTERS[10:51] + LETTERS[:4]), TOP, "top_4gram"),  # 16 of 98: .163
    (" ".join(LETTERS[:4] + LETTERS[10:53] + LETTERS[:4]), TOP, None),  # 16 of 102: .157
    (" ".join(LETTERS[:5] + LETTERS[50:74] + LETTERS[:5]), RUNS, None),  # 5 of 34 words: .147
    (" ".join(LETTERS[:5] + LETTERS[50:73] + LETTERS[:5]), RUNS, "duplicate_5grams"),  # 5 of 33: .152
    (" ".join(LETTERS[:10] + LETTERS[20:100] + LETTERS[:10]), RUNS, None),  # 10 of 100, at the limit of .10
    (" ".join(LETTERS[:10] + LETTERS[20:97] + LETTERS[:10]), RUNS, "duplicate_10grams"),  # 10 of 97
]  # fmt: skip


@pytest.mark.parametrize("text, options, reason", REPEATED)
def test_repetition_by_hand(text, options, reason):
    assert repetition(text, **options) == reason


def test_options_of_repetition():
    text = " ".join(LETTERS[:10] + LETTERS[20:97] + LETTERS[:10])
    assert repetition(text, duplicate={"10": 0.2}) is None and repetition(text, top={}, duplicate={3: 0.05}) == "duplicate_3grams"
    assert repetition("ab\nab\ncd", lines=(0.5, 0.5)) is None


def page_of(sentences):
    return "\n".join(sentences)


SENTENCE = "This is the first sentence of some prose."
C4 = [
    (page_of([SENTENCE, "A menu item", SENTENCE, SENTENCE]), page_of([SENTENCE] * 3), {"no_mark": 1}),
    (page_of([SENTENCE, "Too few words.", SENTENCE, SENTENCE]), page_of([SENTENCE] * 3), {"few_words": 1}),
    (page_of([SENTENCE] * 2), None, {"few_sentences": 1}),
    (page_of([SENTENCE] * 3 + ["You must enable JavaScript in your browser."]), page_of([SENTENCE] * 3), {"javascript": 1}),
    (page_of([SENTENCE] * 3 + ["We have read the Privacy Policy of yours."]), page_of([SENTENCE] * 3), {"policy": 1}),
    (page_of([SENTENCE] * 3 + ["Here is Lorem ipsum dolor sit amet."]), None, {"lorem_ipsum": 1}),
    (page_of([SENTENCE] * 3 + ["A function f() { returns one value }."]), None, {"curly_bracket": 1}),
    (page_of([SENTENCE] * 3 + ["It goes on and on and on..."]), page_of([SENTENCE] * 3), {"no_mark": 1}),
    (page_of([SENTENCE] * 3 + ["x" * 1001 + " is one very long word."]), page_of([SENTENCE] * 3), {"long_word": 1}),
    (page_of([SENTENCE] * 3 + ["It is shown[1] by many[citation needed]."]), page_of([SENTENCE] * 3 + ["It is shown by many."]),
     {"citations": 2}),
    (" ".join([SENTENCE] * 3), " ".join([SENTENCE] * 3), {}),
]  # fmt: skip


@pytest.mark.parametrize("text, clean, counts", C4)
def test_c4_by_hand(text, clean, counts):
    assert c4(text) == (clean, counts)


def test_c4_is_that_of_tensorflow_datasets(monkeypatch):
    """The published code, with sentences counted our way: its own splitter is NLTK's, which is a download."""
    peer = pytest.importorskip("tensorflow_datasets.text.c4_utils")
    from jaxlm.text.cleaning import pages

    monkeypatch.setattr(peer, "_get_sentences", lambda line: pages.SENTENCE.findall(line) or [line])
    citation = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
    made = peer.PageFeatures(url="", text="") if hasattr(peer, "PageFeatures") else None
    texts = [text for text, _, _ in C4] + [text for text in stdlib_documents() if len(text) < 20_000][:200]
    kept = 0
    for text in texts:
        text = text.replace("[]", "")
        theirs = list(peer.clean_page(peer.dataclasses.replace(made, text=text), citation, counter_inc_fn=lambda *_: None))
        ours, _ = c4(text)
        assert ours == (theirs[0].text if theirs else None), text[:200]
        kept += ours is not None
    assert kept > 20


def test_profanity_is_whole_words_of_a_list(tmp_path):
    (tmp_path / "words.txt").write_text("# a list\nDarn\nsilly goose\n\n", encoding="utf-8")
    rule = make_cleaner([("profanity", {"words": str(tmp_path / "words.txt")})])
    assert rule("Darned if I know, sillygoose.").text
    assert rule("You Silly\n goose!").dropped == "profanity:word" == rule("oh DARN").dropped
    assert profanity("darn darn", ("darn",), most=2) is None and profanity("darn darn darn", ("darn",), most=2) == "word"
    with pytest.raises(ConfigError, match="holds no word"):
        profanity("x", ("",))


def test_decontamination(tmp_path):
    words = [f"w{number}" for number in range(40)]
    row = {"question": {"text": " ".join(words[:20])}, "choices": [" ".join(words[20:24]), 3]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n\n")
    (tmp_path / "b.txt").write_text(" ".join(words[30:]) + " x y z")
    grams = load_grams(str(tmp_path / "*"))
    assert len(grams.hashes) == 8 + 1
    assert decontaminate("Before. " + ", ".join(words[3:16]).upper() + " after", grams) == "overlap"
    assert decontaminate(" ".join(words[3:15]), grams) is None  # twelve words
    assert decontaminate(" ".join(words[10:30]), grams) is None  # runs on where the evaluation text ends
    assert decontaminate(" ".join(words[30:]) + " x y z", str(tmp_path / "b.txt")) == "overlap"
    assert decontaminate(" ".join(words[:14]), grams, overlap=3) is None
    (tmp_path / "c.jsonl").write_text('{"a": "b"}\n{"a":')
    with pytest.raises(DataError, match="c.jsonl, line 2 is no JSON"):
        load_grams(str(tmp_path / "*"))


def test_the_cleaner_says_what_it_did():
    cleaner = make_cleaner(["unicode", "html", "controls", "pii", ("length", {"minimum": 20}), "whitespace"])
    done = cleaner(PAGE.replace("{}", "<p>Write to ada@example.org or bob@example.org, nobody else.</p>"))
    assert done.text == "A title\nWrite to [email] or [email], nobody else."
    assert done.changed == ("html", "pii") and done.counts == {"pii:email": 2} and done.dropped is None
    assert cleaner("short").dropped == "length:few_characters" and cleaner("short").text is None
    assert cleaner(" \x00\n").dropped == "empty" == cleaner("").dropped
    assert make_cleaner([])("a\ud800") == make_cleaner(())("a\ufffd")
    assert make_cleaner(["c4"])("no prose").dropped == "c4:few_sentences"


def test_global_steps_are_options_of_the_second_pass():
    assert make_cleaner(["unicode"]).duplicates is None
    near = ("near_duplicates", {"threshold": 0.7, "ngram": 3})
    made = make_cleaner(["exact_duplicates", "unicode", near, "paragraph_duplicates"]).duplicates
    assert (made.exact, made.threshold, made.ngram, made.paragraph) == (True, 0.7, 3, 100)
    assert set(STEPS) == {*EDITS, *RULES, *COUNTED} and not set(STEPS) & set(GLOBAL)


@pytest.mark.parametrize("step, message", [
    ("unicod", "did you mean 'unicode'"),
    (("pii", {"mas": 1}), "did you mean 'mask'"),
    (("pii", {"kinds": ("emal",)}), "did you mean 'email'"),
    (("language", {"keep": "en"}), "takes tuple"),
    (("language", {"keep": ("xx",)}), "none of py3langid's languages"),
    (("normalize", {"form": "NFX"}), "NFC"),
    ("decontaminate", "needs path"),
    (("decontaminate", {"path": "/nowhere/*"}), "no file matches"),
    (("profanity", {"words": "/nowhere"}), "cannot be read"),
    (("near_duplicates", {"threshold": 0}), "no similarity"),
    (("exact_duplicates", {"x": 1}), "no options"),
    (("symbols", {"words": "x"}), "takes float"),
    (("repetition", {"top": {"a": 1}}), "do not fit"),
    (("gopher", {"words": (1,)}), "do not fit"),
    (5, "is no step"),
])  # fmt: skip
def test_wrong_configurations_are_one_line(step, message):
    with pytest.raises(ConfigError, match=message) as caught:
        make_cleaner([step])
    assert "\n" not in str(caught.value)


def test_a_missing_library_is_named_before_the_first_document(monkeypatch):
    for name, library in (("unicode", "ftfy"), ("html", "selectolax")):
        monkeypatch.setitem(sys.modules, library, None)
        monkeypatch.setitem(sys.modules, f"{library}.lexbor", None)
        with pytest.raises(ConfigError, match=f'{library} is not installed: pip install "jaxlm\\[clean\\]"'):
            make_cleaner([name])


def test_the_fingerprint_holds_all_that_the_result_depends_on(tmp_path):
    path = tmp_path / "eval.txt"
    path.write_text("some words")
    steps = ["unicode", ("decontaminate", {"path": str(path), "n": 2}), ("near_duplicates", {"threshold": 0.8})]
    prints = {make_cleaner(steps).fingerprint, make_cleaner(steps[:2]).fingerprint, make_cleaner(steps[::-1]).fingerprint}
    path.write_text("other words")
    prints |= {make_cleaner(steps).fingerprint, make_cleaner([("unicode", {}), *steps[1:]]).fingerprint}
    assert len(prints) == 4  # an option given as its default changes nothing
    assert make_cleaner(["pii"]).fingerprint != make_cleaner([("pii", {"mask": ""})]).fingerprint
    copy = pickle.loads(pickle.dumps(make_cleaner(steps)))
    assert copy.fingerprint == make_cleaner(steps).fingerprint and copy("some other words").dropped == "decontaminate:overlap"


def test_nothing_depends_on_the_process():
    code = """
from jaxlm.text.clean import make_cleaner
cleaner = make_cleaner(["unicode", "html", "controls", "pii", "whitespace", "gopher"])
print(cleaner.fingerprint, cleaner("Ünï <b> ada@example.org and 212-555-0123 " + "of that and these words with care " * 9))
"""
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        for seed in "01"
    ]
    assert runs[0].stdout == runs[1].stdout


PIECES = st.sampled_from([
    "<p>", "</p>", "<html>", "&amp;", "&lt;", "<!--", "\0", "\r\n", "\n\n", "  ", "\x1b[0m", "\ud800", "\udc00", "\ufdd0", "Ã©",
    "ada@example.org", "+44 20 7946 0958", "{", "lorem ipsum", "word.", "…", "#", "•", "東京", "e\u0301", "\u202e",
])  # fmt: skip
TEXTS = st.one_of(st.text(), st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=12).map("".join))
OPTIONS = {"profanity": {"words": ("darn",)}, "decontaminate": {"path": __file__}}


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_every_step_takes_any_text(text):
    for name in STEPS:
        done = cleaner_of(name)(text)
        assert (done.text is None) == (done.dropped is not None)
        assert done.text is None or (done.text.encode() and not done.text.isspace())
        assert all(count > 0 and key.startswith(f"{name}:") for key, count in done.counts.items())


CLEANERS = {}


def cleaner_of(*names):
    if names not in CLEANERS:
        CLEANERS[names] = make_cleaner([(name, OPTIONS.get(name, {})) for name in names])
    return CLEANERS[names]


@settings(max_examples=100, deadline=None)
@given(TEXTS)
@pytest.mark.parametrize("names", [("normalize",), ("controls",), ("whitespace",), ("pii",), ("c4",)])
def test_a_second_time_changes_nothing(names, text):
    once = cleaner_of(*names)(text)
    if once.text is not None:
        again = cleaner_of(*names)(once.text)
        assert again.text == once.text and not again.changed and not again.counts


@pytest.mark.parametrize("unit", ["<", "<div>", "<ul><li>", "</a><", "<!--", "<a b=", "&#", "a ", "#", "\n", " \n", "[1", "e\u0301"])
def test_time_is_linear(unit):
    """Four times the text takes some four times as long, not sixteen."""
    for name in ("whitespace", "controls", "normalize", "html", "symbols", "c4", "gopher", "profanity"):
        seconds = []
        for size in (20_000, 80_000):
            text = (unit * size)[:size]
            start = time.process_time()
            cleaner_of(name)(text)
            seconds.append(time.process_time() - start)
        assert seconds[1] < 9 * seconds[0] + 0.1, name
