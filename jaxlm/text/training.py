"""Tokenizers learnt from texts. Read next: `../tokenize.py`, the command."""

import difflib
from collections.abc import Iterable, Iterator

from jaxlm.errors import ConfigError, DataError
from jaxlm.text import bpe, characters, fast
from jaxlm.text.tokenizer import Tokenizer
from jaxlm.text.unicode import well_formed


def train_tokenizer(kind: str, texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of a kind ("bpe", "char") trained on texts; the same texts give the same bytes.

    `vocab_size` is an upper bound: a small corpus fills less; "char" takes what the texts hold and ignores it.
    Raises ConfigError for an unknown kind, DataError for texts without any character.
    """
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0.3)
        mend = f"did you mean {near[0]}?" if near else f"the kinds are {', '.join(KINDS)}"
        raise ConfigError(f"unknown tokenizer.kind={kind}: {mend}")
    return KINDS[kind](texts, vocab_size)


def train_bpe(texts: Iterable[str], vocab_size: int) -> fast.FastTokenizer:
    """Learn the merges from texts; GPT-2's pre-tokenizer, `<|endoftext|>` as id 0, the bytes after it.

    Raises ConfigError for a vocabulary that cannot hold the bytes, DataError for no text at all.
    """
    from tokenizers import models, pre_tokenizers, trainers

    if vocab_size < 257:
        raise ConfigError(f"tokenizer.vocab_size={vocab_size} is too small: 256 bytes and {fast.EOS} need at least 257")
    engine = bpe.byte_level(models.BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[fast.EOS], initial_alphabet=alphabet, show_progress=False)
    seen = [0]
    engine.train_from_iterator(_counted(texts, seen), trainer)
    if not seen[0]:
        raise DataError("there is no text to train a tokenizer on: check data.source")
    return fast.finish(engine, fast.EOS, None)


def _counted(texts: Iterable[str], seen: list[int]) -> Iterator[str]:
    for text in texts:
        seen[0] += len(text)
        yield well_formed(text)


KINDS = {"bpe": train_bpe, "char": characters.train}
