"""Runs in which the plan asks for batches and a server ran requests one by one, or counts a batch in other units.

A verdict between such an engine and one that batches compares batching with its absence: it must not be read without
that. The evidence is the servers' own metrics: savedmodel-server counts every request that ran past its batching queue,
with the reason; TensorFlow Serving counts every request that was in its queue. TorchServe counts neither.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from servestorm.analysis.doubts import Doubt
from servestorm.analysis.groups import group_key
from servestorm.analysis.judgements import Judgement
from servestorm.plan.labels import ENGINE_SHORT
from servestorm.rundir.metrics_table import Point, read_readings
from servestorm.rundir.record import CellRecord, RunRecord
from servestorm.rundir.shapes.study import PlanFile, StudyFile

_UNBATCHED: Final = ":savedmodel_server:unbatched_request_count"
_REQUESTS: Final = ":tensorflow:serving:request_latency_count"
_QUEUED: Final = ":tensorflow:serving:batching_session:queuing_latency_count"
_NO_QUEUE: Final = "the server's batching queue counted no request"
NEGLIGIBLE_SHARE: Final = 0.01
"""Fewer unbatched requests than this share of all change no figure that is quoted."""


@dataclass(frozen=True)
class Unbatched:
    """What one run of an engine did not batch."""

    run: str
    group: str
    engine: str
    max_batch_size: int
    """That the plan asks for."""
    requests: int
    """Unbatched ones."""
    of: int
    """Requests that the server counted."""
    signature: str
    """Of most of them; '' where the server does not name it."""
    reason: str

    @property
    def sentence(self) -> str:
        """'savedmodel served 20 of 20 requests unbatched, though the plan asks for batches of 8: ...'"""
        where = f"signature {self.signature}: " if self.signature else ""
        return (
            f"{ENGINE_SHORT[self.engine]} served {self.requests:,} of {self.of:,} requests unbatched, though the plan "
            f"asks for batches of {self.max_batch_size} ({where}{self.reason})"
        )


def unbatched_runs(record: RunRecord) -> list[Unbatched]:
    """Every complete run in which a server did not batch; raises StudyError for a broken file of metrics."""
    found = (_of_cell(cell, record.study) for cell in record.cells if cell.complete)
    return [one for one in found if one]


def _of_cell(cell: CellRecord, study: StudyFile) -> Unbatched | None:
    asked, path = cell.cell.max_batch_size, cell.metrics_path
    if asked == 1 or cell.cell.engine == "torchserve" or path is None:
        return None
    requests, count, signature, reason = _counted(path)
    if not requests or requests < NEGLIGIBLE_SHARE * count:
        return None
    group = group_key(cell.cell, study)
    return Unbatched(cell.cell.id, group, cell.cell.engine, asked, requests, max(count, requests), signature, reason)


def _counted(path: Path) -> tuple[int, int, str, str]:
    """Unbatched requests, all requests, and the signature and the reason of most of the unbatched ones."""
    names = (_UNBATCHED, _REQUESTS, _QUEUED)
    readings = read_readings(path, [*names, *(f"{name}_total" for name in names)])
    grown = _growth(readings.points, readings.first_unix_ms)
    count = sum(by for (name, labels), by in grown.items() if name == _REQUESTS and _is_predict(labels))
    unbatched = {labels: by for (name, labels), by in grown.items() if name == _UNBATCHED and by}
    if unbatched:
        most = json.loads(max(unbatched, key=lambda labels: unbatched[labels]))
        return sum(unbatched.values()), count, str(most.get("signature_name", "")), str(most.get("reason", ""))
    queued = sum(by for (name, _), by in grown.items() if name == _QUEUED)
    return (0 if queued else count), count, "", _NO_QUEUE


def _is_predict(labels: str) -> bool:
    return str(json.loads(labels).get("API", "")).lower() == "predict"


def _growth(points: Iterable[Point], first_unix_ms: Mapping[int, int]) -> dict[tuple[str, str], int]:
    """By metric and labels, how much a counter grew over all replicas since each replica's metrics were first read."""
    series: dict[tuple[str, int, str], list[tuple[int, float]]] = defaultdict(list)
    for point in points:
        # prometheus-client's parser names every counter _total, a Prometheus keeps the server's own name
        series[point.metric.removesuffix("_total"), point.replica, point.labels].append(
            (point.time_unix_ms, point.value)
        )
    grown: dict[tuple[str, str], int] = defaultdict(int)
    for (metric, replica, labels), own in series.items():
        own.sort()
        values = [value for _, value in own]
        if own[0][0] > first_unix_ms[replica]:
            values.insert(0, 0.0)  # a series that began later began at 0
        # a counter that falls began anew with its server
        grown[metric, labels] += round(sum(b - a if b >= a else b for a, b in itertools.pairwise(values)))
    return grown


def unbatched_doubts(found: Sequence[Unbatched]) -> list[Doubt]:
    """One grave doubt for each engine and reason, in the words of its worst run."""
    alike: dict[tuple[str, str, str], list[Unbatched]] = {}
    for one in found:
        alike.setdefault((one.engine, one.signature, one.reason), []).append(one)
    return [_doubt(runs) for runs in alike.values()]


def _doubt(runs: Sequence[Unbatched]) -> Doubt:
    worst = max(runs, key=lambda run: run.requests / run.of)
    place = f"run {worst.run}" if len(runs) == 1 else f"the worst of {len(runs)} such runs"
    sentence = (
        f"{worst.sentence}; {place}: a comparison with an engine that batches shows batching on one side alone; export "
        "the model with rows in every input and output, or compare without batching (max_batch_size: 1)."
    )
    return Doubt("grave", "unbatched", sentence, [run.run for run in runs])


def qualified(judgements: Iterable[Judgement], found: Sequence[Unbatched]) -> list[Judgement]:
    """The judgements, of which each names the engines of its pair that did not batch in the runs behind it."""
    by_place: dict[tuple[str, str], Unbatched] = {}
    for one in found:
        worst = by_place.get((one.group, one.engine), one)
        by_place[one.group, one.engine] = max(worst, one, key=lambda run: run.requests / run.of)
    return [_qualified(judgement, by_place) for judgement in judgements]


def _qualified(judgement: Judgement, by_place: Mapping[tuple[str, str], Unbatched]) -> Judgement:
    group = judgement.metric.rpartition(".")[0]
    own = {engine: by_place[group, engine] for engine in (judgement.a, judgement.b) if (group, engine) in by_place}
    if not own:
        return judgement
    reason = " ".join([judgement.verdict.reason, *(f"But {one.sentence}." for one in own.values())])
    return replace(judgement, verdict=replace(judgement.verdict, reason=reason), unbatched=list(own))


def unit_doubts(plan: PlanFile) -> list[Doubt]:
    """TorchServe counts a batch in requests, the others in images: not the same where a request holds several."""
    others = [ENGINE_SHORT[engine] for engine in plan.engines if engine != "torchserve"]
    settings = [*itertools.product((one.max_batch_size for one in plan.batching), plan.images_per_request)]
    if plan.sweep:
        settings += itertools.product(plan.sweep.max_batch_size, plan.sweep.images_per_request)
    unlike = [(batch, images) for batch, images in settings if batch > 1 and images > 1]
    if not unlike or not others or len(others) == len(plan.engines):
        return []
    batch, images = max(unlike, key=math.prod)
    sentence = (
        f"A batch is counted in images by {' and '.join(others)} and in requests by TorchServe: with {images} images "
        f"in a request, a batch of {batch} is at most {batch} images there and up to {batch * images} here; read the "
        "figures with that in mind, or send one image in a request."
    )
    return [Doubt("doubt", "batch_units", sentence)]
