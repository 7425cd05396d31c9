"""What every backend can be asked: to check an engine, to start it, and to remove what killed studies left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Protocol

from models.manifest import ModelDir
from serving.deployment import Batching, Budget, Deployment, Engine, EventLog
from serving.errors import ServingError


@dataclass(frozen=True)
class DeploymentOrder:
    """What a backend is asked to start."""

    engine: Engine
    model: ModelDir
    _: KW_ONLY
    replicas: int
    budget: Budget
    batching: Batching
    workdir: Path
    """For configuration and logs; made where it is missing."""
    events: EventLog
    """Where the deployment records what happens to it."""
    ports: Sequence[int] | None = None
    """REST port of each replica; None: any that are free."""
    before_spawn: Callable[[], None] | None = None
    """Called once everything has been checked; what the checks read may be dropped from the page cache again."""


@dataclass(frozen=True)
class AutoscalerOrder:
    """A HorizontalPodAutoscaler by CPU."""

    min_replicas: int
    max_replicas: int
    cpu_percent: int
    """Of what a replica requests."""
    scale_down_stabilization_s: int
    """The most replicas of so many seconds are kept."""
    scale_down_period_s: int = 15
    """One replica may go in so many seconds."""
    scale_up_stabilization_s: int = 0


@dataclass(frozen=True)
class Leftover:
    """Something that a killed study left."""

    kind: str
    """Such as 'container'."""
    name: str

    def __str__(self) -> str:
        """Such as 'container servestorm-1a2b3c'."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Leftovers:
    """Everything that killed studies left where a backend runs its servers; false where that is nothing."""

    items: Sequence[Leftover]
    remove: Callable[[], None]
    """Removes all of it. Raises DeploymentError."""

    def __bool__(self) -> bool:
        """Whether there is anything to remove."""
        return bool(self.items)


NO_LEFTOVERS = Leftovers((), lambda: None)


def counted(leftovers: Sequence[Leftover]) -> str:
    """'2 containers and 1 network', for a sentence."""
    counts = Counter(leftover.kind for leftover in leftovers)
    parts = [f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in counts.items()]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


class Backend(Protocol):
    """Where an engine runs."""

    name: str
    addressed_at_start: bool
    """Whether the endpoints are known once `start` has returned; if not, once the deployment is ready."""

    def check(self, engine: Engine) -> str:
        """Version of the engine as it runs there; raises EngineUnavailable with the remedy where it cannot."""

    def environment(self) -> Mapping[str, Any]:
        """What environment.json records of the place where servers run, by its key; empty for this machine itself."""

    def leftovers(self) -> Leftovers:
        """What killed studies left there. Processes on this machine are not among it: `serving.orphans` ends them."""

    def autoscaled(self, autoscaler: AutoscalerOrder) -> Backend:
        """The same place, with deployments that scale themselves; raises ServingError where nothing there can."""

    def alone(self) -> Backend:
        """The same place, with deployments that start nothing beside their servers, such as load agents."""

    def start(self, order: DeploymentOrder) -> Deployment:
        """Start replicas; returns at once. Events: spawned, port_bound, ready, stopped (per replica).

        A container has more of them: image_built, image_present, created, and started after spawned. A pod has:
        spawned, scheduled, initialized, image_pulled, started, ready, terminating, stopped.
        """


def no_autoscaler(backend: str) -> ServingError:
    """The error of a backend that cannot scale deployments by itself."""
    return ServingError(f"backend {backend} has no autoscaler: use backend kubernetes.")
