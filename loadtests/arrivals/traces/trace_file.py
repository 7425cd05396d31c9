"""A trace on disk, CSV (plain or compressed) or Parquet: its columns, a sample of them, and all rows in batches."""

from __future__ import annotations

import csv
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from loadtests.errors import LoadTestError

_SAMPLE_BYTES: Final = 1 << 20
_SAMPLE_ROWS: Final = 200
_BLOCK_BYTES: Final = 2 << 20
_CELLS_A_BATCH: Final = 1 << 20
_PARQUET: Final = b"PAR1"
_CODECS: Final = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}
_ARCHIVES: Final = {b"PK\x03\x04": "zip", b"Rar!": "rar", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7z"}
_BINNED_HEADER: Final = {"HashOwner", "HashApp", "HashFunction"}
"""Names of a header (Azure Functions 2019) whose other names are numbers."""
_FEWEST_BINS: Final = 3
"""Of a header of numbers alone: 1, 2 may be a time and a count."""
_TAR_PLACE, _TAR = 257, b"ustar"
ISO_TIME: Final = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d(?::\d\d(?::\d\d(?:\.\d{1,9})?)?)?(?:Z|[+-]\d\d(?::?\d\d)?)?)?"
)
"""ISO 8601: a date, and a time of up to nine fractional digits with or without a zone."""

Kind = Literal["number", "time", "text", "empty"]


class RowFilter(NamedTuple):
    """Only rows whose column has this value."""

    column: str
    value: str


class ColumnSample(NamedTuple):
    """What the first rows of a column hold."""

    kind: Kind
    numbers: list[float]
    """Of kind `number`: in order, without empty cells; the others have none."""


class TraceFile(ABC):
    """Rows by named columns. Raises LoadTestError where the file cannot be read."""

    path: Path
    names: list[str]
    """Of the columns, in order; "1", "2", ... where the file has no header."""
    has_header: bool
    samples: Mapping[str, ColumnSample]
    row_filter: RowFilter | None

    def batches(self, columns: Sequence[str], kind: pa.DataType | None = None) -> Iterator[pa.RecordBatch]:
        """The columns of the rows that the filter lets pass; of CSV as text, or as `kind`."""
        self.require(columns)
        wanted = [*columns, *([self.row_filter.column] if self.row_filter else [])]
        self.require(wanted)
        passed = 0
        try:
            for batch in self._batches(list(dict.fromkeys(wanted)), dict.fromkeys(columns, kind or pa.string())):
                kept = _passing(batch, self.row_filter)
                passed += len(kept)
                yield kept
        except (OSError, pa.ArrowException) as error:
            raise self.unreadable(error) from error
        if self.row_filter and not passed:
            column, value = self.row_filter
            raise LoadTestError(f"trace {self.path} has no row with {column} = {value}: check --trace-filter.")

    def require(self, columns: Sequence[str]) -> None:
        """Raise LoadTestError where one of the columns is missing."""
        for column in columns:
            if column not in self.names:
                shown = ", ".join(self.names[:12]) + (", ..." if len(self.names) > 12 else "")
                numbered = "" if self.has_header else " (columns by number, since the file has no header)"
                raise LoadTestError(f"trace {self.path} has no column {column!r}, only {shown}{numbered}.")

    def unreadable(self, error: Exception) -> LoadTestError:
        """One sentence on what the reader of the file's format says."""
        reason = " ".join(str(error).split())[:160].rstrip(".")
        return LoadTestError(f"trace {self.path} cannot be read as CSV or Parquet: {reason}.")

    @abstractmethod
    def _batches(self, columns: list[str], kinds: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]: ...


def open_trace(path: Path, row_filter: RowFilter | None = None) -> TraceFile:
    """The file by its first bytes, whatever its name. Raises LoadTestError where it is missing, empty or an archive."""
    try:
        with path.open("rb") as file:
            head = file.read(_TAR_PLACE + len(_TAR))
    except OSError as error:
        raise LoadTestError(f"trace {path} cannot be read: {error.strerror}.") from error
    if not head:
        raise LoadTestError(f"trace {path} cannot be read: it is empty.")
    for magic, name in _ARCHIVES.items():
        if head.startswith(magic):
            raise _archive(path, name)
    if head[_TAR_PLACE:] == _TAR:
        raise _archive(path, "tar")
    if head.startswith(_PARQUET):
        return _ParquetTrace(path, row_filter)
    codec = next((name for magic, name in _CODECS.items() if head.startswith(magic)), None)
    return _CsvTrace(path, codec, row_filter)


class _CsvTrace(TraceFile):
    def __init__(self, path: Path, codec: str | None, row_filter: RowFilter | None) -> None:
        self.path, self.row_filter, self._codec = path, row_filter, codec
        lines = self._first_lines()
        blank = next((number for number, line in enumerate(lines) if line.strip()), None)
        if blank is None:
            raise LoadTestError(f"trace {path} cannot be read: it is empty.")
        try:
            rows = [row for row in csv.reader(lines[blank:]) if row]
        except csv.Error as error:  # a field of over 128 KiB
            raise self.unreadable(error) from error
        self.has_header = not _begins_with_data(rows)
        first = [name.strip() for name in rows[0]]
        self.names = _distinct(first) if self.has_header else [str(number + 1) for number in range(len(first))]
        self._skipped_lines = blank + self.has_header
        data = rows[self.has_header :]
        columns = ([row[place] for row in data if place < len(row)] for place in range(len(self.names)))
        self.samples = dict(zip(self.names, map(_sample_of_text, columns), strict=True))

    def _stream(self) -> Any:
        file = pa.OSFile(str(self.path))
        return pa.CompressedInputStream(file, self._codec) if self._codec else file

    def _first_lines(self) -> list[str]:
        try:
            with self._stream() as stream:
                begin = bytes(stream.read(_SAMPLE_BYTES))
        except (OSError, pa.ArrowException) as error:
            raise self.unreadable(error) from error
        if begin[_TAR_PLACE : _TAR_PLACE + len(_TAR)] == _TAR:
            raise _archive(self.path, "tar")
        lines = begin.decode("utf-8-sig", "replace").splitlines()
        if len(begin) == _SAMPLE_BYTES and len(lines) > 1:
            lines.pop()  # cut in two
        return lines[: _SAMPLE_ROWS + 1]

    def _batches(self, columns: list[str], kinds: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        types = {column: kinds.get(column, pa.string()) for column in columns}
        with self._stream() as stream:
            yield from pa.csv.open_csv(
                stream,
                pa.csv.ReadOptions(
                    column_names=self.names, skip_rows=self._skipped_lines, block_size=_BLOCK_BYTES, use_threads=True
                ),
                convert_options=pa.csv.ConvertOptions(
                    include_columns=columns, column_types=types, strings_can_be_null=True
                ),
            )


class _ParquetTrace(TraceFile):
    def __init__(self, path: Path, row_filter: RowFilter | None) -> None:
        self.path, self.row_filter, self.has_header = path, row_filter, True
        try:
            with pq.ParquetFile(path) as file:
                self.names = list(file.schema_arrow.names)
                first = next(file.iter_batches(_SAMPLE_ROWS), None)
        except (OSError, pa.ArrowException) as error:
            raise self.unreadable(error) from error
        columns = [(name, None if first is None else first.column(name)) for name in self.names]
        self.samples = {name: _sample_of_cells(cells) for name, cells in columns}

    def _batches(self, columns: list[str], kinds: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path) as file:
            yield from file.iter_batches(max(1, _CELLS_A_BATCH // len(columns)), columns=columns)


def _archive(path: Path, name: str) -> LoadTestError:
    return LoadTestError(f"trace {path} is an archive ({name}): unpack it and give the CSV or Parquet file inside.")


def _passing(batch: pa.RecordBatch, row_filter: RowFilter | None) -> pa.RecordBatch:
    if row_filter is None:
        return batch
    return batch.filter(pc.equal(batch.column(row_filter.column).cast(pa.string()), row_filter.value))


def _begins_with_data(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row holds values and no names; bins may be named 1, 2, 3, ..., with other names or many."""
    if {cell.strip() for cell in rows[0]} >= _BINNED_HEADER:
        return False
    values = {place: cell.strip() for place, cell in enumerate(rows[0]) if _is_value(cell.strip())}
    if len(values) > 1 and all(cell.isdecimal() and len(cell) <= 9 for cell in values.values()):
        numbers = [int(cell) for cell in values.values()]
        named_otherwise = len(values) < len(rows[0]) or len(numbers) >= _FEWEST_BINS
        if named_otherwise and numbers[0] == 1 and all(after == before + 1 for before, after in pairwise(numbers)):
            return False
    return bool(values)


def _is_value(cell: str) -> bool:
    return _is_number(cell) or ISO_TIME.fullmatch(cell) is not None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return cell[-1:].isdigit() or cell[-1:] == "."  # not "nan", which may be a name


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, later ones of the same name with their number: t, t.2."""
    seen: dict[str, int] = {}
    distinct = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        distinct.append(name if seen[name] == 1 else f"{name}.{seen[name]}")
    return distinct


def _sample_of_text(cells: Sequence[str]) -> ColumnSample:
    filled = [cell.strip() for cell in cells if cell.strip()]
    numbers = [float(cell) for cell in filled if _is_number(cell)]
    if not filled:
        return ColumnSample("empty", [])
    if numbers and len(numbers) >= len(filled) - sum(cell.lower() in ("nan", "null", "na") for cell in filled):
        return ColumnSample("number", numbers)
    if all(ISO_TIME.fullmatch(cell) for cell in filled):
        return ColumnSample("time", [])
    return ColumnSample("text", [])


def _sample_of_cells(cells: Any) -> ColumnSample:
    if cells is None or cells.null_count == len(cells):
        return ColumnSample("empty", [])
    kind = cells.type
    if pa.types.is_timestamp(kind):
        return ColumnSample("time", [])
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return ColumnSample("number", [float(cell) for cell in cells.drop_null().to_pylist()])
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _sample_of_text(cells.drop_null().to_pylist())
    return ColumnSample("text", [])
