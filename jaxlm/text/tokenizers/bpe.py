"""Byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2, Radford et al. 2019): its vocabulary holds all 256 bytes.

So every text has ids, and comes back. `vocab.json` + `merges.txt` do not say what stands around a text: the class that
`tokenizer_config.json` names does, else the `model_type` of `config.json`, else the pieces.
Read next: `../training.py`, which learns the merges.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxlm.errors import DataError
from jaxlm.text.tokenizers import added, chat, fast, gguf_vocabulary, tokenizer_json

ROBERTA = {"roberta", "bart", "longformer", "led", "blenderbot", "mvp", "xlm-roberta-xl", "roberta-prelayernorm"}
GPT2 = {"gpt2", "opt", "gpt_neo", "gptj", "gptneox", "gpt_neox", "phi", "starcoder2", "codegen", "gpt_bigcode"}
QWEN2 = {"qwen2", "qwen3", "qwen2_moe", "qwen3_moe"}
ANY = {"pretrainedtokenizer", "tokenizersbackend", "auto"}


def byte_level(model: Any, add_prefix_space: bool = False) -> Any:
    """An engine of the `tokenizers` library that cuts text as GPT-2 does."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    engine = Tokenizer(model)
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    engine.decoder = decoders.ByteLevel()
    return engine


def load_vocab_and_merges(directory: Path) -> fast.FastTokenizer:
    """Read GPT-2's and RoBERTa's older pair of files; raises DataError where one is damaged, or of a class that is not read."""
    from tokenizers import models

    folder = Path(directory)
    named = added.named(folder)
    tokenizer_json.check_vocabulary(fast.settings(folder / "vocab.json"), folder / "vocab.json")
    with fast.readable(f"{folder / 'vocab.json'} with merges.txt"):
        engine = byte_level(
            models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")), bool(named.get("add_prefix_space", False))
        )
        names = set(engine.get_vocab())
        family = _family(folder, named, names)
        roles = {role: fast.control(named, f"{role}_token", usual, names) for role, usual in _usual(family).items()}
        if family == "qwen2":
            gguf_vocabulary.cut_as(engine, "qwen2")
        added.add(engine, folder, named, [*fast.CONTROL, *filter(None, roles.values())])
        _surround(engine, family, named, roles)
        return fast.finish(engine, chat_template=chat.find(folder, named), **roles)


def _family(folder: Path, named: Mapping[str, Any], names: set[str]) -> str:
    kind = added.kind(folder, named)
    if kind is None or kind in ANY:
        return "roberta" if {"<s>", "</s>", "<mask>"} <= names else "gpt2"
    for family, members in {"roberta": ROBERTA, "gpt2": GPT2, "qwen2": QWEN2}.items():
        if kind in members:
            return "opt" if kind == "opt" else family
    raise DataError(f"{folder}: vocab.json with merges.txt of {kind!r} is not read: save it with a tokenizer.json (AutoTokenizer does)")


def _usual(family: str) -> dict[str, tuple[str, ...]]:
    """The names of the roles that the family's class gives where the files give none."""
    if family == "roberta":
        return fast.ROLES | {"cls": ("<s>",), "sep": ("</s>",), "mask": ("<mask>",)}
    if family == "gpt2":
        return fast.ROLES | {"bos": ("<s>", fast.EOS), "unk": ("<unk>", fast.EOS)}
    return fast.ROLES


def _surround(engine: Any, family: str, named: Mapping[str, Any], roles: Mapping[str, str | None]) -> None:
    """RoBERTa: <s> A </s></s> B </s>; GPT-2: nothing, or the beginning where the settings want it (OPT does)."""
    from tokenizers import processors

    special = lambda role: (roles[role], engine.token_to_id(roles[role]))
    if family == "roberta" and roles["sep"] and roles["cls"]:
        trim, space = (bool(named.get(key, usual)) for key, usual in {"trim_offsets": True, "add_prefix_space": False}.items())
        engine.post_processor = processors.RobertaProcessing(special("sep"), special("cls"), trim, space)
    elif roles["bos"] and named.get("add_bos_token", family == "opt"):
        name = roles["bos"]
        engine.post_processor = processors.TemplateProcessing(
            single=[name, "$A"], pair=[name, "$A", f"{name}:1", "$B:1"], special_tokens=[special("bos")]
        )
