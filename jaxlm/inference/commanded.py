"""What the options of `python -m jaxlm.generate` mean together, and which of them exclude each other. Read next: `settings.py`."""

import argparse
from typing import Any

import jax

from jaxlm.errors import ConfigError
from jaxlm.overrides import literal

NEW = 200  # tokens, where nothing says how many; fewer where the model has less room
DRAWS = ("temperature", "top_k", "top_p")
METHODS = {"do_sample", "num_beams", "penalty_alpha"}  # one of them says how the next token is chosen
# Names of the library that are none of name=value -> the mend.
ELSEWHERE = dict.fromkeys(("assistant", "tokenizer", "mask"), "no word can be one: leave it out, or call jaxlm.generate_text")
ELSEWHERE |= {"logprobs": "nothing here tells them: call jaxlm.inference.generate.generate", "seed": "say it as --seed"}


def check_options(options: argparse.Namespace) -> None:
    """Refuse options that exclude each other or do nothing: ConfigError."""
    others = options.prompt or options.chat or options.samples > 1
    if bool(options.input) != bool(options.output) or (options.input and others):
        raise ConfigError("--input and --output go together, without --prompt, --chat and --samples (but num_return_sequences=N)")
    for name, value in (("batch-size", options.batch_size), ("samples", options.samples)):
        if value < 1:
            raise ConfigError(f"--{name} {value}: it is at least 1")
    if options.chat and options.samples > 1:
        raise ConfigError(f"--samples {options.samples}: a conversation has one answer a turn: leave it out, or --chat")


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """Names and values for `generate`; drawn with a temperature unless the options say how to choose."""
    named = {}
    for pair in options.settings:
        name, sign, value = pair.partition("=")
        if not sign:
            raise ConfigError(f"`{pair}` is not of the form name=value")
        if name in ELSEWHERE:
            raise ConfigError(f"{pair}: {ELSEWHERE[name]}")
        named[name] = value if name in ("regex", "grammar") else literal(value)
    drawn = {name: value for name in DRAWS if (value := named.pop(name, getattr(options, name))) is not None}
    if not METHODS & set(named):
        drawn = _chosen(drawn)
    return {"max_new_tokens": options.max_new_tokens, "seed": options.seed, **drawn, **named}


def _chosen(drawn: dict[str, Any]) -> dict[str, Any]:
    """How the next token is chosen where no method is named: a draw, or the likeliest by --temperature 0."""
    drawn = {"temperature": 0.8, **drawn}
    if drawn["temperature"] != 0:
        return {"do_sample": True, **drawn}
    for name in DRAWS[1:]:
        if name in drawn:
            raise ConfigError(f"--{name.replace('_', '-')} {drawn[name]}: --temperature 0 draws nothing: leave one of the two out")
    return {}


def dtype_of(options: argparse.Namespace) -> str:
    """In what is computed: as asked for; a CPU is fast in float32 alone, an accelerator in bfloat16."""
    return options.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
