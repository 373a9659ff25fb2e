"""Tokenizers learnt from texts, in bounded memory; `../tokenize.py` is the command.

Read next: `learning/counting.py` and `learning/unigram.py`.
"""

import collections
import dataclasses
import difflib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from jaxlm.errors import ConfigError, DataError
from jaxlm.text.learning import unigram
from jaxlm.text.learning.counting import count_words, repeated
from jaxlm.text.tokenizer import Tokenizer
from jaxlm.text.tokenizers import bpe, characters, fast
from jaxlm.text.unicode import well_formed

MOST = 1 << 22  # tokens: 16 times the largest published vocabulary
DIRECT = 1 << 24  # characters: a smaller corpus is held in memory, and the library counts its words
DISTINCT, SAMPLE = 2_000_000, 8192  # what is kept of a large corpus: see Settings
LETTERS = 1000  # characters that a WordPiece vocabulary holds at most, the most frequent (as BERT's trainer)
LONGEST_BYTES = 1000  # of a word that BPE learns from: its time is quadratic in them, and a longer one is no word
LONG = re.compile(rf"\S{{{LONGEST_BYTES // 4 + 1}}}|\s{{{LONGEST_BYTES + 1}}}")  # where such a word may be: 4 bytes a character at most
LONGEST = 100  # characters: WordPiece reads a longer word as unknown
NOTHING = "there is no text to train a tokenizer on: check data.source"
CONTROL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to train; `distinct`, `sample` and `report` bound the memory and say what was left out."""

    lower: bool = False  # lower case, in training and in use
    seed: int = 0  # of Unigram's sample
    distinct: int = DISTINCT  # words counted at a time, of bpe, wordpiece and word
    sample: int = SAMPLE  # pieces of 1,024 characters that Unigram learns from
    report: Callable[[str], None] = lambda line: None
    sentinels: int = 0  # <extra_id_0>, <extra_id_1>, ... of span corruption: control tokens beside the vocabulary, the first one last
    mask: bool = False  # a mask token, beside the vocabulary where the kind has none


def train_tokenizer(kind: str, texts: Iterable[str], vocab_size: int, settings: Settings = Settings()) -> Tokenizer:
    """A tokenizer of a kind ("bpe", "wordpiece", "unigram", "word", "char") trained on texts; the same texts give the same bytes.

    `vocab_size` is an upper bound: a small corpus fills less; "char" takes what the texts hold and ignores it.
    Raises ConfigError for an unknown kind, too small a vocabulary, or control tokens of "char", which has none; DataError for texts
    without any character.
    """
    if min(settings.distinct, settings.sample) < 1:
        raise ConfigError(f"distinct={settings.distinct}, sample={settings.sample}: both are at least 1")
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0.3)
        mend = f"did you mean {near[0]}?" if near else f"the kinds are {', '.join(KINDS)}"
        raise ConfigError(f"unknown tokenizer.kind={kind}: {mend}")
    if kind != "char" and not 1 <= vocab_size <= MOST:
        raise ConfigError(f"tokenizer.vocab_size={vocab_size:,} is out of range: give 1 to {MOST:,}")
    if kind == "char" and (settings.sentinels or settings.mask):
        raise ConfigError("a char tokenizer has no control tokens, and the task needs some: set tokenizer.kind=unigram or bpe")
    return _with_controls(KINDS[kind](_with_text(texts), vocab_size, settings), settings)


def train_bpe(texts: Iterable[str], vocab_size: int, settings: Settings = Settings()) -> fast.FastTokenizer:
    """Learn the merges from texts; GPT-2's pre-tokenizer, `<|endoftext|>` as id 0, the bytes after it.

    Raises ConfigError for a vocabulary that cannot hold the bytes.
    """
    from tokenizers import models, pre_tokenizers, trainers

    _at_least(vocab_size, 257, f"256 bytes and {fast.EOS}")
    engine = _lowering(bpe.byte_level(models.BPE()), settings)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[fast.EOS], initial_alphabet=alphabet, show_progress=False)
    first, whole = _first(texts, DIRECT)
    if whole and not any(LONG.search(text) for text in first):
        engine.train_from_iterator(first, trainer)
    else:
        counts = _counted(itertools.chain(first, texts), engine, settings)
        engine.model = _learn(models.BPE(), {word: number for word, number in counts.items() if len(word) <= LONGEST_BYTES}, trainer)
        engine.add_special_tokens([fast.EOS])
    return fast.finish(engine, fast.EOS, None)


def train_wordpiece(texts: Iterable[str], vocab_size: int, settings: Settings = Settings()) -> fast.FastTokenizer:
    """Learn pieces as BERT's (Schuster and Nakajima 2012), by BPE's merges; [PAD] is 0, [UNK] 1, [CLS] 2, [SEP] 3, [MASK] 4.

    Raises ConfigError for a vocabulary that cannot hold the characters.
    """
    from tokenizers import models, trainers

    engine = _bert({name: i for i, name in enumerate(CONTROL)}, settings)
    counts = {word: number for word, number in _counted(texts, engine, settings).items() if len(word) <= LONGEST}
    letters = _letters(counts)
    # The library numbers "##x" in the order of its hash table, another at each run: so each gets its place beforehand.
    later = sorted({f"##{letter}" for word in counts for letter in word[1:] if letter in letters})
    _at_least(vocab_size, len(CONTROL) + len(later) + len(letters), "the control tokens and the characters")
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=[*CONTROL, *later], initial_alphabet=sorted(letters), limit_alphabet=len(letters),
        show_progress=False,
    )  # fmt: skip
    learnt = _learn(models.WordPiece(unk_token="[UNK]"), counts, trainer)
    return _finish(_bert(_vocabulary(learnt), settings))


def train_words(texts: Iterable[str], vocab_size: int, settings: Settings = Settings()) -> fast.FastTokenizer:
    """The most frequent words, as blanks cut them, after [PAD], [UNK], [CLS], [SEP], [MASK]; [SEP] ends a document."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    _at_least(vocab_size, len(CONTROL) + 1, "the control tokens and one word")
    engine = _lowering(Tokenizer(models.WordLevel(unk_token="[UNK]")), settings)
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    counts = _counted(texts, engine, settings)
    words = sorted(counts.keys() - set(CONTROL), key=lambda word: (-counts[word], word))
    names = [*CONTROL, *words][:vocab_size]
    engine.model = models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]")
    return _finish(engine)


def train_unigram(texts: Iterable[str], vocab_size: int, settings: Settings = Settings()) -> fast.FastTokenizer:
    """Unigram pieces, T5's control tokens: see `unigram.train`."""
    return unigram.train(texts, vocab_size, settings.lower, settings.seed, settings.sample)


def train_characters(texts: Iterable[str], vocab_size: int, settings: Settings = Settings()) -> characters.Characters:
    """Every character of the texts; there is nothing to lower when the tokenizer is used, so `lower` is refused."""
    if settings.lower:
        raise ConfigError("a char tokenizer keeps upper case: lower the texts beforehand, or leave lower out")
    return characters.train(texts)


def save_for_transformers(tokenizer: Tokenizer, directory: Path) -> None:
    """Save; beside `characters.json` also the `tokenizer.json` by which AutoTokenizer gives the same ids."""
    tokenizer.save(directory)
    if isinstance(tokenizer, characters.Characters):
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

        engine = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(tokenizer.characters)}))
        engine.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        engine.decoder = decoders.Fuse()
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
        (directory / "tokenizer.json").write_text(engine.to_str(pretty=True), encoding="utf-8")
        (directory / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _with_controls(tokenizer: Tokenizer, settings: Settings) -> Tokenizer:
    """The tokenizer with the sentinels and the mask of its settings, each of which takes the blanks before it."""
    names = ["<mask>"] * (settings.mask and tokenizer.mask_id is None)
    names += [f"<extra_id_{k}>" for k in reversed(range(settings.sentinels))]  # counted down, as T5's
    if not names:
        return tokenizer
    from tokenizers import AddedToken

    tokenizer.engine.add_special_tokens([AddedToken(name, lstrip=True, normalized=False, special=True) for name in names])
    mask = tokenizer.mask_id if tokenizer.mask_id is not None else tokenizer.engine.token_to_id("<mask>")
    return dataclasses.replace(tokenizer, mask_id=mask)


def _with_text(texts: Iterable[str]) -> Iterator[str]:
    """The texts that are not empty, well formed. Raises DataError at the end, if there was none."""
    text = None
    for text in filter(None, texts):
        yield well_formed(text)
    if text is None:
        raise DataError(NOTHING)


def _counted(texts: Iterable[str], engine: Any, settings: Settings) -> dict[str, int]:
    counts = count_words(texts, engine, settings.distinct, settings.report)
    if not counts:
        raise DataError(NOTHING)
    return counts


def _at_least(vocab_size: int, least: int, what: str) -> None:
    if vocab_size < least:
        raise ConfigError(f"tokenizer.vocab_size={vocab_size} is too small: {what} need at least {least}")


def _first(texts: Iterator[str], most: int) -> tuple[list[str], bool]:
    """Texts up to `most` characters, and whether that was all; the iterator stands after them."""
    first, size = [], 0
    for text in texts:
        first.append(text)
        size += len(text)
        if size > most:
            return first, False
    return first, True


def _learn(model: Any, counts: dict[str, int], trainer: Any) -> Any:
    """The model that a trainer of the library learns from counted words."""
    from tokenizers import Tokenizer, pre_tokenizers

    engine = Tokenizer(model)
    engine.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    engine.train_from_iterator(repeated(counts), trainer)
    return engine.model


def _letters(counts: dict[str, int]) -> set[str]:
    letters: collections.Counter[str] = collections.Counter()
    for word, number in counts.items():
        for letter in word:
            letters[letter] += number
    return set(sorted(letters, key=lambda letter: (-letters[letter], letter))[:LETTERS])


def _vocabulary(model: Any) -> dict[str, int]:
    from tokenizers import Tokenizer

    return dict(sorted(Tokenizer(model).get_vocab().items(), key=lambda item: item[1]))


def _lowering(engine: Any, settings: Settings) -> Any:
    from tokenizers import normalizers

    if settings.lower:
        engine.normalizer = normalizers.Lowercase()
    return engine


def _bert(vocabulary: dict[str, int], settings: Settings) -> Any:
    """An engine that cuts text as BERT does, and puts [CLS] and [SEP] around it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    engine = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=LONGEST))
    engine.normalizer = normalizers.BertNormalizer(lowercase=settings.lower)
    engine.pre_tokenizer, engine.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    engine.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
    )
    return engine


def _finish(engine: Any) -> fast.FastTokenizer:
    engine.add_special_tokens(list(CONTROL))
    return fast.finish(engine, "[SEP]", "[PAD]", unk="[UNK]", cls="[CLS]", sep="[SEP]", mask="[MASK]")


KINDS = {
    "bpe": train_bpe,
    "wordpiece": train_wordpiece,
    "unigram": train_unigram,
    "word": train_words,
    "char": train_characters,
}
