"""What NVIDIA's management library reports about this machine's GPUs, if there are any and `nvidia-ml-py` is installed.

A budget holds CPUs, and so the engines of the process backend see no GPU: this records what else one was doing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Gpu:
    """One GPU at one moment; None is what it does not report."""

    name: str
    energy_j: float | None
    """Used since the driver was loaded."""
    utilisation_percent: float | None
    """Share of the last moments (a sixth of a second to a second) in which a kernel ran."""
    memory_bytes: int | None
    """Allocated now, by everybody."""


def gpus() -> tuple[Gpu, ...] | None:
    """The GPUs of this machine, in the driver's order; None without the library, the driver or a GPU."""
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # noqa: BLE001  # no library, or no driver for it: each of its errors says the same
        return None
    try:
        return tuple(_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())) or None
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    name = nvml.nvmlDeviceGetName(handle)

    def supported(read: Callable[[Any], Any]) -> Any:
        try:
            return read(handle)
        except nvml.NVMLError:  # not supported by this GPU
            return None

    energy_mj = supported(nvml.nvmlDeviceGetTotalEnergyConsumption)
    rates, memory = supported(nvml.nvmlDeviceGetUtilizationRates), supported(nvml.nvmlDeviceGetMemoryInfo)
    return Gpu(
        name=name.decode() if isinstance(name, bytes) else str(name),
        energy_j=None if energy_mj is None else energy_mj / 1000,
        utilisation_percent=None if rates is None else float(rates.gpu),
        memory_bytes=None if memory is None else int(memory.used),
    )


@dataclass(frozen=True)
class GpuChange:
    """What one GPU did between two moments; None is what it does not report."""

    name: str
    energy_j: float | None
    """Used between them; None as well where the counter went back, for the driver was loaded again."""
    utilisation_percent: float | None
    """At the second of them."""
    memory_bytes: int | None
    """At the second of them."""


def used(begin: Sequence[Gpu] | None, end: Sequence[Gpu] | None) -> tuple[GpuChange, ...] | None:
    """What each GPU did between two moments; None where they are not the same GPUs."""
    if begin is None or end is None or [gpu.name for gpu in begin] != [gpu.name for gpu in end]:
        return None
    return tuple(
        GpuChange(last.name, _grown(first.energy_j, last.energy_j), last.utilisation_percent, last.memory_bytes)
        for first, last in zip(begin, end, strict=True)
    )


def _grown(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None or end < begin else end - begin
