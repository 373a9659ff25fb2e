"""Text to text: a source becomes a target, as in translation and summarization; an encoder-decoder learns from pairs of texts.

Several short pairs may share a row: segment i of the source belongs to segment i of the target. Denoising tasks make such rows of
running text, and share `loss`, `measure` and `metrics`. Read first: `pair_sides.py`. Read next: `scheduled_sampling.py`, `text_scores.py`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxlm.config import Loss, Records
from jaxlm.errors import DataError
from jaxlm.ops.losses import plain_cross_entropy, token_cross_entropy
from jaxlm.ops.output_layer import output_layer
from jaxlm.ops.positions import shift_right
from jaxlm.ops.special_ids import start_id
from jaxlm.sharding import gather, replicate
from jaxlm.tasks import pair_sides
from jaxlm.tasks.masked_lm import right
from jaxlm.tasks.pair_sides import Sides, Unfit, spell, text_tokens
from jaxlm.tasks.scheduled_sampling import sampled_inputs

RECORDS, HEAD, GENERATES = True, "seq2seq-lm", True
ROLES, REQUIRED, LABELLED = ("id", "source", "target"), ("source",), ("source", "target")
COLUMNS = {"targets": np.int32, "target_segments": np.int32, "weights": np.float32}  # [B, T]; those of sources are [B, S]
make_sides, target_length = pair_sides.make_sides, pair_sides.target_length
Batch = dict[str, Array]


def features(record: dict[str, Any], sides: Sides, options: Records, length: int) -> list[dict[str, Any]]:
    """A pair as one example: "tokens" of the source, cut to `length`, "targets" of the target, cut to the sides' length.

    `options.prefix` stands before the source. A record without a target, which is to be predicted, has no targets; of one with several
    the first is learned, and "about" has all, as references. Tokens that were cut, on both sides, are counted in "cut", those of the
    target alone in "target_cut"; the texts are whole in "about". Raises Unfit for an empty side, or where one side has more than
    `options.ratio` times the other's tokens; DataError for what is no text.
    """
    source, known = _text(record.get("source"), "source"), references(record)
    tokens, cut = spell(sides.source, options.prefix + source, length)
    targets, more = spell(sides.target, known[0], sides.length, "data.target_length") if known else ([], 0)
    if options.ratio is not None and known:
        own = text_tokens(sides.source, len(tokens) + cut, options.prefix), text_tokens(sides.target, len(targets) + more)
        _check_ratio(own, options.ratio)
    about = {"id": record.get("id"), "source": source, "target": known if len(known) > 1 else known[0] if known else None}
    return [{"tokens": tokens, "targets": targets, "cut": cut + more, "target_cut": more, "about": about}]


def references(record: dict[str, Any]) -> list[str]:
    """The different texts that a target may be: one, those of a list or of SQuAD's {"text": [...]}; none where it is to be predicted.

    Raises Unfit for a list of none, or an empty text; DataError for what is no text.
    """
    given = record.get("target")
    given = given.get("text", given) if isinstance(given, dict) else given
    if given == []:
        raise Unfit("the target is a list without an answer: remove the record, or set records.skip=true", "without an answer")
    texts = given if isinstance(given, list) else [] if given is None else [given]
    return list(dict.fromkeys(_text(text, "target") for text in texts))


def _text(text: Any, role: str) -> str:
    if text is not None and not isinstance(text, str):
        raise DataError(f"the {role} is {text!r:.40}, no text: mend the record, or name another column in records.columns")
    if text is None or not text.strip():
        raise Unfit(f"the pair has an empty {role}: mend or remove it, or set records.skip=true", "with an empty side")
    return text


def _check_ratio(own: tuple[int, int], ratio: float) -> None:
    short, long = sorted(own)
    if long > ratio * short:
        mend = "mend or remove it, raise records.ratio, or set records.skip=true"
        raise Unfit(f"the pair has sides of {short} and {long} tokens: {mend}", f"of lengths beyond 1 : {ratio:g}")


def loss(model: Any, params: Any, batch: Batch, key: Array | None, options: Loss = Loss()) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum of the cross-entropies of the target tokens, in nats, and their number, under teacher forcing.

    Where the batch has a "sampling_rate" [B], that share of the decoder's inputs are its own predictions (Bengio et al. 2015).

    Args:
      key: of dropout and of that choice; None: neither.
    """
    inputs = model_inputs(model, batch)
    if key is not None and "sampling_rate" in batch:
        key, choice, first = jax.random.split(key, 3)
        inputs["targets"] = sampled_inputs(model, params, inputs, batch["sampling_rate"][:, None], choice, first)
    out = model.apply({"params": params}, **inputs, key=key)
    smooth = {"label_smoothing": options.label_smoothing, "z_loss": options.z_loss}
    if not getattr(model, "plain_logits", True):
        return plain_cross_entropy(out.logits, batch["targets"], batch["weights"], **smooth)
    layer = output_layer(model, params)
    table = gather(layer.pop("table").astype(out.hidden.dtype), "vocab", "embed")
    return token_cross_entropy(out.hidden, table, batch["targets"], batch["weights"], **layer, **smooth)


def model_inputs(model: Any, batch: Batch) -> dict[str, Array]:
    """The arguments of the model's call: what the decoder reads are the targets, each one place later."""
    segments, target_segments = batch["segments"], batch["target_segments"]
    targets = shift_right(batch["targets"], start_id(model.config), target_segments)
    return {"tokens": batch["tokens"], "targets": targets, "segments": segments, "target_segments": target_segments}


def measure(model: Any, params: Any, batch: Batch, options: Loss = Loss()) -> tuple[Array, Array, dict[str, Array]]:
    """The plain cross-entropy, whatever was trained with, without dropout, and what else `metrics` counts, to be summed over batches.

    So runs with and without label smoothing are compared by one number.
    """
    logits = _logits(model, params, batch)
    return *plain_cross_entropy(logits, batch["targets"], batch["weights"]), {"right": right(logits, batch)}


def predictions(model: Any, params: Any, batch: Batch) -> Int[Array, "B T"]:
    """The likeliest token at every place, given the true ones before it; `outputs.py` writes texts."""
    return replicate(_logits(model, params, batch)).argmax(-1)


def metrics(total: float, weight: float, units: dict[str, float]) -> dict[str, float]:
    """From a summed loss in nats: loss a target token, perplexity, and, where they were counted, the share that is predicted right."""
    mean = total / max(weight, 1.0)
    result = {"loss": mean, "perplexity": math.exp(min(mean, 700.0))}
    return result | ({"accuracy": units["right"] / max(weight, 1.0)} if "right" in units else {})


def _logits(model: Any, params: Any, batch: Batch) -> Float[Array, "B T V"]:
    return jnp.asarray(model.apply({"params": params}, **model_inputs(model, batch)).logits)
