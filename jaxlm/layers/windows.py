"""Which layers see only a window of the last tokens: Hugging Face's `layer_types`, and the patterns that stand for it.

Read next: `layers/block.py`, whose `Layers` take the kinds.
"""

from collections.abc import Sequence

from jaxlm.errors import ConfigError
from jaxlm.overrides import choose

WHOLE, WINDOW = "full_attention", "sliding_attention"


def windows_from(first: int, layers: int) -> tuple[str, ...]:
    """Whole attention below layer `first`, windows from there on.

    >>> windows_from(1, 2)
    ('full_attention', 'sliding_attention')
    """
    return tuple(WINDOW if i >= first else WHOLE for i in range(layers))


def whole_every(period: int, layers: int) -> tuple[str, ...]:
    """Windows, but whole attention in every `period`-th layer.

    >>> whole_every(2, 3)
    ('sliding_attention', 'full_attention', 'sliding_attention')
    """
    return tuple(WINDOW if (i + 1) % period else WHOLE for i in range(layers))


def sizes(kinds: Sequence[int], window: int | None) -> tuple[int | None, ...]:
    """How many tokens each layer sees; None: all.

    >>> sizes((0, 1), 16)
    (None, 16)
    """
    return tuple(window if kind else None for kind in kinds)


def kinds_of(windows: Sequence[int | None]) -> tuple[int, ...]:
    """The inverse: 0 for a layer that sees all, 1 for one that sees a window."""
    return tuple(int(window is not None) for window in windows)


def kinds(layer_types: Sequence[str], layers: int) -> tuple[int, ...]:
    """For each layer 0 (whole) or 1 (window): its place among two sights. Raises ConfigError for another word or number of words.

    >>> kinds(whole_every(3, 4), 4)
    (1, 1, 0, 1)
    """
    if len(layer_types) != layers:
        raise ConfigError(f"layer_types names {len(layer_types)} layers and num_hidden_layers={layers}: name each of them once")
    return tuple((WHOLE, WINDOW).index(choose("layer_types", name, (WHOLE, WINDOW))) for name in layer_types)
