"""Changes which versions of a model are served, again and again, and notes when each was there."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import requests
from asked_rows import LABEL, Presence
from clients import GrpcCalls

VERSIONS = range(1, 13)
MOST_SERVED = 3
CHANGE_S = 60.0
POLL_S = 1.0
"""The server's --file_system_poll_wait_seconds: what it saw in a folder may be acted on so much later."""
_RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"


class ChangeMissing(Exception):
    """The server did not make a change."""


def first_config(base: Path) -> str:
    """A model_config_file for all versions below `base`, with the label on the first."""
    return f"""model_config_list {{ config {{ name: "m" base_path: "{base}" model_platform: "tensorflow"
  model_version_policy {{ all {{}} }} version_labels {{ key: "{LABEL}" value: {VERSIONS[0]} }} }} }}
"""


class Churn:
    """The model `m` of a server: `work`/all has every version, `work`/m those that are served."""

    def __init__(self, work: Path, url: str, target: str, rng: random.Random) -> None:
        self.presence: dict[int, list[Presence]] = {VERSIONS[0]: [Presence(0.0, 0.0)]}
        self.changes: Counter[str] = Counter()
        self.refused: list[str] = []
        """Reloads that were not answered with OK, and changes that did not come."""
        self._all, self._base = work / "all", work / "m"
        self._url, self._target = url, target
        self._rng = rng
        self._served = {VERSIONS[0]}
        self._label = VERSIONS[0]
        self._removed = 0

    @staticmethod
    def now_s() -> float:
        """The clock of `presence`."""
        return time.monotonic()

    async def run(self, over: asyncio.Event) -> None:
        """Change until `over`."""
        calls = GrpcCalls(self._target)
        try:
            while not over.is_set():
                how = self._rng.choice(["folder", "folder", "reload", "reload", "flap"])
                if how == "flap":
                    await self._flap(self._rng.choice(sorted(self._served)))
                else:
                    wanted = set(self._rng.sample(VERSIONS, self._rng.randint(1, MOST_SERVED)))
                    await self._change(wanted, how, calls)
                self.changes[how] += 1
        except (ChangeMissing, requests.RequestException) as error:
            self.refused.append(repr(error))
        finally:
            await calls.close()

    async def _change(self, wanted: set[int], how: str, calls: GrpcCalls) -> None:
        """Serve exactly `wanted`; returns when the server reports it."""
        coming, going = wanted - self._served, self._served - wanted
        now_s = self.now_s()
        for version in coming:
            self.presence.setdefault(version, []).append(Presence(now_s))
        for version in going:
            self.presence[version][-1].surely_until_s = now_s
        await asyncio.to_thread(self._add, coming)
        if how == "reload":  # a label moves only to what is available: the coming versions are loaded first
            await self._reload(calls, wanted | self._served, label=self._label)
            await self._until(wanted | self._served)
            await self._reload(calls, wanted, label=min(wanted))
            self._label = min(wanted)
        else:
            self._remove(going)
        await self._until(wanted)
        now_s = self.now_s()
        for version in coming:
            self.presence[version][-1].surely_from_s = now_s
        for version in going:
            self.presence[version][-1].until_s = now_s
        if how == "reload":  # back to whatever has a folder, which is the same versions
            self._remove(going)
            await self._reload(calls, None, label=min(wanted))
        self._served = wanted

    async def _flap(self, version: int) -> None:
        """A version's folder goes and comes back, before the server has seen it, while it unloads, or later."""
        now_s = self.now_s()
        self.presence[version][-1].surely_until_s = now_s
        self.presence[version].append(Presence(now_s))
        self._remove([version])
        await asyncio.sleep(self._rng.uniform(0, 2 * POLL_S))
        await asyncio.to_thread(self._add, [version])
        await asyncio.sleep(1.5 * POLL_S)
        await self._until(self._served)
        last, new = self.presence[version][-2:]
        last.until_s = new.surely_from_s = self.now_s()

    def _add(self, versions: Iterable[int]) -> None:
        """Each appears in one step, as the documentation asks for."""
        for version in versions:
            shutil.copytree(self._all / str(version), self._base / f".{version}")
            (self._base / f".{version}").rename(self._base / str(version))

    def _remove(self, versions: Iterable[int]) -> None:
        for version in versions:
            self._removed += 1
            gone = self._base / f".gone-{self._removed}"
            (self._base / str(version)).rename(gone)
            shutil.rmtree(gone)

    async def _reload(self, calls: GrpcCalls, specific: set[int] | None, *, label: int) -> None:
        """Through the API; `specific`: the versions to serve, None for all that have a folder."""
        from tensorflow_serving.apis import model_management_pb2

        request = model_management_pb2.ReloadConfigRequest()
        config = request.config.model_config_list.config.add(
            name="m", base_path=str(self._base), model_platform="tensorflow"
        )
        if specific is None:
            config.model_version_policy.all.SetInParent()
        else:
            config.model_version_policy.specific.versions.extend(sorted(specific))
        config.version_labels[LABEL] = label
        reply = await calls.ask(_RELOAD, request.SerializeToString())
        status = model_management_pb2.ReloadConfigResponse.FromString(reply.body).status if reply.body else None
        if reply.status != "OK" or (status is not None and status.error_code):
            self.refused.append(f"reload: {reply.status} {'' if status is None else status.error_message}")

    async def _until(self, wanted: set[int]) -> None:
        end_s = time.monotonic() + CHANGE_S
        while (states := await asyncio.to_thread(self._states)) != wanted:
            if time.monotonic() > end_s:
                raise ChangeMissing(f"{sorted(states)} instead of {sorted(wanted)} after {CHANGE_S:g} s")
            await asyncio.sleep(0.02)

    def _states(self) -> set[int]:
        """The versions that are AVAILABLE, and any that are on their way: loading or unloading."""
        reply = requests.get(f"{self._url}/v1/models/m", timeout=CHANGE_S).json()
        states = {int(one["version"]): one["state"] for one in reply["model_version_status"]}
        moving = {version + 1000 for version, state in states.items() if state not in ("AVAILABLE", "END")}
        return {version for version, state in states.items() if state == "AVAILABLE"} | moving
