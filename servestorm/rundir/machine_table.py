"""machine.parquet: what the machine did in each second of a load, on the clock of its samples."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from servestorm.errors import StudyError


@dataclass(frozen=True)
class MachineSecond:
    """About one second of a load. Shares are 0..1 of the time of the cores that they are of; None is unknown."""

    begin_ns: int
    """Of the monotonic clock, as the times in samples.parquet."""
    end_ns: int
    steal_share: float | None
    """Of the study's cores (the engine's and the generator's), given to other machines by the hypervisor."""
    other_share: float | None
    """Of the study's cores, used by other programs. None of servers whose CPU time is only read before and after."""
    ours_s: float | None
    """CPU time of the study, its servers and its generator, on any core."""
    engine_busy_share: float | None
    engine_steal_share: float | None
    generator_busy_share: float | None
    generator_steal_share: float | None


_TIMES = ("begin_ns", "end_ns")


def machine_bytes(seconds: Sequence[MachineSecond]) -> bytes:
    """The seconds as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: [getattr(second, name) for second in seconds] for name in _kinds()}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns, schema=pa.schema(list(_kinds().items()))), sink, compression="zstd")
    return sink.getvalue()


def read_machine(path: Path) -> list[MachineSecond]:
    """The seconds of a load, in order.

    Raises StudyError naming the file where it is not one of a machine's seconds, or where they are not in order.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=list(_kinds()))
        table = pa.table({name: table[name].cast(kind) for name, kind in _kinds().items()})
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        first = str(error).partition("\n")[0]
        raise StudyError(f"{path} is no whole file of a machine's seconds ({first}): run the study again.") from error
    if gaps := [name for name in _TIMES if table[name].null_count]:
        raise StudyError(f"{path} has gaps in its column {gaps[0]}: it was edited; run the study again.")
    seconds = [MachineSecond(**row) for row in table.to_pylist()]
    if not _in_order(seconds):
        raise StudyError(f"{path} has seconds that are not in order: it was edited; run the study again.")
    return seconds


def _in_order(seconds: Sequence[MachineSecond]) -> bool:
    moments = [moment for second in seconds for moment in (second.begin_ns, second.end_ns)]
    return moments == sorted(moments)


def _kinds() -> dict[str, Any]:
    """The type of each column."""
    import pyarrow as pa

    return {field.name: pa.int64() if field.name in _TIMES else pa.float64() for field in fields(MachineSecond)}
