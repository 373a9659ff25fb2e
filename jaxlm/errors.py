"""Errors for people: one line that says what is wrong, where, and the mend.

Every command runs inside `exits`, which turns one of these errors into that line and an exit code. Read next:
`config.py`, where most of them are raised.
"""

import contextlib
import errno
import sys
import traceback
from collections.abc import Iterator

DONE, BAD_DATA, INTERNAL, IN_USE, STOPPED, BAD_CONFIG = 0, 65, 70, 73, 75, 78

OUT_OF_MEMORY = "lower batch_size, raise accumulate, or set compute.remat=full"


class UserError(Exception):
    """Something a person can mend; `code` is the exit status of the command that met it."""

    code = INTERNAL


class ConfigError(UserError):
    """A wrong word, size or combination in the configuration or on the command line."""

    code = BAD_CONFIG


class DataError(UserError):
    """A source, a prepared store or a tokenizer that is missing, damaged or out of range."""

    code = BAD_DATA


class CheckpointError(UserError):
    """A checkpoint that cannot be read, written or applied to this run."""

    code = BAD_DATA


class DivergenceError(UserError):
    """Training met only losses or gradients that are not finite."""

    code = INTERNAL


class InUseError(UserError):
    """The run directory belongs to another living process."""

    code = IN_USE


class Stopped(UserError):
    """The run was asked to stop and has saved its state: the same command goes on."""

    code = STOPPED


@contextlib.contextmanager
def extra(name: str, library: str) -> Iterator[None]:
    """Around the import of an optional library: where it is missing, a ConfigError with the line that installs it.

    >>> with extra("clean", "ftfy"):
    ...     import no_such_library
    Traceback (most recent call last):
        ...
    jaxlm.errors.ConfigError: ftfy is not installed: pip install "jaxlm[clean]"
    """
    try:
        yield
    except ImportError as error:
        raise ConfigError(f'{library} is not installed: pip install "jaxlm[{name}]"') from error


@contextlib.contextmanager
def exits(debug: bool = False) -> Iterator[None]:
    """Run a command's body; on an error print one line to stderr and exit with its code (`debug`: the traceback too)."""
    try:
        yield
    except UserError as error:
        _leave(error, error.code, debug)
    except KeyboardInterrupt as error:
        _leave("interrupted: the same command goes on from what was saved", STOPPED, debug, error)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has left (`| head`): nothing is wrong
        raise SystemExit(DONE) from None
    except OSError as error:
        hint = "; free some space and run the same command again: it goes on" if error.errno == errno.ENOSPC else ""
        _leave(error, INTERNAL if error.errno == errno.ENOSPC else BAD_DATA, debug, hint=hint)
    except MemoryError as error:
        _leave(f"out of memory: {OUT_OF_MEMORY}", INTERNAL, debug, error)
    except Exception as error:
        if "RESOURCE_EXHAUSTED" in str(error):  # XLA's word for it
            _leave(f"out of device memory: {OUT_OF_MEMORY}", INTERNAL, debug, error)
        _leave(f"{type(error).__name__}: {error}", INTERNAL, debug, error, hint=" (a bug: run with --debug and report it)")


def _leave(message: object, code: int, debug: bool, cause: BaseException | None = None, hint: str = "") -> None:
    if debug:
        traceback.print_exc()
    line = " ".join(str(message).split())
    print(f"jaxlm: {line}{hint}", file=sys.stderr, flush=True)
    raise SystemExit(code) from cause
