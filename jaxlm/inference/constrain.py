"""Texts that match a regular expression, a JSON schema or a grammar: the host says which tokens may come next.

Each row has a matcher of the library llguidance, which reads the tokens as they are chosen and gives a mask of those that may follow,
while the device reads the last token. The mask is an array, so that no program depends on the grammar. Every cutting of a text into
tokens is allowed, not the tokenizer's own alone. Read next: `inference/spelling.py`.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxlm.errors import ConfigError, extra
from jaxlm.inference import loop
from jaxlm.inference.prompts import Prompts
from jaxlm.inference.rules import State
from jaxlm.inference.settings import CONSTRAINTS, Settings
from jaxlm.inference.spelling import silent_tokens, spellings
from jaxlm.models import windows

# The library would otherwise replace what has one continuation by tokens of its own choice.
UNFORCED = '\n%llguidance {"no_forcing": true}\n'
# As json.dumps writes; a schema's own "x-guidance" comes first. Free white space would be a place to stay for ever.
LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
BITS = 32  # of a word of a mask; token i is bit i % 32 of word i // 32


@dataclasses.dataclass(frozen=True)
class Known:
    """A tokenizer, the same as all others of its digest; vocabulary and ends are the model's."""

    digest: str
    vocabulary: int
    ends: tuple[int, ...]
    tokenizer: Any = dataclasses.field(compare=False, repr=False)


@dataclasses.dataclass(frozen=True)
class Alphabet:
    """The tokens as the library knows them: by their ids, by `start` + id where they are the first of a text; then an end of its own.

    Attributes:
      engine: llguidance.LLTokenizer.
      start: a multiple of 32; 0: a first token writes what others do.
      silent: the mask of tokens that are no text, which are never `start` + id.
    """

    engine: Any
    start: int
    silent: Int[np.ndarray, "W"]

    @property
    def size(self) -> int:
        """Words of a mask."""
        return len(self.silent)

    def allowed(self, matcher: Any, first: bool) -> Int[np.ndarray, "W"]:
        """The mask of what may follow."""
        words = np.frombuffer(matcher.compute_bitmask(), np.int32)
        size = self.size
        return words[size : 2 * size] | (words[:size] & self.silent) if first and self.start else words[:size]

    def number(self, token: int, first: bool) -> int:
        """The library's id of a token."""
        return token + self.start * (first and not _has(self.silent, token))


def _has(words: Int[np.ndarray, "W"], token: int) -> bool:
    return bool(words[token // BITS] >> (token % BITS) & 1)


class _Tokens:
    """What llguidance's TokenizerWrapper wants. Unforced grammars never cut a text, so that the call's result does not count."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes], special: list[int], end: int):
        self.tokens, self.special_token_ids, self.eos_token_id = tokens, special, end

    def __call__(self, text: Any) -> list[int]:
        return []


@functools.lru_cache(maxsize=4)
def alphabet(known: Known) -> Alphabet:
    """The alphabet of a tokenizer, made once: about two seconds for 50,000 tokens."""
    with extra("constrain", "llguidance"):
        from llguidance import LLTokenizer, TokenizerWrapper
    names = {i: name for i, name in silent_tokens(known.tokenizer).items() if i < known.vocabulary}
    names |= {end: known.tokenizer.piece(end) or f"<end {end}>" for end in known.ends}
    size = -(-known.vocabulary // BITS) * BITS
    later, first = (_padded(rows[: known.vocabulary], names, size) for rows in spellings(known.tokenizer))
    tokens = [names.get(i, "").encode() or token for i, token in enumerate(later)] + ([] if first == later else first)
    end = len(tokens)
    engine = LLTokenizer(TokenizerWrapper(_Tokens([*tokens, b"<end of text>"], [*names, end], end)), eos_token=list(known.ends) or [end])
    silent = np.packbits(np.isin(np.arange(size), list(names)), bitorder="little").view(np.int32)
    return Alphabet(engine, end - size, silent)


def _padded(rows: list[bytes], names: dict[int, str], size: int) -> list[bytes]:
    return [b"" if i in names else token for i, token in enumerate(rows)] + [b""] * (size - len(rows))


@dataclasses.dataclass
class Rows:
    """Where each row stands in the grammar.

    Attributes:
      most: new tokens at most.
      matchers: one for each row.
      words: int32 [R, W], what may follow now.
      live: bool [R], whose text goes on.
      lengths: int32 [R], new tokens so far, with the end. read: int32 [R], those of them that the matcher has read.
    """

    settings: Settings
    alphabet: Alphabet
    most: int
    matchers: list[Any]
    words: Int[np.ndarray, "R W"]
    live: Bool[np.ndarray, "R"]
    lengths: Int[np.ndarray, "R"]
    read: Int[np.ndarray, "R"]

    def look(self) -> None:
        """Finds what may follow. Rows whose grammar is complete, and which have no token to say so, end here.

        Raises ConfigError where no token goes on.
        """
        for row in np.flatnonzero(self.live):
            matcher = self.matchers[row]
            self.words[row] = self.alphabet.allowed(matcher, first=not self.read[row])
            if matcher.is_error():
                raise ConfigError(f"{constraint(self.settings)}: {_stuck(matcher, self.read[row])}")
            self.live[row] = self.words[row].any()

    def take(self, tokens: Int[np.ndarray, "R"]) -> None:
        """Reads the chosen tokens. Raises ConfigError where other settings have left none that may be."""
        for row in np.flatnonzero(self.live):
            token = int(tokens[row])
            if _has(self.words[row], token):
                self.matchers[row].consume_token(self.alphabet.number(token, first=not self.read[row]))
                self.read[row] += 1
            elif not self._forced(token, self.lengths[row]):
                name = constraint(self.settings)
                raise ConfigError(f"{name}: other settings ban all that may follow {self.lengths[row]} tokens: leave those out")
            self.lengths[row] += 1
            self.live[row] = token not in self.settings.eos_token_id

    def _forced(self, token: int, place: int) -> bool:
        """Whether a token that the grammar does not know stands here by forced_bos_token_id or forced_eos_token_id."""
        first, last = self.settings.forced_bos_token_id, self.settings.forced_eos_token_id
        return (place == 0 and token == first) or (place == self.most - 1 and token in last)


def constraint(settings: Settings) -> str | None:
    """The name of the setting that constrains the text."""
    return next((name for name in CONSTRAINTS if getattr(settings, name) is not None), None)


def _stuck(matcher: Any, read: int) -> str:
    if matcher.get_error().startswith("NoExtension"):
        return f"after {read} tokens none of the tokenizer's can follow: does it know all characters that are wanted?"
    return f"after {read} tokens: {_reason(matcher.get_error())}"


def open_rows(settings: Settings, tokenizer: Any, vocabulary: int, count: int, most: int) -> Rows | None:
    """The beginnings of `count` rows, of at most `most` new tokens; None where nothing constrains them.

    Raises ConfigError for a grammar that cannot be read, where nothing spells the tokens, and where llguidance is not installed.
    """
    name = constraint(settings)
    if name is None:
        return None
    if tokenizer is None:
        raise ConfigError(f"{name} is about texts: give tokenizer= too")
    with extra("constrain", "llguidance"):
        from llguidance import LLMatcher
    ends = tuple(sorted({end for end in settings.eos_token_id if end < vocabulary}))
    letters = alphabet(Known(tokenizer.digest, vocabulary, ends, tokenizer))
    grammar = LLMatcher.grammar_from_lark(lark(name, getattr(settings, name)))
    if problem := LLMatcher.validate_grammar(grammar, letters.engine):
        raise ConfigError(f"{name} cannot be read: {_reason(problem)}")
    one = LLMatcher(letters.engine, grammar, log_level=0)
    matchers, none = [one.deep_copy() for _ in range(count)], np.zeros(count, np.int32)
    return Rows(settings, letters, most, matchers, np.zeros((count, letters.size), np.int32), np.ones(count, bool), none, none.copy())


def lark(name: str, text: str) -> str:
    """A constraint in llguidance's variety of Lark. Raises ConfigError for a schema that is no JSON."""
    from llguidance import LLMatcher

    if name == "grammar":
        return text + UNFORCED
    if name == "regex":
        (grammar,) = json.loads(LLMatcher.grammar_from_regex(text))["grammars"]
        return grammar["lark_grammar"] + UNFORCED
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"json_schema is no JSON ({error}): give a dictionary, or its text") from error
    if isinstance(schema, dict) and isinstance(schema.get("x-guidance", {}), dict):
        schema = {**schema, "x-guidance": LAYOUT | schema.get("x-guidance", {})}
    return f"start: %json {json.dumps(schema)}{UNFORCED}"


def _reason(message: str) -> str:
    """One line of the library's many."""
    lines = message.strip().splitlines() or ["it says no more"]
    found = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])
    return re.sub(r"^at \d+\(\d+\): ", "", found)[:200]


def blocks(
    target: tuple[Any, Any], settings: Settings, begun: tuple[State, Array], read: tuple[Prompts, int, int], rows: Rows
) -> Iterator[tuple[Int[np.ndarray, "R 1"], State]]:
    """Columns of new tokens as they are made, and the state, until all rows have ended or as many as may be are made.

    Args:
      target: (model, params). begun: the state and the logits after the prompts.
      read: the prompts, how many of them are real, new tokens at most.
    """
    (model, params), (state, logits), (prompts, _, most) = target, begun, read
    seen = windows(model.config)
    state = loop.fold(state, seen) if any(seen) else state
    for made in range(1, most + 1):
        rows.look()
        if not rows.live.any():
            return
        fill = len(logits) - len(rows.live)  # rows that only fill up have ended
        words, over = np.pad(rows.words, ((0, fill), (0, 0))), np.pad(~rows.live, (0, fill))  # copies: the device reads them later
        state = _choose(settings, state, logits, words, over)
        column, _ = loop.seen(state)
        if made < most:
            state, logits = _go_on(model, params, loop.roomy(state, prompts.tokens.shape[1] + made + 1, seen))
        rows.take(np.asarray(column))
        yield np.asarray(column)[:, None], state


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _choose(settings: Settings, state: State, logits: Float[Array, "R V"], words: Int[Array, "R W"], over: Bool[Array, "R"]) -> State:
    """The state with a token more, one of those allowed; rows that are `over` end without one."""
    state = loop.choose(logits, {**state, "ended": state["ended"] | over, "allowed": words}, settings)
    return {name: value for name, value in state.items() if name != "allowed"}


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def _go_on(model: Any, params: Any, state: State) -> tuple[State, Float[Array, "R V"]]:
    return loop.forward(model, params, state)
