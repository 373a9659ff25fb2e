"""What all commands share: `--help`, `--debug`, and errors as one line with an exit code."""

import sys
from collections.abc import Callable

from jaxlm.errors import exits


def run_command(main: Callable[[list[str]], None], usage: str) -> None:
    """Run `main(arguments)`; `--help` prints `usage`, `--debug` shows tracebacks."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    if {"-h", "--help"} & set(arguments):
        print(usage.strip())
        return
    with exits("--debug" in sys.argv):
        main(arguments)
