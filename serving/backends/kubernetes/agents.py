"""Idle pods of the load generator: who they are, whether they still live, and how commands run and end in them.

A command runs detached from the stream that started it, with its output and its exit code in files: a stream that
breaks, or an API server that is away for a while, costs a look and not the load.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from serving.backends.kubernetes.cluster import Cluster, asking
from serving.backends.kubernetes.execute import Executed, NotExecuted, execute
from serving.backends.kubernetes.pod_troubles import trouble
from serving.backends.kubernetes.pods import Object, address_of, condition, container_of, is_ready, name_of, node_of
from serving.errors import DeploymentError

COMPONENT = "load-agent"
CONTAINER = "agent"
RESULTS = "/results"
"""Folder of an agent that can be written to."""
LOG = "output.log"

_POLL_S = 0.5
_TRIES = 5
_PAUSE_S = 1.0
_CHUNK_BYTES = 4 * 1024 * 1024
_GRACE_S = 5

# $0 is the command's folder. A second call, after a stream broke, finds what the first one began.
_BEGIN = f"""
mkdir -p "$0" || exit 1
mkdir "$0/begun" 2>/dev/null || exit 0
setsid sh -c 'echo $$ >"$0/pid"; "$@" >"$0/{LOG}" 2>&1; echo $? >"$0/code.new"; mv "$0/code.new" "$0/code"' \
"$0" "$@" </dev/null >/dev/null 2>&1 &
"""
_LOOK = """
cat "$0/code" 2>/dev/null && exit
[ -d "$0/begun" ] || { echo absent; exit; }
[ -s "$0/pid" ] || { echo runs; exit; }
case "$(cat "/proc/$(cat "$0/pid")/stat" 2>/dev/null)" in ''|*') Z '*) ;; *) echo runs; exit ;; esac
cat "$0/code" 2>/dev/null || echo gone
"""
_END = f"""
[ -s "$0/pid" ] || exit 0
group=$(cat "$0/pid")
kill -TERM "-$group" 2>/dev/null
left={_GRACE_S * 10}
while kill -0 "-$group" 2>/dev/null && [ "$left" -gt 0 ]; do sleep 0.1; left=$((left - 1)); done
kill -KILL "-$group" 2>/dev/null
exit 0
"""
_WRITE = """mkdir -p "${0%/*}" && printf %s "$1" >"$0.new" && mv "$0.new" "$0" """
_SIZE = """[ -f "$0" ] && wc -c <"$0" && sha256sum <"$0" """
_PART = """tail -c "+$1" "$0" | head -c "$2" """
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CLOCK = f"import time; print(open('{_BOOT_ID}').read().strip(), time.monotonic_ns(), time.time_ns())"

T = TypeVar("T")


class AgentLost(DeploymentError):
    """An agent is not there any more, or is another one than it was; the sentence names it."""


@dataclass(frozen=True)
class Agent:
    """One generator's pod, as it was when it was found."""

    pod: str
    uid: str
    address: str
    node: str
    restarts: int
    """Of its container: what ran in it has ended when they become more."""


class Agents:
    """The agents of one release, `number` of them."""

    def __init__(self, cluster: Cluster, namespace: str, release: str, number: int) -> None:
        self._cluster, self._namespace, self._release, self._number = cluster, namespace, release, number

    def wait(self, timeout_s: float, alive: Callable[[], bool] = lambda: True) -> list[Agent]:
        """All of them, ready, in the order of their names.

        Raises DeploymentError with the reason where one does not become ready in time, or where `alive` turns False.
        """
        end = time.monotonic() + timeout_s
        while True:
            pods = self._pods()
            ready = [pod for pod in pods if is_ready(pod)]
            if len(ready) == len(pods) == self._number:
                return [_agent(pod) for pod in ready]
            late = time.monotonic() > end
            for pod in pods:
                if fault := _fault(pod, late):
                    raise DeploymentError(fault)
            if late or not alive():
                raise DeploymentError(
                    f"{len(ready)} of {self._number} load agents of release {self._release} became ready within "
                    f"{timeout_s:.0f} s: look at them with `kubectl get pods --namespace {self._namespace}`."
                )
            time.sleep(_POLL_S)

    def require(self, agents: Sequence[Agent]) -> None:
        """Raise AgentLost where one of them is not what it was."""
        now = {pod["metadata"]["uid"]: pod for pod in self._pods()}
        for agent in agents:
            if fault := _loss(agent, now.get(agent.uid)):
                raise AgentLost(fault)

    def run(self, agent: Agent, script: str, *arguments: str, timeout_s: float = 30.0) -> Executed:
        """A short shell script in the agent, with its arguments from $0 on. Raises NotExecuted."""
        return self.execute(agent, ["sh", "-c", script, *arguments], timeout_s)

    def execute(self, agent: Agent, command: Sequence[str], timeout_s: float = 30.0) -> Executed:
        """A short command in the agent. Raises NotExecuted."""
        return execute(self._cluster, self._namespace, agent.pod, CONTAINER, command, timeout_s)

    def write(self, agent: Agent, path: str, text: str) -> None:
        """Put a small file into the agent, whole. Raises NotExecuted."""
        done = patiently(lambda: self.run(agent, _WRITE, path, text))
        if done.code:
            raise NotExecuted(f"load agent {agent.pod} cannot write {path}: {done.err}.")

    def remove(self, agent: Agent, folder: str) -> None:
        """Remove a folder. Raises NotExecuted."""
        self.execute(agent, ["rm", "-rf", folder])

    def clock_shift_ns(self, agent: Agent) -> int:
        """What to add to a monotonic time of the agent's machine for ours, ns; 0 where it is this machine.

        Computed from both wall clocks, within the time of one request and its answer. Raises NotExecuted.
        """
        lowest, highest, by_wall = -(1 << 62), 1 << 62, 0
        for _ in range(3):
            sent_ns = time.monotonic_ns()
            boot, monotonic, wall = self.execute(agent, ["python", "-c", _CLOCK]).text.split()
            received_ns = time.monotonic_ns()
            if boot == _BOOT_ID.read_text().strip():
                return 0
            lowest = max(lowest, sent_ns - int(monotonic))
            highest = min(highest, received_ns - int(monotonic))
            by_wall = int(wall) - int(monotonic) - (time.time_ns() - time.monotonic_ns())
        return min(max(by_wall, lowest), highest)

    def _pods(self) -> list[Object]:
        selector = f"app.kubernetes.io/instance={self._release},app.kubernetes.io/component={COMPONENT}"
        with asking("list the load agents"):
            response = self._cluster.core.list_namespaced_pod(
                self._namespace, label_selector=selector, _preload_content=False
            )
            pods: list[dict[str, Any]] = json.loads(response.data)["items"]
        return sorted(pods, key=name_of)


class Detached:
    """A command in one agent's folder, running whether or not anybody is connected."""

    def __init__(self, agents: Agents, agent: Agent, folder: str) -> None:
        self.agent = agent
        self.folder = folder
        """Absolute, in the agent; not used before."""
        self._agents = agents

    def begin(self, command: Sequence[str]) -> None:
        """Start it; its working directory is the image's own. Raises NotExecuted."""
        done = patiently(lambda: self._run(_BEGIN, self.folder, *command))
        if done.code:
            raise NotExecuted(f"nothing can be started in load agent {self.agent.pod}: {done.err or done.text}.")

    def code(self) -> int | None:
        """Its exit code; None while it runs. Raises NotExecuted where it is unknown, AgentLost where it is gone."""
        output = self._run(_LOOK, self.folder).text
        if output == "runs":
            return None
        if output.isdigit():
            return int(output)
        raise AgentLost(f"what ran in load agent {self.agent.pod} on node {self.agent.node} is gone without a word.")

    def fetch(self, name: str, target: Path) -> bool:
        """Copy a file from the folder to `target` and compare their SHA-256; False where there is none.

        Raises NotExecuted where it does not arrive whole.
        """
        path = f"{self.folder}/{name}"
        reply = patiently(lambda: self._run(_SIZE, path, timeout_s=120))
        if reply.code:
            return False
        size, digest = reply.text.split()[:2]
        fresh = target.with_name(f"{target.name}.part")
        with fresh.open("wb") as file:
            while (begun := file.tell()) < int(size):
                file.write(patiently(lambda begun=begun: self._part(path, begun, int(size))))  # type: ignore[misc]
        if hashlib.sha256(fresh.read_bytes()).hexdigest() != digest:
            fresh.unlink()
            raise NotExecuted(f"{path} of load agent {self.agent.pod} arrived damaged.")
        fresh.replace(target)
        return True

    def end(self) -> None:
        """End it and all that it started, and wait for it; harmless where it has ended. Raises NotExecuted."""
        self._run(_END, self.folder, timeout_s=_GRACE_S + 15)

    def _part(self, path: str, begun: int, size: int) -> bytes:
        wanted = min(_CHUNK_BYTES, size - begun)
        part = self._run(_PART, path, str(begun + 1), str(wanted), timeout_s=120).out
        if len(part) != wanted:
            raise NotExecuted(f"{path} of load agent {self.agent.pod} arrived short.")
        return part

    def _run(self, script: str, *arguments: str, timeout_s: float = 30.0) -> Executed:
        return self._agents.run(self.agent, script, *arguments, timeout_s=timeout_s)


def patiently(ask: Callable[[], T]) -> T:
    """Again after a broken stream, for a few seconds: what is asked can be asked twice."""
    for attempt in range(1, _TRIES + 1):
        try:
            return ask()
        except NotExecuted:
            if attempt == _TRIES:
                raise
            time.sleep(_PAUSE_S)
    raise AssertionError


def _agent(pod: Object) -> Agent:
    return Agent(
        pod=name_of(pod),
        uid=str(pod["metadata"]["uid"]),
        address=str(address_of(pod)),
        node=str(node_of(pod)),
        restarts=int(container_of(pod, CONTAINER).get("restartCount", 0)),
    )


def _fault(pod: Object, late: bool) -> str | None:
    """Why an agent is not ready; what may recover by itself is reported only when it is late."""
    who = f"load agent {name_of(pod)}"
    cause = trouble(pod, who)
    if cause and (late or not cause.patience_s):
        return cause.sentence
    waiting = container_of(pod, CONTAINER).get("state", {}).get("waiting", {})
    if late and waiting.get("reason") in ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"):
        image = next(each["image"] for each in pod["spec"]["containers"] if each["name"] == CONTAINER)
        return (
            f"the image {image} of {who} is not on node {node_of(pod)} and cannot be pulled: load it into the "
            "cluster's nodes, push it and name the registry, or name another one as `images.generator`."
        )
    return None


def _loss(agent: Agent, pod: Object | None) -> str | None:
    """What became of an agent, in a sentence; None where it is as it was."""
    who = f"load agent {agent.pod} on node {agent.node}"
    again = "run the load again"
    if pod is None or pod["metadata"].get("deletionTimestamp"):
        return f"{who} was deleted under load: {again}."
    status = container_of(pod, CONTAINER)
    ended = status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated") or {}
    if ended.get("reason") == "OOMKilled":
        return f"{who} was killed for want of memory under load: raise load.resources.limits.memory of the chart."
    if int(status.get("restartCount", 0)) != agent.restarts or "terminated" in status.get("state", {}):
        return f"{who} ended with code {ended.get('exitCode')} under load ({ended.get('reason')}): {again}."
    if pod.get("status", {}).get("phase") == "Failed":
        message = pod["status"].get("message") or pod["status"].get("reason")
        return f"{who} was taken off its node under load ({message}): give it a node with room, and {again}."
    if condition(pod, "Ready").get("status") != "True":
        look = f"look at it with `kubectl describe node {agent.node}`"
        return f"{who} is lost, for its node does not answer any more: {look}."
    return None
