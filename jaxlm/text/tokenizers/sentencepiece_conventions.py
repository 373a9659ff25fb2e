"""How families number SentencePiece's pieces, and what they put around a text: T5, ALBERT, XLM-R, mBART, Pegasus, Marian, Llama.

A convention is a value (`Scheme`) that a short function makes from the pieces and the folder's settings; FAMILIES names them. The numbers
are Transformers'. Read next: `sentencepiece.py`.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlm.errors import DataError
from jaxlm.text.tokenizers import added
from jaxlm.text.tokenizers.sentencepiece_model import CONTROL, UNKNOWN, USER_DEFINED, Piece

MBART = (
    "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM ne_NP nl_XX ro_RO ru_RU si_LK "
    "tr_TR vi_VN zh_CN"
).split()
MBART50 = [
    *MBART, *"af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF pt_XX sv_SE sw_KE ta_IN te_IN "
    "th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI".split(),
]  # fmt: skip
LOOKS = re.compile(r"▁?(<[^<>\s]{2,}>|\[[A-Z_0-9]{2,}\])")  # <s>, <extra_id_0>, [MASK]: never words
SENTINEL = re.compile(r"▁?<extra_id_\d+>")
MOST = 10_000  # sentinels


@dataclasses.dataclass(frozen=True)
class Scheme:
    """A family's numbering: token id = piece id + shift, but for `moved`; control tokens by name; what stands around one text or two."""

    controls: Mapping[str, int]
    size: int
    roles: Mapping[str, str]  # "eos" -> "</s>"
    shift: int = 0
    moved: Mapping[int, int] = dataclasses.field(default_factory=dict)  # piece id -> token id
    before: tuple[str, ...] = ()
    between: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    typed: bool = False  # the second text has token type 1
    lower: bool | None = None  # ALBERT's cleaning before SentencePiece's own: lower case, or not; None: none
    accents: bool = True
    languages: tuple[str, ...] = ()


def family(folder: Path, settings: Mapping[str, Any], pieces: Sequence[Piece]) -> str:
    """The convention of a folder: by its class or model_type, else by the pieces inside; raises DataError for one that is not read."""
    kind = added.kind(folder, settings)
    if kind in FAMILIES:
        return kind
    if kind is not None and kind not in ("pretrained", "tokenizersbackend", "pretrainedtokenizer"):
        raise DataError(f"{folder}: a SentencePiece model of {kind!r} is not read: save it with a tokenizer.json (AutoTokenizer does)")
    texts = [piece.text for piece in pieces[:8]]
    if texts[:3] == ["<unk>", "<s>", "</s>"]:
        return "xlmroberta" if (folder / "sentencepiece.bpe.model").is_file() else "llama"
    return "albert" if "[CLS]" in texts else "t5"


def _control_pieces(pieces: Sequence[Piece]) -> dict[str, int]:
    """Name -> piece id of what is no text: SentencePiece's control pieces, and others that look like some."""
    like = lambda piece: piece.kind in (CONTROL, UNKNOWN) or (piece.kind == USER_DEFINED and LOOKS.fullmatch(piece.text))
    found = {piece.text: i for i, piece in enumerate(pieces) if like(piece)}
    return found | {piece.text.removeprefix("▁"): i for i, piece in enumerate(pieces) if SENTINEL.fullmatch(piece.text)}


def _roles(settings: Mapping[str, Any], controls: Mapping[str, int], **usual: str) -> dict[str, str]:
    names = {role: added.text(settings.get(f"{role}_token")) or name for role, name in usual.items()}
    return {role: name for role, name in names.items() if name in controls}


def _needed(roles: Mapping[str, str], *wanted: str) -> tuple[str, ...]:
    missing = [role for role in wanted if role not in roles]
    if missing:
        raise DataError(f"the SentencePiece model lacks its family's {missing[0]} token: is it of another family?")
    return tuple(roles[role] for role in wanted)


def t5(pieces: Sequence[Piece], settings: Mapping[str, Any], sentinels: int = 100) -> Scheme:
    """T5: </s> after each text, sentinels counted down at the end, unless the pieces hold them."""
    controls = _control_pieces(pieces)
    wanted = settings.get("extra_ids", sentinels)
    if type(wanted) is not int or not 0 <= wanted <= MOST:
        raise DataError(f"extra_ids is {str(wanted)[:30]}: a number from 0 to {MOST:,} is wanted")
    held = any(SENTINEL.fullmatch(name) for name in controls)
    count = 0 if held else wanted
    controls |= {f"<extra_id_{count - 1 - n}>": len(pieces) + n for n in range(count)}
    roles = _roles(settings, controls, eos="</s>", pad="<pad>", unk="<unk>")
    end = _needed(roles, "eos")
    return Scheme(controls, len(pieces) + count, roles, between=end, after=end)


def albert(pieces: Sequence[Piece], settings: Mapping[str, Any]) -> Scheme:
    """ALBERT: [CLS] A [SEP] B [SEP]; lower case and no accents unless the settings say so."""
    controls = _control_pieces(pieces)
    usual = {"cls": "[CLS]", "sep": "[SEP]", "pad": "<pad>", "unk": "<unk>", "mask": "[MASK]", "bos": "[CLS]", "eos": "[SEP]"}
    roles = _roles(settings, controls, **usual)
    (first,), end = _needed(roles, "cls"), _needed(roles, "sep")
    lower, accents = bool(settings.get("do_lower_case", True)), bool(settings.get("keep_accents", False))
    return Scheme(controls, len(pieces), roles, before=(first,), between=end, after=end, typed=True, lower=lower, accents=accents)


def _fairseq(pieces: Sequence[Piece], languages: Sequence[str] = ()) -> tuple[dict[str, int], dict[int, int], int]:
    """Fairseq's numbers: <s> <pad> </s> <unk>, the pieces from SentencePiece's third on at +1, languages, <mask>."""
    if [piece.text for piece in pieces[:3]] != ["<unk>", "<s>", "</s>"]:
        raise DataError("the SentencePiece model does not begin with <unk> <s> </s>, as this family's do: is it of another family?")
    start = len(pieces) + 1
    more = {name: i + 4 for name, i in _control_pieces(pieces[3:]).items()}
    controls = {**more, "<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, **{name: start + n for n, name in enumerate(languages)}}
    controls["<mask>"] = start + len(languages)
    return controls, {0: 3, 1: 0, 2: 2}, start + len(languages) + 1


FAIRSEQ = {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}


def xlm_roberta(pieces: Sequence[Piece], settings: Mapping[str, Any]) -> Scheme:
    """XLM-R: <s> A </s></s> B </s>."""
    controls, moved, size = _fairseq(pieces)
    roles = _roles(settings, controls, **FAIRSEQ)
    return Scheme(controls, size, roles, 1, moved, ("<s>",), ("</s>", "</s>"), ("</s>",))


def mbart(pieces: Sequence[Piece], settings: Mapping[str, Any]) -> Scheme:
    """mBART: A </s> de_DE; the language is the settings' src_lang, else English."""
    controls, moved, size = _fairseq(pieces, MBART)
    roles = _roles(settings, controls, **FAIRSEQ)
    return Scheme(controls, size, roles, 1, moved, after=("</s>", _language(settings, MBART)), languages=tuple(MBART))


def mbart50(pieces: Sequence[Piece], settings: Mapping[str, Any]) -> Scheme:
    """mBART-50: de_DE A </s>."""
    controls, moved, size = _fairseq(pieces, MBART50)
    roles = _roles(settings, controls, **FAIRSEQ)
    return Scheme(controls, size, roles, 1, moved, (_language(settings, MBART50),), after=("</s>",), languages=tuple(MBART50))


def _language(settings: Mapping[str, Any], known: Sequence[str]) -> str:
    name = settings.get("src_lang") or "en_XX"
    if name not in known:
        raise DataError(f"the language {str(name)[:30]!r} is none of {', '.join(known)}")
    return name


def pegasus(pieces: Sequence[Piece], settings: Mapping[str, Any]) -> Scheme:
    """Pegasus: <pad> </s> <mask_1> <mask_2> <unk_2> ... <unk_102>, the pieces from SentencePiece's third on at +103; A </s>."""
    shift = settings.get("offset", 103)
    if type(shift) is not int or not 4 <= shift <= MOST:
        raise DataError(f"Pegasus' offset is {str(shift)[:30]}: a number from 4 to {MOST:,} is wanted")
    controls = {"<pad>": 0, "</s>": 1, "<mask_1>": 2, "<mask_2>": 3} | {f"<unk_{n}>": n + 2 for n in range(2, shift)}
    unknown = next(i for i, piece in enumerate(pieces) if piece.kind == UNKNOWN)
    controls[pieces[unknown].text] = unknown + shift
    roles = _roles(settings, controls, eos="</s>", pad="<pad>", unk="<unk>", mask="<mask_2>")
    return Scheme(controls, len(pieces) + shift, roles, shift, {0: 0, 1: 1}, after=("</s>",))


def llama(pieces: Sequence[Piece], settings: Mapping[str, Any]) -> Scheme:
    """Llama: <s> A, and <s> A <s> B for two."""
    controls = _control_pieces(pieces)
    roles = _roles(settings, controls, bos="<s>", eos="</s>", unk="<unk>", pad="<pad>")
    first = _needed(roles, "bos") if settings.get("add_bos_token", True) else ()
    last = _needed(roles, "eos") if settings.get("add_eos_token", False) else ()
    return Scheme(controls, len(pieces), roles, before=first, between=last + first, after=last)


def mt5(pieces: Sequence[Piece], settings: Mapping[str, Any]) -> Scheme:
    """mT5: as T5, with no sentinels beyond those of the pieces."""
    return t5(pieces, settings, sentinels=0)


FAMILIES: dict[str, Callable[[Sequence[Piece], Mapping[str, Any]], Scheme]] = {
    "t5": t5, "mt5": mt5, "albert": albert, "xlmroberta": xlm_roberta, "xlm-roberta": xlm_roberta, "mbart": mbart, "mbart50": mbart50,
    "pegasus": pegasus, "llama": llama, "mistral": llama, "mixtral": llama,
}  # fmt: skip
