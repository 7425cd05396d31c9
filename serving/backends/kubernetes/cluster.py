"""The cluster: reaching it, what it refuses in sentences, and what it is made of."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving import extras
from serving.backends.kubernetes.clock import ClusterClock, measure
from serving.errors import DeploymentError, EngineUnavailable

TIMEOUT_S = (5.0, 60.0)
"""Of every request, to connect and for the next byte; a watch names its own."""
_FIRST_TIMEOUT_S = (5.0, 10.0)
ROLE = "deploy/k8s/role.yaml"
"""What every refusal points to."""
_INSIDE = "in-cluster"
_HINT = "look at it with `kubectl cluster-info`"


@dataclass(frozen=True)
class Cluster:
    """A cluster that answers; made by `connect`."""

    api: Any
    """kubernetes.client.ApiClient, each of whose requests has a timeout."""
    context: str
    """Of the kubeconfig, or `in-cluster`."""
    version: str
    """Such as 1.32.13."""
    kube_context: str | None = None
    """The --context of helm and kubectl; None: their own default."""

    @classmethod
    def connect(cls, context: str | None = None) -> Cluster:
        """The cluster of a context; None: the kubeconfig's current one, or the account of the pod that we run in.

        Raises EngineUnavailable with the remedy where there is no such context, or its server does not let us in.
        """
        try:
            import kubernetes  # noqa: F401
        except ImportError as error:
            raise EngineUnavailable(extras.sentence("kubernetes", "backend kubernetes", ["kubernetes"])) from error
        settings, name, helm_context = _configuration(context)
        return cls(_client(settings, retries=True), name, _version(settings, name), helm_context)

    @functools.cached_property
    def core(self) -> Any:
        """CoreV1Api."""
        from kubernetes.client import CoreV1Api

        return CoreV1Api(self.api)

    @functools.cached_property
    def apps(self) -> Any:
        """AppsV1Api."""
        from kubernetes.client import AppsV1Api

        return AppsV1Api(self.api)

    @functools.cached_property
    def autoscaling(self) -> Any:
        """AutoscalingV2Api."""
        from kubernetes.client import AutoscalingV2Api

        return AutoscalingV2Api(self.api)

    @functools.cached_property
    def authorization(self) -> Any:
        """AuthorizationV1Api."""
        from kubernetes.client import AuthorizationV1Api

        return AuthorizationV1Api(self.api)

    @functools.cached_property
    def clock(self) -> ClusterClock:
        """The API server's clock, measured at first use (about a second). Raises DeploymentError."""
        with asking("tell its time"):
            return measure(self._date)

    def _date(self) -> str | None:
        from kubernetes.client import VersionApi

        _, _, headers = VersionApi(self.api).get_code_with_http_info(_return_http_data_only=False)
        date = headers.get("Date")
        return None if date is None else str(date)

    def describe(self) -> dict[str, Any]:
        """The cluster for environment.json: version, context, and its nodes, None where they may not be read."""
        from kubernetes.client import ApiException

        with asking("list its nodes"):
            try:
                nodes = self.core.list_node().items
            except ApiException as error:
                if not forbidden(error):
                    raise
                nodes = None
        return {
            "version": self.version,
            "context": self.context,
            "nodes": None if nodes is None else [_node(node) for node in nodes],
        }


def _configuration(context: str | None) -> tuple[Any, str, str | None]:
    """Settings of the client, the context's name, and helm's --context. Raises EngineUnavailable."""
    from kubernetes.client import Configuration

    settings, place = Configuration(), _kubeconfig()
    if _exists(place):
        return settings, _from_kubeconfig(settings, place, context), context
    if context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        _from_pod(settings)
        return settings, _INSIDE, None
    raise EngineUnavailable(f"no kubeconfig is at {place}: make one, or point KUBECONFIG at it.")


def _from_kubeconfig(settings: Any, place: str, context: str | None) -> str:
    """Fill the settings; the context's name."""
    import yaml
    from kubernetes import config
    from kubernetes.config.kube_config import KubeConfigMerger

    try:
        written = KubeConfigMerger(place).config.value
        names = [str(one["name"]) for one in written.get("contexts") or []]
        name = context or written.get("current-context") or None
        if name not in names:
            raise EngineUnavailable(_no_context(name, place, names))
        config.load_kube_config(place, context=name, client_configuration=settings, persist_config=False)
    except (
        config.ConfigException,
        yaml.YAMLError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        raise EngineUnavailable(
            f"the kubeconfig {place} cannot be used ({_short(error)}): correct it until `kubectl get pods` works."
        ) from error
    return str(name)


def _from_pod(settings: Any) -> None:
    """Fill the settings from the account of the pod that we run in."""
    from kubernetes import config

    try:
        config.load_incluster_config(client_configuration=settings)
    except (config.ConfigException, OSError) as error:
        raise EngineUnavailable(
            f"this pod has no account to ask the cluster with ({_short(error)}): give it one with a token "
            "(automountServiceAccountToken), or a kubeconfig."
        ) from error


def _kubeconfig() -> str:
    """One path, or several with colons, as kubectl reads them."""
    return os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())


def _exists(place: str) -> bool:
    return any(Path(path).expanduser().is_file() for path in place.split(os.pathsep) if path)


def _no_context(name: str | None, place: str, names: list[str]) -> str:
    there = f"it has {', '.join(names)}" if names else "it has none"
    if name is None:
        return f"the kubeconfig {place} has no current context ({there}): `kubectl config use-context NAME`."
    return f"the kubeconfig {place} has no context {name} ({there}): name one of them under kubernetes.context."


def _client(settings: Any, *, retries: bool) -> Any:
    """An ApiClient whose every request ends: the generated ones wait for ever where nobody gives them a time."""
    import copy

    from kubernetes.client import ApiClient
    from urllib3 import Retry

    class PatientClient(ApiClient):  # type: ignore[misc]
        def call_api(self, *request: Any, _request_timeout: Any = None, **more: Any) -> Any:
            return super().call_api(*request, _request_timeout=_request_timeout or TIMEOUT_S, **more)

    settings = copy.copy(settings)
    settings.retries = Retry(total=3, connect=1, read=1, backoff_factor=0.2) if retries else False
    return PatientClient(settings)


def _version(settings: Any, name: str) -> str:
    """What the server calls itself, asked once without trying again. Raises EngineUnavailable."""
    from kubernetes.client import ApiException, VersionApi
    from urllib3.exceptions import HTTPError

    try:
        version = VersionApi(_client(settings, retries=False)).get_code(_request_timeout=_FIRST_TIMEOUT_S)
    except ApiException as error:
        raise EngineUnavailable(_turned_away(error, settings.host, name)) from error
    except (HTTPError, OSError) as error:
        raise EngineUnavailable(_unreachable(error, settings.host, name)) from error
    except ValueError as error:
        raise EngineUnavailable(_no_api(settings.host, name)) from error
    return str(version.git_version).removeprefix("v").partition("+")[0]


def _turned_away(error: Any, host: str, name: str) -> str:
    if error.status == 0:
        return _unreachable(error, host, name)
    if error.status in (401, 403):
        return (
            f"the cluster of context {name} ({host}) refuses its token or certificate (HTTP {error.status}): log in "
            "again, so that `kubectl get pods` works."
        )
    return _no_api(host, name)


def _no_api(host: str, name: str) -> str:
    return f"{host} (context {name}) answers, but not as a Kubernetes API does: {_HINT}."


def _unreachable(error: BaseException, host: str, name: str) -> str:
    message = " ".join(str(error).split())
    if "CERTIFICATE_VERIFY_FAILED" in message:
        return (
            f"the certificate of {host} (context {name}) is not signed by the authority that the kubeconfig names: "
            "take certificate-authority-data from the cluster's own kubeconfig."
        )
    return f"no Kubernetes API answers at {host} (context {name}; {_cause(message)}): start the cluster, or {_HINT}."


def _cause(message: str) -> str:
    """The socket's error, without the library's text around it."""
    for mark in (
        "Connection refused",
        "No route to host",
        "Name or service not known",
        "timed out",
        "Network is unreachable",
    ):
        if mark.lower() in message.lower():
            return mark.lower()
    return message[-120:]


@contextmanager
def asking(what: str) -> Iterator[None]:
    """What the API refuses, or that it is gone, as a DeploymentError; `what` is what was to be done."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise DeploymentError(refusal(what, error)) from error
    except (HTTPError, OSError) as error:
        raise DeploymentError(
            f"the Kubernetes API stopped answering when it was to {what} ({_cause(' '.join(str(error).split()))}): "
            f"{_HINT}, then remove what is left with `servestorm clean`."
        ) from error


def refusal(what: str, error: Any) -> str:
    """One sentence for an ApiException, with the remedy where it is known."""
    status = _status(error)
    reason = str(status.get("message") or error.reason or "no reason given").strip().rstrip(".")
    if forbidden(error):
        return f"you may not {what} ({reason}): ask for the rights in {ROLE}."
    if error.status == 401:
        return f"the cluster no longer knows us when it was to {what}: log in again, so that `kubectl get pods` works."
    return f"the cluster cannot {what}: {' '.join(reason.split())}."


def forbidden(error: Any) -> bool:
    """Whether an ApiException means that we lack a right; a quota and an admission check refuse with 403 too."""
    return error.status == 403 and "forbidden: user" in str(_status(error).get("message", "")).lower()


def _status(error: Any) -> Mapping[str, Any]:
    """The API's own account of a refusal (kind Status)."""
    try:
        status = json.loads(error.body or "{}")
    except ValueError:
        return {}
    return status if isinstance(status, Mapping) else {}


def _node(node: Any) -> dict[str, Any]:
    labels, info = node.metadata.labels or {}, node.status.node_info
    capacity = node.status.capacity or {}
    return {
        "name": node.metadata.name,
        "cpus": _quantity(capacity.get("cpu")),
        "memory_bytes": _whole(_quantity(capacity.get("memory"))),
        "kubelet": info.kubelet_version,
        "runtime": info.container_runtime_version,
        "os_image": info.os_image,
        "kernel": info.kernel_version,
        "architecture": info.architecture,
        "instance_type": labels.get("node.kubernetes.io/instance-type"),
        "zone": labels.get("topology.kubernetes.io/zone"),
        "this_machine": info.boot_id is not None and info.boot_id == _boot_id(),
    }


def _boot_id() -> str | None:
    """Identifies this boot of the kernel; a kubelet reports the same of its own."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


def _quantity(text: str | None) -> float | None:
    """Kubernetes' way of writing amounts: 500m, 16Gi, 2."""
    from kubernetes.utils.quantity import parse_quantity

    return None if text is None else float(parse_quantity(text))


def _whole(number: float | None) -> int | None:
    return None if number is None else round(number)


def _short(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
