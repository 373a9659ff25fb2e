"""How text is to be decoded: one value with Hugging Face's names, checked once. Read next: `inference/rules.py`."""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxlm.errors import ConfigError
from jaxlm.ops.sampling import GREEDY, Sampling
from jaxlm.overrides import tuples

Ends = int | Sequence[int] | None  # the ids that end a text: one, several, none
Biases = tuple[tuple[tuple[int, ...], float], ...]


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is written, how the next token is chosen, and what is held against it; the names are those of Hugging Face's `generate`.

    Attributes:
      max_new_tokens: of every row; `max_length` counts the prompt too.
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
      forced_bos_token_id: where one token alone has been read; forced_eos_token_id: as the last of max_new_tokens.
      suppress_tokens, begin_suppress_tokens: never, or not as the first new token.
      eos_token_id: one or several that end a row. pad_token_id: what follows the end; None: the first end.
      decoder_start_token_id: what a decoder over an encoder reads first; None: the model's.
      stop_strings: a row ends with the token that completes one of them (needs a tokenizer).
      prompt_lookup_num_tokens: guess so many tokens from what followed the last `max_matching_ngram_size` tokens before.
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
    forced_eos_token_id: int | None = None
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    eos_token_id: tuple[int, ...] = ()
    pad_token_id: int | None = None
    decoder_start_token_id: int | None = None
    stop_strings: tuple[str, ...] = ()
    prompt_lookup_num_tokens: int | None = None
    max_matching_ngram_size: int = 2
    logprobs: int | None = None
    cache_dtype: str | None = None
    seed: int | tuple[int, ...] = 0

    def __post_init__(self):
        self.sampling  # noqa: B018 (checks its own numbers)
        least = {"min_length": 0, "min_new_tokens": 0, "num_beams": 1, "num_beam_groups": 1, "num_return_sequences": 1}
        least |= {"no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "max_matching_ngram_size": 1}
        least |= {name: 0 for name in ("max_new_tokens", "max_length", "logprobs") if getattr(self, name) is not None}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ConfigError(f"{name}={getattr(self, name)}: it is at least {low}")
        for name in ("repetition_penalty", "encoder_repetition_penalty"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}={getattr(self, name)}: a positive number; 1.0 is no penalty")
        for name, problem in _contradictions(self).items():
            if problem:
                raise ConfigError(f"{name}={getattr(self, name)}: {problem}")

    @property
    def sampling(self) -> Sampling:
        """The filters of a draw; greedy where nothing is drawn."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.min_p, self.typical_p) if self.do_sample else GREEDY

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


def _contradictions(settings: Settings) -> dict[str, Any]:
    """Name of a setting -> why it cannot be, or a false value."""
    beams, returned, groups = settings.num_beams, settings.num_return_sequences, settings.num_beam_groups
    early = settings.early_stopping
    return {
        "early_stopping": early not in (True, False, "never") and "True, False or 'never'",
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
    given = {name: _plain(name, value) for name, value in named.items() if value is not None}
    return Settings(**given)


def _plain(name: str, value: Any) -> Any:
    if name in ("eos_token_id", "suppress_tokens", "begin_suppress_tokens", "stop_strings"):
        return (value,) if isinstance(value, (int, str)) else tuple(value)
    if name in ("sequence_bias", "logit_bias"):
        pairs = value.items() if isinstance(value, Mapping) else value
        return tuple((tuples(key), float(bias)) for key, bias in pairs)
    return tuples(value)
