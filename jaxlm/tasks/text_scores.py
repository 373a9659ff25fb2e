"""Scores of texts against references, in percent: BLEU, chrF and TER by sacrebleu, our own ROUGE, exact matches, edit distance.

Every score is a function of sums over the sentences, so that the same counts give the corpus's, a sentence's and any resample's.
Read first: `rouge.py`. Read next: `bootstrap.py`.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxlm.errors import ConfigError, DataError, extra
from jaxlm.overrides import choose
from jaxlm.tasks import rouge

Texts = Sequence[str]
References = Sequence[Sequence[str]]  # one or several of each text
USUAL = {"translation": ("bleu", "chrf", "ter"), "summarization": ("rouge",)}
OF_ANY_TASK = ("exact", "error-rate")
OF_A_SENTENCE = ("chrf", "rougeL", "error_rate", "exact", "ter", "bleu")  # those that say most about a single one first
LESS_IS_BETTER = ("ter", "error_rate")
THREE_LETTERS = {"jpn": "ja", "zho": "zh", "chi": "zh", "cmn": "zh", "yue": "zh", "kor": "ko"}  # those that scores depend on
WITHOUT_BLANKS = ("zh", "ja")
# ISO 639-1, and of the thousands of ISO 639-3 those that NLLB has and the older ones of ISO 639-2.
TWO_LETTERS = """aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo es et
    eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr
    ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr ns nv ny oc oj om or os pa pi pl ps
    pt qu rm rn ro ru rw sa sc sd se sg sh si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve
    vi vo wa wo xh yi yo za zh zu""".split()
LONGER = """
    ace acm acq aeb afr ajp aka alb als amh apc ara arb arg arm ars ary arz asm ast aut ava awa ayr aze azb azj bak bam ban baq bel bem
    ben bho bis bjn bod bos bre bug bul bur cat ceb ces chi chv cjk ckb cmn cor cos crh cym cze dan deu dik div dut dyu dzo ell eng epo est
    eus ewe fao fas fij fil fin fon fra fre fry fur fuv gaz geo ger gla gle glg glv gre grn gsw guj hat hau haw heb hin hne hrv hsb hun hye
    ibo ice iku ilo ina ind isl ita jav jpn kab kac kal kam kan kas kat kaz kbp kea khk khm kik kin kir kmb kmr knc kon kor kur lao lat lav
    lij lim lin lit lmo ltg ltz lua lug luo lus lvs mac mag mai mal mao mar may min mkd mlg mlt mni mon mos mri msa mul mya nds nep nld nno
    nob nor npi nso nus nya oci ori orm ory pag pan pap pbt per pes plt pol por prs pus que quy roh ron rum run rus sag san sat scn scr shn
    sin slk slo slv sme smo sna snd som sot spa sqi srd srp ssw sun swa swe swh szl tah tam taq tat tel tet tgk tgl tha tib tir ton tpi tsn
    tso tuk tum tur twi tzm uig ukr umb urd uzb uzn vec vie vol war wel wln wol xho ydd yid yor yue zho zsm zul""".split()


@dataclasses.dataclass(frozen=True, eq=False)
class Score:
    """One score of N texts.

    Attributes:
      counts: what is summed over the texts.
      value: sums [K] -> percent.
      signature: how it was counted.
      sentence_value: the same of one text's counts, where that is another function.
    """

    counts: Float[np.ndarray, "N K"]
    value: Callable[[Float[np.ndarray, "K"]], float]
    signature: str
    less_is_better: bool = False
    sentence_value: Callable[[Float[np.ndarray, "K"]], float] | None = None

    @property
    def corpus(self) -> float:
        """Of all texts together."""
        return self.value(self.counts.sum(0))

    @property
    def sentences(self) -> list[float]:
        """Of each text alone."""
        return [(self.sentence_value or self.value)(row) for row in self.counts]


def scores(hypotheses: Texts, references: References, names: Texts, language: str | None = None) -> dict[str, float]:
    """`measures` as numbers.

    >>> scores(["h ə l oʊ"], [["h ɛ l oʊ"]], ("exact", "error-rate"))
    {'exact': 0.0, 'error_rate': 25.0}
    """
    return {name: score.corpus for name, score in measures(hypotheses, references, names, language).items()}


def signatures(found: dict[str, Score]) -> list[str]:
    """A line a score that says how it was counted: what a paper has to print beside the number."""
    return [f"{name}|{score.signature}" for name, score in found.items()]


def usual(task: str) -> tuple[str, ...]:
    """The names of the scores that a task is measured by."""
    return USUAL.get(task, OF_ANY_TASK)


def of_a_sentence(found: dict[str, Score]) -> str:
    """Which of the scores is told of each text alone."""
    return next(name for name in OF_A_SENTENCE if name in found)


def measures(hypotheses: Texts, references: References, names: Texts, language: str | None = None) -> dict[str, Score]:
    """Name -> score; "rouge" is four, and "error-rate" is called "error_rate".

    Args:
      references: of each hypothesis one or several; the nearest counts (BLEU counts what any of them has).
      names: of SCORES.
      language: code of the texts' language, as "de", "zh_CN" or "jpn_Jpan"; it decides BLEU's and TER's words.

    Raises:
      ConfigError: an unknown name or language, or sacrebleu is missing.
      DataError: there is no text, a text without a reference, or not as many references as texts.
    """
    if not hypotheses or len(hypotheses) != len(references) or not all(references):
        raise DataError(f"{len(hypotheses)} texts and {len(references)} references to score: give each text one reference at least")
    found: dict[str, Score] = {}
    for name in names:
        found |= SCORES[choose("evaluation.scores", name, SCORES)](hypotheses, references, language_of(language))
    return found


def language_of(code: str | None, key: str = "records.target_language") -> str:
    """A language's code as sacrebleu has it; "" where nothing is said. Raises ConfigError, with the key, for what is none.

    >>> language_of("zh_CN"), language_of("jpn_Jpan"), language_of("de-DE")
    ('zh', 'ja', 'de')
    """
    if not code:
        return ""
    bare = code.lower().strip("<>")  # Marian's are >>deu<<, and its tokenizer knows which
    short = re.split("[-_]", bare)[0]
    if not re.fullmatch(r"[a-z]{2,3}([-_][a-z0-9]{2,4})*", bare) or (short not in (*TWO_LETTERS, *LONGER) and bare == code.lower()):
        near = [known for known in TWO_LETTERS if known[0] == short[:1]] or ["de", "zh", "ja"]
        raise ConfigError(f"{key}={code!r} is no code of a language: give one of ISO 639, such as {', '.join(near)}, or leave it out")
    return THREE_LETTERS.get(short, short)


def _sacrebleu(name: str, make: Callable[[Any, str], Any]) -> Callable[[Texts, References, str], dict[str, Score]]:
    """A metric of sacrebleu's, by what it counts in each sentence."""

    def measure(hypotheses: Texts, references: References, language: str) -> dict[str, Score]:
        metric = sacrebleu_metric(name, language, lambda sacrebleu: make(sacrebleu, language))
        streams = [[row[i] if i < len(row) else None for row in references] for i in range(max(map(len, references)))]
        # Private to sacrebleu, and there since 2.0: by the counts of each text a thousand resamples are a product, not a thousand scorings.
        counts = np.array(metric._extract_corpus_statistics(list(hypotheses), streams), np.float64)
        value = lambda sums: float(metric._compute_score_from_stats(list(sums)).score)
        of_one = _sentence_bleu() if name == "bleu" else None
        return {name: Score(counts, value, str(metric.get_signature()), name in LESS_IS_BETTER, of_one)}

    return measure


def sacrebleu_metric(name: str, language: str, make: Callable[[Any], Any]) -> Any:
    """make(sacrebleu). Raises ConfigError where sacrebleu, or the tokenizer that it has for the language, is not installed."""
    with extra("scores", "sacrebleu"):
        import sacrebleu
    try:
        return make(sacrebleu)
    except RuntimeError as error:
        mend = f'pip install "sacrebleu[{language}]"'
        raise ConfigError(f"{name} of language {language!r} needs a tokenizer that is not installed: {mend}") from error


def _sentence_bleu() -> Callable[[Float[np.ndarray, "K"]], float]:
    """BLEU of a single text, by those n-grams that it is long enough for ("effective order"), as sacrebleu's sentence_bleu."""
    metric = sacrebleu_metric("bleu", "", lambda sacrebleu: sacrebleu.BLEU(effective_order=True, force=True))
    return lambda counts: float(metric._compute_score_from_stats(list(counts)).score)


def _ter(sacrebleu: Any, language: str) -> Any:
    apart = language in WITHOUT_BLANKS  # else a sentence would be one word
    return sacrebleu.TER(normalized=apart, asian_support=apart)


def _rouge(hypotheses: Texts, references: References, language: str) -> dict[str, Score]:
    if not any(rouge.words(text) for row in references for text in row):
        raise DataError("ROUGE knows words of a-z and 0-9 alone, and no reference has any: score by chrf, evaluation.scores=['chrf']")
    rows = [[rouge.rouge(text, reference) for reference in several] for text, several in zip(hypotheses, references, strict=True)]
    best = {name: [max(one[name] for one in row) for row in rows] for name in rouge.NAMES}
    return {name: Score(_ratios(values), _percent, "f-measure|stem:no|words:a-z0-9|mean") for name, values in best.items()}


def _exact(hypotheses: Texts, references: References, language: str) -> dict[str, Score]:
    hits = [any(text.split() == one.split() for one in several) for text, several in zip(hypotheses, references, strict=True)]
    return {"exact": Score(_ratios(hits), _percent, "case:mixed|blanks:alike")}


def _error_rate(hypotheses: Texts, references: References, language: str) -> dict[str, Score]:
    counts = np.array([_nearest(text.split(), several) for text, several in zip(hypotheses, references, strict=True)], np.float64)
    return {"error_rate": Score(counts, _percent, "edits/units-of-references|units:between-blanks|case:mixed", True)}


def _nearest(units: Sequence[str], references: Texts) -> tuple[int, int]:
    """Edits to, and units of, the reference that is nearest for its length."""
    found = [(edits(units, reference.split()), len(reference.split())) for reference in references]
    return min(found, key=lambda pair: pair[0] / max(pair[1], 1))


def edits(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """Levenshtein's distance: insertions, deletions and substitutions from one sequence to the other.

    By the bits of integers, a column of the table at once (Myers 1999, as Hyyrö 2003 has it).

    >>> edits("s ɪ t ɪ ŋ".split(), "k ɪ t ə n".split())
    3
    """
    places: dict[str, int] = {}
    for i, unit in enumerate(ours):
        places[unit] = places.get(unit, 0) | 1 << i
    every, distance = (1 << len(ours)) - 1, len(ours)
    more, less, last = every, 0, (every + 1) >> 1  # the rows where a step down costs one, or saves one
    for unit in theirs:
        same = places.get(unit, 0)
        reached = ((same & more) + more ^ more) | same
        right_more, right_less = less | ~(reached | more) & every, more & reached
        distance += (bool(right_more & last) - bool(right_less & last)) if ours else 1
        right_more, right_less = (right_more << 1 | 1) & every, right_less << 1 & every
        more, less = right_less | ~(same | less | right_more) & every, right_more & (same | less)
    return distance


def _ratios(values: Sequence[float]) -> Float[np.ndarray, "N 2"]:
    return np.stack([np.asarray(values, np.float64), np.ones(len(values))], -1)


def _percent(sums: Float[np.ndarray, "2"]) -> float:
    return 100 * float(sums[0]) / max(float(sums[1]), 1.0)


SCORES = {
    "bleu": _sacrebleu("bleu", lambda sacrebleu, language: sacrebleu.BLEU(trg_lang=language, force=True)),
    "chrf": _sacrebleu("chrf", lambda sacrebleu, language: sacrebleu.CHRF()),
    "ter": _sacrebleu("ter", _ter),
    "rouge": _rouge,
    "exact": _exact,
    "error-rate": _error_rate,
}
