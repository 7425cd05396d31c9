"""The load generator in pods beside the servers: one process in one agent, or a master and a worker in each of several.

Nothing hangs on a connection: what runs in the agents is looked at now and then, and its files are brought back.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from loadtests.samples.recorder import SAMPLES, shift_times
from models.manifest import MANIFEST_NAME
from servestorm.rundir.files import AGENTS, GENERATOR_COMMAND, GENERATOR_LOG, SUMMARY, write_json
from servestorm.study.generator_local import require_alive, require_summary, still_busy
from servestorm.study.load import GeneratorError, LoadOrder, address_options
from serving.backends.interrupts import through_interrupts
from serving.backends.kubernetes.agents import LOG as AGENT_LOG
from serving.backends.kubernetes.agents import RESULTS, Agent, AgentLost, Agents, Detached
from serving.backends.kubernetes.backend import KubernetesBackend
from serving.backends.kubernetes.execute import NotExecuted
from serving.containers import MODELS
from serving.errors import DeploymentError

READY_S = 300.0
"""For the agents, which were ordered together with the servers."""
WORKERS_S = 60
"""For the workers to find their master."""
PATIENCE_S = 60.0
"""For an API server that does not answer while a load runs."""
LOOK_EVERY_S, POLL_S, LAST_LOOKS_S = 5.0, 0.25, 0.5
FOLLOW_EVERY_S = 1.0
AT_ONCE = 8

T = TypeVar("T")
Command = tuple[Detached, list[str]]


@dataclass(frozen=True)
class ClusterGenerator:
    """The agents of a deployment's release; see LoadSource."""

    backend: KubernetesBackend

    def offer(self, order: LoadOrder) -> None:
        """See LoadSource; the order's cores mean nothing there."""
        settings, deployment = self.backend.settings, order.deployment
        agents = Agents(self.backend.cluster, settings.namespace, deployment.name, settings.agents)
        listed = None if settings.reach == "service" else deployment.front_file
        with _as_generator_s():
            ready = agents.wait(READY_S, deployment.alive)
            code = _AgentLoad(agents, ready, order, listed).carry_out()
        require_summary(code, order.out)


class _AgentLoad:
    """One load in the agents, from its start to its files. `listed` is a file with the addresses that load goes to."""

    def __init__(self, agents: Agents, ready: Sequence[Agent], order: LoadOrder, listed: Path | None) -> None:
        self._agents, self._ready, self._order, self._out = agents, ready, order, order.out
        self._base = f"{RESULTS}/{uuid.uuid4().hex[:12]}"
        self._listed, self._sent_list = listed, ""
        self._seen_s = 0.0
        """When the cluster last answered."""
        self._commands = self._processes()

    def _processes(self) -> list[Command]:
        """One process in one agent; a master in the first and a worker in each of several."""
        ready, order = self._ready, self._order
        locust = ["locust", "-f", f"loadtests/{order.command.file}"]
        master = [*locust, "--headless", *self._addresses(), *order.request_options()]
        master += ["--manifest", f"{MODELS}/{order.model.name}/{MANIFEST_NAME}", *order.command.options]
        master += ["--keep-awake", "off", "--out", f"{self._base}/out"]
        load: Command = (Detached(self._agents, ready[0], f"{self._base}/load"), master)
        if len(ready) == 1:
            return [load]
        master += ["--master", "--expect-workers", str(len(ready)), "--expect-workers-max-wait", str(WORKERS_S)]
        worker = [*locust, "--worker", "--master-host", ready[0].address]
        return [load, *((Detached(self._agents, agent, f"{self._base}/worker"), worker) for agent in ready)]

    def _addresses(self) -> list[str]:
        if self._listed is None:
            return address_options(self._order.deployment.front)
        return ["--endpoints-file", f"{self._base}/endpoints.json"]

    def carry_out(self) -> int:
        """The exit code of the load; its files lie in `out` then, and nothing of it runs or lies in the agents."""
        try:
            self._record()
            self._follow()
            # the master first: a worker that finds none waits for seconds before it tries again
            _each(self._commands[:1], _begin)
            _each(self._commands[1:], _begin)
            code = self._wait()
            self._bring()
            return code
        except (GeneratorError, AgentLost):
            with contextlib.suppress(NotExecuted):
                self._bring_logs()
            raise
        finally:
            through_interrupts(self._end)

    def _record(self) -> None:
        shift_ns = self._shift_ns = self._agents.clock_shift_ns(self._ready[0])
        write_json(self._out / GENERATOR_COMMAND, self._commands[0][1])
        records = [
            {**asdict(process.agent), "clock_shift_ns": shift_ns, "command": command}
            for process, command in self._commands
        ]
        write_json(self._out / AGENTS, records)

    def _wait(self) -> int:
        master, limit_s = self._commands[0][0], self._order.limit_s
        end, likely_end = time.monotonic() + limit_s, time.monotonic() + self._order.command.length_s
        self._seen_s = time.monotonic()
        next_look, pause, next_follow = self._seen_s + LAST_LOOKS_S, 1.0, 0.0
        while True:
            time.sleep(POLL_S)
            require_alive(self._order.deployment)
            now = time.monotonic()
            if now >= next_follow:
                next_follow = now + FOLLOW_EVERY_S
                self._answered(lambda: self._agents.require(self._ready))
                self._answered(self._follow)
            if now >= next_look:
                code = self._answered(master.code)
                if code is not None:
                    return code
                pause = LAST_LOOKS_S if now >= likely_end else min(2 * pause, LOOK_EVERY_S)
                # a look takes CPU time from what is measured: rarely, until the end is near
                next_look = min(now + pause, max(likely_end, now + LAST_LOOKS_S))
            if now > end:
                raise GeneratorError(still_busy(limit_s))

    def _answered(self, ask: Callable[[], T]) -> T | None:
        """What the cluster answers; None where it does not, for at most PATIENCE_S."""
        try:
            answer = ask()
        except AgentLost:
            raise
        except DeploymentError as error:
            if time.monotonic() - self._seen_s > PATIENCE_S:
                given_up = f"the load in the cluster was given up after {PATIENCE_S:.0f} s without an answer"
                raise GeneratorError(f"{given_up}: {error}") from error
            return None
        self._seen_s = time.monotonic()
        return answer

    def _follow(self) -> None:
        """Send the agents the list of ready replicas, where that changed."""
        if self._listed is None:
            return
        text = self._listed.read_text()
        if text != self._sent_list:
            _each(self._ready, lambda agent: self._agents.write(agent, f"{self._base}/endpoints.json", text))
            self._sent_list = text

    def _bring_logs(self) -> None:
        for number, (process, _) in enumerate(self._commands):
            process.fetch(AGENT_LOG, self._out / (f"generator-worker-{number}.log" if number else GENERATOR_LOG))

    def _bring(self) -> None:
        self._bring_logs()
        for name in (SAMPLES, SUMMARY):
            self._commands[0][0].fetch(f"../out/{name}", self._out / name)
        if self._shift_ns and (self._out / SAMPLES).exists():
            shift_times(self._out / SAMPLES, self._shift_ns)

    def _end(self) -> None:
        """What cannot be ended goes with its pod, and that with the release."""

        def end(command: Command) -> None:
            with contextlib.suppress(NotExecuted):
                command[0].end()

        def remove(agent: Agent) -> None:
            with contextlib.suppress(NotExecuted):
                self._agents.remove(agent, self._base)

        _each(self._commands, end)
        _each(self._ready, remove)


def _begin(command: Command) -> None:
    process, arguments = command
    process.begin(arguments)


def _each(items: Sequence[T], act: Callable[[T], None]) -> None:
    """Act on all of them, some at a time: a request to an agent takes a while."""
    if items:
        with ThreadPoolExecutor(min(AT_ONCE, len(items))) as pool:
            list(pool.map(act, items))


@contextlib.contextmanager
def _as_generator_s() -> Iterator[None]:
    """A failure of an agent is the generator's, not a server's."""
    try:
        yield
    except (AgentLost, NotExecuted) as error:
        raise GeneratorError(str(error)) from error
