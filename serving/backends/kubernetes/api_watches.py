"""Watches of the API, one thread each: what a release's pods, its autoscaler and its namespace's events do."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from serving.backends.kubernetes.cluster import Cluster, asking
from serving.backends.kubernetes.pods import SERVER, Object
from serving.backends.kubernetes.release_state import DELETED, Observed

_WATCH_S = 60
"""After which the server ends a watch, and it is resumed: one of events brings nothing at all while none happens."""
_SILENCE_S = 90.0
"""Longer than that, so that silence is the server's fault."""
_CONNECT_S = 5.0
_PAUSE_S = 0.5
SILENT_S = 30.0
"""Without any answer of the API: whatever was seen last may not be so any more."""
_LISTED_S = 30.0
_GONE = 410

Hand = Callable[[str, Object, int], None]
"""Takes a change: ADDED, MODIFIED or DELETED, the object, and when it was seen (monotonic ns)."""


class _Expired(Exception):
    """The version to resume from is too old for the server: everything must be listed again."""


class ApiWatch:
    """One thread that lists objects and follows their changes, until it is stopped.

    A stream that breaks is resumed where it broke; where the server has forgotten that place, objects are listed
    again, and those that have gone meanwhile are reported as deleted.
    """

    def __init__(self, ask: Callable[..., Any], hand: Hand, name: str, pause_s: float = _PAUSE_S) -> None:
        self.answered = time.monotonic()
        """When the API was last heard."""
        self.fault: Exception | None = None
        """Why it is not heard any more; None while it is."""
        self.listed = threading.Event()
        """Set once there was a first list, or none could be had."""
        self._ask, self._hand, self._pause_s = ask, hand, pause_s
        self._known: dict[str, Object] = {}
        self._version: str | None = None
        self._stopping = threading.Event()
        self._response: Any = None
        self._thread = threading.Thread(target=self._run, name=f"watch-{name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the stream, without waiting for the thread."""
        self._stopping.set()
        with contextlib.suppress(Exception):  # it may have ended at this moment
            self._response.shutdown()

    def _run(self) -> None:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        while not self._stopping.is_set():
            try:
                if self._version is None:
                    self._list()
                    self.listed.set()
                self._follow()
            except _Expired:
                self._version = None
            except (ApiException, HTTPError, OSError, ValueError) as error:
                if isinstance(error, ApiException) and error.status == _GONE:
                    self._version = None
                self.fault = error
                if isinstance(error, ApiException) and error.status in (401, 403):
                    self.listed.set()  # more of the same would come
                self._stopping.wait(self._pause_s)
            except Exception as error:  # noqa: BLE001 - a bug of ours, raised for whoever waits
                self.fault = error
                self.listed.set()
                return

    def _list(self) -> None:
        with self._answer() as response:
            listing = json.loads(response.read())
        seen_ns = time.monotonic_ns()
        items = {item["metadata"]["uid"]: item for item in listing.get("items") or ()}
        self._heard()
        for uid in [uid for uid in self._known if uid not in items]:
            self._tell(DELETED, self._known[uid], seen_ns)
        for item in sorted(items.values(), key=_age):
            self._tell("MODIFIED" if item["metadata"]["uid"] in self._known else "ADDED", item, seen_ns)
        self._version = listing["metadata"]["resourceVersion"]

    def _follow(self) -> None:
        """One stream of changes, until the server or the network ends it."""
        resuming = {"resource_version": self._version, "allow_watch_bookmarks": True, "timeout_seconds": _WATCH_S}
        with self._answer(watch=True, **resuming) as response:
            self._heard()
            self._response = response
            for line in _lines(response):
                self._change(json.loads(line), time.monotonic_ns())
                if self._stopping.is_set():
                    return

    def _change(self, change: Object, seen_ns: int) -> None:
        self._heard()
        kind, item = change["type"], change["object"]
        if kind == "ERROR":
            if item.get("code") == _GONE:
                raise _Expired
            raise ValueError(item.get("message") or "the watch ended with an error")
        self._version = item["metadata"]["resourceVersion"]
        if kind != "BOOKMARK":
            self._tell(kind, item, seen_ns)

    def _tell(self, kind: str, item: Object, seen_ns: int) -> None:
        if kind == DELETED:
            self._known.pop(item["metadata"]["uid"], None)
        else:
            self._known[item["metadata"]["uid"]] = item
        if not self._stopping.is_set():
            self._hand(kind, item, seen_ns)

    def _heard(self) -> None:
        self.answered, self.fault = time.monotonic(), None

    def _answer(self, **more: Any) -> Any:
        """The raw response, which closes itself. Raises ApiException for any answer that is no success."""
        from kubernetes.client import ApiException

        response = self._ask(_preload_content=False, _request_timeout=(_CONNECT_S, _SILENCE_S), **more)
        if not 200 <= response.status < 300:
            response.data = response.read()
            raise ApiException(http_resp=response)
        return contextlib.closing(response)


def _lines(response: Any) -> Iterator[bytes]:
    """Each line as soon as it is whole."""
    rest = b""
    for part in response.stream(amt=None, decode_content=False):
        *lines, rest = (rest + part).split(b"\n")
        yield from (line for line in lines if line.strip())


def _age(item: Object) -> tuple[str, str]:
    return str(item["metadata"].get("creationTimestamp")), str(item["metadata"].get("name"))


class ReleaseWatches:
    """All watches of one release."""

    def __init__(self, cluster: Cluster, namespace: str, release: str, observed: Observed, autoscaled: bool) -> None:
        def ask(lister: Any, **selectors: str) -> Callable[..., Any]:
            return functools.partial(lister, namespace, **selectors)

        of_release = f"app.kubernetes.io/instance={release}"
        servers = f"{of_release},app.kubernetes.io/component={SERVER}"
        core = cluster.core
        self._watches = {
            "pods": ApiWatch(ask(core.list_namespaced_pod, label_selector=servers), observed.pod, "pods"),
            "events": ApiWatch(ask(core.list_namespaced_event), observed.event, "events"),
        }
        if autoscaled:
            lister = cluster.autoscaling.list_namespaced_horizontal_pod_autoscaler
            self._watches["horizontalpodautoscalers"] = ApiWatch(
                ask(lister, label_selector=of_release), observed.scaler, "autoscaler"
            )

    def start(self) -> None:
        """Begin, and return once everything was listed. Raises DeploymentError where that may not be done."""
        for watch in self._watches.values():
            watch.start()
        for what, watch in self._watches.items():
            watch.listed.wait(_LISTED_S)
            _raise(what, watch)

    def check(self) -> None:
        """Raise DeploymentError where the API has not answered for a while."""
        for what, watch in self._watches.items():
            if watch.fault is not None and time.monotonic() - watch.answered > SILENT_S:
                _raise(what, watch)

    def stop(self) -> None:
        """End them all; twice is harmless."""
        for watch in self._watches.values():
            watch.stop()


def _raise(what: str, watch: ApiWatch) -> None:
    """What a watch stumbled over, as a sentence."""
    if watch.fault is None and watch.listed.is_set():
        return
    with asking(f"watch {what}"):
        raise watch.fault or TimeoutError("timed out")
