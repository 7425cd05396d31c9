"""Where the time of a mean request goes, over the runs of a group, for the report's figure and results.json."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from servestorm.analysis.latency_split import Split, split
from servestorm.analysis.run import Run
from servestorm.analysis.server_times import ServerTimes, server_times
from servestorm.rundir.record import CellRecord

UNREAD = ServerTimes(notes=("The server's own metrics were not read.",))


def split_figures(engines: Sequence[str], runs: Iterable[Run], cells: Iterable[CellRecord]) -> dict[str, Any]:
    """{group: {engine: {"parts": [{"part", "ms"}, ...], "notes": [sentence, ...]}}} of the runs under an open load.

    `ms` is the mean over runs, None where no server told.
    Raises StudyError for a broken file of samples or metrics.
    """
    folders = {cell.cell.id: cell for cell in cells}
    found: dict[str, dict[str, list[Split]]] = {}
    for run in runs:
        if run.scenario in ("steady", "bursty") and (one := _split(folders[run.id])):
            found.setdefault(run.group, {engine: [] for engine in engines})[run.engine].append(one)
    return {
        group: {engine: _together(splits) for engine, splits in by_engine.items()} for group, by_engine in found.items()
    }


def _split(cell: CellRecord) -> Split | None:
    since_ms = cell.summary.measured_from_unix_ms if cell.summary else None
    metrics = cell.metrics_path
    times = server_times(cell.cell.engine, metrics, since_unix_ms=since_ms) if metrics else UNREAD
    return split(cell.samples_path, times) if cell.samples_path else None


def _together(splits: Sequence[Split]) -> dict[str, Any]:
    names = dict.fromkeys(part.part for one in splits for part in one.parts)
    known = {name: [p.ms for one in splits for p in one.parts if p.part == name and p.ms is not None] for name in names}
    return {
        "parts": [{"part": name, "ms": sum(ms) / len(ms) if ms else None} for name, ms in known.items()],
        "notes": list(dict.fromkeys(note for one in splits for note in one.notes)),
    }
