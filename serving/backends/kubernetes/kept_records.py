"""The records of a release as text: its pods, Kubernetes' events about them, its values, its autoscaler."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from serving.backends.kubernetes.pods import Object
from serving.backends.kubernetes.release_state import PodReplica, event_time


def pods_text(replicas: Iterable[PodReplica]) -> str:
    """Every pod as it was seen last, JSON."""
    return _json(
        [
            {"replica": one.index, "pod": one.name, "gone": one.gone, "failed": one.failed, "object": _lean(one.pod)}
            for one in replicas
        ]
    )


def events_text(events: Iterable[Object]) -> str:
    """One line an event, in the order of their (last) times: time, type, reason, object, message."""
    return "".join(f"{_line(event)}\n" for event in sorted(events, key=lambda event: str(event_time(event))))


def _line(event: Object) -> str:
    about = event.get("involvedObject") or {}
    when = event_time(event)
    count = event.get("count") or 1
    times = f" ({count} times)" if count > 1 else ""
    message = " ".join(str(event.get("message") or "").split())
    whom = f"{about.get('kind')}/{about.get('name')}"
    stamp = when.strftime("%Y-%m-%dT%H:%M:%SZ") if when else "-"
    return f"{stamp} {event.get('type')} {event.get('reason')} {whom}: {message}{times}"


def values_text(values: Mapping[str, Any], files: Sequence[Path]) -> str:
    """What Helm was given, YAML; values files that went before it are named."""
    named = "".join(f"# over {file}\n" for file in files)
    return named + yaml.safe_dump(dict(values), sort_keys=False)


def autoscaler_text(autoscaler: Object) -> str:
    """The autoscaler as it was seen last, JSON."""
    return _json(_lean(autoscaler))


def _lean(item: Object) -> dict[str, Any]:
    """Without the API's own book-keeping."""
    metadata = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
    return {**item, "metadata": metadata}


def _json(content: object) -> str:
    return json.dumps(content, indent=2) + "\n"
