"""Write on from prompts: `python -m jaxlm.generate DIR --prompt TEXT [options] [name=value ...]`.

DIR is a run directory or a folder of Hugging Face's. The text appears as it is made. Options: --max-new-tokens 200 (as many as there is
room for where it is not given), --temperature 0.8 (0: greedy), --top-k 50, --top-p 0.95, --seed 0, --samples 1. Whatever else decodes
is name=value, as Hugging Face calls it: num_beams=4 length_penalty=0.6, repetition_penalty=1.2, penalty_alpha=0.6 top_k=4,
'stop_strings=["\\n\\n"]', 'regex=[0-9]+' ... --dtype float32, bfloat16 or float16: of weights and computation (else float32 on a CPU,
bfloat16 on an accelerator); --bits 8 or 4: of weights, which then take less memory.

--input prompts.jsonl --output out.jsonl: a line of JSON with "prompt" or "messages" (or of plain text) a prompt, --batch-size 8
at a time; a half-written output is continued. --chat: by the model's chat template; without --prompt a turn a line of standard input.
Of a run over pairs the prompt is the whole source: records.prefix is not put before it (python -m jaxlm.predict does that).
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from jaxlm.command import OptionParser, run_command
from jaxlm.errors import ConfigError
from jaxlm.inference.commanded import NEW, check_options, dtype_of, settings_of
from jaxlm.inference.generate import settings_for
from jaxlm.inference.prompt_files import Job, check_rows, read_rows, write_rows
from jaxlm.inference.prompts import new_tokens
from jaxlm.inference.quantize import with_few_bits
from jaxlm.inference.settings import Settings
from jaxlm.inference.texts import in_room, read_prompt, stream_text, text_and_count, texts_in_room
from jaxlm.pretrained import load
from jaxlm.text.sides import load_sides


def main(arguments: list[str]) -> None:
    """Load, then write."""
    options = parse(arguments)
    check_options(options)
    named = settings_of(options)
    model, params = load(options.directory, dtype=dtype_of(options))
    settings = settings_for(model, named)  # refuses what is wrong before a word is said
    if options.chat and settings.num_return_sequences > 1:
        raise ConfigError(f"num_return_sequences={settings.num_return_sequences}: a conversation has one answer a turn: leave it out")
    parts = *(with_few_bits(model, params, options.bits) if options.bits else (model, params)), load_sides(options.directory)
    if options.input:
        write_file(parts, options, named, settings)
    elif options.chat:
        talk(parts, [options.prompt] if options.prompt else sys.stdin, named)
    else:
        for number in range(options.samples):
            sys.stdout.write("\n-----\n" * bool(number) + options.prompt)
            show(parts, options.prompt, {**named, "seed": options.seed + number})


def write_file(parts: tuple, options: argparse.Namespace, named: dict[str, Any], settings: Settings) -> None:
    """A continuation for each line of a file; a prompt that is too long is told before the first."""
    path, job = Path(options.input), Job(options.batch_size, settings.num_return_sequences, options.seed)
    rows = read_rows(path)
    check_rows(path, rows, lambda prompt: new_tokens(parts[0], settings, len(read_prompt(parts[2], prompt))))
    write = lambda prompts, seeds: texts_in_room(parts, prompts, seeds, NEW, named)
    write_rows(write, rows, Path(options.output), job, lambda text: print(text, file=sys.stderr))


def talk(parts: tuple, turns: Any, named: dict[str, Any]) -> None:
    """A conversation, a turn a line; it remembers itself."""
    messages = []
    for turn in turns:
        messages.append({"role": "user", "content": turn.rstrip("\n")})
        messages.append({"role": "assistant", "content": show(parts, list(messages), named)})


def show(parts: tuple, prompt: Any, named: dict[str, Any]) -> str:
    """Writes a continuation as it is made, or whole where the method gives it whole or gives several; and returns it."""
    settings, named = settings_for(parts[0], named), in_room(parts[0], parts[2], prompt, NEW, named)
    whole = settings.num_beams > 1 or settings.penalty_alpha is not None or settings.stop_strings or settings.num_return_sequences > 1
    texts = text_and_count(*parts, [prompt], **named)[0] if whole else []
    said = ""
    for piece in [f"\n\n-----\n{prompt}".join(texts)] if whole else stream_text(*parts, prompt, **named):
        said += piece
        print(piece, end="", flush=True)
    print()
    return said


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = OptionParser(prog="python -m jaxlm.generate", add_help=False)
    parser.add_argument("directory")
    parser.add_argument("settings", nargs="*")
    for name, default in (("prompt", ""), ("input", None), ("output", None)):
        parser.add_argument(f"--{name}", default=default)
    for name, kind in (("max-new-tokens", int), ("temperature", float), ("top-k", int), ("top-p", float)):
        parser.add_argument(f"--{name}", type=kind)
    for name, default in (("batch-size", 8), ("seed", 0), ("samples", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--chat", action="store_true")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--bits", type=int, choices=(8, 4))
    return parser.parse_intermixed_args(arguments)


if __name__ == "__main__":
    run_command(main, __doc__)
