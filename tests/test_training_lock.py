"""The lock on a run directory: one owner at a time, and none after its death."""

import os
import re
import signal
import subprocess
import sys

import pytest

from jaxlm.errors import IN_USE, ConfigError, InUseError
from jaxlm.training.lock import lock

OWNER = """
import sys, time
from jaxlm.errors import exits
from jaxlm.training.lock import lock
with exits(), lock(sys.argv[1]):
    print("mine", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def start(workdir, seconds: float) -> subprocess.Popen:
    command = [sys.executable, "-c", OWNER, str(workdir), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_second_process_is_told_who_owns_the_directory_and_exits_73(tmp_path):
    with lock(tmp_path / "run"):
        second = start(tmp_path / "run", 0)
        out, message = second.communicate(timeout=60)
    assert (second.returncode, out) == (IN_USE, "")
    owner = rf"process {os.getpid()} on \S+ since 2\d\d\d-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"jaxlm: {tmp_path}/run is in use by {owner}: wait, or choose another workdir=\.\.\.\n", message)


def test_a_dead_owners_lock_is_taken_over(tmp_path):
    with start(tmp_path, 60) as owner:
        assert owner.stdout.readline() == "mine\n"
        with pytest.raises(InUseError, match=f"process {owner.pid} "), lock(tmp_path):
            pass
        owner.send_signal(signal.SIGKILL)
        owner.communicate(timeout=60)
    with lock(tmp_path), pytest.raises(InUseError, match=f"process {os.getpid()} "), lock(tmp_path):
        pass


def test_a_lock_is_free_again_after_its_block_and_after_an_error_in_it(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), lock(tmp_path):
            raise ZeroDivisionError
    with lock(tmp_path):
        pass


def test_the_other_processes_of_a_run_pass(tmp_path):
    with lock(tmp_path), lock(tmp_path, owner=False):
        pass


def test_a_directory_that_cannot_be_made_is_a_config_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"workdir=\S+/file/run cannot be written \(Not a directory\)"), lock(tmp_path / "file" / "run"):
        pass
