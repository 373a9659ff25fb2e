"""What a drawn text is worth beside its reference, in points from 0 to 100: the rewards of minimum-risk training.

They are scores of single sentences, unlike those of a corpus in `text_scores.py`. Read next: `../training/risk.py`.
"""

from collections.abc import Callable, Iterable

from jaxlm.errors import DataError
from jaxlm.overrides import choose
from jaxlm.tasks.rouge import rouge, words
from jaxlm.tasks.text_scores import language_of, sacrebleu_metric

Reward = Callable[[str, str], float]  # (text, reference) -> points


def make_reward(name: str, language: str | None = None) -> Reward:
    """The reward of a name: sentence BLEU (smoothed, of the orders that the text has), chrF, or ROUGE-L's F-measure.

    Args:
      language: code of the texts' language, as "de"; it decides BLEU's words.

    Raises ConfigError for an unknown name, or where sacrebleu, or its tokenizer of this language, is missing.
    """
    return REWARDS[choose("risk.reward", name, REWARDS)](language_of(language))


def check_references(name: str, references: Iterable[str | list[str]]) -> None:
    """Raises DataError where ROUGE-L is to be the reward of texts in none of which it sees a word: each would be worth nothing."""
    if name == "rougeL" and not any(words(str(text)) for text in references):
        raise DataError("ROUGE knows words of a-z and 0-9 alone, and no reference has any: take the reward chrf, risk.reward=chrf")


def _bleu(language: str) -> Reward:
    # of the effective order, else a text of three words would be worth nothing
    metric = sacrebleu_metric("bleu", language, lambda sacrebleu: sacrebleu.BLEU(effective_order=True, trg_lang=language))
    return lambda text, reference: metric.sentence_score(text, [reference]).score


def _chrf(language: str) -> Reward:
    metric = sacrebleu_metric("chrf", language, lambda sacrebleu: sacrebleu.CHRF())
    return lambda text, reference: metric.sentence_score(text, [reference]).score


def _rouge(language: str) -> Reward:
    return lambda text, reference: 100 * rouge(text, reference)["rougeL"]


REWARDS = {"bleu": _bleu, "chrf": _chrf, "rougeL": _rouge}
