"""Write on from prompts: `python -m jaxlm.generate DIR --prompt TEXT [options] [name=value ...]`.

DIR is a run directory or a folder of Hugging Face's. The text appears as it is made. Options: --max-new-tokens 200, --temperature 0.8
(0: greedy), --top-k 50, --top-p 0.95, --seed 0, --samples 1. Whatever else decodes is name=value, as Hugging Face calls it:
num_beams=4 length_penalty=0.6, repetition_penalty=1.2, penalty_alpha=0.6 top_k=4, 'stop_strings=["\\n\\n"]', 'regex=[0-9]+' ...

--input prompts.jsonl --output out.jsonl: a line of JSON with "prompt" or "messages" (or of plain text) a prompt, --batch-size 8
at a time; a half-written output is continued. --chat: by the model's chat template; without --prompt a turn a line of standard input.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from jaxlm.command import OptionParser, run_command
from jaxlm.errors import ConfigError
from jaxlm.inference.prompt_files import Job, read_rows, write_rows
from jaxlm.inference.texts import stream_text, text_and_count
from jaxlm.overrides import literal
from jaxlm.pretrained import load
from jaxlm.text.sides import load_sides


def main(arguments: list[str]) -> None:
    """Load, then write."""
    options = parse(arguments)
    named = settings_of(options)
    others = options.prompt or options.chat or options.samples > 1
    if bool(options.input) != bool(options.output) or (options.input and others):
        raise ConfigError("--input and --output go together, without --prompt, --chat and --samples (but num_return_sequences=N)")
    model, params = load(options.directory)
    parts = model, params, load_sides(options.directory)
    if options.input:
        job = Job(options.batch_size, named.get("num_return_sequences", 1), options.seed)
        write = lambda prompts, seeds: text_and_count(*parts, prompts, **{**named, "seed": seeds})
        write_rows(write, read_rows(Path(options.input)), Path(options.output), job, lambda text: print(text, file=sys.stderr))
    elif options.chat:
        talk(parts, [options.prompt] if options.prompt else sys.stdin, named)
    else:
        for number in range(options.samples):
            sys.stdout.write("\n-----\n" * bool(number) + options.prompt)
            show(parts, options.prompt, {**named, "seed": options.seed + number})


def talk(parts: tuple, turns: Any, named: dict[str, Any]) -> None:
    """A conversation, a turn a line; it remembers itself."""
    messages = []
    for turn in turns:
        messages.append({"role": "user", "content": turn.rstrip("\n")})
        messages.append({"role": "assistant", "content": show(parts, list(messages), named)})


def show(parts: tuple, prompt: Any, named: dict[str, Any]) -> str:
    """Writes a continuation as it is made, or whole where the method gives it whole; and returns it."""
    whole = named.get("num_beams", 1) > 1 or "penalty_alpha" in named or "stop_strings" in named
    pieces = text_and_count(*parts, [prompt], **named)[0] if whole else stream_text(*parts, prompt, **named)
    said = ""
    for piece in pieces:
        said += piece
        sys.stdout.write(piece)
        sys.stdout.flush()
    print()
    return said


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """Names and values for `generate`; drawn with a temperature unless the options say how to choose."""
    named = {}
    for pair in options.settings:
        name, sign, value = pair.partition("=")
        if not sign:
            raise ConfigError(f"`{pair}` is not of the form name=value")
        named[name] = value if name in ("regex", "grammar") else literal(value)
    drawn = {name: value for name in ("temperature", "top_k", "top_p") if (value := getattr(options, name)) is not None}
    if not {"do_sample", "num_beams", "penalty_alpha"} & set(named):
        drawn = {"temperature": 0.8, **drawn}
        drawn = {"do_sample": True, **drawn} if drawn["temperature"] > 0 else {}
    return {"max_new_tokens": options.max_new_tokens, "seed": options.seed, **drawn, **named}


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = OptionParser(prog="python -m jaxlm.generate", add_help=False)
    parser.add_argument("directory")
    parser.add_argument("settings", nargs="*")
    parser.add_argument("--prompt", default="")
    parser.add_argument("--input")
    parser.add_argument("--output")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--chat", action="store_true")
    for name, kind, default in (("max-new-tokens", int, 200), ("temperature", float, None), ("top-k", int, None), ("top-p", float, None)):
        parser.add_argument(f"--{name}", type=kind, default=default)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=1)
    return parser.parse_intermixed_args(arguments)


if __name__ == "__main__":
    run_command(main, __doc__)
