"""settings.json: the settings that the servers of a run had, as they reported them, and those that the study set."""

from __future__ import annotations

from servestorm.rundir.shapes.file_shape import FileShape, Whole


class SettingFile(FileShape):
    """One setting of one server."""

    value: Whole | None
    """None where it is not known, or where the server has no such thing."""
    source: str
    """Where it was read, such as GET /models/cnn."""
    reason: str
    """Why there is no value."""
    applies: bool
    """False where the server has no such thing, such as a queue without batching."""


class ReplicaSettingsFile(FileShape):
    """What one server ran with."""

    replica: Whole
    workers: SettingFile
    max_batch_size: SettingFile
    """Images; 1 means that it does not batch."""
    batch_delay_us: SettingFile
    queue_size: SettingFile
    """Requests that may wait before it refuses more."""
    response_timeout_s: SettingFile
    threads: SettingFile
    """Intra-op threads of one worker."""
    notes: list[str]
    """What else its artifact or its operator set that changes how it serves."""


class OrderedSettingsFile(FileShape):
    """What the study set; None where it set nothing."""

    workers: Whole | None
    max_batch_size: Whole | None
    batch_delay_us: Whole | None
    queue_size: Whole | None
    response_timeout_s: Whole | None
    threads: Whole | None


class SettingsFile(FileShape):
    """settings.json."""

    ordered: OrderedSettingsFile | None
    """None where the servers ran already."""
    replicas: list[ReplicaSettingsFile]
