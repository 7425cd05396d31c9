"""The settings of a server: those that it was ordered with, and those that it really runs with.

An artifact, an image, a values file or an environment variable may overrule what was ordered, so a running server is
asked. What it does not report is None with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, Protocol

from serving.errors import DeploymentError

NAMES: Final = {
    "workers": "workers",
    "max_batch_size": "images in a batch",
    "batch_delay_us": "µs of waiting for a batch",
    "queue_size": "requests in the queue",
    "response_timeout_s": "s for an answer",
    "threads": "threads of one operation",
}
"""Each setting in words that follow its value."""


@dataclass(frozen=True)
class ReportedSetting:
    """One setting of a running server."""

    value: int | None
    """None where it is not known, or where the server has no such thing."""
    source: str = ""
    """Where it was read, such as GET /models/cnn."""
    reason: str = ""
    """Why there is no value."""
    applies: bool = True
    """False where the server has no such thing, such as a queue without batching."""


def read(value: int, source: str) -> ReportedSetting:
    """A setting that the server reports."""
    return ReportedSetting(value, source)


def unreadable(reason: str) -> ReportedSetting:
    """A setting that the server does not report."""
    return ReportedSetting(None, reason=reason)


def absent(reason: str) -> ReportedSetting:
    """A setting that a server of this kind does not have."""
    return ReportedSetting(None, reason=reason, applies=False)


@dataclass(frozen=True)
class ServerSettings:
    """What one server runs with."""

    workers: ReportedSetting
    """Batches, or requests, that it computes at a time."""
    max_batch_size: ReportedSetting
    """Images; 1 means that it does not batch."""
    batch_delay_us: ReportedSetting
    """Microseconds that a batch may wait to be filled."""
    queue_size: ReportedSetting
    """Requests that may wait before it refuses more."""
    response_timeout_s: ReportedSetting
    """Seconds after which it gives a request up."""
    threads: ReportedSetting
    """Intra-op threads of one worker."""
    notes: tuple[str, ...] = ()
    """What else its artifact or its operator set that changes how it serves, a sentence each."""


def unreadable_settings(reason: str) -> ServerSettings:
    """The settings of a server that reports none."""
    unknown = unreadable(reason)
    return ServerSettings(unknown, unknown, unknown, unknown, unknown, unknown)


@dataclass(frozen=True)
class OrderedSettings:
    """What a server was ordered with, in its own units; None where the order says nothing."""

    workers: int | None = None
    max_batch_size: int | None = None
    batch_delay_us: int | None = None
    queue_size: int | None = None
    response_timeout_s: int | None = None
    threads: int | None = None


def differences(settings: ServerSettings, ordered: OrderedSettings) -> list[str]:
    """Each setting that is known and not as ordered, such as '4 images in a batch instead of 1 (GET /models/cnn)'."""
    found = []
    for field in fields(OrderedSettings):
        setting: ReportedSetting = getattr(settings, field.name)
        wanted: int | None = getattr(ordered, field.name)
        if wanted is not None and setting.value is not None and setting.value != wanted:
            found.append(f"{setting.value:,} {NAMES[field.name]} instead of {wanted:,} ({setting.source})")
    return found


def require_as_ordered(server: str, settings: ServerSettings, ordered: OrderedSettings) -> None:
    """Raise DeploymentError where `server`, such as "torchserve replica 0", runs with another setting than ordered."""
    if found := differences(settings, ordered):
        raise DeploymentError(
            f"{server} runs with {'; '.join(found)}: something overrules what was ordered (the archive's "
            "model-config.yaml, a values file, the image); take it out there, or order the same."
        )


def as_ordered(settings: ServerSettings) -> OrderedSettings:
    """The values that are known, to hold another server against."""
    return OrderedSettings(**{name: getattr(settings, name).value for name in NAMES})


@dataclass(frozen=True)
class Refusal:
    """What an API answers that refuses authorisation."""

    sentence: str
    """Such as 'refused authorisation (HTTP 401)'."""


class RunningServer(Protocol):
    """One replica, as its backend can look at it. No method raises for a server that is gone or cannot be asked."""

    def commands(self) -> Sequence[Sequence[str]]:
        """Command lines of its processes, as the kernel has them; empty where they cannot be seen."""

    def file(self, path: str) -> str | None:
        """Text of a file as the server sees it; None where it cannot be read."""

    def manage(self, path: str) -> bytes | Refusal | None:
        """Body of its management API's answer to GET `path`; None where it has none, or it cannot be reached."""
