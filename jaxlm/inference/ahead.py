"""Two programs compiled side by side: while the one that reads the prompts compiles, so does the one that writes, in a thread.

XLA compiles without Python's lock, and jax keeps what a lowered program was compiled to for the call that comes later.
"""

import threading
from collections.abc import Callable, Hashable
from typing import Any

import jax

_begun: set[Hashable] = set()


def compile_ahead(program: Any, key: Hashable, arguments: Callable[[], tuple]) -> Callable[[], object]:
    """Begin to compile a jitted program, once for each `key`; returns what waits until it is.

    Args:
      arguments: () -> those of the call to come, arrays or their shapes and dtypes. On a mesh nothing is compiled ahead.
    """
    if (program, key) in _begun or not jax.sharding.get_abstract_mesh().empty:
        return lambda: None
    _begun.add((program, key))
    thread = threading.Thread(target=program.lower(*arguments()).compile)
    thread.start()
    return thread.join


def shapes(make: Callable[..., Any], *arguments: Any) -> Any:
    """What `make` would return, as shapes and dtypes, on the device that the arguments are bound to, where they are."""
    bound = {leaf.sharding for leaf in jax.tree.leaves(arguments) if isinstance(leaf, jax.Array) and leaf.committed}
    place = bound.pop() if len(bound) == 1 else None
    made = jax.eval_shape(make, *arguments)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place, weak_type=leaf.weak_type), made)
