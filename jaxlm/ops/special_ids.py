"""What a model's configuration says of special tokens: those that begin and end what a decoder writes.

Read next: `../tasks/text_to_text.py`, which trains with them, and `../inference/prompts.py`, which writes with them.
"""

import dataclasses
from typing import Any

from jaxlm.errors import ConfigError
from jaxlm.frozen import Frozen


def said(config: Any, name: str) -> Any:
    """What a model's generation_config.json says, else its config.json; None: nothing."""
    value = config.extra.get("generation_config", {}).get(name)
    return getattr(config, name, config.extra.get(name)) if value is None else value


def saying(config: Any, **ids: int | None) -> Any:
    """The configuration with these ids, wherever it says them; None leaves an id as it is."""
    given = {name: value for name, value in ids.items() if value is not None}
    fields = {name: value for name, value in given.items() if hasattr(config, name)}
    extra = {**config.extra, **{name: value for name, value in given.items() if name not in fields}}
    if "generation_config" in extra:
        extra["generation_config"] = Frozen({**extra["generation_config"], **given})
    return dataclasses.replace(config, **fields, extra=Frozen(extra))


def start_id(config: Any, given: int | None = None) -> int:
    """The token that a decoder over an encoder reads first: `given`, else the configuration's; T5's, which says none, is 0.

    Raises ConfigError where nothing says which, or where it is outside the vocabulary.
    """
    named = said(config, "decoder_start_token_id") if given is None else given
    named = 0 if named is None and not hasattr(config, "decoder_start_token_id") else named
    if named is None:
        raise ConfigError(f"config.json of this {config.model_type} names no decoder_start_token_id: add it (mBART: the language's id)")
    if not 0 <= named < vocabulary(config):
        raise ConfigError(f"decoder_start_token_id={named} is outside the vocabulary of {vocabulary(config)}: give another")
    return named


def vocabulary(config: Any) -> int:
    """How many tokens a model of this configuration may write."""
    return getattr(config, "decoder_vocab_size", None) or config.vocab_size


def of_tokenizer(config: Any, tokenizer: Any) -> Any:
    """The configuration of a fresh model with the ids of the tokenizer that its targets are spelled by.

    Where its own fit (its end is the tokenizer's, its start one of the control tokens) they stay. Else a decoder begins with the
    padding, as T5's and Marian's do, where there is none with the token that begins a text, and last with the one that ends it.
    """
    known = [i for i in (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) if i is not None]
    end, start = (said(config, f"{name}_token_id") for name in ("eos", "decoder_start"))
    if not known or (end is not None and end == tokenizer.eos_id and start in tokenizer.controls.values()):
        return config
    pad = tokenizer.eos_id if tokenizer.pad_id is None else tokenizer.pad_id
    ids = {"pad": pad, "bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "decoder_start": known[0]}
    return saying(config, **{f"{name}_token_id": i for name, i in ids.items()})
