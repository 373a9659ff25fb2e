"""WordPiece from BERT's own `vocab.txt`, a piece a line, where a folder has no `tokenizer.json`.

Lower case unless `tokenizer_config.json` beside it says otherwise, and [CLS] ... [SEP] around each text, as BERT was trained.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlm.errors import DataError
from jaxlm.text.tokenizers import added, chat, fast

ROLES = {"unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
# Families that read a vocab.txt in another way than BERT's.
OTHERS = {"bertjapanese", "phobert", "bertweet", "esm", "funnel", "mpnet", "prophetnet", "splinter", "cpmant", "xlmprophetnet", "biogpt"}


def load(directory: Path) -> fast.FastTokenizer:
    """Read `vocab.txt`; raises DataError where it is damaged or lacks [UNK], [CLS] or [SEP], or is of a family that reads it otherwise."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    path = Path(directory) / "vocab.txt"
    named = added.named(path.parent)
    roles = {role: added.text(named.get(f"{role}_token")) or usual for role, usual in ROLES.items()}
    vocabulary = _read(path, roles)
    if added.kind(path.parent, named) in OTHERS or named.get("do_basic_tokenize") is False:
        raise DataError(f"{path} is not BERT's own way of cutting words: save it with a tokenizer.json (AutoTokenizer does)")
    cls, sep = roles["cls"], roles["sep"]
    with fast.readable(path):
        engine = Tokenizer(models.WordPiece(vocabulary, unk_token=roles["unk"]))
        engine.normalizer = _normalizer(named)
        engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        engine.decoder = decoders.WordPiece()
        engine.post_processor = processors.TemplateProcessing(
            single=[cls, "$A", sep],
            pair=[f"{cls}:0", "$A:0", f"{sep}:0", "$B:1", f"{sep}:1"],
            special_tokens=[(name, vocabulary[name]) for name in (cls, sep)],
        )
        added.add(engine, path.parent, named, roles.values())
        names = {role: name if name in vocabulary else None for role, name in roles.items()}
        return fast.finish(engine, eos=sep, chat_template=chat.find(path.parent, named), **names)


def _normalizer(named: Mapping[str, Any]) -> Any:
    from tokenizers import normalizers

    lower, chinese = (bool(named.get(key, True)) for key in ("do_lower_case", "tokenize_chinese_chars"))
    return normalizers.BertNormalizer(True, chinese, named.get("strip_accents"), lower)


def _read(path: Path, roles: Mapping[str, str]) -> dict[str, int]:
    """Piece -> its line's number."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): copy it again") from error
    vocabulary = {line.rstrip("\r"): number for number, line in enumerate(lines) if line.strip()}
    missing = [roles[role] for role in ("unk", "cls", "sep") if roles[role] not in vocabulary]
    if missing:
        raise DataError(f"{path} has no {missing[0]}, which every BERT vocabulary holds: copy it again")
    return vocabulary
