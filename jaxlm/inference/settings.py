"""How text is to be decoded: one value with Hugging Face's names, checked once. Read next: `inference/rules.py`."""

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlm.errors import ConfigError
from jaxlm.ops.sampling import GREEDY, Sampling
from jaxlm.overrides import coerce, field_types

# What a checkpoint's files may say of decoding, and is taken for what a call leaves out.
OWN = ("eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "bad_words_ids")
OWN += ("suppress_tokens", "begin_suppress_tokens")
Ends = int | Sequence[int] | None  # the ids that end a text: one, several, none
Biases = tuple[tuple[tuple[int, ...], float], ...]
CONSTRAINTS = ("regex", "json_schema", "grammar")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is written, how the next token is chosen, and what is held against it; the names are those of Hugging Face's `generate`.

    Attributes:
      max_new_tokens: of every row; `max_length` counts the longest prompt too; of both the lesser.
      min_length, min_new_tokens: no end before; the former counts the prompt too.
      do_sample: draw the next token, after `temperature`, `top_k`, `top_p`, `min_p`, `typical_p`; False: the likeliest.
      num_beams: sequences kept by beam search; 1: none. `length_penalty`: scores are divided by length ** length_penalty;
        `early_stopping`: True, once num_beams are finished; False, where a better one is unlikely; "never", where none can be.
      num_beam_groups, diversity_penalty: diverse beam search.
      penalty_alpha: contrastive search among `top_k` tokens.
      num_return_sequences: rows of the result for each prompt.
      repetition_penalty, encoder_repetition_penalty: of what the row, or the encoder's text, has already.
      presence_penalty, frequency_penalty: of what has been written, once and for each time (OpenAI's).
      no_repeat_ngram_size, encoder_no_repeat_ngram_size: none of this length twice.
      bad_words_ids: sequences that are never completed. sequence_bias: {sequence: added to its last token's logit}; logit_bias: {id: ...}.
      forced_bos_token_id: where one token alone has been read; forced_eos_token_id: one or several, as the last of max_new_tokens.
      suppress_tokens, begin_suppress_tokens: never, or not as the first new token.
      eos_token_id: one or several that end a row. pad_token_id: what follows the end; None: the first end.
      decoder_start_token_id: what a decoder over an encoder reads first; None: the model's.
      stop_strings: a row ends with the token that completes one of them (needs a tokenizer).
      regex, json_schema, grammar: what the new text must match, one of them (needs a tokenizer); the grammar is llguidance's Lark.
      prompt_lookup_num_tokens: guess so many tokens from what followed the last `max_matching_ngram_size` tokens before.
      num_assistant_tokens: guesses of the `assistant`, a smaller model, between two calls of the model; None: 5.
      logprobs: of every chosen token its log-probability and the entropy, and of so many alternatives; None: nothing.
      cache_dtype: "int8" keeps keys and values in a quarter of float32's memory.
      seed: of the draws; several: one for each row of the result, which then depends on nothing else.
    """

    max_new_tokens: int | None = None
    max_length: int | None = None
    min_length: int = 0
    min_new_tokens: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    num_beams: int = 1
    num_beam_groups: int = 1
    diversity_penalty: float = 0.0
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    num_return_sequences: int = 1
    penalty_alpha: float | None = None
    repetition_penalty: float = 1.0
    encoder_repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    sequence_bias: Biases = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_id: tuple[int, ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    eos_token_id: tuple[int, ...] = ()
    pad_token_id: int | None = None
    decoder_start_token_id: int | None = None
    stop_strings: tuple[str, ...] = ()
    regex: str | None = None
    json_schema: str | None = None
    grammar: str | None = None
    prompt_lookup_num_tokens: int | None = None
    max_matching_ngram_size: int = 2
    num_assistant_tokens: int | None = None
    logprobs: int | None = None
    cache_dtype: str | None = None
    seed: int | tuple[int, ...] = 0

    def __post_init__(self):
        filters = Sampling(self.temperature, self.top_k, self.top_p, self.min_p, self.typical_p)  # checks its own numbers
        least = {"min_length": 0, "min_new_tokens": 0, "num_beams": 1, "num_beam_groups": 1, "num_return_sequences": 1}
        least |= {"no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "max_matching_ngram_size": 1}
        least |= {name: 0 for name in ("max_new_tokens", "max_length", "logprobs") if getattr(self, name) is not None}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ConfigError(f"{name}={getattr(self, name)}: it is at least {low}")
        for name in ("repetition_penalty", "encoder_repetition_penalty"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)}: a positive number; 1.0 is no penalty")
        for name in ("presence_penalty", "frequency_penalty", "diversity_penalty", "length_penalty"):
            if not math.isfinite(getattr(self, name)):
                raise ConfigError(f"{name}={getattr(self, name)}: it is a finite number")
        for problems in (_contradictions(self), _idle(self, filters)):  # one after the other: both may speak of the same name
            for name, problem in problems.items():
                if problem:
                    raise ConfigError(f"{name}={_short(getattr(self, name))}: {problem}")

    @property
    def sampling(self) -> Sampling:
        """The filters of a draw; greedy where nothing is drawn."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.min_p, self.typical_p) if self.do_sample else GREEDY

    @property
    def shared(self) -> "Settings":
        """Without what no compiled step depends on, so that calls share it."""
        none = dict.fromkeys(("max_new_tokens", "max_length", *CONSTRAINTS))
        return dataclasses.replace(self, **none, num_return_sequences=1, stop_strings=(), seed=0)

    @property
    def pad(self) -> int:
        """What stands after a row's end."""
        return self.pad_token_id if self.pad_token_id is not None else (*self.eos_token_id, 0)[0]

    @property
    def biases(self) -> Biases:
        """All that is added to logits of single tokens and last tokens of sequences; bad words are worth -inf."""
        single = tuple(((token,), bias) for token, bias in self.logit_bias)
        ends = {(token,) for token in self.eos_token_id}  # an end is never a bad word, as in transformers
        return (*self.sequence_bias, *single, *((words, float("-inf")) for words in self.bad_words_ids if words not in ends))


def _short(value: Any) -> str:
    return " ".join(str(value).split())[:60]


def _contradictions(settings: Settings) -> dict[str, Any]:
    """Name of a setting -> why it cannot be, or a false value."""
    beams, returned, groups = settings.num_beams, settings.num_return_sequences, settings.num_beam_groups
    early = settings.early_stopping
    constraints = [name for name in CONSTRAINTS if getattr(settings, name) is not None]
    guessed = settings.prompt_lookup_num_tokens or settings.num_assistant_tokens
    alone = beams > 1 or settings.penalty_alpha is not None or guessed
    return {
        **{name: len(constraints) > 1 and f"one at a time: there is {constraints[0]} too" for name in constraints[1:]},
        **{name: alone and "is for greedy decoding and draws: leave out beams, penalty_alpha and guesses" for name in constraints[:1]},
        "early_stopping": not isinstance(early, bool) and early != "never" and "True, False or 'never'",
        "num_return_sequences": (returned > beams if beams > 1 else returned > 1 and not settings.do_sample)
        and "more than there are: raise num_beams, or set do_sample=True",
        "num_beam_groups": (beams % groups or (groups > 1 and settings.do_sample)) and "must divide num_beams, and nothing is drawn",
        "diversity_penalty": settings.diversity_penalty and groups == 1 and "is between groups: set num_beam_groups",
        "penalty_alpha": settings.penalty_alpha is not None
        and (beams > 1 or settings.do_sample or not settings.top_k or not 0 <= settings.penalty_alpha <= 1)
        and "contrastive search takes a share from 0 to 1 and top_k, without beams or do_sample",
        "cache_dtype": settings.cache_dtype not in (None, "int8", "float32", "bfloat16") and "int8, float32 or bfloat16",
        "prompt_lookup_num_tokens": settings.prompt_lookup_num_tokens is not None
        and (beams > 1 or settings.prompt_lookup_num_tokens < 1 or settings.penalty_alpha is not None)
        and "at least 1, and of one sequence: leave out num_beams and penalty_alpha",
        "num_assistant_tokens": settings.num_assistant_tokens is not None and settings.num_assistant_tokens < 1 and "at least 1",
    }


def _idle(settings: Settings, filters: Sampling) -> dict[str, Any]:
    """Name of a setting that would do nothing -> what it needs, or a false value."""
    one, drawn = settings.num_beams == 1, settings.do_sample
    most = math.inf if settings.max_new_tokens is None else settings.max_new_tokens
    whole = math.inf if settings.max_length is None else settings.max_length
    draw = "nothing is drawn: set do_sample=True, or leave it out"
    return {
        "temperature": not drawn and filters.temperature not in (0, 1) and draw,
        "top_k": not drawn and filters.top_k is not None and settings.penalty_alpha is None and draw,
        "top_p": not drawn and filters.top_p not in (None, 1) and draw,
        "min_p": not drawn and filters.min_p and draw,
        "typical_p": not drawn and filters.typical_p not in (None, 1) and draw,
        "length_penalty": one and settings.length_penalty != 1 and "is of beam search: set num_beams",
        "early_stopping": one and settings.early_stopping is not False and "is of beam search: set num_beams",
        "max_matching_ngram_size": settings.prompt_lookup_num_tokens is None
        and settings.max_matching_ngram_size != 2
        and "is of guesses from the text: set prompt_lookup_num_tokens",
        "min_new_tokens": settings.min_new_tokens > most and "more than max_new_tokens: raise that, or lower this",
        "min_length": settings.min_length > whole and "more than max_length: raise that, or lower this",
    }


def make_settings(named: Mapping[str, Any]) -> Settings:
    """Settings from arguments; None of Hugging Face's "not set" is the default.

    Raises ConfigError for a number out of its range and for an argument that does nothing here: none is ignored.
    """
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    for name in named:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            raise ConfigError(f"{name} is not supported: " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(fields)}"))
    return Settings(**{name: _fitted(name, value) for name, value in named.items() if value is not None})


IDS = ("eos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens")
PAIRS = ("sequence_bias", "logit_bias")


def _fitted(name: str, value: Any) -> Any:
    """A value as its field holds it; raises ConfigError where it is none."""
    value = _schema_text(value) if name == "json_schema" else _plain(value)
    if name in (*IDS, "stop_strings") and isinstance(value, (int, str)):
        value = (value,)
    if name in PAIRS:
        value = value.items() if isinstance(value, Mapping) else value
    try:
        value = tuple((_plain(key), float(bias)) for key, bias in value) if name in PAIRS else value
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}={str(value)[:60]}: it takes {{ids: a number}}") from error
    value = coerce(value, field_types(Settings(), name, name), name)
    wrong = _wrong_parts(name, value)
    if wrong:
        raise ConfigError(f"{name}={str(value)[:60]}: {wrong}")
    return value


def _schema_text(value: Any) -> Any:
    try:
        return json.dumps(value) if isinstance(value, (Mapping, bool)) else value
    except (TypeError, ValueError) as error:
        raise ConfigError(f"json_schema is no JSON ({error}): give a dictionary, or its text") from error


def _wrong_parts(name: str, value: Any) -> str | None:
    """What is wrong inside a tuple, or with an id."""
    natural = lambda one, top=2**31: isinstance(one, int) and not isinstance(one, bool) and 0 <= one < top
    ids = lambda many: isinstance(many, tuple) and bool(many) and all(map(natural, many))
    numbers = lambda: not any(math.isnan(bias) or bias == math.inf for _, bias in value)
    if name in IDS:
        return None if all(map(natural, value)) else "ids of tokens, from 0 on"
    if name.endswith("_token_id"):
        return None if natural(value) else "the id of a token, from 0 on"
    if name == "bad_words_ids":
        return None if all(map(ids, value)) else "sequences of ids, from 0 on, none of them empty"
    if name == "sequence_bias":
        return None if all(ids(sequence) for sequence, _ in value) and numbers() else "{(id, ...): a number}, no sequence empty"
    if name == "logit_bias":
        return None if all(natural(token) for token, _ in value) and numbers() else "{id: a number}"
    if name == "stop_strings":
        return None if all(isinstance(string, str) and string for string in value) else "strings, none of them empty"
    if name == "seed":
        seeds = value if isinstance(value, tuple) else (value,)
        return None if seeds and all(natural(seed, 2**32) for seed in seeds) else "from 0 to 2**32 - 1; several: one for each row"
    return None


def _plain(value: Any) -> Any:
    """Arrays, sets and lists as tuples, and NumPy's numbers as Python's: what can be compared and hashed."""
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value


def check_tokens(settings: Settings, vocabulary: int) -> None:
    """Refuse what is said of tokens that a model cannot write; an end or a padding that it has not does no harm.

    Raises ConfigError naming the argument.
    """
    said = {name: getattr(settings, name) for name in ("suppress_tokens", "begin_suppress_tokens", "forced_eos_token_id")}
    said |= {name: (one,) for name in ("forced_bos_token_id", "decoder_start_token_id") if (one := getattr(settings, name)) is not None}
    said["logit_bias"] = tuple(token for token, _ in settings.logit_bias)
    said["sequence_bias"] = tuple(token for sequence, _ in settings.sequence_bias for token in sequence)
    said["bad_words_ids"] = tuple(token for sequence in settings.bad_words_ids for token in sequence)
    if (settings.logprobs or 0) > vocabulary:
        raise ConfigError(f"logprobs={settings.logprobs}: there are {vocabulary} tokens: ask for fewer alternatives")
    for name, tokens in said.items():
        if tokens and max(tokens) >= vocabulary:
            raise ConfigError(f"{name} holds {max(tokens)}, outside the vocabulary of {vocabulary}: is it of another tokenizer?")
