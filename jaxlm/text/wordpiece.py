"""WordPiece from BERT's own `vocab.txt`, a piece a line, where a folder has no `tokenizer.json`.

Lower case unless `tokenizer_config.json` beside it says otherwise, and [CLS] ... [SEP] around each text, as BERT was trained.
"""

from pathlib import Path

from jaxlm.errors import DataError
from jaxlm.text import fast

CONTROL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def load(directory: Path) -> fast.FastTokenizer:
    """Read `vocab.txt`; raises DataError where it is damaged or lacks [UNK], [CLS] or [SEP]."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    path = Path(directory) / "vocab.txt"
    settings = fast.settings(path.with_name("tokenizer_config.json"))
    vocabulary = _read(path)
    with fast.readable(path):
        engine = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        lower, chinese = (settings.get(key, True) for key in ("do_lower_case", "tokenize_chinese_chars"))
        engine.normalizer = normalizers.BertNormalizer(True, bool(chinese), settings.get("strip_accents"), bool(lower))
        engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        engine.decoder = decoders.WordPiece()
        engine.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")],
        )
        engine.add_special_tokens([name for name in CONTROL if name in vocabulary])
    return fast.finish(engine, "[SEP]", "[PAD]" if "[PAD]" in vocabulary else None)


def _read(path: Path) -> dict[str, int]:
    """Piece -> its line's number."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): copy it again") from error
    vocabulary = {line.rstrip("\r"): number for number, line in enumerate(lines) if line.strip()}
    missing = [name for name in CONTROL[1:4] if name not in vocabulary]
    if missing:
        raise DataError(f"{path} has no {missing[0]}, which every BERT vocabulary holds: copy it again")
    return vocabulary
