"""The tokenizer inside a GGUF file: byte-level BPE ("gpt2") or SentencePiece's BPE with scores ("llama").

Read next: `fast.py`, whose tokenizer it becomes; `weights/gguf.py` reads the file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxlm.errors import DataError
from jaxlm.text.tokenizers import fast

UNKNOWN, CONTROL, USER_DEFINED, BYTE = 2, 3, 4, 6  # tokenizer.ggml.token_type
# tokenizer.ggml.pre -> how text is cut before the merges: a pattern, or GPT-2's own after each digit is set apart, or GPT-2's own.
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CUTS = {"gpt-2": None, "smollm": "digits", "llama-bpe": LLAMA3, "llama3": LLAMA3, "qwen2": LLAMA3.replace("{1,3}", "")}


def load(path: Path) -> fast.FastTokenizer:
    """The tokenizer of a GGUF file; raises DataError where it has none, or one of a kind that is not read."""
    from jaxlm.weights import gguf  # not at the top: few need it

    known = gguf.open_file(path).metadata
    about = {key.removeprefix("tokenizer.ggml."): value for key, value in known.items() if key.startswith("tokenizer.ggml.")}
    tokens, kinds = about.get("tokens"), about.get("token_type")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens) or not tokens:
        raise DataError(f"{path} holds no tokenizer: give the folder of the model it was made from")
    kinds = [1] * len(tokens) if kinds is None else [int(kind) for kind in kinds]
    makers = {"gpt2": _byte_level, "llama": _sentencepiece}
    if about.get("model") not in makers or len(kinds) != len(tokens):
        raise DataError(f"{path}: its tokenizer is a {str(about.get('model'))[:30]!r}; {' and '.join(makers)} are read")
    with fast.readable(path):
        engine = makers[about["model"]](tokens, kinds, about)
        _add_controls(engine, tokens, kinds)
        _add_template(engine, tokens, about, default=about["model"] == "llama")
    eos, pad, bos = (_token(tokens, about, name) for name in ("eos", "padding", "bos"))
    template = known.get("tokenizer.chat_template")
    more = {} if bos is None else {"bos": bos}
    return fast.finish(engine, eos, pad, chat_template=template if isinstance(template, str) else None, **more)


def _byte_level(tokens: list[str], kinds: Sequence[int], about: Mapping[str, Any]) -> Any:
    from tokenizers import Tokenizer, decoders, models

    pre = about.get("pre")
    if pre not in CUTS:
        raise ValueError(f"its text is cut in the way {str(pre)[:30]!r}; {', '.join(CUTS)} are read")
    merges = [tuple(merge.split(" ", 1)) for merge in about["merges"]]
    engine = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges, ignore_merges=CUTS[pre] == LLAMA3))
    engine.decoder = decoders.ByteLevel()
    cut_as(engine, pre)
    return engine


def cut_as(engine: Any, pre: str) -> None:
    """Let a byte-level engine cut its text as `tokenizer.ggml.pre` says, one of CUTS."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    if pre == "qwen2":
        engine.normalizer = normalizers.NFC()
    parts = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=CUTS[pre] in (None, "digits"))]
    if CUTS[pre] == "digits":
        parts.insert(0, pre_tokenizers.Digits(individual_digits=True))
    elif CUTS[pre]:
        parts.insert(0, pre_tokenizers.Split(Regex(CUTS[pre]), "isolated"))
    engine.pre_tokenizer = pre_tokenizers.Sequence(parts)


def _sentencepiece(tokens: list[str], kinds: Sequence[int], about: Mapping[str, Any]) -> Any:
    """SentencePiece's BPE joins the neighbours whose union has the highest score: merges in the order of scores."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    ids = {token: i for i, token in enumerate(tokens)}
    unknown = next((tokens[i] for i, kind in enumerate(kinds) if kind == UNKNOWN), None)
    merges = _merges(tokens, kinds, [float(score) for score in about["scores"]], ids)
    engine = Tokenizer(models.BPE(ids, merges, unk_token=unknown, fuse_unk=True, byte_fallback=BYTE in kinds))
    space = about.get("add_space_prefix", True)
    engine.normalizer = normalizers.Sequence([normalizers.Prepend("▁")] * bool(space) + [normalizers.Replace(" ", "▁")])
    first = [decoders.Strip(" ", 1, 0)] * bool(space)
    engine.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *first])
    return engine


def _merges(tokens, kinds, scores, ids) -> list[tuple[str, str]]:
    pieces = [i for i, kind in enumerate(kinds) if kind not in (UNKNOWN, CONTROL, BYTE) and 1 < len(tokens[i]) <= 256]
    found = []
    for i in pieces:
        piece = tokens[i]
        cuts = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece)) if piece[:cut] in ids and piece[cut:] in ids]
        found += [(-scores[i], ids[left], ids[right], left, right) for left, right in cuts]
    return [(left, right) for _, _, _, left, right in sorted(found)]


def _add_controls(engine: Any, tokens: list[str], kinds: Sequence[int]) -> None:
    from tokenizers import AddedToken

    engine.add_special_tokens([token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL])
    engine.add_tokens([AddedToken(token, normalized=False) for token, kind in zip(tokens, kinds, strict=True) if kind == USER_DEFINED])


def _add_template(engine: Any, tokens: list[str], about: Mapping[str, Any], default: bool) -> None:
    """The tokens that the file wants before and after each text."""
    from tokenizers import processors

    first = _token(tokens, about, "bos") if about.get("add_bos_token", default) else None
    last = _token(tokens, about, "eos") if about.get("add_eos_token", False) else None
    if first or last:
        around = " ".join(filter(None, (first, "$A", last)))
        special = [(token, engine.token_to_id(token)) for token in dict.fromkeys(filter(None, (first, last)))]
        engine.post_processor = processors.TemplateProcessing(single=around, pair=f"{around} $B", special_tokens=special)


def _token(tokens: list[str], about: Mapping[str, Any], name: str) -> str | None:
    i = about.get(f"{name}_token_id")
    return tokens[i] if isinstance(i, int) and 0 <= i < len(tokens) else None
