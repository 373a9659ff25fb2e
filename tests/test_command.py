"""What all commands do before their work."""

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from jaxlm.command import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
import jax, jax.numpy as jnp
def run_once(x):
    y = jax.lax.optimization_barrier(jnp.outer(x, x))  # 36 MiB, which are there
    return (y + y.T).sum()
run = jax.jit(run_once)
x = jnp.ones(3000)
for _ in range(5):  # until the heap has its layout
    run(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    run(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    """Pages that the system has to bring while a program runs four times."""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True, env=env)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the memory of another C library is left as it is")
def test_memory_of_one_run_serves_the_next():
    pages = 36 * 2**20 // os.sysconf("SC_PAGE_SIZE")
    usual = faults("as it is")
    assert usual > 2 * pages, "the premise: XLA takes new memory for each run"
    assert faults("kept") < usual / 2
