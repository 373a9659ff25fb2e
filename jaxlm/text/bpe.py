"""Byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2, Radford et al. 2019): its vocabulary holds all 256 bytes.

So every text has ids, and comes back. Read next: `training.py`, which learns the merges.
"""

from pathlib import Path
from typing import Any

from jaxlm.text import fast


def byte_level(model: Any) -> Any:
    """An engine of the `tokenizers` library that cuts text as GPT-2 does."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    engine = Tokenizer(model)
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    return engine


def load_vocab_and_merges(directory: Path) -> fast.FastTokenizer:
    """Read GPT-2's and RoBERTa's older pair of files; raises DataError where one is damaged."""
    from tokenizers import models

    folder = Path(directory)
    with fast.readable(f"{folder / 'vocab.json'} with merges.txt"):
        engine = byte_level(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
        names = set(engine.get_vocab())
        engine.add_special_tokens([name for name in fast.CONTROL if name in names])
    return fast.finish(engine, fast.control({}, "", fast.EOS_NAMES, names), fast.control({}, "", fast.PAD_NAMES, names))
