"""Eight simulated CPU devices, quick compiles, no trace of the caller's own caches, and not more programs than a process can hold."""

import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.variants import is_later

flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):  # these two halve the time of a compilation; later releases refuse the first
    flags += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch: the workers share the cores already
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Programs compiled by one test process serve the next; the caller's own cache is left alone.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), "jaxlm-tests-compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


MAPPINGS = 30_000  # of memory; Linux grants a process 65,530, a compiled program has some 33, and past the end jaxlib dies of SIGSEGV


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Forget compiled programs where a process holds too many."""
    yield
    maps = Path("/proc/self/maps")
    if "jax" in sys.modules and maps.is_file() and maps.read_text().count("\n") > MAPPINGS:
        sys.modules["jax"].clear_caches()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark variants before `-m` chooses."""
    for item in items:
        if is_later(item.nodeid.removeprefix("tests/")):
            item.add_marker(pytest.mark.slow)
