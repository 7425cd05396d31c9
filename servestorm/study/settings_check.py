"""What the servers of a run really run with, read back from each of them and held against what was ordered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from models.manifest import ModelDir
from servestorm.rundir import files
from servestorm.rundir.files import write_json
from servestorm.rundir.shapes.server_settings import OrderedSettingsFile, ReplicaSettingsFile, SettingFile, SettingsFile
from serving.deployment import Deployment, Engine
from serving.errors import DeploymentError
from serving.server_settings import NAMES, OrderedSettings, ServerSettings, as_ordered, differences, require_as_ordered


def check_settings(
    engine: Engine, model: ModelDir, deployment: Deployment, ordered: OrderedSettings | None, folder: Path
) -> None:
    """Read every replica's settings and write them into settings.json of `folder`.

    `ordered` is None where the servers ran already. Raises DeploymentError where a server runs with another setting
    than the study ordered, or than the first of its replicas.
    """
    read = {place.replica: engine.settings(deployment.server(place), model) for place in deployment.endpoints}
    write_json(folder / files.SETTINGS, _file(read, ordered).model_dump())
    if ordered is not None:
        for replica, settings in read.items():
            require_as_ordered(f"{engine.name} replica {replica}", settings, ordered)
    _require_alike(engine, read)


def _require_alike(engine: Engine, read: Mapping[int, ServerSettings]) -> None:
    """Every replica is like the first."""
    if not read:
        return
    first = min(read)
    for replica, settings in read.items():
        if found := differences(settings, as_ordered(read[first])):
            raise DeploymentError(
                f"{engine.name} replica {replica} runs with {'; '.join(found)} of replica {first}: start all replicas "
                "with the same settings."
            )


def _file(read: Mapping[int, ServerSettings], ordered: OrderedSettings | None) -> SettingsFile:
    return SettingsFile(
        ordered=None if ordered is None else OrderedSettingsFile(**asdict(ordered)),
        replicas=[_replica(replica, settings) for replica, settings in sorted(read.items())],
    )


def _replica(replica: int, settings: ServerSettings) -> ReplicaSettingsFile:
    each = {name: SettingFile(**asdict(getattr(settings, name))) for name in NAMES}
    return ReplicaSettingsFile(replica=replica, notes=list(settings.notes), **each)
