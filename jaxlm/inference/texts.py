"""Texts in, texts out: prompts and conversations spelled as ids, and new ids as text. Read next: `generate.py`."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxlm.errors import ConfigError, DataError
from jaxlm.inference.generate import Generated, generate, generate_tokens, refuse_logprobs, stream_tokens
from jaxlm.inference.prompts import ANY, DEFAULT_NEW, room
from jaxlm.inference.settings import Ends
from jaxlm.models import dims
from jaxlm.ops.special_ids import said

Prompt = str | Sequence[dict[str, Any]]  # a text, or a conversation: messages with "role" and "content"


def generate_text(model: Any, params: Any, tokenizer: Any, prompts: Sequence[Prompt], **named: Any) -> list[str]:
    """The continuations of texts, without the prompts and without special tokens; what else is said is for `generate`.

    Where the model has a tokenizer for what it writes beside that of what it reads (`text/sides.py`), both are to be given.

    A prompt is a text, or a conversation, list[{"role": ..., "content": ...}], which the model's chat template spells. A text ends at an
    `eos_token_id`: that of the call, else of the model's files, else of the tokenizer.
    """
    return text_and_count(model, params, tokenizer, prompts, **named)[0]


def text_and_count(model: Any, params: Any, tokenizer: Any, prompts: Sequence[Prompt], **named: Any) -> tuple[list[str], int]:
    """The same, and how many tokens were made."""
    if isinstance(prompts, str):
        raise ConfigError("prompts are one text: give a list of them, [text]")
    refuse_logprobs(named)
    if not prompts:
        return [], 0
    rows = [read_prompt(tokenizer, prompt) for prompt in prompts]
    width = max(map(len, rows))
    tokens = np.array([[0] * (width - len(row)) + row for row in rows], np.int32)
    mask = np.array([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    target = tokenizer.as_target()
    ends = ends_of(model, target, named)
    new: Generated = generate(model, params, tokens, mask=mask, tokenizer=target, **{**named, "eos_token_id": ends})
    return [spell(target, row[:length], ends) for row, length in zip(new.tokens, new.lengths, strict=True)], int(new.lengths.sum())


def read_prompt(tokenizer: Any, prompt: Prompt) -> list[int]:
    """The ids of a prompt. Raises ConfigError for what is none, and for an empty one where no token begins a document."""
    if not isinstance(prompt, (str, list, tuple)):
        raise ConfigError(f'a prompt is a {type(prompt).__name__}: give a text, or a list of messages, {{"role": ..., "content": ...}}')
    if not isinstance(prompt, str):
        return list(tokenizer.apply_chat_template(prompt, add_generation_prompt=True))
    return list(tokenizer.encode(prompt)) or _start(tokenizer)


def in_room(model: Any, tokenizer: Any, prompt: Prompt, most: int, named: dict[str, Any]) -> dict[str, Any]:
    """What a call says; where it sets no length, with `most` new tokens, or as many as there is room for after the prompt."""
    if named.get("max_new_tokens") is not None or named.get("max_length") is not None:
        return named
    return {**named, "max_new_tokens": min(most, max(room(model, len(read_prompt(tokenizer, prompt))), 1))}


def texts_in_room(
    parts: tuple[Any, Any, Any], prompts: Sequence[Prompt], seeds: Sequence[int], most: int, named: dict[str, Any]
) -> tuple[list[str], int]:
    """`text_and_count` with the length of `in_room`: prompts with the same are written together, so that none cuts another's text.

    Args:
      parts: model, parameters, tokenizer.
      seeds: one for each text.
    """
    copies = len(seeds) // len(prompts)
    limits = [in_room(parts[0], parts[2], prompt, most, named).get("max_new_tokens") for prompt in prompts]
    texts, made = [[""]] * len(prompts), 0
    for limit in dict.fromkeys(limits):
        chosen = [place for place, one in enumerate(limits) if one == limit]
        theirs = tuple(seed for place in chosen for seed in seeds[place * copies : (place + 1) * copies])
        new, count = text_and_count(*parts, [prompts[place] for place in chosen], **{**named, "max_new_tokens": limit, "seed": theirs})
        made += count
        for i, place in enumerate(chosen):
            texts[place] = new[i * copies : (i + 1) * copies]
    return [text for several in texts for text in several], made


def spell(tokenizer: Any, row: Int[np.ndarray, "N"], ends: Ends) -> str:
    """The text of new tokens before their end, without control tokens."""
    return tokenizer.decode(spelled(tokenizer, until(row, ends)))


def spelled(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """Without those that spell nothing: control tokens, and rows of a table that is padded to a size which a mesh divides."""
    controls = set(tokenizer.controls.values())
    return [token for token in ids if token < tokenizer.vocab_size and token not in controls]


def stream_text(model: Any, params: Any, tokenizer: Any, prompt: Prompt, **named: Any) -> Iterator[str]:
    """The continuation of one text, piece by piece as it is made; stops at the model's context or the end of the document."""
    if named.get("num_return_sequences") not in (None, 1):
        raise ConfigError(f"num_return_sequences={named['num_return_sequences']}: a stream is one text: leave it out")
    ids = read_prompt(tokenizer, prompt)
    target = tokenizer.as_target()
    ends = ends_of(model, target, named)
    wanted, usual = named.get("max_new_tokens"), DEFAULT_NEW if named.get("max_length") is None else ANY
    most = min(usual if wanted is None else wanted, max(room(model, len(ids)), 1))
    named = {**named, "eos_token_id": ends, "max_new_tokens": most}
    new, shown, text = [], "", ""
    for column in stream_tokens(model, params, np.array([ids], np.int32), tokenizer=target, **named):
        new.append(int(column[0]))
        text = spell(target, new, ends)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # a character whose bytes are not all here yet
            yield text[len(shown) :]
            shown = text
    if len(text) > len(shown):
        yield text[len(shown) :]  # what ends in the middle of a character


def sample_texts(model: Any, params: Any, tokenizer: Any, count: int, seed: int = 0, length: int = 120) -> list[str]:
    """`count` texts drawn from the beginning of a document (temperature 0.8, top-k 50)."""
    if not count:
        return []
    tokens = np.full((count, 1), _beginning(tokenizer), np.int32)
    new = min(length, dims(model.config).context - 1)
    arguments = {"do_sample": True, "temperature": 0.8, "top_k": 50, "seed": seed, "eos_token_id": tokenizer.eos_id}
    rows = generate_tokens(model, params, tokens, max_new_tokens=new, **arguments)
    return [spell(tokenizer, row, tokenizer.eos_id) for row in rows]


def _beginning(tokenizer: Any) -> int:
    """What documents follow: the end of another, else a new line, else any character."""
    if tokenizer.eos_id is not None:
        return tokenizer.eos_id
    try:
        return tokenizer.encode("\n")[0]
    except DataError:
        return 0


def _start(tokenizer: Any) -> list[int]:
    if tokenizer.eos_id is None:
        raise ConfigError("an empty prompt, and this tokenizer has no token that begins a document: give a prompt")
    return [tokenizer.eos_id]


def until(row: Int[np.ndarray, "N"], ends: Ends) -> list[int]:
    """The ids of a row before the first that is one of `ends`."""
    ids, several = [int(i) for i in row], () if ends is None else tuple(np.atleast_1d(ends).tolist())
    return ids[: next((place for place, i in enumerate(ids) if i in several), None)]


def ends_of(model: Any, tokenizer: Any, named: dict[str, Any]) -> Ends:
    """What ends a text: as the call says, else the model's config.json, else the tokenizer."""
    for ends in (named.get("eos_token_id"), said(model.config, "eos_token_id")):
        if ends is not None:
            return ends
    return tokenizer.eos_id
