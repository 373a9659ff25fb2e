"""Unigram pieces (Kudo 2018) learnt by the sentencepiece library from a sample of the texts; T5's control tokens and template.

The `tokenizers` library's own trainer gives other pieces at each run, and takes ten times as long. What sentencepiece learns is
written as a `tokenizer.json`. Read next: `../tokenizers/fast.py`.
"""

import io
import re
from collections.abc import Iterable
from typing import Any

from jaxlm.errors import ConfigError, DataError
from jaxlm.text.learning import reservoir
from jaxlm.text.tokenizers import fast

PIECE = 1024  # characters of one item of the sample
PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
HIDDEN = [chr(0x10FFF0 + i) for i in range(3)]  # their names in training: a text that spells "</s>" is a text
THREADS = 4  # fixed: sums of other parts would round otherwise


def train(texts: Iterable[str], vocab_size: int, lower: bool, seed: int, size: int) -> fast.FastTokenizer:
    """Learn from `size` pieces of at most 1,024 characters, drawn from all texts; <pad> 0, </s> 1, <unk> 2; </s> ends a text.

    Raises ConfigError for a vocabulary that cannot hold the characters, DataError for no text at all.
    """
    normalizer = _normalizer(lower)
    kept = reservoir.sample((piece for text in texts for piece in reservoir.pieces(text, PIECE)), size, seed)
    lines = [line for piece in kept for part in piece.splitlines() if (line := normalizer.normalize_str(part))]
    if not lines:
        raise DataError("there is no text to train a tokenizer on: check data.source")
    return _tokenizer(_learn(lines, vocab_size), normalizer)


def _normalizer(lower: bool) -> Any:
    from tokenizers import Regex, normalizers

    steps = [normalizers.NFKC(), *([normalizers.Lowercase()] if lower else [])]
    return normalizers.Sequence([*steps, normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()])


def _learn(lines: list[str], vocab_size: int) -> list[tuple[str, float]]:
    """Pieces with their log-probabilities, the three control tokens first."""
    import sentencepiece

    model = io.BytesIO()
    controls = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    names = dict(zip(("pad_piece", "eos_piece", "unk_piece"), HIDDEN, strict=True))
    settings = {"model_type": "unigram", "normalization_rule_name": "identity", "hard_vocab_limit": False, "minloglevel": 3}
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, vocab_size=vocab_size, num_threads=THREADS,
            max_sentence_length=8 * PIECE, **controls, **names, **settings,
        )  # fmt: skip
    except RuntimeError as error:
        least = re.search(r"required_chars\. \d+ vs (\d+)", str(error))
        if least:
            raise ConfigError(f"tokenizer.vocab_size={vocab_size} is too small for the characters: it is at least {least[1]}") from error
        raise DataError(f"sentencepiece cannot learn from these texts ({str(error)[:200]}): give more text") from error
    learnt = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    # Rounded beyond their own float32: the library reads longer decimals off by a bit, and the saved tokenizer would be another.
    pieces = [(learnt.id_to_piece(i), round(learnt.get_score(i), 9)) for i in range(3, learnt.get_piece_size())]
    return [*((name, 0.0) for name in (PAD, EOS, UNK)), *(pair for pair in pieces if pair[0] not in (PAD, EOS, UNK))]


def _tokenizer(vocabulary: list[tuple[str, float]], normalizer: Any) -> fast.FastTokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    engine = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    engine.normalizer = normalizer
    engine.pre_tokenizer, engine.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    engine.post_processor = processors.TemplateProcessing(single=f"$A {EOS}", pair=f"$A {EOS} $B {EOS}", special_tokens=[(EOS, 1)])
    engine.add_special_tokens([PAD, EOS, UNK])
    return fast.finish(engine, EOS, PAD, unk=UNK)
