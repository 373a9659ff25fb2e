"""Text from a decoder: prefill once, then one compiled step a token over a cache.

The loop is driven by the host, which reads token n while the device computes token n + 1; the cache is donated, so it is
updated in place. Prompts are padded on the left to a bucket of lengths, so that near lengths share one program.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int

from jaxlm.errors import ConfigError, DataError
from jaxlm.layers.cache import make_cache
from jaxlm.layers.embed import unembed
from jaxlm.models import dims
from jaxlm.ops.sampling import GREEDY, Sampling, sample

Ends = int | Sequence[int] | None  # the ids that end a text: one, several, none
BUCKETS = tuple(sorted({int(round(32 * 2 ** (i / 2) / 8)) * 8 for i in range(24)}))


def bucket(length: int, limit: int) -> int:
    """The nearest bucket length at or above `length`, at most `limit`."""
    return min(next((size for size in BUCKETS if size >= length), limit), limit)


def stream_tokens(
    model: Any,
    params: Any,
    tokens: Int[np.ndarray, "B T"],
    *,
    mask: Bool[np.ndarray, "B T"] | None = None,
    max_new_tokens: int = 64,
    sampling: Sampling = GREEDY,
    eos_id: Ends = None,
    seed: int = 0,
) -> Iterator[Int[np.ndarray, "B"]]:
    """The new tokens, one column at a time; after one of `eos_id` a row goes on with the first of them.

    Raises:
      ConfigError: an empty prompt, ids outside the vocabulary, or a prompt and its continuation longer than the model.
    """
    tokens, mask = _checked(model, tokens, mask, max_new_tokens)
    if max_new_tokens == 0:
        return
    cache, tokens, mask = _enter(model, tokens, mask, max_new_tokens)
    keys = jax.random.split(jax.random.key(seed), max_new_tokens)
    token, cache = _advance(model, sampling, params, cache, tokens, mask, keys[0])
    ended, ends = np.zeros(len(tokens), bool), _several(eos_id)
    for i in range(max_new_tokens):
        following = None
        if i + 1 < max_new_tokens:
            following, cache = _advance(model, sampling, params, cache, token[:, None], None, keys[i + 1])
        column = np.asarray(token)
        yield np.where(ended, ends[0], column) if ends else column
        ended = ended | np.isin(column, ends)
        if ended.all():
            return
        token = following


def _checked(model, tokens, mask, new):
    tokens = np.asarray(tokens, np.int32)
    mask = np.ones(tokens.shape, bool) if mask is None else np.asarray(mask, bool)
    limit, vocabulary = dims(model.config).context, model.config.vocab_size
    if tokens.ndim != 2 or 0 in tokens.shape or not mask.any(1).all():
        raise ConfigError("an empty prompt: give at least one token a row")
    if tokens[mask].min() < 0 or tokens[mask].max() >= vocabulary:
        raise ConfigError(f"a prompt holds a token outside the vocabulary of {vocabulary}: is it of another tokenizer?")
    longest = int(mask.sum(1).max())
    if longest + new > limit:
        raise ConfigError(f"{longest} tokens of prompt and {new} new ones exceed the model's {limit}: cut one of them")
    return tokens, mask


def _enter(model, tokens, mask, new):
    """Prompts pushed to the right of a bucket, and an empty cache for them and what follows."""
    longest = int(mask.sum(1).max())
    width = bucket(longest, dims(model.config).context)
    padded, visible = np.zeros((len(tokens), width), np.int32), np.zeros((len(tokens), width), bool)
    for row, (line, real) in enumerate(zip(tokens, mask, strict=True)):
        kept = line[real]
        padded[row, width - len(kept) :], visible[row, width - len(kept) :] = kept, True
    known = dims(model.config)
    shape = (len(tokens), bucket(width + new, 2**30), known.kv_heads, known.head_size)
    cache = make_cache(known.layers, shape, model.compute.dtype, model.compute.layout)
    return cache, padded, visible


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def _advance(model, sampling, params, cache, tokens, mask, key):
    out = model.apply({"params": params}, tokens, mask=mask, cache=cache)
    if getattr(model, "plain_logits", True):
        last = unembed(out.hidden[:, -1:], model.output_table(params), getattr(model, "softcap", None))  # not of the whole prompt
    else:
        last = out.logits[:, -1:]
    return sample(last[:, 0], sampling, key), out.cache


def generate_tokens(
    model: Any,
    params: Any,
    tokens: Int[np.ndarray, "B T"],
    *,
    mask: Bool[np.ndarray, "B T"] | None = None,
    max_new_tokens: int = 64,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_token_id: Ends = None,
    seed: int = 0,
) -> Int[np.ndarray, "B new"]:
    """The continuation of each row (Hugging Face's argument names); other arguments are refused by Python itself.

    `eos_token_id` is one id or several; a row that has met one of them goes on with the first.
    """
    sampling = Sampling(temperature, top_k, top_p) if do_sample else GREEDY
    columns = stream_tokens(
        model, params, tokens, mask=mask, max_new_tokens=max_new_tokens, sampling=sampling, eos_id=eos_token_id, seed=seed
    )
    new = list(columns)
    return np.stack(new, axis=1) if new else np.zeros((len(tokens), 0), np.int32)


def generate_text(model: Any, params: Any, tokenizer: Any, prompts: list[str], **arguments: Any) -> list[str]:
    """The continuations of texts, without the prompts; `arguments` are those of `generate_tokens`.

    A text ends at an `eos_token_id`: that of the call, else of the model's config.json, else of the tokenizer.
    """
    rows = [tokenizer.encode(prompt) or _start(tokenizer) for prompt in prompts]
    width = max(map(len, rows))
    tokens = np.array([[0] * (width - len(row)) + row for row in rows], np.int32)
    mask = np.array([[False] * (width - len(row)) + [True] * len(row) for row in rows])
    arguments.setdefault("eos_token_id", _ends(model, tokenizer))
    new = generate_tokens(model, params, tokens, mask=mask, **arguments)
    return [tokenizer.decode(until(row, arguments["eos_token_id"])) for row in new]


def stream_text(
    model: Any, params: Any, tokenizer: Any, prompt: str, max_new_tokens: int, sampling: Sampling = GREEDY, seed: int = 0
) -> Iterator[str]:
    """The continuation of one text, piece by piece as it is made; stops at the model's context or the end of the document."""
    ids = tokenizer.encode(prompt) or _start(tokenizer)
    room = min(max_new_tokens, max(dims(model.config).context - len(ids), 1))
    new, shown, ends = [], "", _ends(model, tokenizer)
    for column in stream_tokens(model, params, np.array([ids], np.int32), max_new_tokens=room, sampling=sampling, eos_id=ends, seed=seed):
        new.append(int(column[0]))
        text = tokenizer.decode(until(new, ends))
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # a character whose bytes are not all here yet
            yield text[len(shown) :]
            shown = text


def sample_texts(model: Any, params: Any, tokenizer: Any, count: int, seed: int = 0, length: int = 120) -> list[str]:
    """`count` texts drawn from the beginning of a document (temperature 0.8, top-k 50)."""
    tokens = np.full((count, 1), _beginning(tokenizer), np.int32)
    new = min(length, dims(model.config).context - 1)
    arguments = {"do_sample": True, "temperature": 0.8, "top_k": 50, "seed": seed, "eos_token_id": tokenizer.eos_id}
    rows = generate_tokens(model, params, tokens, max_new_tokens=new, **arguments) if count else []
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


def until(row: Int[np.ndarray, "T"], eos_id: Ends) -> list[int]:
    """The ids of a row before the first that is `eos_id`, or one of them."""
    ids, ends = [int(i) for i in row], _several(eos_id)
    return ids[: next((place for place, i in enumerate(ids) if i in ends), None)]


def _several(ends: Ends) -> tuple[int, ...]:
    return () if ends is None else tuple(np.atleast_1d(ends).tolist())


def _ends(model: Any, tokenizer: Any) -> Ends:
    ends = model.config.extra.get("eos_token_id")
    return tokenizer.eos_id if ends is None else ends
