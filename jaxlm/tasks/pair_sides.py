"""How the two sides of a pair become ids: special tokens, the end of a target, the codes of languages.

Read next: `text_to_text.py`.
"""

import dataclasses
import difflib
import re
from typing import Any

from jaxlm.config import Run
from jaxlm.errors import ConfigError, DataError
from jaxlm.ops.special_ids import of_tokenizer, saying
from jaxlm.tasks.texts import fit_texts

CODE = re.compile(r">>.+<<|[a-z]{2,3}_[A-Z][A-Za-z]{1,3}")  # of Marian; of mBART (en_XX) and NLLB (eng_Latn)


class Unfit(DataError):
    """A pair that `records.skip` leaves out; `kind` says in a few words which ones are."""

    def __init__(self, message: str, kind: str):
        super().__init__(message)
        self.kind = kind


@dataclasses.dataclass(frozen=True)
class Side:
    """The tokenizer of one side, and what is changed in what it gives.

    Attributes:
      before, after: ids that are put around those of a text.
      language: the code that the tokenizer's template puts beside a text, and the one that is meant; None: it puts none.
    """

    tokenizer: Any
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    language: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Sides:
    """Both sides; `length` is how many tokens a target has at most."""

    source: Side
    target: Side
    length: int


def make_sides(source: Any, target: Any, run: Run) -> Sides:
    """The sides of a run's pairs, given their tokenizers, which may be one.

    A target ends as Hugging Face's labels do: with what the tokenizer's template adds, and with its `eos_id` where that is not
    among it. Languages are marked where the vocabulary has codes for them: beside a text (mBART, NLLB), or the wanted one before
    the source (Marian). Raises ConfigError where no token ends a text, and for a language that the tokenizer does not know.
    """
    length = target_length(run)
    if target.eos_id is None:
        mend = "set tokenizer.kind or target_tokenizer.kind=bpe, wordpiece, unigram or word"
        raise ConfigError(f"the tokenizer of the targets has no token that ends a text: {mend}")
    after = () if target.eos_id in _template(target) else (target.eos_id,)
    codes = language_codes(source)
    if not codes:
        return Sides(Side(source), Side(target, after=after), length)
    wanted = _code(codes, run.records.target_language, "records.target_language")
    usual = next((i for i in _template(source) if i in codes.values()), None)
    if usual is None:
        return Sides(Side(source, before=(wanted,)), Side(target, after=after), length)
    spoken = _code(codes, run.records.source_language, "records.source_language") if run.records.source_language else usual
    return Sides(Side(source, language=(usual, spoken)), Side(target, after=after, language=(usual, wanted)), length)


def target_length(run: Run) -> int:
    """Tokens of a row of the decoder."""
    return run.data.target_length or run.data.sequence_length


def _template(tokenizer: Any) -> list[int]:
    """The special tokens around a text."""
    return list(tokenizer.encode(""))


def language_codes(tokenizer: Any) -> dict[str, int]:
    """Name -> id of the languages that a tokenizer has tokens for; empty for most."""
    return {name: i for name, i in tokenizer.controls.items() if CODE.fullmatch(name)}


def _code(codes: dict[str, int], language: str | None, key: str) -> int:
    names = {name.strip("<>"): i for name, i in codes.items()}
    if language is not None and language.strip("<>") in names:
        return names[language.strip("<>")]
    alike = [name for name in names if language and name.lower()[:2] == language.lower()[:2]]
    near = alike or difflib.get_close_matches(str(language), names, n=3, cutoff=0.3) or sorted(names)[:3]
    what = "is missing, and this tokenizer marks languages" if language is None else f"{language!r} is no language of this tokenizer"
    raise ConfigError(f"{key}{' ' if language is None else '='}{what}: set {key}={' or '.join(near[:5])}")


def spell(side: Side, text: str, length: int, key: str = "data.sequence_length") -> tuple[list[int], int]:
    """The ids of a text, at most `length` of them, and how many were cut off its end; special tokens stay. Raises DataError for none."""
    found = fit_texts(side.tokenizer, text, None, length - len(side.before) - len(side.after), key)
    usual, meant = side.language or (None, None)
    return [*side.before, *(meant if token == usual else token for token in found.tokens), *side.after], found.cut


def text_tokens(side: Side, tokens: int, prefix: str = "") -> int:
    """How many of a text's tokens, as `spell` and what it cut make them, are its own: neither special ones nor a prefix's; 1 at least."""
    return max(1, tokens - len(side.before) - len(side.after) - len(side.tokenizer.encode(prefix.rstrip())))


def with_special_ids(config: Any, target: Any, fresh: bool, sides: Sides | None = None) -> Any:
    """The model's configuration with the ids that begin and end what it writes.

    Those of a fresh model are the target tokenizer's (`ops.special_ids.of_tokenizer`). A target's language is what the decoder
    reads first where it ends a text (mBART), and what it is forced to write first where it begins one (mBART-50, NLLB).
    """
    config = of_tokenizer(config, target) if fresh else config
    if sides is None or sides.target.language is None:
        return config
    usual, meant = sides.target.language
    begins = _template(target)[0] == usual
    return saying(config, **{"forced_bos_token_id" if begins else "decoder_start_token_id": meant})
