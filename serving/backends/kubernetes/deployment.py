"""A deployment of the kubernetes backend: one release of the chart, watched through its life, always removed."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from models.manifest import size_of
from serving.backend import DeploymentOrder
from serving.backends.container_use import ContainerUse, total, use_of
from serving.backends.interrupts import through_interrupts
from serving.backends.kubernetes import leftovers as own
from serving.backends.kubernetes.api_objects import answer_of
from serving.backends.kubernetes.api_watches import ReleaseWatches
from serving.backends.kubernetes.cgroup import COMMAND, Look, look_of
from serving.backends.kubernetes.cluster import Cluster, asking
from serving.backends.kubernetes.execute import NotExecuted, execute
from serving.backends.kubernetes.helm import Helm, chart_folder
from serving.backends.kubernetes.kept_records import autoscaler_text, events_text, pods_text, values_text
from serving.backends.kubernetes.logs import tail
from serving.backends.kubernetes.pods import SERVER, name_of, node_of
from serving.backends.kubernetes.release_faults import Faults
from serving.backends.kubernetes.release_state import Observed, PodReplica
from serving.backends.kubernetes.routes import Reach
from serving.backends.kubernetes.settings import BALANCER, KubernetesSettings
from serving.backends.kubernetes.values import values_of
from serving.backends.preparation import made
from serving.deployment import Endpoint, Use
from serving.errors import DeploymentError, ServingError
from serving.running_server import ContainerServer

_LAST_LINES = 200
_LOOKS = 2
"""At what a container uses: a stream that broke off is tried again."""
_POLL_S = 0.2
_GOING_S = 150.0
"""For pods to be gone; a pod behind a balancer takes up to 70 s of it."""
_LAST_NEWS_S = 5.0
"""For the watch to report that they are."""


class KubernetesDeployment:
    """A release of the chart; see Deployment."""

    use_disturbs = True

    def __init__(self, cluster: Cluster, helm: Helm, settings: KubernetesSettings, order: DeploymentOrder) -> None:
        self._id = uuid.uuid4().hex[:12]
        self.release, self.namespace = f"servestorm-{self._id}", settings.namespace
        self._cluster, self._helm, self._settings = cluster, helm, settings
        self._engine, self._model, self._budget, self._batching = (
            order.engine,
            order.model,
            order.budget,
            order.batching,
        )
        self._events = order.events
        self._values: dict[str, Any] = {}
        self._ordered = self._gone = False
        workdir = Path(order.workdir)
        launch = order.engine.contain(order.model, order.budget, order.batching, made(workdir / "config"))
        self._management_port = launch.management_port
        scaling = settings.autoscaling
        self._observed = Observed(self.release, order.events, cluster.clock)
        self._watching = ReleaseWatches(cluster, self.namespace, self.release, self._observed, scaling is not None)
        self._reach = Reach(cluster, settings, self.release, launch, order.events, workdir / "front.json")
        self._observed.on_change = lambda: self._reach.follow(self._observed.replicas)
        self._faults = Faults(
            cluster,
            self.namespace,
            self._observed,
            self._watching,
            order.engine,
            order.model,
            fatal=launch.fatal,
            autoscaled=scaling is not None,
        )

    def install(self, replicas: int) -> None:
        """Order the release and return once Helm has made it.

        Raises ServingError where the chart refuses a value, DeploymentError where the cluster refuses something.
        """
        if self._settings.balancer == BALANCER and self._settings.reach == "pods":
            raise ServingError("kubernetes.reach pods goes past a balancer: set kubernetes.balancer to none.")
        labels = own.labels(self._id)
        self._values = values_of(
            self._settings, self._engine, self._model, self._budget, self._batching, replicas, labels
        )
        self._watching.start()
        self._ordered = True
        self._faults.wanted = replicas
        self._helm.install(
            self.release, self.namespace, chart_folder(), self._values, files=self._settings.values, labels=labels
        )
        self._events.add("installed", detail=f"{self.release} in namespace {self.namespace}")

    @property
    def name(self) -> str:
        """The release."""
        return self.release

    @property
    def endpoints(self) -> list[Endpoint]:
        """The pods that are there, in the order of their creation; those of which the address is known."""
        return self._reach.endpoints

    @property
    def front(self) -> list[Endpoint]:
        """The Service, or the pods themselves; see Deployment."""
        return self._reach.front

    @property
    def front_file(self) -> Path:
        """JSON that always lists the ready pods: [{"rest": "http://host:port", "grpc": "host:port"}, ...]."""
        return self._reach.front_file

    def wait_ready(self, timeout_s: float) -> None:
        """Return when every replica is ready and can be reached where load goes; see Deployment.

        With an autoscaler: when the fewest replicas are ready, and it has metrics to decide by.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._reach.decide(self._observed.replicas)
            self._faults.look()
            if self._faults.settled():
                break
            if time.monotonic() >= deadline:
                raise DeploymentError(self._faults.late(timeout_s))
            self._observed.wait(self._faults.settled, min(_POLL_S, max(0.0, deadline - time.monotonic())))
        self._reach.decide(self._observed.replicas)
        with self._observed.changed:  # what this thread has seen must not undo what a watch has seen since
            self._reach.follow(self._observed.replicas)
        self._reach.find_front(self._observed.replicas, deadline)

    def server(self, endpoint: Endpoint) -> ContainerServer:
        """The server's container of the pod; see Deployment."""
        pod = next((one.name for one in self._observed.replicas if one.index == endpoint.replica), "")
        return ContainerServer(lambda command: self._printed(pod, command), self._management_port)

    def _printed(self, pod: str, command: Sequence[str]) -> bytes | None:
        """What a command in the server's container printed; None where it failed, or was not carried out."""
        with suppress(NotExecuted):
            done = execute(self._cluster, self.namespace, pod, SERVER, command)
            return None if done.code else done.out
        return None

    def alive(self) -> bool:
        """True while every replica is there and its server has not ended; False when none was started or left."""
        return not self._gone and self._faults.alive()

    def scale(self, replicas: int) -> None:
        """Have more pods or fewer, without waiting for readiness; see Deployment. Kubernetes chooses which ones go."""
        if replicas < 0:
            raise ServingError(f"{replicas} replicas were asked for: at least 0 are possible.")
        if self._settings.autoscaling:
            raise ServingError("the autoscaler decides how many replicas there are: leave out kubernetes.autoscaling.")
        surplus = self._faults.wanted - replicas
        if surplus > 0:
            self._keep_last()
            self._faults.dismissed += surplus
        self._faults.wanted = replicas
        with asking(f"scale the release {self.release}"):
            self._cluster.apps.patch_namespaced_deployment_scale(
                self.release, self.namespace, {"spec": {"replicas": replicas}}
            )
        if surplus > 0 and not self._observed.wait(lambda: self._remaining() <= replicas, _GOING_S):
            raise DeploymentError(f"pods of release {self.release} do not end: look at them with `kubectl get pods`.")

    def _remaining(self) -> int:
        return sum(not replica.gone for replica in self._observed.replicas)

    def use(self) -> Use:
        """CPU, disk and network of all pods' servers that ever ran, memory of those that run; see Use."""
        replicas = self._observed.replicas
        running = [look.use for one in replicas if one.active and one.started and (look := self._look(one))]
        ended = [one.spent for one in replicas if not one.active]
        return use_of(total(running or ended), total([*running, *ended]), self.alive(), self._disk_bytes())

    def cpu_s(self) -> float | None:
        """See Deployment: each pod is asked."""
        return self.use().cpu_s

    def cpu_elsewhere_s(self) -> float | None:
        """CPU seconds of the servers that run on this machine's own kernel, as on a cluster of this machine alone."""
        seconds = 0.0
        for replica in self._observed.replicas:
            if not (replica.active and replica.started):
                seconds += (replica.spent.cpu_s or 0.0) if replica.here else 0.0
                continue
            look = self._look(replica)
            if look is None or (look.here and look.use.cpu_s is None):
                return None
            seconds += (look.use.cpu_s or 0.0) if look.here else 0.0
        return seconds

    def _look(self, replica: PodReplica) -> Look | None:
        """What its server uses now; what was seen last where it cannot be asked, None where nothing ever was.

        A server that has ended is not asked any more: the one in its place begins to count anew.
        """
        for _ in range(0 if replica.failed else _LOOKS):
            with suppress(NotExecuted):
                done = execute(self._cluster, self.namespace, replica.name, SERVER, COMMAND)
                if look := look_of(done.out.decode(errors="replace")):
                    replica.spent, replica.here = look.use.spent(), look.here
                    return look
        return None if replica.spent == ContainerUse() else Look(replica.spent, replica.here)

    def _disk_bytes(self) -> int | None:
        with suppress(OSError):
            return size_of(self._model.path / getattr(self._model.manifest, self._engine.artifact).path)
        return None

    def logs(self, lines: int = 20) -> str:
        """The last lines that each pod's server wrote, of those that are there, or else of those that were."""
        replicas = self._observed.replicas
        return "\n".join(
            f"[replica {replica.index}] {line}"
            for replica in [one for one in replicas if one.active] or replicas
            for line in self._tail(replica, lines).splitlines()
        )

    def _tail(self, replica: PodReplica, lines: int) -> str:
        log = "" if replica.gone else tail(self._cluster, self.namespace, replica.name, SERVER, lines)
        return log or "\n".join((replica.last_log or "").splitlines()[-lines:])

    def records(self) -> dict[str, str]:
        """Its pods, Kubernetes' events about them, and its values; see Deployment."""
        texts = {
            "pods.json": pods_text(self._observed.replicas),
            "cluster-events.txt": events_text(self._observed.cluster_events.values()),
            "values.yaml": values_text(self._values, self._settings.values),
        }
        if self._observed.autoscaler is not None:
            texts["hpa.json"] = autoscaler_text(self._observed.autoscaler)
        return texts

    def stop(self) -> None:
        """Remove the release and wait for its pods to be gone, also through Ctrl-C; see Deployment."""
        if not self._gone:
            through_interrupts(self._keep_last, self._uninstall, self._close)

    def _keep_last(self) -> None:
        """What was used and written last, before it goes."""
        for replica in self._observed.active():
            if replica.started:
                replica.last_log = tail(self._cluster, self.namespace, replica.name, SERVER, _LAST_LINES)
                self._look(replica)

    def _uninstall(self) -> None:
        if not self._ordered:
            return
        self._faults.dismissed = len(self._observed.replicas)
        try:
            self._helm.uninstall(self.release, self.namespace)
            self._wait_gone(time.monotonic() + _GOING_S)
            self._observed.wait(lambda: not self._remaining(), _LAST_NEWS_S)
        except ServingError:
            self._end_watches()  # and another stop may try again
            raise

    def _wait_gone(self, deadline: float) -> None:
        """Until no pod of the release is left, servers or others. Raises DeploymentError where some stay."""
        selector = f"app.kubernetes.io/instance={self.release}"
        while True:
            with asking("see whether the pods are gone"):
                left = answer_of(self._cluster.core.list_namespaced_pod, self.namespace, label_selector=selector)[
                    "items"
                ]
            if not left:
                return
            if time.monotonic() > deadline:
                names = ", ".join(f"{name_of(pod)} on node {node_of(pod)}" for pod in left)
                raise DeploymentError(
                    f"pods of release {self.release} do not end ({names}): where a node is lost, remove them with "
                    f"`kubectl delete pod --force --namespace {self.namespace} --selector {selector}`."
                )
            time.sleep(_POLL_S)

    def _close(self) -> None:
        self._end_watches()
        self._gone = True

    def _end_watches(self) -> None:
        self._watching.stop()
        self._reach.close()

    def __enter__(self) -> KubernetesDeployment:
        return self

    def __exit__(self, *exc: object) -> None:
        error = exc[1] if len(exc) > 1 else None
        if self._settings.keep and isinstance(error, ServingError):
            self.keep(error)
        else:
            self.stop()

    def keep(self, error: ServingError) -> None:
        """Leave the release where it failed, and say in the error how it is removed."""
        self._close()
        notice = f"release {self.release} in namespace {self.namespace} was kept"
        self._events.add("kept", detail=notice)
        remedy = f"`helm uninstall {self.release} --namespace {self.namespace}` removes it"
        error.args = (f"{error} The {notice}: {remedy}.",)
