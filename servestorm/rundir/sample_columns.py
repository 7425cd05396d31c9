"""The columns of samples.parquet and the way to them: batch by batch, each file checked before its first batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from servestorm.errors import StudyError

WHOLE_NUMBERS: Final = (
    *("scheduled_ns", "sent_ns", "done_ns"),
    *("images", "endpoint", "sent_bytes", "received_bytes"),
)
OUTCOME, WARMUP = "outcome", "warmup"
OK: Final = "ok"
"""The outcome of a right answer, or of an unchecked one where answers are not checked."""
_BATCH_ROWS: Final = 131_072
"""Ten million samples must never lie in memory as a table."""


class SampleFile:
    """An open samples.parquet; further columns than those of this module are not read."""

    def __init__(self, path: Path, file: Any) -> None:
        self._path, self._file = path, file

    @property
    def rows(self) -> int:
        """How many samples it holds, the warm-up's too."""
        return int(self._file.metadata.num_rows)

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """pyarrow record batches of these columns, in the order of the file."""
        # group by group: a reader of the whole file keeps what it has decoded until it is done
        for group in range(self._file.num_row_groups):
            yield from self._file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=list(columns))


@contextmanager
def sample_file(path: Path) -> Iterator[SampleFile]:
    """Open samples.parquet; raises StudyError that names the file where it is not one, then or in a batch."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _require_columns(path, file.schema_arrow)
            yield SampleFile(path, file)
    except (OSError, pa.ArrowException) as error:
        first = str(error).splitlines()[0]
        raise StudyError(f"{path} is no whole file of samples ({first}): run the study again.") from error


def _require_columns(path: Path, schema: Any) -> None:
    """All columns are there, and of the kinds that the load generator writes."""
    import pyarrow.types as kinds

    names = (*WHOLE_NUMBERS, OUTCOME, WARMUP)
    if missing := set(names) - set(schema.names):
        raise StudyError(f"{path} has no column {sorted(missing)[0]}: it comes from another version.")
    for name in names:
        kind = schema.field(name).type
        if name == OUTCOME:
            fits = kinds.is_string(kind.value_type if kinds.is_dictionary(kind) else kind)
        else:
            fits = kinds.is_boolean(kind) if name == WARMUP else kinds.is_integer(kind)
        if not fits:
            raise StudyError(f"{path} has {kind} in its column {name}: it was edited; run the study again.")
