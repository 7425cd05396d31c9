"""What is told of GPUs, by a stand-in for NVIDIA's library: this machine may have neither."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from pydantic import TypeAdapter

from servestorm.errors import StudyError
from servestorm.rundir.shapes.cell import UseFile
from servestorm.rundir.shapes.file_shape import checked
from servestorm.study.gpu_counters import Gpu, GpuChange, gpus, used


class NVMLError(Exception):
    pass


def unsupported(_handle):
    raise NVMLError("not supported")


@pytest.fixture
def library(monkeypatch):
    """Puts a library in place with these answers; tells whether it was shut down."""

    def install(**changes):
        state = SimpleNamespace(closed=0)
        answers = {
            "NVMLError": NVMLError,
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: setattr(state, "closed", state.closed + 1),
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetName": lambda handle: b"Old" if handle else "New",
            "nvmlDeviceGetTotalEnergyConsumption": lambda handle: 5000 + handle,
            "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=40, memory=3),
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=2**30, total=2**34),
        }
        monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(**{**answers, **changes}))
        return state

    return install


def test_every_gpu_is_told_with_its_units(library):
    state = library()
    assert gpus() == (Gpu("New", 5.0, 40.0, 2**30), Gpu("Old", 5.001, 40.0, 2**30))
    assert state.closed == 1


def test_what_a_gpu_does_not_support_is_none(library):
    library(nvmlDeviceGetTotalEnergyConsumption=unsupported, nvmlDeviceGetUtilizationRates=unsupported)
    assert gpus()[0] == Gpu("New", None, None, 2**30)


def test_without_library_driver_or_gpu_there_is_none(library, monkeypatch):
    library(nvmlInit=lambda: unsupported(None))
    assert gpus() is None
    library(nvmlDeviceGetCount=lambda: 0)
    assert gpus() is None
    state = library(nvmlDeviceGetCount=lambda: unsupported(None))
    assert gpus() is None and state.closed == 1
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpus() is None


def test_energy_is_what_was_used_between_two_moments():
    begin, end = [Gpu("a", 100.0, 0.0, 5), Gpu("b", None, 0.0, 5)], [Gpu("a", 350.5, 70.0, 9), Gpu("b", None, 1.0, 6)]
    assert used(begin, end) == (
        GpuChange(name="a", energy_j=250.5, utilisation_percent=70.0, memory_bytes=9),
        GpuChange(name="b", energy_j=None, utilisation_percent=1.0, memory_bytes=6),
    )
    assert used(None, end) is None
    assert used(begin[:1], end) is None


def test_a_counter_that_went_back_tells_no_energy():
    assert used([Gpu("a", 100.0, 0.0, 5)], [Gpu("a", 3.0, 70.0, 9)])[0].energy_j is None


def read_gpus(path, gpus):
    return checked(path, {"watch": {"gpus": gpus}}, TypeAdapter(UseFile)).watch.gpus


def test_what_was_written_is_read_again(tmp_path):
    begin, end = [Gpu("a", 100.0, 0.0, 5)], [Gpu("a", 350.5, None, 9)]
    (found,) = read_gpus(tmp_path, [asdict(gpu) for gpu in used(begin, end)])
    assert (found.energy_j, found.utilisation_percent, found.memory_bytes) == (250.5, None, 9)
    assert read_gpus(tmp_path, None) is None


@pytest.mark.parametrize(
    ("told", "place"),
    [
        (3, "gpus"),
        ([{"name": "a", "energy_j": "much", "utilisation_percent": 1.0, "memory_bytes": 1}], "gpus.0.energy_j"),
        ([{"name": "a", "energy_j": -1.0, "utilisation_percent": 1.0, "memory_bytes": 1}], "gpus.0.energy_j"),
        ([{"name": "a", "energy_j": math.nan, "utilisation_percent": 1.0, "memory_bytes": 1}], "gpus.0.energy_j"),
        (
            [{"name": "a", "energy_j": 1.0, "utilisation_percent": 101.0, "memory_bytes": 1}],
            "gpus.0.utilisation_percent",
        ),
        ([{"name": "a", "energy_j": 1.0, "utilisation_percent": 1.0}], "gpus.0.memory_bytes"),
    ],
)
def test_an_edited_gpu_is_named_with_its_place(tmp_path, told, place):
    with pytest.raises(StudyError, match=rf"use\.json is not as servestorm wrote it \(watch\.{place}: "):
        read_gpus(tmp_path / "use.json", told)
