"""What the watch has shown of a release, as replicas and as the events of a deployment.

A pod is a replica, numbered in the order of creation; a number is never given again. Watches call in from their own
threads, whoever waits is woken by `changed`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from serving.backends.container_use import ContainerUse
from serving.backends.kubernetes.pods import (
    SERVER,
    Moment,
    Object,
    address_of,
    has_failed,
    is_leaving,
    is_lost,
    is_ready,
    moments,
    name_of,
    pull_detail,
    stamp_of,
)
from serving.deployment import EventLog

DELETED = "DELETED"
"""Kind of change by which a watch reports that an object is gone."""
_CHAIN = ("spawned", "scheduled", "initialized", "image_pulled", "started", "ready", "terminating")
"""Each of a replica's events is no earlier than the one before."""


class Clock(Protocol):
    """Gives the API's whole seconds a place on our own clock; see ClusterClock."""

    def best_ns(self, stamp: datetime | None, seen_ns: int) -> int:
        """Monotonic time of what the API dates `stamp` and we saw at `seen_ns`."""


@dataclass
class PodReplica:
    """One pod of servers, through its whole life."""

    index: int
    pod: Object
    """As it was seen last."""
    recorded_ns: dict[str, int] = field(default_factory=dict)
    """Events that were recorded, with their times."""
    gone: bool = False
    failed: bool = False
    """Its server ended unasked, or its node did."""
    lost: bool = False
    """Its node stopped answering."""
    last_log: str | None = None
    """Its last lines, once it is to go."""
    spent: ContainerUse = field(default_factory=ContainerUse)
    """What was last seen of its use, of what does not end with it."""
    here: bool = False
    """Whether it runs on this machine's own kernel, as far as was seen."""

    @property
    def name(self) -> str:
        """The pod's."""
        return name_of(self.pod)

    @property
    def active(self) -> bool:
        """Whether it is there, and to stay."""
        return not self.gone and not is_leaving(self.pod)

    @property
    def ready(self) -> bool:
        """Whether it is ready, and to stay."""
        return not self.gone and is_ready(self.pod)

    @property
    def started(self) -> bool:
        """Whether its server was started."""
        return "started" in self.recorded_ns

    @property
    def address(self) -> str | None:
        """Its own address, once it has one."""
        return address_of(self.pod)


class Observed:
    """Replicas, cluster events and the autoscaler of one release."""

    def __init__(self, release: str, events: EventLog, clock: Clock) -> None:
        self.release = release
        self.autoscaler: Object | None = None
        self.cluster_events: dict[str, Object] = {}
        self.changed = threading.Condition(threading.RLock())
        self.on_change: Callable[[], None] = lambda: None
        """Called after each change of a pod, in the watch's thread: it must not ask anybody anything."""
        self._events, self._clock = events, clock
        self._replicas: dict[str, PodReplica] = {}
        self._pulled: dict[str, tuple[Moment, int]] = {}
        self._desired: int | None = None
        self._scaled_at: str | None = None

    @property
    def replicas(self) -> list[PodReplica]:
        """All that ever were, in the order of their creation."""
        with self.changed:
            return list(self._replicas.values())

    def active(self) -> list[PodReplica]:
        """Those that are there, and to stay."""
        return [replica for replica in self.replicas if replica.active]

    def pod(self, kind: str, pod: Object, seen_ns: int) -> None:
        """A pod of servers was added, modified or deleted."""
        with self.changed:
            uid = pod["metadata"]["uid"]
            if uid not in self._replicas:
                if kind == DELETED:
                    return
                self._replicas[uid] = PodReplica(len(self._replicas), pod)
            replica = self._replicas[uid]
            replica.pod = pod
            replica.lost |= is_lost(pod)
            replica.failed |= has_failed(pod) and kind != DELETED
            self._progress(replica, uid, seen_ns)
            if kind == DELETED and not replica.gone:
                replica.gone = True
                last_ns = max([seen_ns, *replica.recorded_ns.values()])
                self._events.add("stopped", replica.index, replica.name, t_ns=last_ns)
            self.on_change()
            self.changed.notify_all()

    def _progress(self, replica: PodReplica, uid: str, seen_ns: int) -> None:
        """Record what the pod has come past since it was seen last."""
        for moment in moments(replica.pod):
            if moment.name == "started":
                self._record_pull(replica, uid)
            if moment.name not in replica.recorded_ns:
                self._record(replica, moment, self._clock.best_ns(moment.stamp, seen_ns), _dated(moment, replica))
        self._record_pull(replica, uid)

    def _record_pull(self, replica: PodReplica, uid: str) -> None:
        """The kubelet reports the image in an event, whose watch may be ahead of the pod's or behind it."""
        if uid in self._pulled and "initialized" in replica.recorded_ns and "image_pulled" not in replica.recorded_ns:
            moment, seen_ns = self._pulled[uid]
            detail = f"{moment.name}, {_text(moment.stamp)}" if moment.stamp else moment.name
            self._record(replica, Moment("image_pulled", None), self._clock.best_ns(moment.stamp, seen_ns), detail)

    def _record(self, replica: PodReplica, moment: Moment, t_ns: int, detail: str) -> None:
        place = _CHAIN.index(moment.name)
        earlier = [replica.recorded_ns[name] for name in _CHAIN[:place] if name in replica.recorded_ns]
        later = [replica.recorded_ns[name] - 1 for name in _CHAIN[place + 1 :] if name in replica.recorded_ns]
        t_ns = min([max([t_ns, *earlier]), *later])
        replica.recorded_ns[moment.name] = t_ns
        self._events.add(moment.name, replica.index, detail, t_ns)

    def event(self, _kind: str, event: Object, seen_ns: int) -> None:
        """Take an event of Kubernetes about an object of the namespace."""
        about = event.get("involvedObject") or {}
        if not str(about.get("name", "")).startswith(self.release):
            return
        with self.changed:
            self.cluster_events[event["metadata"]["uid"]] = event
            uid = about.get("uid", "")
            if event.get("reason") == "Pulled" and _container(about) == SERVER and uid not in self._pulled:
                moment = Moment(pull_detail(str(event.get("message"))), event_time(event))
                self._pulled[uid] = (moment, seen_ns)
                if uid in self._replicas:
                    self._record_pull(self._replicas[uid], uid)
            self._note_lost_node(event, uid)
            self.changed.notify_all()

    def _note_lost_node(self, event: Object, uid: str) -> None:
        """That a node stopped answering shows in the pod first; the node's own status follows minutes later."""
        if event.get("reason") == "NodeNotReady" and uid in self._replicas:
            self._replicas[uid].lost = self._replicas[uid].failed = True

    def scaler(self, kind: str, autoscaler: Object, seen_ns: int) -> None:
        """The release's autoscaler was added, modified or deleted."""
        with self.changed:
            self.autoscaler = None if kind == DELETED else autoscaler
            status = autoscaler.get("status") or {}
            desired, scaled_at = status.get("desiredReplicas"), status.get("lastScaleTime")
            if desired and desired != self._desired:
                if self._desired is not None:
                    stamp = stamp_of(scaled_at) if scaled_at != self._scaled_at else None
                    detail = f"{self._desired} -> {desired}"
                    self._events.add("hpa_scaled", detail=detail, t_ns=self._clock.best_ns(stamp, seen_ns))
                self._desired = desired
            self._scaled_at = scaled_at
            self.changed.notify_all()

    def warning(self, replica: PodReplica) -> str | None:
        """The last warning about a pod, in its own words."""
        return self._last(lambda about: about.get("uid") == replica.pod["metadata"]["uid"])

    def refusal(self) -> str | None:
        """Why the last pod was not created; None where nobody was refused."""
        return self._last(lambda about: about.get("kind") == "ReplicaSet", "FailedCreate")

    def _last(self, about: Callable[[Mapping[str, Any]], bool], reason: str | None = None) -> str | None:
        with self.changed:
            moments = [
                event
                for event in self.cluster_events.values()
                if event.get("type") == "Warning"
                and about(event.get("involvedObject") or {})
                and reason in (None, event.get("reason"))
            ]
        last = max(moments, key=lambda event: str(event_time(event)), default=None)
        return None if last is None else str(last.get("message"))

    def wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        """Wait, at most so long, until `done`, which is asked again after each change."""
        end = time.monotonic() + timeout_s
        with self.changed:
            return self.changed.wait_for(done, max(0.0, end - time.monotonic()))


def event_time(event: Object) -> datetime | None:
    """When it happened (last)."""
    return stamp_of(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp"))


def _container(about: Object) -> str | None:
    """The container that an event is about: its path is spec.containers{NAME}."""
    path = str(about.get("fieldPath") or "")
    return path.partition("{")[2].rstrip("}") if path.startswith("spec.containers") else None


def _dated(moment: Moment, replica: PodReplica) -> str:
    """The API's own time; a replica's first event names its pod besides."""
    stamp = _text(moment.stamp) if moment.stamp else ""
    return f"{replica.name}, {stamp}" if moment.name == "spawned" else stamp


def _text(stamp: datetime) -> str:
    return stamp.strftime("%Y-%m-%dT%H:%M:%SZ")
