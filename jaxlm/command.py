"""What all commands share: `--help`, `--debug`, and errors as one line with an exit code."""

import argparse
import ctypes
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from jaxlm.errors import ConfigError, exits


class OptionParser(argparse.ArgumentParser):
    """Options whose mistakes are errors like all others."""

    def error(self, message: str) -> None:
        """Raise ConfigError instead of leaving the program."""
        raise ConfigError(f"{message}; see {self.prog} --help")


def run_command(main: Callable[[list[str]], None], usage: str) -> None:
    """Run `main(arguments)`; `--help` prints `usage`, `--debug` shows tracebacks."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    if {"-h", "--help"} & set(arguments):
        print(usage.strip())
        return
    keep_compiled_programs()
    keep_freed_memory()
    sys.stdout.reconfigure(line_buffering=True)  # a pipe or a log file shows each line at once
    with exits("--debug" in sys.argv):
        main(arguments)


def keep_compiled_programs() -> None:
    """Compile a program once a machine: the next command finds it on disk, unless JAX_COMPILATION_CACHE_DIR says otherwise."""
    import jax  # not at the top: worker processes import the command's module again, and need no JAX

    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(Path("~/.cache/jaxlm/compiled").expanduser()))


def keep_freed_memory() -> None:
    """Let XLA on a CPU use the memory of one run of a program for the next: a sixth to a quarter off a small model's training step.

    A program takes all its buffers when it starts and frees them when it ends, and glibc gives blocks of that size back to the system:
    every step would have them mapped and cleared anew, page by page. Kept is what the main thread takes (other threads have heaps
    of 64 MiB at most), so programs run there. To be called before JAX finds its devices; does nothing where the C library is another.
    """
    import jax

    if platform.libc_ver()[0] == "glibc":
        libc, trim_threshold, mmap_max = ctypes.CDLL(None), -1, -4  # malloc.h
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_max, 0)
        jax.config.update("jax_cpu_enable_async_dispatch", False)
