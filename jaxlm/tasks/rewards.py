"""What a drawn text is worth beside its reference, in points from 0 to 100: the rewards of minimum-risk training.

They are scores of single sentences, unlike those of a corpus in `text_scores.py`. Read next: `../training/risk.py`.
"""

from collections.abc import Callable

from jaxlm.errors import extra
from jaxlm.overrides import choose
from jaxlm.tasks.rouge import rouge
from jaxlm.tasks.text_scores import language_of

Reward = Callable[[str, str], float]  # (text, reference) -> points


def make_reward(name: str, language: str | None = None) -> Reward:
    """The reward of a name: sentence BLEU (smoothed, of the orders that the text has), chrF, or ROUGE-L's F-measure.

    Args:
      language: code of the texts' language, as "de"; it decides BLEU's words.

    Raises ConfigError for an unknown name, or where sacrebleu is missing.
    """
    return REWARDS[choose("risk.reward", name, REWARDS)](language_of(language))


def _bleu(language: str) -> Reward:
    with extra("scores", "sacrebleu"):
        from sacrebleu import BLEU
    metric = BLEU(effective_order=True, trg_lang=language)  # else a text of three words would be worth nothing
    return lambda text, reference: metric.sentence_score(text, [reference]).score


def _chrf(language: str) -> Reward:
    with extra("scores", "sacrebleu"):
        from sacrebleu import CHRF
    metric = CHRF()
    return lambda text, reference: metric.sentence_score(text, [reference]).score


def _rouge(language: str) -> Reward:
    return lambda text, reference: 100 * rouge(text, reference)["rougeL"]


REWARDS = {"bleu": _bleu, "chrf": _chrf, "rougeL": _rouge}
