"""Is this machine ready? `python -m jaxlm.doctor`: versions, devices, memory, known-bad pairs, a matrix product.

Exit code 0: ready; 78: something is wrong, and every line that begins with WRONG says how to mend it.
"""

import platform

from jaxlm.command import run_command
from jaxlm.errors import ConfigError
from jaxlm.planning.machine import check_devices, check_known_pairs, check_product, check_versions


def main(arguments: list[str]) -> None:
    """Print what is found; fail if anything is wrong."""
    if arguments:
        raise ConfigError(f"{arguments[0]!r}: the doctor takes no arguments")
    print(f"python {platform.python_version()} on {platform.platform()}")
    wrong = [*check_versions(), *check_devices(), *check_known_pairs(), *check_product()]
    for line in wrong:
        print(f"WRONG {line}")
    if wrong:
        raise ConfigError(f"{len(wrong)} thing{'s' if len(wrong) > 1 else ''} to mend, see above")
    print("ready")


if __name__ == "__main__":
    run_command(main, __doc__)
