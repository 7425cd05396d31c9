"""HAProxy in front of the replicas: the fewest requests under way gets the next one, over REST and gRPC alike."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving.backends.docker.engine import asking, require_image
from serving.backends.docker.replica import log_of
from serving.backends.docker.settings import BALANCER, DockerSettings, confined, publications
from serving.backends.docker.use import of_statistics
from serving.backends.preparation import made
from serving.containers import image
from serving.deployment import Endpoint, EventLog
from serving.errors import DeploymentError
from serving.ports import HOST, free_ports, is_bound
from serving.probe import http_get

_CONFIG = "/usr/local/etc/haproxy"
_POLL_S = 0.02
_READY_S = 20.0


def image_of(settings: DockerSettings) -> str:
    """Reference of the balancer's image."""
    return settings.images.get(BALANCER) or image(BALANCER)


def configuration(rest_port: int, rest: Sequence[str], grpc_port: int, grpc: Sequence[str], threads: int) -> str:
    """haproxy.cfg for replicas at these addresses (host:port).

    No health checks and no second tries: a replica that dies ends its run, and a request that fails must count.
    """
    return "\n".join(
        [
            "global",
            # two descriptors each: many engines give a container no more than 20,000
            "    maxconn 8000",
            f"    nbthread {threads}",
            "defaults",
            "    mode http",
            "    timeout connect 5s",
            "    timeout client 1h",
            "    timeout server 1h",
            "    retries 0",
            "frontend rest",
            f"    bind :{rest_port}",
            "    default_backend rest",
            "frontend grpc",
            f"    bind :{grpc_port} proto h2",
            "    default_backend grpc",
            *_backend("rest", rest, ""),
            *_backend("grpc", grpc, " proto h2"),
            "",
        ]
    )


def _backend(name: str, addresses: Sequence[str], more: str) -> list[str]:
    servers = [f"    server replica{place} {address}{more}" for place, address in enumerate(addresses)]
    return [f"backend {name}", "    balance leastconn", "    http-reuse always", *servers]


class Balancer:
    """A running HAProxy; `endpoint` is where load goes. Removing it is for whoever removes the deployment's network."""

    def __init__(self, client: Any, container: Any, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._client, self._container = client, container
        self._cpu_s = 0.0

    def running(self) -> bool:
        """Whether it still runs."""
        with asking("look after the balancer"):
            self._container.reload()
        return bool(self._container.status == "running")

    def cpu_s(self) -> float:
        """CPU seconds since its start."""
        with suppress(DeploymentError), asking("tell what the balancer uses"):
            use = of_statistics(self._client.api.stats(self._container.id, stream=False, one_shot=True))
            self._cpu_s = max(self._cpu_s, use.cpu_s or 0.0)
        return self._cpu_s

    def logs(self, lines: int) -> str:
        """Its last lines."""
        return log_of(self._container, lines)

    def remove(self) -> None:
        """End it at once: nothing is under way between two loads."""
        from docker.errors import NotFound

        with asking("remove the balancer"), suppress(NotFound):
            self._container.remove(force=True, v=True)


def start_balancer(
    client: Any,
    settings: DockerSettings,
    *,
    name: str,
    network: str,
    labels: Mapping[str, str],
    ports: tuple[int, int],
    rest: Sequence[str],
    grpc: Sequence[str],
    workdir: Path,
    events: EventLog,
) -> Balancer:
    """A balancer that listens on `ports` (REST, gRPC) in front of these addresses; event balancer_ready.

    Raises DeploymentError where it does not come up, with its last lines.
    """
    folder = made(workdir / "balancer")
    folder.chmod(0o755)
    threads = max(1, len(settings.balancer_cpus))
    (folder / "haproxy.cfg").write_text(configuration(ports[0], rest, ports[1], grpc, threads))
    (folder / "haproxy.cfg").chmod(0o644)
    published = dict(zip(ports, free_ports(2), strict=True)) if settings.reach == "published" else {}
    reference = image_of(settings)
    require_image(client, reference)
    with asking("start the balancer"):
        container = client.containers.create(
            reference,
            name=name,
            network=network,
            labels=dict(labels),
            mounts=[{"Type": "bind", "Source": str(folder), "Target": _CONFIG, "ReadOnly": True}],
            ports=publications(published),
            **confined(settings.balancer_cpus, init=False),
        )
        container.start()
        container.reload()
    own = container.attrs["NetworkSettings"]["Networks"][network]["IPAddress"]
    host = HOST if published else own
    rest_port, grpc_port = (published.get(port, port) for port in ports)
    _wait(container, host, rest_port, bool(published))
    balancer = Balancer(client, container, Endpoint(0, f"http://{host}:{rest_port}", f"{host}:{grpc_port}", ""))
    events.add("balancer_ready", detail=f"haproxy at {host}:{rest_port} in front of {len(rest)} replicas")
    return balancer


def _wait(container: Any, host: str, port: int, published: bool) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if http_get(f"http://{host}:{port}/") if published else is_bound(port, host=host):
            return
        with asking("look after the balancer"):
            container.reload()
        if container.status not in ("created", "running"):
            break
        time.sleep(_POLL_S)
    tail = log_of(container, 10)
    raise DeploymentError(
        f"the balancer did not listen within {_READY_S:g} s, or ended: check its image. Its log ends with:\n{tail}"
    )
