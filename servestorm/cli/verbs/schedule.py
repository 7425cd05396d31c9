"""`servestorm schedule`: the statistics of an arrival process and a plot of it, without sending anything."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from loadtests.arrivals.options import arrival_options
from servestorm.cli.option_types import AddVerb

if TYPE_CHECKING:
    from loadtests.arrivals.blocks import BlockSchedule
    from loadtests.arrivals.processes import ScheduleStatistics

_COLUMNS, _ROWS = 72, 8
_BLOCKS = " ▁▂▃▄▅▆▇█"


def add_options(add: AddVerb) -> None:
    """The verb's options, for the command line."""
    parser = add(
        "schedule",
        "print and plot the statistics of an arrival process, without sending anything",
        "servestorm schedule --arrivals mmpp --mmpp-rates 20,200 --mmpp-dwells 10,2 --duration 60",
    )
    for option in arrival_options("poisson"):
        option.add_to(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print statistics and a drawing of arrivals/s over time."""
    from loadtests.arrivals.processes import statistics_of
    from loadtests.errors import LoadTestError
    from loadtests.options import LoadOptions, build_schedule, refuse_no_values, refuse_too_long

    refuse_no_values(arguments)
    refuse_too_long("--duration", arguments.duration)
    if arguments.seed < 0:
        raise LoadTestError(f"--seed must be 0 or more, not {arguments.seed}.")
    options = LoadOptions([], arguments)
    duration_s = float(options.duration)
    arrivals = build_schedule(options, duration_s)
    schedule, process = arrivals.schedule, dict(arrivals.record)
    name = process.pop("process")
    parameters = "".join(f", {key} {value}" for key, value in process.items())
    print(f"{name}{parameters}, seed {options.seed}")
    if arrivals.reading:
        print(arrivals.reading)
    for label, value in labelled(statistics_of(schedule, duration_s)):
        print(f"{label:<46}{value}")
    print()
    print("\n".join(drawing(schedule, duration_s)))
    return 0


def labelled(statistics: ScheduleStatistics) -> list[tuple[str, str]]:
    """Statistics as label and text; a statistic that needs more arrivals says so."""

    def figure(value: float | None) -> str:
        return "too few arrivals" if value is None else f"{value:.3g}"

    return [
        ("arrivals", f"{statistics.arrivals:,}"),
        ("duration, s", f"{statistics.duration_s:g}"),
        ("rate, requests/s", f"{statistics.rate:.4g}"),
        ("coefficient of variation of the gaps", figure(statistics.cv)),
        ("index of dispersion (counts in 1 s windows)", figure(statistics.dispersion)),
        ("peak over mean (1 s windows)", figure(statistics.peak_to_mean)),
    ]


def drawing(schedule: BlockSchedule, duration_s: float) -> list[str]:
    """Arrivals/s over time as lines of block characters, with the scale."""
    import numpy as np

    counts = np.zeros(_COLUMNS, np.int64)
    for block in schedule.blocks():
        counts += np.histogram(block / 1e9, bins=_COLUMNS, range=(0, duration_s))[0]
    rates = counts / (duration_s / _COLUMNS)
    top = float(rates.max())
    eighths = np.rint(rates / top * _ROWS * 8).astype(int)
    lines = []
    for row in range(_ROWS - 1, -1, -1):
        cells = "".join(_BLOCKS[int(np.clip(value - row * 8, 0, 8))] for value in eighths)
        label = f"{top:8.4g}/s" if row == _ROWS - 1 else ""
        lines.append(f"{label:>10} ┤{cells}")
    lines.append(f"{'0/s':>10} └{'─' * _COLUMNS}")
    end = f"{duration_s:g} s"
    lines.append(f"{'':>12}0 s{end:>{_COLUMNS - 3}}")
    return lines
