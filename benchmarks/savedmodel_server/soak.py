"""Ten minutes at half load while a new version comes every 20 s: not one answer lost or wrong.

    python benchmarks/savedmodel_server/soak.py [--minutes 10] [--every 20] [--model build/models/cnn]

Each version is a copy of the model; the old one is removed when the new one serves. Half the workers speak REST, half
gRPC; each answer is held against the golden prediction.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
from servers import GRPC_THREADS, READY_S, ROOT, free_port
from tensor import predict_message, probabilities

sys.path.insert(0, str(ROOT))
WORKERS = 16
PROBE_S = 5.0
TOLERANCE = 1e-4
Call = Callable[[], Awaitable[list[float]]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between versions")
    parser.add_argument("--model", type=Path, default=ROOT / "build" / "models" / "cnn")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "cnn"
        shutil.copytree(options.model / "1", base / "1")
        rest, rpc = free_port(), free_port()
        command = [
            sys.executable, "-m", "serving.savedmodel_server", "--model_name=cnn", f"--model_base_path={base}",
            f"--rest_api_port={rest}", f"--port={rpc}", "--enable_batching",
            f"--grpc_max_threads={GRPC_THREADS}",
        ]  # fmt: skip
        with (Path(folder) / "log").open("w") as log:
            process = subprocess.Popen(command, stderr=log, cwd=ROOT)
        try:
            _wait(f"http://127.0.0.1:{rest}/v1/models/cnn")
            soak = Soak(options.model, base, rest, rpc)
            asyncio.run(soak.run(options.minutes * 60, options.every))
        finally:
            process.terminate()
            process.wait()
    print(json.dumps(soak.result(), indent=1))
    return 1 if soak.wrong or soak.lost or process.returncode else 0


def _wait(url: str) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5)
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{url} did not become ready")


class Soak:
    """The load, the version changes, and what came of them."""

    def __init__(self, model: Path, base: Path, rest: int, rpc: int) -> None:
        golden = json.loads((model / "manifest.json").read_text())["golden"][0]
        self.image = (model / golden["path"]).read_bytes()
        self.expected: list[float] = golden["probabilities"]
        self.base, self.rest, self.rpc = base, rest, rpc
        self.answers = 0
        self.wrong: list[str] = []
        self.lost: list[str] = []
        self.versions = 1
        self.rate = 0.0

    def result(self) -> dict[str, Any]:
        """What to report."""
        return {
            "answers": self.answers, "rate": round(self.rate, 1), "versions": self.versions,
            "wrong": len(self.wrong), "lost": len(self.lost), "examples": (self.wrong + self.lost)[:5],
        }  # fmt: skip

    async def run(self, seconds: float, every_s: float) -> None:
        """Find the capacity, then run at half of it."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.rpc}") as channel:
            calls = [self.over_grpc(channel) if i % 2 else await self.over_rest() for i in range(WORKERS)]
            until = time.monotonic() + PROBE_S
            await asyncio.gather(*(self.work(call, until, 0.0) for call in calls))
            self.rate = self.answers / PROBE_S / 2
            self.answers = 0
            until = time.monotonic() + seconds
            changes = asyncio.create_task(self.change_versions(until, every_s))
            await asyncio.gather(*(self.work(call, until, WORKERS / self.rate) for call in calls))
            await changes

    async def work(self, call: Call, until: float, interval_s: float) -> None:
        """Call once each interval, however long a call takes, until the time is over."""
        due = time.monotonic()
        while (now := time.monotonic()) < until:
            if now < due:
                await asyncio.sleep(due - now)
            due += interval_s
            try:
                found = await asyncio.wait_for(call(), 60)
            except Exception as error:  # noqa: BLE001 - whatever it is, the answer is lost
                self.lost.append(repr(error)[:200])
                continue
            self.answers += 1
            if max(abs(a - b) for a, b in zip(found, self.expected, strict=True)) > TOLERANCE:
                self.wrong.append(str(found))

    async def over_rest(self) -> Call:
        """A kept connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.rest)
        body = json.dumps({"instances": [{"b64": base64.b64encode(self.image).decode()}]})
        request = (
            f"POST /v1/models/cnn:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )

        async def call() -> list[float]:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            text = await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n", 1)[0]))
            found: list[float] = json.loads(text)["predictions"][0]
            return found

        return call

    def over_grpc(self, channel: grpc.aio.Channel) -> Call:
        """A call on the shared channel."""
        predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        message = predict_message(self.image)

        async def call() -> list[float]:
            return probabilities(await predict(message, timeout=60), len(self.expected))

        return call

    async def change_versions(self, until: float, every_s: float) -> None:
        """A new version appears in one step, and the one before goes when the new one serves."""
        while time.monotonic() + every_s < until:
            await asyncio.sleep(every_s)
            old, new = self.base / str(self.versions), self.base / str(self.versions + 1)
            await asyncio.to_thread(shutil.copytree, old, self.base / ".coming")
            (self.base / ".coming").rename(new)
            self.versions += 1
            while (self.base / str(self.versions - 1)).exists():
                url = f"http://127.0.0.1:{self.rest}/v1/models/cnn/versions/{self.versions}"
                try:
                    reply = await asyncio.to_thread(lambda url=url: urllib.request.urlopen(url, timeout=20).read())
                    if b"AVAILABLE" in reply:
                        await asyncio.to_thread(shutil.rmtree, old)
                except OSError:
                    await asyncio.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
