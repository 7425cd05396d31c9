"""Which format a trace has: as the command line says, or by its columns; refused where two readings are possible."""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple

from loadtests.arrivals.traces.column_names import meaning_of
from loadtests.arrivals.traces.formats import FORMATS, MINUTE_S
from loadtests.arrivals.traces.trace_file import ColumnSample, TraceFile
from loadtests.errors import LoadTestError

AUTO: Final = "auto"
_SIGNATURES: Final = {
    "azure-functions-2019": {"HashOwner", "HashApp", "HashFunction", "Trigger", "1"},
    "azure-functions-2021": {"app", "func", "end_timestamp", "duration"},
    "azure-lmm-2025": {"TIMESTAMP", "NumImages", "ContextTokens", "GeneratedTokens"},
    "azure-llm": {"TIMESTAMP", "ContextTokens", "GeneratedTokens"},
    "burstgpt": {"Timestamp", "Model", "Request tokens", "Response tokens"},
}
"""Columns that only files of one data set have together; the first one that fits counts."""
_EPOCH_S: Final = (1e9, 4.1e9)
"""Seconds since 1970 of the years 2001 to 2099: other units are told apart by them."""
_PER_SECOND: Final = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


class TraceReading(NamedTuple):
    """How a trace is read."""

    format: str
    column: str
    """Empty where the format says which columns it has."""
    detected: bool
    """False where --trace-format said it."""

    @property
    def shown_columns(self) -> str:
        """The columns that are read, as the record names them."""
        fixed = "1, 2, ... (minutes)" if self.format == "azure-functions-2019" else None
        return self.column or fixed or ", ".join(FORMATS[self.format].columns)


def reading_of(file: TraceFile, asked: str, column: str, bin_s: float) -> TraceReading:
    """By --trace-format, --trace-column and --trace-bin. Raises LoadTestError where they do not fit the file."""
    if column:
        file.require([column])
    if asked != AUTO:
        return TraceReading(asked, _named(file, asked, column, bin_s), detected=False)
    if not column and (published := _published(file)):
        _check_bin(file, published, bin_s)
        return TraceReading(published, "", detected=True)
    if bin_s > 0:
        return TraceReading("counts", column or _counted(file), detected=True)
    chosen = column or (_arrival_column(file) if file.has_header else _only_values(file))
    return TraceReading(_format_of(file, chosen, named=bool(column)), chosen, detected=True)


def _named(file: TraceFile, name: str, column: str, bin_s: float) -> str:
    """The column of a format that was asked for; empty where it has its own."""
    known = FORMATS[name]
    _check_bin(file, name, bin_s)
    if known.columns:
        if missing := [each for each in known.columns if each not in file.names]:
            shown = ", ".join(file.names[:12])
            raise LoadTestError(f"trace {file.path} is not {name}: it has no column {missing[0]!r}, only {shown}.")
        if column:
            raise LoadTestError(f"--trace-format {name} has columns of its own: leave --trace-column out.")
        return ""
    if column:
        return column
    return _counted(file) if known.counts else _only_column(file, "time" if known.text_times else "number")


def _check_bin(file: TraceFile, name: str, bin_s: float) -> None:
    known = FORMATS[name]
    if known.counts and known.bin_s is None and bin_s <= 0:
        raise LoadTestError(f"--trace-format {name} needs --trace-bin SECONDS: the length of a bin.")
    if bin_s > 0 and known.bin_s is not None and bin_s != known.bin_s:
        raise LoadTestError(f"trace {file.path} ({name}) has bins of {MINUTE_S:g} s: leave --trace-bin out.")
    if bin_s > 0 and not known.counts:
        raise LoadTestError(f"trace {file.path} ({name}) holds no counts: leave --trace-bin out.")


def _published(file: TraceFile) -> str | None:
    names = set(file.names)
    return next((name for name, columns in _SIGNATURES.items() if columns <= names), None)


def _of_kind(file: TraceFile, *kinds: str) -> list[str]:
    return [name for name in file.names if file.samples[name].kind in kinds]


def _only_column(file: TraceFile, kind: str) -> str:
    """The one column of a kind, or the one of them that a name calls arrivals."""
    columns = _of_kind(file, kind)
    if not columns:
        what = "column of ISO 8601 times" if kind == "time" else "numeric column"
        raise LoadTestError(f"trace {file.path} has no {what}: name one with --trace-column.")
    likely = [name for name in columns if meaning_of(name).role in ("times", "intervals")]
    for choice in (columns, likely):
        if len(choice) == 1:
            return choice[0]
    raise _several(file, columns)


def _counted(file: TraceFile) -> str:
    columns = _of_kind(file, "number")
    if not columns:
        raise LoadTestError(f"trace {file.path} has no numeric column: name one with --trace-column.")
    for choice in (columns, [name for name in columns if meaning_of(name).role == "counts"]):
        if len(choice) == 1:
            return choice[0]
    raise _several(file, columns)


def _arrival_column(file: TraceFile) -> str:
    """Of a file with a header: the one column whose name says that it holds arrivals."""
    columns = _of_kind(file, "number", "time")
    if not columns:
        empty = all(sample.kind == "empty" for sample in file.samples.values())
        why = (
            "no rows, and so no numeric column: give one with data"
            if empty
            else ("no numeric column and none of ISO 8601 times: name one with --trace-column")
        )
        raise LoadTestError(f"trace {file.path} has {why}.")
    likely = [name for name in columns if meaning_of(name).role in ("times", "intervals")]
    if len(likely) == 1:
        return likely[0]
    if len(likely) > 1:
        raise _several(file, likely)
    if len(columns) == 1:
        if meaning_of(columns[0]).role == "counts":
            raise LoadTestError(f"trace {file.path} seems to hold counts ({columns[0]!r}): give --trace-bin SECONDS.")
        return columns[0]
    raise _several(file, columns)


def _only_values(file: TraceFile) -> str:
    columns = _of_kind(file, "number", "time")
    if len(columns) != 1:
        raise _several(file, columns or file.names)
    return columns[0]


def _several(file: TraceFile, columns: list[str]) -> LoadTestError:
    shown = ", ".join(columns[:12]) + (", ..." if len(columns) > 12 else "")
    return LoadTestError(
        f"trace {file.path} has several columns that may hold the arrivals ({shown}): name one with --trace-column, "
        f"or its format with --trace-format ({', '.join(FORMATS)})."
    )


def _format_of(file: TraceFile, column: str, *, named: bool) -> str:
    """Of one column, by its values and its name. A column that is called times, or was named, is in seconds at last."""
    sample, meaning = file.samples[column], meaning_of(column) if file.has_header else meaning_of("")
    if sample.kind != "number":
        return "timestamps-iso" if sample.kind == "time" else "timestamps-s"  # its reader names what is no number
    if meaning.role == "intervals":
        if not meaning.unit:
            raise _ambiguous(file, column, "intervals in any unit")
        return f"intervals-{meaning.unit}"
    if meaning.role == "counts":
        raise LoadTestError(f"trace {file.path} seems to hold counts ({column!r}): give --trace-bin SECONDS.")
    unit = (meaning.unit if meaning.role == "times" else None) or _epoch_unit(sample)
    if unit:
        return f"timestamps-{unit}"
    if not (meaning.role == "times" or named or _rises_from_zero(sample)):
        raise _ambiguous(file, column, "timestamps, intervals or counts")
    if abs(sample.numbers[0]) > _EPOCH_S[1]:
        raise _ambiguous(file, column, "timestamps in several units")
    return "timestamps-s"


def _epoch_unit(sample: ColumnSample) -> str | None:
    """The unit in which all values are moments of this century."""
    low, high = _EPOCH_S
    for unit, per_second in _PER_SECOND.items():
        if sample.numbers and all(low * per_second <= value < high * per_second for value in sample.numbers):
            return unit
    return None


def _rises_from_zero(sample: ColumnSample) -> bool:
    """0 first, then ever larger numbers with fractions: times since a start, in seconds."""
    numbers = sample.numbers
    rises = len(numbers) > 1 and all(before < after for before, after in pairwise(numbers))
    return rises and numbers[0] == 0 and any(not number.is_integer() for number in numbers)


def _ambiguous(file: TraceFile, column: str, readings: str) -> LoadTestError:
    where = f"column {column!r}" if file.has_header else f"column {column}, without a header,"
    return LoadTestError(
        f"trace {file.path}: {where} can be {readings}: say which with --trace-format ({', '.join(FORMATS)})."
    )
