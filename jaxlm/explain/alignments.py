"""Which words of a source the words of an output look at: alignments by cross-attention, and a drawing of them.

Attention is a trace of what was read, no proof of why (Jain & Wallace 2019). Read first: `../layers/watch.py`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxlm.errors import ConfigError
from jaxlm.layers.attention import CrossAttention
from jaxlm.layers.watch import attention_weights
from jaxlm.models import has_decoder
from jaxlm.ops.positions import shift_right
from jaxlm.ops.special_ids import start_id

Text = str | Sequence[int]
SHADES = " ·░▒▓█"


@dataclasses.dataclass(frozen=True, eq=False)
class Alignment:
    """T pieces of an output and S of its source.

    Attributes:
      weights: mean over the heads of a layer; a row sums to 1.
      hard: of each output piece the source piece that it looks at most; none of the control tokens, where attention rests.
    """

    source: tuple[str, ...]
    output: tuple[str, ...]
    weights: Float[np.ndarray, "T S"]
    hard: Int[np.ndarray, "T"]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(source piece, output piece), as alignment files have them."""
        return [(int(s), t) for t, s in enumerate(self.hard)]


def align(model: Any, params: Any, tokenizer: Any, source: Text, output: Text, layer: int | None = None) -> Alignment:
    """Align an output, or a reference, with its source: texts, or the ids of texts that have more about them than the tokenizer puts.

    Args:
      tokenizer: of the sources, or of both sides (`text/sides.py`).
      layer: of the decoder, from 0 on; None: the last but one, which aligned best for Garg et al. (2019).

    Raises ConfigError for a model without cross-attention, or a layer that it has not.
    """
    turned = tokenizer.as_target()
    ids, made = _ids(tokenizer, source), _ids(turned, output)
    made += [turned.eos_id] if turned.eos_id not in (None, *made) else []
    weights = cross_attention(model, params, ids, made)
    layer = max(len(weights) - 2, 0) if layer is None else layer
    if not 0 <= layer < len(weights):
        raise ConfigError(f"layer {layer}: the decoder has layers 0 to {len(weights) - 1}")
    mean = weights[layer].mean(0)
    controls = np.isin(ids, list(tokenizer.controls.values()))
    hard = np.where(controls & ~controls.all(), -1.0, mean).argmax(1)
    return Alignment(_pieces(tokenizer, ids), _pieces(turned, made), mean, hard)


def cross_attention(model: Any, params: Any, source: Sequence[int], output: Sequence[int]) -> Float[np.ndarray, "L N T S"]:
    """The weights of every layer and head; row t is what is looked at when token t of the output is about to be written."""
    if not has_decoder(model):
        raise ConfigError(f"alignments need a decoder that looks at an encoder; {model.config.model_type} has none")
    tokens, targets = jnp.array([source], jnp.int32), jnp.array([output], jnp.int32)
    inputs = shift_right(targets, start_id(model.config))
    found = attention_weights(model, params, tokens, inputs, kind=CrossAttention)
    return np.concatenate([np.asarray(one, np.float32) for one in found])


def _ids(tokenizer: Any, text: Text) -> list[int]:
    return list(tokenizer.encode(text) if isinstance(text, str) else text)


def _pieces(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    return tuple(tokenizer.piece(i) or str(i) for i in ids)


def draw(found: Alignment) -> str:
    """The alignment as a grid of text: a column a source piece, darker where more is looked at, in brackets where most.

    >>> weights = np.array([[0.9, 0.1], [0.4, 0.6]])
    >>> print(draw(Alignment(("ein", "Hund"), ("a", "dog"), weights, weights.argmax(1))))
        |ein |Hund
    a   |[▓] |
    dog |░░░ |[▒▒]
    """
    wide = max(map(len, found.output))
    lines = [" " * wide + " |" + " |".join(found.source)]
    for t, piece in enumerate(found.output):
        cells = []
        for s, name in enumerate(found.source):
            shade, width = SHADES[round(found.weights[t, s] * (len(SHADES) - 1))], max(len(name), 3)
            cells.append((f"[{shade * (width - 2)}]" if found.hard[t] == s else shade * width).ljust(len(name)))
        lines.append(f"{piece:<{wide}} |" + " |".join(cells))
    return "\n".join(line.rstrip() for line in lines)
