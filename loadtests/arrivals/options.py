"""The options of the arrival processes, light enough for a command line to import before it knows its verb."""

from __future__ import annotations

import argparse
from typing import Any, Final, NamedTuple

PROCESSES: Final = ("constant", "poisson", "gamma", "on-off", "mmpp", "spike", "ramp", "diurnal", "trace")

TRACE_FORMATS: Final = (
    *(f"timestamps-{unit}" for unit in ("s", "ms", "us", "ns", "iso")),
    *(f"intervals-{unit}" for unit in ("s", "ms", "us", "ns")),
    *("perf-analyzer", "counts", "azure-functions-2019", "azure-functions-2021", "azure-llm", "azure-lmm-2025"),
    "burstgpt",
)
"""What a row of a trace means; docs/how-to/replay-a-trace.md explains each."""


class _NoneIfEmpty(argparse.Action):
    """Keeps None for an empty text, to be refused where all options are checked."""

    def __call__(self, _parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, self.dest, values if values.strip() else None)


class Option(NamedTuple):
    """One command-line option; `kind` is a type or a tuple of choices; `hidden` keeps it out of the web form."""

    flag: str
    kind: Any
    default: Any
    help: str
    hidden: bool = False
    repeatable: bool = False
    """Given several times, it is a list."""

    @property
    def dest(self) -> str:
        """Attribute of the parsed namespace (and, in words, the label in Locust's web form)."""
        return self.flag.lstrip("-").replace("-", "_")

    @property
    def may_be_left_out(self) -> bool:
        """Whether an empty text stands for none; one that is given, of a variable that is not set, is refused."""
        return self.kind is str and self.default == ""

    def add_to(self, parser: Any) -> argparse.Action:
        """Declare the option on an argparse parser or group."""
        kind: dict[str, Any] = {"choices": self.kind} if isinstance(self.kind, tuple) else {"type": self.kind}
        if self.repeatable:
            kind["action"] = "append"
        elif self.may_be_left_out:
            kind["action"] = _NoneIfEmpty
        shown = "" if self.default in ("", 0, 0.0, None) else f" (default: {self.default})"
        action: argparse.Action = parser.add_argument(
            self.flag, dest=self.dest, default=self.default, help=self.help + shown, **kind
        )
        return action


def arrival_options(process: str) -> list[Option]:
    """What a schedule is made of; `process` is the default."""
    return [
        Option("--arrivals", PROCESSES, process, "arrival process of the open loop"),
        Option("--rate", float, 50.0, "requests/s; for on-off, spike and ramp the base or first rate"),
        Option("--duration", float, 30.0, "seconds measured, after the warm-up"),
        Option("--seed", int, 0, "random seed"),
        Option("--cv", float, 3.0, "gamma: coefficient of variation of the gaps"),
        Option("--peak-rate", float, 0.0, "on-off, spike and ramp: peak or last rate, requests/s (0: 4 x --rate)"),
        Option("--on", float, 2.0, "on-off: seconds at the peak rate"),
        Option("--off", float, 4.0, "on-off: seconds at the base rate"),
        Option("--mmpp-rates", str, "", "mmpp: rate of each state, requests/s, comma-separated"),
        Option("--mmpp-dwells", str, "", "mmpp: mean stay in each state, s, comma-separated"),
        Option("--spike-at", float, 10.0, "spike: seconds after the warm-up"),
        Option("--spike-width", float, 2.0, "spike: seconds at the peak rate"),
        Option("--amplitude", float, 0.8, "diurnal: swing around --rate, 0..1"),
        Option("--period", float, 60.0, "diurnal: seconds of one wave"),
        Option("--trace", str, "", "trace: CSV (also gzip) or Parquet file of recorded arrivals, or of counts", True),
        Option(
            "--trace-format", ("auto", *TRACE_FORMATS), "auto", "trace: what a row is; auto: by the columns, or refused"
        ),
        Option("--trace-column", str, "", "trace: column to read, by its name or number; default: by the format"),
        Option("--trace-bin", float, 0.0, "trace: seconds a bin where the column holds counts"),
        Option("--trace-filter", str, "", "trace: COLUMN=VALUE, only rows with this value, such as Trigger=http"),
        Option("--trace-time-scale", float, 1.0, "trace: stretch time by this factor"),
        Option("--trace-rate-scale", float, 1.0, "trace: thin (under 1) or multiply the arrivals by this factor"),
    ]
