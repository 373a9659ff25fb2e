"""Text from a model: prompts in, their continuations out, by every method; the one door to decoding.

`generate_tokens` works on ids, `generate_text` on texts, `stream_tokens` and `stream_text` show the tokens as they come. The
arguments are those of Hugging Face's `generate` (`inference/settings.py`); one that does nothing here is refused. Read next:
`inference/loop.py`.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxlm.errors import ConfigError, DataError
from jaxlm.inference import loop, stopping
from jaxlm.inference.prompts import Prompts, read_prompts
from jaxlm.inference.settings import Ends, Settings, make_settings
from jaxlm.models import dims, has_decoder

# What a checkpoint's config.json may say of decoding, and is taken for what a call leaves out.
OWN = ("eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "bad_words_ids")
OWN += ("suppress_tokens", "begin_suppress_tokens")


@dataclasses.dataclass(frozen=True)
class Generated:
    """Attributes:
    tokens: the new ones, with what ends the row; then padding.
    logprobs, entropies: of each token under the model's own distribution, in nats; None where they were not asked for.
    top_ids, top_logprobs: its likeliest alternatives, the best first.
    scores: of beam search, sum of log-probabilities / length ** length_penalty.
    """

    tokens: Int[np.ndarray, "R N"]
    logprobs: Float[np.ndarray, "R N"] | None = None
    entropies: Float[np.ndarray, "R N"] | None = None
    top_ids: Int[np.ndarray, "R N k"] | None = None
    top_logprobs: Float[np.ndarray, "R N k"] | None = None
    scores: Float[np.ndarray, "R"] | None = None


def generate(
    model: Any,
    params: Any,
    tokens: Int[np.ndarray, "B T"],
    *,
    mask: Bool[np.ndarray, "B T"] | None = None,
    tokenizer: Any = None,
    **named: Any,
) -> Generated:
    """The continuations of prompts, num_return_sequences a prompt, with what else was asked for.

    Args:
      mask: False on padding, on either side.
      tokenizer: for `stop_strings`.
      named: see `Settings`.

    Raises:
      ConfigError: an empty prompt, ids outside the vocabulary, a prompt and its continuation longer than the model, or an
        argument that is not known or cannot be.
    """
    settings = settings_for(model, named)
    stops = stopping.watch(settings, tokenizer)
    prompts, count, most = read_prompts(model, tokens, mask, settings)
    copies = settings.num_return_sequences
    rows = count * copies
    if most == 0:
        return Generated(np.zeros((rows, 0), np.int32))
    made = []
    for block, state in _blocks(model, params, settings, prompts, count, most):
        made.append(block[:rows])
        details = state.get("details")
        if stops and stops.all_met(np.concatenate(made, axis=1)):
            break
    whole = np.concatenate(made, axis=1)
    whole = stops.cut(whole, settings) if stops else whole
    return Generated(whole, **_details(details or {}, prompts.tokens.shape[1], whole))


def _details(details, first, whole):
    rows, count = whole.shape
    found = {name: np.asarray(array)[:rows, first : first + count] for name, array in details.items()}
    names = {"logprob": "logprobs", "entropy": "entropies"}
    return {names.get(name, name): array for name, array in found.items()}


def settings_for(model: Any, named: dict[str, Any]) -> Settings:
    """Settings of a call; what it leaves out and the model's configuration says is the model's."""
    if settings_only := [name for name in ("encoder_repetition_penalty", "encoder_no_repeat_ngram_size") if named.get(name)]:
        if not has_decoder(model):
            raise ConfigError(f"{settings_only[0]} looks at an encoder's text, and {model.config.model_type} has no encoder: leave it out")
    own = {name: getattr(model.config, name, model.config.extra.get(name)) for name in OWN}
    return make_settings({name: value for name, value in own.items() if value is not None} | named)


def _blocks(model: Any, params: Any, settings: Settings, prompts: Prompts, count: int, most: int) -> Iterator[tuple[np.ndarray, dict]]:
    """Columns of new tokens [R, n] as they are made, and the state; until all rows have ended or `most` are made."""
    state, logits = loop.begin(model, params, settings, prompts, most, settings.num_return_sequences, count)
    state = loop.first(settings, state, logits)
    write = _one_by_one if jax.default_backend() == "cpu" else _many
    yield from write(model, params, _shared(settings), state, prompts.tokens.shape[1], most)


def _shared(settings: Settings) -> Settings:
    """Without what no compiled step depends on, so that calls share it."""
    return dataclasses.replace(settings, max_new_tokens=None, max_length=None, num_return_sequences=1, stop_strings=(), seed=0)


def _one_by_one(model, params, settings, state, first, most):
    """The host reads token n while the device computes token n + 1."""
    column, over = loop.seen(state)
    for made in range(1, most + 1):
        column_before, over_before = column, over
        if made < most:
            state = loop.roomy(state, first + made + 1)
            state, column, over = loop.advance(loop.step, model, params, settings, state)
        yield np.asarray(column_before)[:, None], state
        if over_before:
            return


def _many(model, params, settings, state, first, most):
    """The device writes a block of tokens between two looks of the host."""
    made = 1
    yield np.asarray(loop.seen(state)[0])[:, None], state
    while made < most and not bool(state["ended"].all()):
        state = loop.roomy(state, first + made + 1)
        stop = min(first + made + loop.BLOCK, first + most, state["tokens"].shape[1])
        state = loop.advance_many(loop.step, model, params, settings, state, jnp.int32(stop))
        reached = int(state["now"]) - first
        yield np.asarray(state["tokens"])[:, first + made : first + reached], state
        made = reached


def generate_tokens(
    model: Any, params: Any, tokens: Int[np.ndarray, "B T"], *, mask: Bool[np.ndarray, "B T"] | None = None, **named: Any
) -> Int[np.ndarray, "R N"]:
    """The new tokens of `generate`: a row that has met one of `eos_token_id` goes on with padding."""
    return generate(model, params, tokens, mask=mask, **named).tokens


def generate_text(model: Any, params: Any, tokenizer: Any, prompts: list[str], **named: Any) -> list[str]:
    """The continuations of texts, without the prompts and without special tokens; what else is said is for `generate`.

    A text ends at an `eos_token_id`: that of the call, else of the model's config.json, else of the tokenizer.
    """
    if not prompts:
        return []
    rows = [list(tokenizer.encode(prompt)) or _start(tokenizer) for prompt in prompts]
    width = max(map(len, rows))
    tokens = np.array([[0] * (width - len(row)) + row for row in rows], np.int32)
    mask = np.array([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    named = {**named, "eos_token_id": ends_of(model, tokenizer, named)}
    new = generate(model, params, tokens, mask=mask, tokenizer=tokenizer, **named).tokens
    return [spell(tokenizer, row, named["eos_token_id"]) for row in new]


def spell(tokenizer: Any, row: Int[np.ndarray, "N"], ends: Ends) -> str:
    """The text of new tokens before their end, without control tokens."""
    controls = set(tokenizer.controls.values())
    return tokenizer.decode([token for token in until(row, ends) if token not in controls])


def stream_tokens(
    model: Any, params: Any, tokens: Int[np.ndarray, "B T"], *, mask: Bool[np.ndarray, "B T"] | None = None, **named: Any
) -> Iterator[Int[np.ndarray, "R"]]:
    """The new tokens, one column at a time, by greedy decoding or by draws."""
    settings = settings_for(model, named)
    if settings.num_beams > 1 or settings.penalty_alpha is not None or settings.stop_strings:
        raise ConfigError("tokens come one by one in greedy decoding and sampling only: leave out num_beams, penalty_alpha, stop_strings")
    prompts, count, most = read_prompts(model, tokens, mask, settings)
    if most == 0:
        return
    for block, _ in _blocks(model, params, settings, prompts, count, most):
        yield from block[: count * settings.num_return_sequences].T


def stream_text(model: Any, params: Any, tokenizer: Any, prompt: str, **named: Any) -> Iterator[str]:
    """The continuation of one text, piece by piece as it is made; stops at the model's context or the end of the document."""
    ids = list(tokenizer.encode(prompt)) or _start(tokenizer)
    limit = dims(model.config).context
    room = 2**30 if limit is None else limit if has_decoder(model) else max(limit - len(ids), 1)
    ends = ends_of(model, tokenizer, named)
    named = {**named, "eos_token_id": ends, "max_new_tokens": min(named.get("max_new_tokens", 64), room)}
    new, shown = [], ""
    for column in stream_tokens(model, params, np.array([ids], np.int32), **named):
        new.append(int(column[0]))
        text = spell(tokenizer, new, ends)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # a character whose bytes are not all here yet
            yield text[len(shown) :]
            shown = text


def sample_texts(model: Any, params: Any, tokenizer: Any, count: int, seed: int = 0, length: int = 120) -> list[str]:
    """`count` texts drawn from the beginning of a document (temperature 0.8, top-k 50)."""
    if not count:
        return []
    tokens = np.full((count, 1), _beginning(tokenizer), np.int32)
    new = min(length, dims(model.config).context - 1)
    arguments = {"do_sample": True, "temperature": 0.8, "top_k": 50, "seed": seed, "eos_token_id": tokenizer.eos_id}
    rows = generate_tokens(model, params, tokens, max_new_tokens=new, **arguments)
    return [tokenizer.decode(until(row, tokenizer.eos_id)) for row in rows]


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
    for ends in (named.get("eos_token_id"), getattr(model.config, "eos_token_id", model.config.extra.get("eos_token_id"))):
        if ends is not None:
            return ends
    return tokenizer.eos_id
