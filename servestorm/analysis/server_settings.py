"""The settings that an engine's servers really ran with, over all runs of a study."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from servestorm.analysis.doubts import Doubt
from servestorm.plan.labels import ENGINE_SHORT
from servestorm.rundir.record import RunRecord
from servestorm.rundir.shapes.server_settings import ReplicaSettingsFile, SettingFile, SettingsFile
from serving.server_settings import NAMES

_WITHOUT_BATCHING = ("batch_delay_us", "queue_size", "workers")
"""Of two servers that do not batch these say nothing: one of them may not have them."""


@dataclass(frozen=True)
class ServerSetting:
    """One setting of an engine's servers, as they reported it."""

    engine: str
    name: str
    """Such as batch_delay_us, which names the unit too."""
    values: list[int]
    """Every value that was read, the smallest first: several where the plan varies it."""
    ordered: list[int]
    """What the study set; empty where it set nothing, or the servers ran already."""
    sources: list[str]
    """Where it was read."""
    reasons: list[str]
    """Why it was not read."""
    applies: bool
    """False where no server of the engine has such a thing."""


def server_settings(record: RunRecord) -> list[ServerSetting]:
    """Each setting of each engine; empty for a run that read none back."""
    return [setting for engine in record.study.plan.engines for name in NAMES if (setting := _of(record, engine, name))]


def _of(record: RunRecord, engine: str, name: str) -> ServerSetting | None:
    files = [cell.settings for cell in record.cells if cell.cell.engine == engine and cell.settings]
    read: list[SettingFile] = [getattr(replica, name) for file in files for replica in file.replicas]
    ordered: list[int | None] = [getattr(file.ordered, name) for file in files if file.ordered]
    if not read:
        return None
    return ServerSetting(
        engine,
        name,
        values=_each(setting.value for setting in read),
        ordered=_each(ordered),
        sources=_once(setting.source for setting in read if setting.value is not None),
        reasons=_once(setting.reason for setting in read if setting.value is None),
        applies=any(setting.applies for setting in read),
    )


def _each(values: Iterable[int | None]) -> list[int]:
    return sorted({value for value in values if value is not None})


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def settings_notes(record: RunRecord) -> list[str]:
    """What else artifacts and operators set that changes how servers serve, each sentence once."""
    return _once(
        f"{ENGINE_SHORT[cell.cell.engine]}: {note}"
        for cell in record.cells
        for replica in _replicas(cell.settings)
        for note in replica.notes
    )


def _replicas(file: SettingsFile | None) -> Sequence[ReplicaSettingsFile]:
    return file.replicas if file else []


def unequal_settings(settings: Sequence[ServerSetting]) -> Iterator[Doubt]:
    """The doubt where engines that ran already were not set alike: a study that starts them sets them alike."""
    size = {one.engine: one.values for one in settings if one.name == "max_batch_size" and one.values}
    batches = any(values != [1] for values in size.values())
    found = []
    for name, words in NAMES.items():
        known = {one.engine: one.values for one in settings if one.name == name and one.values}
        skipped = name in _WITHOUT_BATCHING and not batches
        if not skipped and len({tuple(values) for values in known.values()}) > 1:
            each = ", ".join(f"{ENGINE_SHORT[engine]} {_values(values)}" for engine, values in known.items())
            found.append(f"{words}: {each}")
    if found:
        yield Doubt(
            "grave",
            "unequal_settings",
            f"The engines ran with different settings ({'; '.join(found)}): what is compared is those settings as much "
            "as the engines; start them alike.",
        )


def _values(values: Sequence[int]) -> str:
    return " or ".join(f"{value:,}" for value in values)
