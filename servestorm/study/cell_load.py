"""What is offered to a deployment in one cell: one load, a search for the largest rate, or a sweep."""

from __future__ import annotations

import itertools
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtests.samples.validity import generator_at_fault, samples_needed
from models.manifest import ModelDir
from servestorm.methods.autoscaling import COOLDOWN_ENDED
from servestorm.methods.capacity_search import Probe, Search, error_percent, judge
from servestorm.plan.cells import Cell, Variant, by_capacity
from servestorm.plan.study_plan import Plan
from servestorm.rundir import files
from servestorm.rundir.files import SUMMARY, read_json, write_json
from servestorm.study.cores import Cores
from servestorm.study.load import Generator, LoadCommand, bursty_load, closed_load, probe_load, steady_load
from servestorm.study.machine_counters import Watch
from serving.deployment import Deployment, EventLog, Use
from serving.errors import DeploymentError
from serving.probe import first_answer
from serving.wire import WIRES

SPARE = 1.1
"""Poisson arrivals may be fewer than their rate says."""
LOOK_EVERY_S = 0.25
ESTIMATE_IN_FLIGHT, ESTIMATE_S, ESTIMATE_WARMUP_S = 4, 3.0, 1.0


@dataclass(frozen=True)
class CellLoad:
    """A deployment that is ready, and everything that is needed to load it."""

    plan: Plan
    cell: Cell
    variant: Variant
    model: ModelDir
    deployment: Deployment
    events: EventLog
    generator: Generator
    cores: Cores

    def carry_out(self, folder: Path) -> None:
        """Everything that the cell asks; what it leaves lies in `folder`."""
        if by_capacity(self.plan, self.cell):
            self._search(folder)
        elif self.cell.scenario == "sweep":
            self._sweep(folder)
        elif self.cell.scenario == "autoscaling":
            self._offer(self._load(), folder)
            self._cool_down()
        else:
            self._offer(self._load(), folder)

    def _load(self) -> LoadCommand:
        plan, images = self.plan, self.variant.images_per_request
        if self.cell.scenario == "steady" and (steady := plan.steady):
            return steady_load(steady.rate_per_s, steady.duration_s, steady.warmup_s, images)
        if self.cell.scenario == "bursty" and plan.bursty:
            return bursty_load(plan.bursty, images)
        if self.cell.scenario == "autoscaling" and plan.autoscaling:
            return bursty_load(plan.autoscaling, images)
        if self.cell.scenario == "scaling" and (scaling := plan.scaling):
            return closed_load(scaling.concurrency, scaling.duration_s, scaling.warmup_s, images)
        raise ValueError(f"{self.cell.scenario} has no load")

    def _offer(self, load: LoadCommand, folder: Path) -> dict[str, Any]:
        """Offer the load; again, up to the plan's number of tries, where only the generator was at fault."""
        folder.mkdir(exist_ok=True)
        # under an autoscaler a second try would begin with the replicas that the first one's bursts have made
        attempts = 1 if self.cell.scenario == "autoscaling" else self.plan.load_attempts
        for attempt in range(1, attempts + 1):
            self._attempt(load, folder)
            summary: dict[str, Any] = read_json(folder / SUMMARY)
            if attempt == attempts or not generator_at_fault(summary["reasons"]):
                break
            _set_aside(folder, attempt)
        return summary

    def _attempt(self, load: LoadCommand, folder: Path) -> None:
        used = {"ready": use_now(self.deployment.use())}
        watch = Watch([*self.cores.engine, *self.cores.generator], self.deployment.cpu_elsewhere_s)
        self.events.add("load_started", detail=folder.name)
        try:
            limit_s = load.length_s + self.plan.timeouts.generator_s
            self.generator.offer(
                load,
                engine=self.cell.engine,
                variant=self.variant,
                model=self.model,
                seed=self.cell.seed,
                out=folder,
                cores=self.cores.generator,
                limit_s=limit_s,
                deployment=self.deployment,
            )
        finally:
            self.events.add("load_ended", detail=folder.name)
            used.update(end=use_now(self.deployment.use()), watch=watch.stop())
            write_json(folder / files.USE, used)

    def _cool_down(self) -> None:
        """Stay while the autoscaler takes its replicas away again: the deployment's events tell of it."""
        assert self.plan.autoscaling
        end = time.monotonic() + self.plan.autoscaling.watch_after_s
        while (left_s := end - time.monotonic()) > 0:
            if not self.deployment.alive():
                raise DeploymentError(f"a server died after the load; its last lines: {self.deployment.logs(8)}")
            time.sleep(min(LOOK_EVERY_S, left_s))
        self.events.add(COOLDOWN_ENDED)

    def _search(self, folder: Path) -> None:
        """Probe after probe until the largest rate under the objective is known; each keeps its own folder."""
        capacity = self.plan.capacity
        assert capacity
        start_rate_per_s = capacity.start_rate_per_s or self._estimate(folder)
        tolerance = capacity.tolerance_percent / 100
        search = Search(start_rate_per_s, most_probes=capacity.most_probes, tolerance=tolerance)
        objective = {"p99_ms": capacity.p99_ms, "max_error_percent": capacity.max_error_percent}
        for number in itertools.count(1):
            rate = search.next_rate()
            if rate is None:
                break
            probe_s = max(capacity.probe_s, SPARE * samples_needed(0.99) / rate)
            load = probe_load(rate, probe_s, capacity.warmup_s, self.variant.images_per_request)
            summary = self._offer(load, folder / files.probe_folder(number))
            search.record(_probe(rate, summary, objective))
            write_json(folder / files.CAPACITY, {"objective": objective, **asdict(search.result())})
            self._drained()

    def _estimate(self, folder: Path) -> float:
        """A rate to begin with: a search that begins far off spends its probes on finding the neighbourhood."""
        load = closed_load(ESTIMATE_IN_FLIGHT, ESTIMATE_S, ESTIMATE_WARMUP_S, self.variant.images_per_request)
        summary = self._offer(load, folder / files.ESTIMATE_FOLDER)
        self._drained()
        return max(1.0, (summary.get("ok") or 0) / ESTIMATE_S / 2)

    def _sweep(self, folder: Path) -> None:
        """Every client batch with every number in flight, on these servers."""
        sweep = self.plan.sweep
        assert sweep
        points: list[dict[str, Any]] = []
        for images, in_flight in itertools.product(sweep.images_per_request, sweep.concurrency):
            load = closed_load(in_flight, sweep.duration_s, sweep.warmup_s, images)
            summary = self._offer(load, folder / files.load_folder(len(points) + 1))
            points.append({"images_per_request": images, "concurrency": in_flight, **_point(summary)})
            write_json(folder / files.SWEEP, points)
            self._drained()

    def _drained(self) -> None:
        """Return when every replica answers again: what an overload left in its queue is not the next load's."""
        for endpoint in self.deployment.endpoints:
            first_answer(
                endpoint,
                WIRES[self.cell.engine],
                self.model,
                timeout_s=self.plan.timeouts.answer_s,
                alive=self.deployment.alive,
            )


def _probe(rate_per_s: float, summary: dict[str, Any], objective: dict[str, float]) -> Probe:
    verdict, reason = judge(summary, objective)
    return Probe(rate_per_s, verdict, reason, summary["latency_ms"]["p99"], error_percent(summary))


def _point(summary: dict[str, Any]) -> dict[str, Any]:
    latency = summary.get("latency_ms") or {}
    return {
        "images_per_s": summary.get("images_per_s"),
        "p50_ms": latency.get("p50"),
        "p99_ms": latency.get("p99"),
        "valid": summary["valid"],
        "reasons": summary["reasons"],
    }


def _set_aside(folder: Path, attempt: int) -> None:
    """Keep what an INVALID try left, beside the try that counts."""
    aside = folder / f"{files.ATTEMPT}{attempt}"
    aside.mkdir()
    for name in files.OF_A_LOAD:
        if (folder / name).exists():
            (folder / name).rename(aside / name)


def use_now(use: Use) -> dict[str, Any]:
    """What the servers have used, with the moment."""
    return {"t_ns": time.monotonic_ns(), **asdict(use)}
