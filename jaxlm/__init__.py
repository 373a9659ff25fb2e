"""jaxlm: language models in JAX.

The public names, imported when they are first used: `import jaxlm` loads neither JAX nor TensorFlow, and touches no device.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> the module that holds it.
_NAMES = {
    "load": "jaxlm.pretrained",
    "save": "jaxlm.pretrained",
    "load_tokenizer": "jaxlm.text.tokenizer",
    "load_sides": "jaxlm.text.sides",
    "encode_texts": "jaxlm.inference.encode",
    "encode_tokens": "jaxlm.inference.encode",
    "generate_text": "jaxlm.inference.texts",
    "generate_tokens": "jaxlm.inference.generate",
    "quantize_params": "jaxlm.inference.quantize",
    "make_model": "jaxlm.models",
    "stack": "jaxlm.layers.block",
    "unstack": "jaxlm.layers.block",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'jaxlm' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
