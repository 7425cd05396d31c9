"""The arrival processes by the name that `--arrivals` takes: one line each, from options to a schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from loadtests.arrivals import processes
from loadtests.arrivals.blocks import BlockSchedule
from loadtests.arrivals.processes import Arrivals
from loadtests.arrivals.traces.replay import TraceOptions, read_trace
from loadtests.errors import LoadTestError

Parameters = dict[str, Any]
"""What summary.json records of a process, beside its name: numbers with their unit in the key, and a trace's file."""


class ArrivalProcess(NamedTuple):
    """How the values of the options (arrivals/options.py) become a schedule."""

    parameters: Callable[[Any], Parameters]
    """Of the parsed options; raises LoadTestError where one cannot be read."""
    schedule: Callable[[Any, Parameters, float], BlockSchedule | Arrivals]
    """Options, parameters and measured seconds to arrivals from the start of the measured time."""

    def arrivals(self, options: Any, parameters: Parameters, duration_s: float) -> Arrivals:
        """The schedule, with what a trace says of its requests."""
        made = self.schedule(options, parameters, duration_s)
        return made if isinstance(made, Arrivals) else Arrivals(made)


def _peak(o: Any) -> float:
    return float(o.peak_rate or 4 * o.rate)


def _numbers(flag: str, text: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise LoadTestError(f"{flag} must be numbers separated by commas, not {text!r}.") from error
    if not all(map(math.isfinite, numbers)):
        raise LoadTestError(f"{flag} must be finite numbers, not {text!r}.")
    return numbers


def _mmpp(o: Any) -> Parameters:
    return {"rates": _numbers("--mmpp-rates", o.mmpp_rates), "dwells_s": _numbers("--mmpp-dwells", o.mmpp_dwells)}


def _trace(o: Any, _: Parameters, s: float) -> Arrivals:
    if not o.trace:
        raise LoadTestError("--arrivals trace needs --trace FILE.")
    how = (o.trace_format, o.trace_column, o.trace_bin, o.trace_filter, o.trace_time_scale, o.trace_rate_scale)
    return read_trace(TraceOptions(Path(o.trace), *how), s, o.seed)


def _trace_parameters(o: Any) -> Parameters:
    filtered = {"filter": o.trace_filter} if o.trace_filter else {}
    return {"file": o.trace, **filtered, "time_scale": o.trace_time_scale, "rate_scale": o.trace_rate_scale}


ARRIVALS: Final[Mapping[str, ArrivalProcess]] = {
    "constant": ArrivalProcess(lambda _: {}, lambda o, _, s: processes.constant(o.rate, s)),
    "poisson": ArrivalProcess(lambda _: {}, lambda o, _, s: processes.poisson(o.rate, s, o.seed)),
    "gamma": ArrivalProcess(lambda o: {"cv": o.cv}, lambda o, p, s: processes.gamma(o.rate, p["cv"], s, o.seed)),
    "on-off": ArrivalProcess(
        lambda o: {"peak_rate": _peak(o), "on_s": o.on, "off_s": o.off},
        lambda o, p, s: processes.on_off(o.rate, p["peak_rate"], p["on_s"], p["off_s"], s, o.seed),
    ),
    "mmpp": ArrivalProcess(_mmpp, lambda o, p, s: processes.mmpp(p["rates"], p["dwells_s"], s, o.seed)),
    "spike": ArrivalProcess(
        lambda o: {"peak_rate": _peak(o), "at_s": o.spike_at, "width_s": o.spike_width},
        lambda o, p, s: processes.spike(o.rate, p["peak_rate"], p["at_s"], p["width_s"], s, o.seed),
    ),
    "ramp": ArrivalProcess(
        lambda o: {"end_rate": _peak(o)}, lambda o, p, s: processes.ramp(o.rate, p["end_rate"], s, o.seed)
    ),
    "diurnal": ArrivalProcess(
        lambda o: {"amplitude": o.amplitude, "period_s": o.period},
        lambda o, p, s: processes.diurnal(o.rate, p["amplitude"], p["period_s"], s, o.seed),
    ),
    "trace": ArrivalProcess(_trace_parameters, _trace),
}
