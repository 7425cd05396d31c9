"""A client in the cluster: asks the release one question again and again, over connections that stay open."""

from __future__ import annotations

import base64
import collections
import json
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from models.manifest import ModelDir
from serving.probe import KnownRequest
from serving.wire import WIRES
from tests.system.cluster.release import Release

POD = "asker"


@dataclass
class Told:
    """What an asker saw, once it has ended."""

    asked: int = 0
    verdicts: collections.Counter[str] | None = None
    faults: list[Any] | None = None
    slowest_s: float = 0.0

    def assert_all_right(self, cut: int = 0) -> None:
        """Every question got the right answer, but so many that may have seen their connection closed without one."""
        assert self.faults is not None and self.verdicts is not None
        assert len(self.faults) <= cut, self
        assert all("RemoteDisconnected" in what for _, what in self.faults), self
        assert self.verdicts == {"right": self.asked - len(self.faults)}, self
        assert self.asked > cut


@contextmanager
def asking(release: Release, model: ModelDir, *, threads: int = 1, rate: float = 0.0) -> Iterator[Told]:
    """Ask all the while; what was seen is told after the block."""
    told = Told()
    stop = f"/tmp/stop-{secrets.token_hex(3)}"
    question = f"/scripts/{release.engine}.json"
    command = ["python", "/scripts/asker.py", release.url, question, stop, f"--threads={threads}", f"--rate={rate}"]
    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(release.space.run, POD, *command, limit_s=1000)
        try:
            yield told
        finally:
            release.space.run(POD, "touch", stop)
            seen = json.loads(running.result())
    told.asked, told.faults, told.slowest_s = seen["asked"], seen["faults"], seen["slowest_s"]
    told.verdicts = verdicts(release.engine, model, seen["answers"])


def verdicts(engine: str, model: ModelDir, answers: list[dict[str, Any]]) -> collections.Counter[str]:
    """How many answers were right, and what the others were."""
    question = KnownRequest.of(WIRES[engine], model)
    found: collections.Counter[str] = collections.Counter()
    for answer in answers:
        found[question.verdict(answer["status"], base64.b64decode(answer["body"]))] += answer["count"]
    return found


def question_file(engine: str, model: ModelDir) -> bytes:
    """The first golden image as asker.py wants it."""
    request = KnownRequest.of(WIRES[engine], model).request
    body = base64.b64encode(request.body).decode()
    told = {"method": request.method, "path": request.path, "content_type": request.content_type, "body": body}
    return json.dumps(told).encode()


def ask_some(release: Release, model: ModelDir, count: int) -> Told:
    """Ask until at least `count` questions were answered by the servers, as they count."""
    before = sum(release.counts().values())
    with asking(release, model) as told:
        release.space.until("answers", lambda: sum(release.counts().values()) - before >= count)
    return told
