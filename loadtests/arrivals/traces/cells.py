"""Cells of a trace as numbers: exact integers where they are whole, times as int64 nanoseconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from loadtests.arrivals.traces.trace_file import ISO_TIME, TraceFile
from loadtests.errors import LoadTestError

UNITS_NS: Final = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
"""Nanoseconds of a unit, by the name that formats have it under."""
Values = NDArray[np.int64] | NDArray[np.float64]
_MOST_NS: Final = 2**61
_MOST_WHOLE: Final = 10**9
"""More requests than any load can hold; sums of such counts stay exact."""


class Column:
    """One column of a file, for reading its cells with errors that name it."""

    def __init__(self, file: TraceFile, name: str) -> None:
        self._file, self._name = file, name
        self._row = 0
        self._zoned: bool | None = None

    def numbers(self, cells: Any) -> Values:
        """(n,) int64 where all of them are whole numbers, else float64. Raises LoadTestError on gaps and other text."""
        self._check_filled(cells)
        if pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
            cells = self._parsed(pc.utf8_trim_whitespace(cells))
        elif not (pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type)):
            if not pa.types.is_decimal(cells.type):
                raise LoadTestError(f"trace {self._file.path}: column {self._name!r} holds {cells.type}, not numbers.")
            cells = cells.cast(pa.float64())
        whole = pa.types.is_integer(cells.type)
        values: Values = cells.to_numpy(zero_copy_only=False).astype(np.int64 if whole else np.float64, copy=False)
        if not whole and not np.isfinite(values).all():
            raise self._fault("has gaps: column {column} holds values that are not finite")
        self._row += len(cells)
        return values

    def whole_numbers(self, cells: Any, what: str) -> NDArray[np.int64]:
        """(n,) int64, 0 or more. Raises LoadTestError where one is negative or not whole."""
        values = self.numbers(cells)
        if len(values) and ((values < 0).any() or (values != np.rint(values)).any()):
            raise self._fault(f"holds {what} that are negative or not whole in column {{column}}: check the column")
        if len(values) and values.max() > _MOST_WHOLE:
            raise self._fault(f"holds {what} over {_MOST_WHOLE:,} in column {{column}}: check the column")
        return values.astype(np.int64, copy=False)

    def instants_ns(self, cells: Any) -> NDArray[np.int64]:
        """(n,) int64 ns since 1970, of ISO 8601 text or timestamps. Raises LoadTestError on other cells and on gaps."""
        self._check_filled(cells)
        if pa.types.is_timestamp(cells.type):
            times = cells.cast(pa.timestamp("ns", cells.type.tz))
        elif pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type):
            times = self._times(pc.utf8_trim_whitespace(cells))
        else:
            raise LoadTestError(
                f"trace {self._file.path}: column {self._name!r} holds {cells.type}, not ISO 8601 times."
            )
        self._row += len(cells)
        instants: NDArray[np.int64] = times.cast(pa.int64()).to_numpy(zero_copy_only=False)
        return instants

    def _check_filled(self, cells: Any) -> None:
        if cells.null_count:
            raise self._fault(f"has gaps: {cells.null_count} empty cells in column {{column}}")

    def _parsed(self, cells: Any) -> Any:
        for kind in (pa.int64(), pa.float64()):
            try:
                return cells.cast(kind)
            except pa.ArrowInvalid:
                continue
        raise self._unfit(cells, "numbers", _is_float)

    def _times(self, cells: Any) -> Any:
        """Text as timestamps; the first cell of the column says whether all have a zone."""
        if self._zoned is None and len(cells):
            self._zoned = _has_zone(cells[0].as_py())
        try:
            return cells.cast(pa.timestamp("ns", "UTC" if self._zoned else None))
        except pa.ArrowInvalid as error:
            if bad := self._first_unfit(cells, lambda cell: ISO_TIME.fullmatch(cell) is not None):
                raise bad.sentence("ISO 8601 times") from error
            zone = "with" if self._zoned else "without"
            raise self._fault(
                f"mixes times with and without a zone in column {{column}}: the first one is {zone}"
            ) from error

    def _unfit(self, cells: Any, what: str, fits: Any) -> LoadTestError:
        bad = self._first_unfit(cells, fits)
        return bad.sentence(what) if bad else self._fault(f"holds other than {what} in column {{column}}")

    def _first_unfit(self, cells: Any, fits: Any) -> _UnfitCell | None:
        for place, cell in enumerate(cells.to_pylist()):
            if not fits(cell):
                return _UnfitCell(self._file, self._name, self._row + place + 1, cell)
        return None

    def _fault(self, text: str) -> LoadTestError:
        return LoadTestError(f"trace {self._file.path} {text.format(column=repr(self._name))}.")


class _UnfitCell:
    def __init__(self, file: TraceFile, name: str, row: int, cell: str) -> None:
        self._place = f"trace {file.path}: column {name!r} holds {cell[:40]!r} in row {row}"

    def sentence(self, what: str) -> LoadTestError:
        return LoadTestError(f"{self._place}, not {what}: check the column (--trace-column).")


def cells_of(file: TraceFile, *names: str) -> Iterator[list[Any]]:
    """The columns' cells, batch by batch."""
    for batch in file.batches(names):
        yield [batch.column(name) for name in names]


def in_ns(file: TraceFile, values: Values, unit_ns: int) -> NDArray[np.int64]:
    """Differences of times in a unit, as int64 ns. Raises LoadTestError where they span more than 73 years."""
    if len(values) and float(np.abs(values).max()) * unit_ns > _MOST_NS:
        raise LoadTestError(f"trace {file.path} spans over 73 years: check the unit of its times (--trace-format).")
    if values.dtype == np.int64:
        return values.astype(np.int64, copy=False) * unit_ns
    nanoseconds: NDArray[np.int64] = np.rint(values * unit_ns).astype(np.int64)
    return nanoseconds


def _is_float(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _has_zone(cell: str) -> bool:
    time_of_day = cell[10:]
    return time_of_day.endswith("Z") or "+" in time_of_day or "-" in time_of_day
