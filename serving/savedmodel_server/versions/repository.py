"""Which versions of which models are loaded: looks for version folders, loads, hands out, drains and unloads.

All changes happen on one thread (`run`); leases are taken from any thread. A new version is loaded and warmed up
before an old one is unloaded, and an old one is unloaded only when its last request is done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Event, Lock, Thread

from serving.savedmodel_server.errors import Code, RequestError
from serving.savedmodel_server.versions.model_versions import (
    ModelConfig,
    State,
    Version,
    VersionPolicy,
    unavailable,
    version_folders,
)
from serving.savedmodel_server.versions.servable import Servable

LOG = logging.getLogger("savedmodel_server")


class Lease:
    """A servable that stays loaded until `release`, which is called once."""

    __slots__ = ("_release", "_version", "servable")

    def __init__(self, servable: Servable, version: Version, release: Callable[[Version], None]) -> None:
        self.servable = servable
        self._version = version
        self._release = release

    def release(self) -> None:
        """Give it back."""
        self._release(self._version)

    def __enter__(self) -> Servable:
        return self.servable

    def __exit__(self, *exc: object) -> None:
        self.release()


class _Model:
    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.versions: dict[int, Version] = {}
        self.available: dict[int, Version] = {}
        self.configured = True
        """False once it is to be unloaded for good; its versions' last states stay."""
        self.latest: Version | None = None

    @property
    def comes(self) -> bool:
        """Whether no version is available, but one may become so."""
        return self.latest is None and any(v.state in (State.START, State.LOADING) for v in self.versions.values())

    @property
    def failed(self) -> Version | None:
        """The newest version, where none is available for good."""
        ended = [version for version in self.versions.values() if version.error is not None]
        return None if self.latest is not None or not ended else max(ended, key=lambda version: version.number)

    def refresh(self) -> None:
        self.available = {n: v for n, v in self.versions.items() if v.state is State.AVAILABLE}
        self.latest = self.available[max(self.available)] if self.available else None


@dataclass(frozen=True)
class RepositoryOptions:
    """Times in seconds."""

    poll_s: float = 1.0
    """0 looks for versions once."""
    load_retries: int = 5
    retry_interval_s: float = 60.0
    labels_for_unavailable: bool = False


class Repository:
    """The models of one server."""

    def __init__(self, load: Callable[[str, int, Path], Servable], options: RepositoryOptions | None = None) -> None:
        self._load = load
        self._options = options or RepositoryOptions()
        self._models: dict[str, _Model] = {}
        self._lock = Lock()
        self._idle = Condition(self._lock)
        self._wake = Event()
        self._asked = 0
        self._answered = 0
        self._stopping = False
        self._thread: Thread | None = None
        self.settled = Event()
        """Set once each configured model has had its first look and its first attempts to load."""

    # what requests ask

    def acquire(self, name: str, version: int | None = None, label: str | None = None) -> Lease:
        """A lease on a version, the latest available one by default; raises RequestError."""
        with self._lock:
            model = self._models.get(name)
            if label:
                version = self._labelled(name, model, label)
            chosen = model and (model.latest if version is None else model.available.get(version))
            if not name or not chosen or chosen.servable is None:
                raise self._not_found(name, version)
            chosen.in_flight += 1
            return Lease(chosen.servable, chosen, self._release)

    @staticmethod
    def _labelled(name: str, model: _Model | None, label: str) -> int:
        if model is None or label not in model.config.labels:
            raise RequestError(Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}")
        return model.config.labels[label]

    @staticmethod
    def _not_found(name: str, version: int | None) -> RequestError:
        if not name:
            return RequestError(Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
        what = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        return RequestError(Code.NOT_FOUND, f"Servable not found for request: {what}")

    def _release(self, version: Version) -> None:
        with self._lock:
            version.in_flight -= 1
            if not version.in_flight and version.state is State.UNLOADING:
                self._idle.notify_all()
                self._wake.set()

    def states(self, name: str, version: int | None = None) -> list[Version]:
        """Versions of a model, newest first; raises RequestError (NOT_FOUND) where there is none."""
        with self._lock:
            model = self._models.get(name)
            versions = dict(model.versions) if model else {}
        if version is not None:
            if version not in versions:
                raise RequestError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
            return [versions[version]]
        if not versions:
            raise RequestError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        return [versions[number] for number in sorted(versions, reverse=True)]

    def label_version(self, name: str, label: str) -> int:
        """The version that a label names; raises RequestError."""
        with self._lock:
            return self._labelled(name, self._models.get(name), label)

    def serving(self) -> dict[str, bool]:
        """For each model that is configured, whether a version is available."""
        with self._lock:
            return {name: model.latest is not None for name, model in self._models.items() if model.configured}

    # how it changes

    def configure(self, configs: Iterable[ModelConfig]) -> None:
        """Serve these models and no others; takes effect on the repository's thread. Labels are not checked."""
        with self._lock:
            self._configure({config.name: config for config in configs})
        self._wake.set()

    def reconfigure(self, configs: Iterable[ModelConfig], timeout_s: float) -> None:
        """As `configure`, then wait until the versions that this asks for were loaded or failed.

        A label may name only a version that is available already, as in TensorFlow Serving: else RequestError, and
        nothing changes. RequestError too where a new model has no version that loads.
        """
        wanted = {config.name: config for config in configs}
        with self._lock:
            for config in wanted.values():
                self._check_labels(config)
            new = [name for name in wanted if name not in self._models or not self._models[name].configured]
            self._configure(wanted)
            self._asked += 1
            mine = self._asked
            self._wake.set()
            self._await(lambda: self._answered >= mine and not any(self._models[n].comes for n in new), timeout_s)
            if failed := [version for name in new if (version := self._models[name].failed)]:
                raise _unavailable_models(failed)

    def check_labels(self, configs: Iterable[ModelConfig]) -> None:
        """Refuse labels that `reconfigure` would refuse; raises RequestError (FAILED_PRECONDITION)."""
        with self._lock:
            for config in configs:
                self._check_labels(config)

    def _await(self, done: Callable[[], bool], timeout_s: float) -> None:
        """Wait for what the repository's thread does; the lock is held."""
        if not self._idle.wait_for(lambda: self._stopping or done(), timeout_s):
            raise RequestError(Code.DEADLINE_EXCEEDED, f"The models did not load within {timeout_s:g} s.")
        if self._stopping:
            raise RequestError(Code.UNAVAILABLE, "The server is stopping.")

    def _check_labels(self, config: ModelConfig) -> None:
        model = self._models.get(config.name)
        for label, number in config.labels.items():
            if model and number in model.available:
                continue
            now = model.config.labels.get(label, number) if model else number
            if not self._options.labels_for_unavailable or now != number:
                raise RequestError(Code.FAILED_PRECONDITION, unavailable(number, config.name))

    def _configure(self, wanted: Mapping[str, ModelConfig]) -> None:
        for name, config in wanted.items():
            model = self._models.get(name)
            if model is None:
                self._models[name] = _Model(config)
            else:
                model.config, model.configured = config, True
        for name in self._models.keys() - wanted.keys():
            config = self._models[name].config
            self._models[name].config = ModelConfig(name, config.base_path, VersionPolicy(latest=0))
            self._models[name].configured = False

    def start(self) -> None:
        """Begin to look for versions and to load them, on a thread of its own."""
        self._thread = Thread(target=self._run, name="repository", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Unload everything, waiting at most this long for requests under way."""
        with self._lock:
            self._stopping = True
            self._idle.notify_all()
        self._wake.set()
        if self._thread:
            self._thread.join(timeout_s)
        deadline = time.monotonic() + timeout_s
        for model in list(self._models.values()):
            for version in list(model.available.values()):
                self._begin_unload(model, version)
        while sum(self._finish_unloads(model) for model in list(self._models.values())):
            with self._lock:
                if time.monotonic() >= deadline:
                    return
                self._idle.wait(0.1)

    def _run(self) -> None:
        while not self._stopping:
            asked = self._asked
            self.poll()
            self.settled.set()
            with self._lock:
                self._answered = asked
                self._idle.notify_all()
            due = self._seconds_to_next_attempt()
            poll_s = self._options.poll_s or None
            waits = [wait for wait in (due, poll_s) if wait is not None]
            self._wake.wait(min(waits) if waits else None)
            self._wake.clear()

    def _seconds_to_next_attempt(self) -> float | None:
        with self._lock:
            times = [
                v.next_attempt_s
                for model in self._models.values()
                for v in model.versions.values()
                if v.state is State.LOADING
            ]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def poll(self) -> None:
        """Look at every model's folder once, load what is new and unload what is gone."""
        with self._lock:
            models = list(self._models.values())
        for model in models:
            try:
                self._reconcile(model)
            except Exception:
                LOG.exception("event=poll_failed model=%s", model.config.name)

    def _reconcile(self, model: _Model) -> None:
        wanted = self._aspired(model)
        for number, path in sorted(wanted.items()):
            version = model.versions.get(number)
            if version is None or (version.state is State.END and version.error is None):
                version = Version(model.config.name, number, path)
                with self._lock:
                    model.versions[number] = version
            if version.state in (State.START, State.LOADING) and time.monotonic() >= version.next_attempt_s:
                self._try_load(model, version)
        extra = [v for n, v in model.available.items() if n not in wanted]
        if not wanted or any(number in model.available for number in wanted):
            for version in extra:
                self._begin_unload(model, version)
        self._finish_unloads(model)
        for number in [n for n, v in model.versions.items() if n not in wanted and v.error is not None]:
            model.versions[number].error = None  # so that it is tried again should it come back
            model.versions[number].state = State.END

    def _aspired(self, model: _Model) -> dict[int, Path]:
        """Version folders to serve; those served now stay where the base path is gone or cannot be read."""
        config = model.config
        if config.policy.latest == 0:
            return {}
        folders = version_folders(config.base_path)
        if folders is None:
            return {n: v.path for n, v in model.available.items()}
        chosen = config.policy.choose(folders)
        if not chosen:
            LOG.warning("event=no_versions model=%s base_path=%s", config.name, config.base_path)
        return {number: folders[number] for number in chosen}

    def _try_load(self, model: _Model, version: Version) -> None:
        version.state = State.LOADING
        version.attempts += 1
        begin = time.monotonic()
        try:
            servable = self._load(version.model, version.number, version.path)
        except Exception as error:  # noqa: BLE001 - whatever a SavedModel raises is its status
            self._load_failed(version, error)
            return
        with self._lock:
            version.servable, version.error, version.state = servable, None, State.AVAILABLE
            model.refresh()
        LOG.info(
            "event=available model=%s version=%d seconds=%.3f",
            version.model, version.number, time.monotonic() - begin,
        )  # fmt: skip

    def _load_failed(self, version: Version, error: Exception) -> None:
        version.error = (
            error if isinstance(error, RequestError) else RequestError(Code.UNKNOWN, f"{type(error).__name__}: {error}")
        )
        version.next_attempt_s = time.monotonic() + self._options.retry_interval_s
        if version.attempts > self._options.load_retries:
            version.state = State.END
        LOG.error(
            "event=load_failed model=%s version=%d attempt=%d error=%r",
            version.model, version.number, version.attempts, version.error.message,
        )  # fmt: skip

    def _begin_unload(self, model: _Model, version: Version) -> None:
        """No new lease from here on; `_finish_unloads` ends it when the last one is given back."""
        with self._lock:
            version.state = State.UNLOADING
            model.refresh()

    def _finish_unloads(self, model: _Model) -> bool:
        """Free the versions that nobody uses any more; True where some are still in use."""
        with self._lock:
            leaving = [v for v in model.versions.values() if v.state is State.UNLOADING]
            idle = [v for v in leaving if not v.in_flight]
        for version in idle:
            if version.servable is not None:
                version.servable.close()
            version.servable, version.state = None, State.END
            LOG.info("event=unloaded model=%s version=%d", version.model, version.number)
        return len(idle) < len(leaving)


def _unavailable_models(versions: Sequence[Version]) -> RequestError:
    told = "".join(
        f"{{{{name: {v.model} version: {v.number}}} due to error: {v.error.code.name}: {v.error.message}}}, "
        for v in versions
        if v.error is not None
    )
    return RequestError(Code.UNKNOWN, f"{len(versions)} model(s) did not become available: {{{told}}}")
