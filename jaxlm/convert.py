"""Turn one kind of model directory into another: `python -m jaxlm.convert SRC DST`.

SRC a run directory, an old Flax folder or a GGUF file: DST becomes a Hugging Face folder, which torch opens. SRC a Hugging Face
folder: DST becomes a run directory, which `python -m jaxlm.generate DST` opens. Prints where the tensors went, then compares the
logits of random ids before and after. DST must not exist, or be empty. With --average N the model is the mean of the run's N newest
checkpoints (train with checkpoint.keep=N; 1: the newest, where another one is the best); with --run too DST is a run directory, for
`python -m jaxlm.evaluate DST`.
"""

from jaxlm.averaging import convert_mean, write_mean
from jaxlm.command import OptionParser, run_command
from jaxlm.errors import ConfigError
from jaxlm.pretrained import convert
from jaxlm.weights.mapping import Match


def main(arguments: list[str]) -> None:
    """Convert, then say what became of the tensors."""
    parser = OptionParser(prog="python -m jaxlm.convert", add_help=False)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--average", type=int)
    parser.add_argument("--run", action="store_true")
    options = parser.parse_args(arguments)
    if options.average is not None:
        _average(options.source, options.target, options.average, options.run)
        return
    if options.run:
        raise ConfigError("--run is of --average N: a run directory of one checkpoint that is a run already is a copy of it")
    done = convert(options.source, options.target)
    for line in report(done.match) if done.match else ():
        print(line)
    what = "a run directory" if done.kind == "safetensors" else "a Hugging Face folder"
    print(f"{options.source} ({done.kind}) -> {options.target}, {what}")
    print(f"logits of random ids before and after: largest difference {done.difference:.2g}")


def _average(source: str, target: str, count: int, run: bool) -> None:
    if run:
        steps = write_mean(source, target, count)
    else:
        done, steps = convert_mean(source, target, count)
    what = "a run directory" if run else "a Hugging Face folder"
    print(f"{source} (mean of the checkpoints {', '.join(map(str, steps))}) -> {target}, {what}")
    if not run:
        print(f"logits of random ids before and after: largest difference {done.difference:.2g}")


def report(match: Match) -> list[str]:
    """What was mapped, tied, dropped, absent: a line for each kind that there is."""
    mapped = [name for _, names in match.mapped for name in names]
    tied = [f"{copy} = {source}" for copy, source in match.tied.items()]
    lines = {"mapped": mapped, "tied": tied, "dropped": match.dropped, "absent": match.absent}
    return [f"{word:8} {len(names):4}  {_some(names)}" for word, names in lines.items() if names]


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f", ... {names[-1]}" if len(names) > 4 else "")


if __name__ == "__main__":
    run_command(main, __doc__)
