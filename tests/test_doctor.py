"""The doctor: ready on a machine that is, and a mend for each thing that is wrong."""

import pytest

from jaxlm import doctor
from jaxlm.errors import ConfigError
from jaxlm.planning import machine


def test_a_good_machine_is_ready(capsys, monkeypatch):
    monkeypatch.setattr(machine, "measured_peak", lambda dtype: 1e9)  # a second of matrix products
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    doctor.main([])
    told = capsys.readouterr().out
    assert "ready" in told and "jax 0." in told and "cpu" in told


def test_an_idle_gpu_is_wrong(capsys, monkeypatch):
    monkeypatch.setattr(machine, "measured_peak", lambda dtype: 1e9)
    monkeypatch.setattr(machine.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    with pytest.raises(ConfigError, match="1 thing to mend"):
        doctor.main([])
    assert 'WRONG an NVIDIA GPU is there and JAX does not use it: pip install "jaxlm[cuda]"' in capsys.readouterr().out


def test_versions_that_do_not_belong_together_are_wrong(monkeypatch):
    monkeypatch.setattr(machine, "version", {"jax": "0.11.1", "jaxlib": "0.10.2"}.get)
    assert machine.check_known_pairs() == ["jax 0.11.1 and jaxlib 0.10.2 do not belong together: pip install -U jax jaxlib"]


def test_a_missing_core_package_is_wrong(monkeypatch, capsys):
    monkeypatch.setattr(machine, "version", lambda name: None if name in ("optax", "rich") else "1.0")
    assert machine.check_versions() == ["optax is not installed: pip install optax"]
    assert "rich is not installed; it serves the progress bar" in capsys.readouterr().out
