"""Text from a model: prompts in, their continuations out, by every method; the one door to decoding.

`generate` and `generate_tokens` work on ids, `stream_tokens` shows them as they come; texts are in `texts.py`. The
arguments are those of Hugging Face's `generate` (`inference/settings.py`); one that does nothing here is refused. Read next:
`inference/loop.py`.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxlm.errors import ConfigError
from jaxlm.inference import beam, constrain, contrastive, loop, speculative, stopping
from jaxlm.inference.ahead import compile_ahead, shapes
from jaxlm.inference.prompts import Prompts, read_prompts
from jaxlm.inference.settings import OWN, Settings, check_tokens, make_settings
from jaxlm.inference.turn import turn_for
from jaxlm.models import family, has_decoder, windows
from jaxlm.ops.special_ids import said, vocabulary

WRITING = ("causal-lm", "seq2seq-lm")  # the tasks whose head chooses a next token


@dataclasses.dataclass(frozen=True)
class Generated:
    """Attributes:
    tokens: the new ones, with what ends the row; then padding.
    lengths: how many of a row's tokens are no padding after its end.
    logprobs, entropies: of each token under the model's own distribution, in nats, 0 after the end; None where they were not
      asked for.
    top_ids, top_logprobs: its likeliest alternatives, the best first.
    accepted: of speculative decoding, the share of guesses that stayed; None: there were none.
    scores: of beam search, sum of log-probabilities / length ** length_penalty.
    """

    tokens: Int[np.ndarray, "R N"]
    lengths: Int[np.ndarray, "R"]
    logprobs: Float[np.ndarray, "R N"] | None = None
    entropies: Float[np.ndarray, "R N"] | None = None
    top_ids: Int[np.ndarray, "R N k"] | None = None
    top_logprobs: Float[np.ndarray, "R N k"] | None = None
    scores: Float[np.ndarray, "R"] | None = None
    accepted: float | None = None


def generate(
    model: Any,
    params: Any,
    tokens: Int[np.ndarray, "B T"],
    *,
    mask: Bool[np.ndarray, "B T"] | None = None,
    tokenizer: Any = None,
    assistant: tuple[Any, Any] | None = None,
    **named: Any,
) -> Generated:
    """The continuations of prompts, num_return_sequences a prompt, with what else was asked for.

    Args:
      mask: False on padding, on either side.
      tokenizer: for `stop_strings`, `regex`, `json_schema`, `grammar`.
      assistant: (model, params) that guess, of a smaller model with the same vocabulary; the tokens do not depend on it.
      named: see `Settings`.

    Raises:
      ConfigError: an empty prompt, ids outside the vocabulary, a prompt and its continuation longer than the model, or an
        argument that is not known or cannot be.
    """
    settings = settings_for(model, named)
    prompts, count, most = read_prompts(model, tokens, mask, settings)
    speculative.check(model, assistant, settings, prompts, most)
    if settings.num_beams > 1:
        whole, lengths, scores = beam.search(model, params, settings, prompts, count, most)
        return Generated(whole, lengths, scores=scores)
    rows = count * settings.num_return_sequences
    stops = stopping.watch(settings, tokenizer, prompts, count)
    held = constrain.open_rows(settings, tokenizer, vocabulary(model.config), rows, most)
    made, last = [np.zeros((rows, 0), np.int32)], {"details": loop.no_details(rows, most, settings.logprobs)}
    for block, state in _blocks(model, params, settings, (prompts, count, most), assistant, held):
        made, last = [*made, block[:rows]], state
        if stops and stops.all_met(np.concatenate(made, axis=1), block.shape[1]):
            break
    whole, lengths = stopping.cut(np.concatenate(made, axis=1), settings, stops, held and held.lengths)
    accepted = speculative.accepted(last)
    return Generated(whole, lengths, accepted=accepted, **_details(last.get("details"), prompts.tokens.shape[1], lengths, whole.shape[1]))


def _details(details, first, lengths, width):
    names = {"logprob": "logprobs", "entropy": "entropies"}
    there = np.arange(width) < lengths[:, None]
    clean = lambda array: np.where(there.reshape(there.shape + (1,) * (array.ndim - 2)), array, 0)
    cut = lambda array: clean(np.asarray(array)[: len(lengths), first : first + width])
    return {names.get(name, name): cut(array) for name, array in (details or {}).items()}


def settings_for(model: Any, named: dict[str, Any]) -> Settings:
    """Settings of a call; what it leaves out and the model's configuration says is the model's."""
    _check_writes(model)
    over = {
        name: "looks at an encoder's text" for name in ("encoder_repetition_penalty", "encoder_no_repeat_ngram_size") if named.get(name)
    }
    if named.get("decoder_start_token_id") is not None:
        over["decoder_start_token_id"] = "is what a decoder over an encoder reads first"
    if over and not has_decoder(model):
        name, what = next(iter(over.items()))
        raise ConfigError(f"{name} {what}, and {model.config.model_type} has no encoder: leave it out")
    own = {name: said(model.config, name) for name in OWN}
    settings = make_settings({name: value for name, value in own.items() if value is not None} | named)
    check_tokens(settings, vocabulary(model.config))
    return settings


def _check_writes(model: Any) -> None:
    """Refuse a model with a head that chooses no next token, and an encoder alone."""
    kind, tasks = model.config.model_type, family(model.config).NAMES.architectures
    if not getattr(model.config, "is_decoder", True):
        mend = "jaxlm.inference.fill.fill_mask fills its masks; a decoder is trained with is_decoder=true and task=causal-lm"
        raise ConfigError(f"this {kind} sees what comes after a token, and writes no text: {mend}")
    if model.task not in WRITING:
        fit = next((f"load it with task={task!r}" for task in WRITING if task in tasks), "take a decoder, or an encoder with one")
        raise ConfigError(f"a {kind} of task={model.task!r} writes no text: {fit}")


def refuse_logprobs(named: dict[str, Any]) -> None:
    """Where tokens or texts alone are given back, nobody would be told: ConfigError."""
    if named.get("logprobs") is not None:
        raise ConfigError(f"logprobs={named['logprobs']}: only jaxlm.inference.generate.generate tells them: call it, or leave them out")


def _blocks(
    model: Any,
    params: Any,
    settings: Settings,
    read: tuple[Prompts, int, int],
    assistant: tuple[Any, Any] | None,
    held: constrain.Rows | None,
) -> Iterator[tuple[np.ndarray, dict]]:
    """Columns of new tokens [R, n] as they are made, and the state; until all rows have ended or as many as may be are made."""
    prompts, count, most = read
    if most == 0:
        return
    shared, step, seen = settings.shared, loop.step, windows(model.config)
    begin = lambda params, prompts: loop.begin(model, params, settings, prompts, most, settings.num_return_sequences, count)
    if held is not None:
        yield from constrain.blocks((model, params), shared, begin(params, prompts), read, held)
        return
    write, advance, more = (_one_by_one, loop.advance, ()) if jax.default_backend() == "cpu" else (_many, loop.advance_many, (_STOP,))
    guessed = assistant is not None or settings.prompt_lookup_num_tokens is not None
    if settings.penalty_alpha is not None:
        step, seen = contrastive.step, ()
        state, *_ = loop.advance(step, model, params, shared, contrastive.begin(shared, *begin(params, prompts)))
    elif guessed:
        state = loop.first(shared, *begin(params, prompts))
    else:
        start = lambda params, prompts: _fold(loop.first(shared, *begin(params, prompts)), seen)
        weights = turn_for(model, params, len(prompts.tokens) * settings.num_return_sequences, most)
        shape = str(jax.tree.map(np.shape, prompts))
        key = (model, shared, settings.num_return_sequences, settings.cache_dtype, weights is params, shape)
        wait = compile_ahead(advance, key, lambda: (step, model, weights, shared, shapes(start, params, prompts), *more))
        state, params = start(params, prompts), weights
        wait()
    if guessed:
        yield from speculative.blocks((model, params), assistant, shared, state, read)
        return
    roomy = functools.partial(loop.roomy, windows=seen)
    yield from write(functools.partial(advance, step, model, params, shared), roomy, state, prompts.tokens.shape[1], most)


_STOP = jax.ShapeDtypeStruct((), jnp.int32)


def _fold(state: dict, seen: tuple) -> dict:
    return loop.fold(state, seen) if any(seen) else state


def _one_by_one(advance, roomy, state, first, most):
    """The host reads token n while the device computes token n + 1."""
    column, over = loop.seen(state)
    for made in range(1, most + 1):
        column_before, over_before = column, over
        if made < most:
            state = roomy(state, first + made + 1)
            state, column, over = advance(state)
        yield np.asarray(column_before)[:, None], state
        if over_before:
            return


def _many(advance, roomy, state, first, most):
    """The device writes a block of tokens between two looks of the host."""
    made = 1
    yield np.asarray(loop.seen(state)[0])[:, None], state
    while made < most and not bool(state["ended"].all()):
        state = roomy(state, first + made + 1)
        stop = min(first + made + loop.BLOCK, first + most, state["tokens"].shape[1])
        state = advance(state, jnp.int32(stop))
        reached = int(state["now"]) - first
        yield np.asarray(state["tokens"])[:, first + made : first + reached], state
        made = reached


def generate_tokens(
    model: Any, params: Any, tokens: Int[np.ndarray, "B T"], *, mask: Bool[np.ndarray, "B T"] | None = None, **named: Any
) -> Int[np.ndarray, "R N"]:
    """The new tokens of `generate`: a row that has met one of `eos_token_id` goes on with padding."""
    refuse_logprobs(named)
    return generate(model, params, tokens, mask=mask, **named).tokens


def stream_tokens(
    model: Any,
    params: Any,
    tokens: Int[np.ndarray, "B T"],
    *,
    mask: Bool[np.ndarray, "B T"] | None = None,
    tokenizer: Any = None,
    assistant: tuple | None = None,
    **named: Any,
) -> Iterator[Int[np.ndarray, "R"]]:
    """The new tokens, one column at a time, by greedy decoding or by draws."""
    refuse_logprobs(named)
    settings = settings_for(model, named)
    if settings.num_beams > 1 or settings.penalty_alpha is not None or settings.stop_strings:
        raise ConfigError("tokens come one by one in greedy decoding and sampling only: leave out num_beams, penalty_alpha, stop_strings")
    read = prompts, count, most = read_prompts(model, tokens, mask, settings)
    speculative.check(model, assistant, settings, prompts, most)
    rows = count * settings.num_return_sequences
    held = constrain.open_rows(settings, tokenizer, vocabulary(model.config), rows, most)
    for block, _ in _blocks(model, params, settings, read, assistant, held):
        yield from block[:rows].T
