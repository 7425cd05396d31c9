"""A command in a container of a pod, by the API's exec: short ones, whose stream may break at any time."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from serving.backends.kubernetes.cluster import Cluster
from serving.errors import DeploymentError

_STDOUT, _STDERR, _OUTCOME = 1, 2, 3
"""Channels of the API's exec."""
_CONNECT_S = 15.0


class NotExecuted(DeploymentError):
    """The command was not carried out, or nobody knows how it ended: the pod is not there, or the stream broke."""


@dataclass(frozen=True)
class Executed:
    """How a command ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """What it printed, stripped."""
        return self.out.decode(errors="replace").strip()


def execute(
    cluster: Cluster, namespace: str, pod: str, container: str, command: Sequence[str], timeout_s: float = 30.0
) -> Executed:
    """Run a command to its end, without input.

    Raises NotExecuted where it cannot be begun, its stream breaks, or it takes longer: it may run on then.
    """
    where = f"pod {pod} in namespace {namespace}"
    end = time.monotonic() + timeout_s
    with _asked(where), _stream(cluster, namespace, pod, container, command) as stream:
        while stream.is_open() and (left_s := end - time.monotonic()) > 0:
            stream.update(timeout=left_s)
        if stream.is_open():
            raise NotExecuted(f"a command in {where} was still busy after {timeout_s:.0f} s.")
        out, err, outcome = (stream.read_channel(channel) for channel in (_STDOUT, _STDERR, _OUTCOME))
    return Executed(_code(outcome, where), bytes(out), bytes(err).decode(errors="replace").strip())


@contextlib.contextmanager
def _stream(cluster: Cluster, namespace: str, pod: str, container: str, command: Sequence[str]) -> Iterator[Any]:
    import websocket
    from kubernetes.client import ApiClient, CoreV1Api
    from kubernetes.stream import stream

    # The library waits for ever otherwise, and for a while puts its own function into the client that it is given:
    # other threads use ours.
    websocket.setdefaulttimeout(_CONNECT_S)
    api = CoreV1Api(ApiClient(cluster.api.configuration))
    opened = stream(
        api.connect_get_namespaced_pod_exec,
        pod,
        namespace,
        container=container,
        command=list(command),
        stdin=False,
        stdout=True,
        stderr=True,
        tty=False,
        binary=True,
        _preload_content=False,
    )
    try:
        yield opened
    finally:
        with contextlib.suppress(Exception):
            opened.close()


@contextlib.contextmanager
def _asked(where: str) -> Iterator[None]:
    """What the library raises, as a sentence."""
    import urllib3
    import websocket
    from kubernetes.client import ApiException

    try:
        yield
    except ApiException as error:
        cause = error.__context__
        if isinstance(cause, (KeyboardInterrupt, SystemExit)):
            raise cause from None  # the library makes an error of Ctrl-C
        if getattr(cause, "status_code", error.status) == 403:
            remedy = "it needs the verbs get and create on pods/exec, see deploy/k8s/role.yaml"
            raise NotExecuted(f"this account may not run a command in {where}: {remedy}.") from error
        raise NotExecuted(f"no command can be run in {where}: {_refusal(error)}.") from error
    except (websocket.WebSocketException, urllib3.exceptions.HTTPError, OSError) as error:
        raise NotExecuted(f"the stream of a command in {where} broke: {_first_line(str(error))}.") from error


def _refusal(error: Any) -> str:
    """The API's message, where it sent one."""
    body = getattr(error.__context__, "resp_body", None) or error.body
    try:
        return str(json.loads(body)["message"]).rstrip(".")
    except (ValueError, TypeError, KeyError):
        return _first_line(str(error.reason))


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason was given"])[0].rstrip(".")


def _code(outcome: bytes, where: str) -> int:
    """The exit code in the API's last word, which is missing where the stream broke."""
    try:
        status = json.loads(outcome)
    except ValueError:
        raise NotExecuted(f"the stream of a command in {where} ended before the command did.") from None
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or []:
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise NotExecuted(f"no command can be run in {where}: {_first_line(str(status.get('message') or ''))}.")
