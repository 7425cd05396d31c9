"""Speaks to endpoints that run already, somewhere else: nothing is started, stopped, scaled or measured there."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from models.manifest import ModelDir
from serving.authorisation import REMEDY, refuses, reply_named
from serving.backend import NO_LEFTOVERS, AutoscalerOrder, Backend, DeploymentOrder, Leftovers, no_autoscaler
from serving.deployment import Endpoint, Engine, Use
from serving.errors import DeploymentError, ServingError
from serving.headers import NO_HEADERS, Headers
from serving.http_client import NoAnswer, exchange
from serving.probe import KnownRequest
from serving.running_server import RemoteServer
from serving.server_settings import RunningServer
from serving.wire import WIRES

POLL_S = 0.05
_ANSWER_TIMEOUT_S = 10.0
_NOT_SERVED = "check that it runs, that its address is right, and that it serves a model of this name"


@dataclass(frozen=True)
class ReplicaAddress:
    """Where one replica listens; what is None is not there, or not to be asked."""

    rest: str
    """http://host:port"""
    grpc: str | None = None
    """host:port"""
    metrics: str | None = None
    """URL of its Prometheus text."""
    management: str | None = None
    """URL of TorchServe's management API."""
    headers: Headers = NO_HEADERS
    metrics_headers: Headers | None = None
    """In place of `headers`, where metrics are read."""
    management_headers: Headers | None = None
    """In place of `headers`, for the management API."""

    def endpoint(self, replica: int) -> Endpoint:
        """As the load generator and the scraper take it; '' where there is no such address."""
        return Endpoint(
            replica,
            self.rest.rstrip("/"),
            self.grpc or "",
            self.metrics or "",
            self.management,
            headers=self.headers,
            metrics_headers=self.headers if self.metrics_headers is None else self.metrics_headers,
            management_headers=self.headers if self.management_headers is None else self.management_headers,
        )


class AttachBackend:
    """Endpoints of each engine, by its name. Budget, batching and ports are whatever they were started with."""

    name = "attach"
    addressed_at_start = True

    def __init__(self, addresses: Mapping[str, Sequence[ReplicaAddress]]) -> None:
        self._addresses = {engine: tuple(places) for engine, places in addresses.items()}

    def check(self, engine: Engine) -> str:
        """Nothing is needed here of what runs elsewhere, but the values of headers.

        Raises ServingError where one cannot be read.
        """
        for place in self._addresses.get(engine.name, ()):
            endpoint = place.endpoint(0)
            for headers in (endpoint.headers, endpoint.metrics_headers, endpoint.management_headers):
                headers.read()
        return "runs already"

    def environment(self) -> Mapping[str, Any]:
        """Nothing: what runs elsewhere is not known."""
        return {}

    def leftovers(self) -> Leftovers:
        """None: nothing was started there."""
        return NO_LEFTOVERS

    def autoscaled(self, autoscaler: AutoscalerOrder) -> Backend:
        """Raise ServingError: an endpoint that runs already is left as it is."""
        raise no_autoscaler(self.name)

    def alone(self) -> AttachBackend:
        """This backend: it starts nothing."""
        return self

    def start(self, order: DeploymentOrder) -> AttachedDeployment:
        """Take the engine's endpoints as they are; there is no event of a start, for there was none.

        Raises ServingError where it has none, or another number than the order's replicas.
        """
        name, replicas = order.engine.name, order.replicas
        places = self._addresses.get(name, ())
        if not places:
            raise ServingError(f"no endpoint of {name} is named: give its address under `attach`.")
        if replicas != len(places):
            raise ServingError(
                f"{replicas} replicas of {name} are wanted, and {len(places)} endpoints are named under "
                "`attach`: an endpoint that runs already cannot be scaled."
            )
        return AttachedDeployment(
            order.engine, order.model, [place.endpoint(index) for index, place in enumerate(places)]
        )


class AttachedDeployment:
    """Endpoints that run already; see Deployment."""

    use_disturbs = False
    front_file: Path | None = None
    name = ""

    def __init__(self, engine: Engine, model: ModelDir, endpoints: list[Endpoint]) -> None:
        self.endpoints = endpoints
        self._engine, self._model = engine, model

    @property
    def front(self) -> list[Endpoint]:
        """The endpoints themselves."""
        return self.endpoints

    def wait_ready(self, timeout_s: float) -> None:
        """Return when every endpoint answers the model's first golden image; see Deployment.

        Whether the answer is right is judged by whoever measures. Raises DeploymentError with what was the matter.
        """
        deadline = time.monotonic() + timeout_s
        for endpoint in self.endpoints:
            self._wait(endpoint, deadline, timeout_s)

    def _wait(self, endpoint: Endpoint, deadline: float, timeout_s: float) -> None:
        request, headers = KnownRequest.of(WIRES[self._engine.name], self._model).request, endpoint.headers.read()
        remedy = _NOT_SERVED
        while True:
            left_s = deadline - time.monotonic()
            try:
                reply = exchange(endpoint.rest_url, request, min(max(left_s, POLL_S), _ANSWER_TIMEOUT_S), headers)
            except NoAnswer as error:
                last = str(error)
            else:
                if reply.status == 200:
                    return
                last = reply_named(reply.status, reply.body)
                remedy = REMEDY if refuses(reply.status, reply.body) else _NOT_SERVED
            if left_s <= 0:
                raise DeploymentError(
                    f"{endpoint.rest_url} did not serve model {self._model.name} within {timeout_s:g} s ({last}): "
                    f"{remedy}."
                )
            time.sleep(POLL_S)

    def server(self, endpoint: Endpoint) -> RunningServer:
        """What can be asked over HTTP; see Deployment."""
        return RemoteServer(endpoint)

    def alive(self) -> bool:
        """True: whether they still run shows in the answers alone."""
        return True

    def scale(self, replicas: int) -> None:
        """Refuse: raises ServingError unless it is the number that there is."""
        if replicas != len(self.endpoints):
            raise ServingError(
                f"{replicas} replicas are wanted of {len(self.endpoints)} endpoints that run already: attach cannot "
                "start or stop any; name more of them, or use backend process."
            )

    def use(self) -> Use:
        """All None: nothing is known about what runs elsewhere."""
        return Use(cpu_s=None, rss_bytes=None, rss_peak_bytes=None, disk_bytes=None)

    def cpu_s(self) -> float | None:
        """None, as `use` has it."""
        return None

    def cpu_elsewhere_s(self) -> float | None:
        """0: of what runs elsewhere nothing is known to run on this machine."""
        return 0.0

    def logs(self, lines: int = 20) -> str:
        """Where they are to be looked for."""
        hosts = ", ".join(sorted({urlsplit(endpoint.rest_url).netloc for endpoint in self.endpoints}))
        return f"The servers' logs lie where they run ({hosts}); servestorm only asks them."

    def records(self) -> dict[str, str]:
        """None: nothing is known of what runs elsewhere."""
        return {}

    def stop(self) -> None:
        """Leave them running: they are not ours."""

    def __enter__(self) -> AttachedDeployment:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
