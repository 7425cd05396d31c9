"""The ledger of a cold start: what each phase took, beside what the server says of itself, and a cold page cache.

Phases end with the events `port_bound`, `ready`, `first_right_answer` (by polling, every 3, 10 and 5 ms) and `steady`
(by `servestorm.methods.steady_point`, from sequential requests that follow the first right answer at once).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from servestorm.analysis.metric import Metric, Row
from servestorm.analysis.rows import Rows
from servestorm.analysis.run import mib
from servestorm.analysis.scenario import Measured, Numbers, ScenarioAnalysis
from servestorm.methods.events import Event
from servestorm.methods.samples import Samples
from servestorm.methods.steady_point import steady_from
from servestorm.plan.cells import Cell
from servestorm.plan.labels import CONTAINER_PHASES as CONTAINER_LABELS
from servestorm.plan.labels import phases_of, start_of
from servestorm.rundir.record import CellRecord, RunRecord
from servestorm.rundir.shapes.cell import EventFile
from servestorm.rundir.shapes.study import StudyFile, VariantFile

PHASES: Final = ("spawned", "port_bound", "ready", "first_right_answer", "steady")
"""Events in order; each but the first ends the phase named after it."""
CONTAINER_PHASES: Final = ("image_built", "image_present", "created", "started")
"""Events of a container before its port is bound, in order; each ends the phase named after it, the first `start`."""
POD_PHASES: Final = (
    *("spawned", "scheduled", "initialized", "image_pulled", "started"),
    *("ready", "first_right_answer", "steady"),
)
"""Events of a pod in order; the first, its creation, ends a phase that begins with the event `start`."""


_OPTIONAL: Final = {
    *(f"server_{name}_s" for name in ("import", "load", "warmup")),
    *(f"{phase}_s" for phase in CONTAINER_LABELS),
    *("steady_s", "to_steady_s"),
}
"""Rows that are left out where no engine has a figure."""


class ColdStartAnalysis(ScenarioAnalysis):
    """One start of one replica, with a warm or a cold page cache, with or without the server's own warm-up."""

    name = "coldstart"
    computed_in = "analysis/scenarios/coldstart.py"

    def labels(self, study: StudyFile) -> list[str]:
        """One for each deployment and each condition; none of servers that were started by somebody else."""
        plan = study.plan
        if plan.runs_already or not plan.cold_starts:
            return []
        conditions = itertools.product(study.variants, plan.page_cache, plan.server_warmup)
        return [_label(*condition) for condition in conditions]

    def label(self, cell: Cell, study: StudyFile) -> str:
        """See ScenarioAnalysis."""
        return _label(study.variants[cell.variant], cell.page_cache, cell.server_warmup)

    def measure(self, record: CellRecord, study: StudyFile, samples: Samples | None) -> Measured:
        """See ScenarioAnalysis."""
        numbers = _numbers(record) if record.complete else {}
        return Measured(numbers, phases_s=_phases(numbers, study.plan.backend))

    def rows(self, rows: Rows, group: str, record: RunRecord) -> Iterable[Metric]:
        """See ScenarioAnalysis."""
        return rows.listed(group, _rows(record.study.plan.backend), _OPTIONAL)

    def defined_rows(self) -> Iterable[Row]:
        """See ScenarioAnalysis: those of a container hold those of a process."""
        return _rows("docker")


def _label(variant: VariantFile, page_cache: str, server_warmup: bool) -> str:
    cold = "cold page cache" if page_cache == "cold" else ""
    return ", ".join(filter(None, [variant.server_label, cold, "" if server_warmup else "without warm-up"]))


def _rows(backend: str) -> tuple[Row, ...]:
    """The rows of a cold start on a backend."""
    start = start_of(backend)
    return (
        _seconds("total_s", f"{start} to first right answer", _TOTAL),
        *(_seconds(f"{phase}_s", label, _PHASE) for phase, label in phases_of(backend).items()),
        _seconds("server_import_s", "the server's own: importing its libraries", _OWN),
        _seconds("server_load_s", "the server's own: loading the model", _OWN),
        _seconds("server_warmup_s", "the server's own: warm-up", _OWN),
        _seconds("to_steady_s", f"{start} to steady answers", _TO_STEADY),
        _seconds("deployment_s", "deployment time: from the artifact to the first right answer", _DEPLOYMENT),
        Row("rss_mib", "memory after the start", "MiB", "lower", "resident memory of all the server's processes"),
    )


_TOTAL: Final = "from the start (of a pod: its creation) to the first right answer"
_PHASE: Final = "between the two events that it names; a phase that a start did not have is left out of the mean"
_OWN: Final = "as the server reports it, within the phases above"
_TO_STEADY: Final = "from the start to the first of steady answers; only of starts whose answers became steady"
_DEPLOYMENT: Final = "from the order to start, before the artifact is checked, to the first right answer"


def _seconds(name: str, label: str, definition: str) -> Row:
    return Row(name, label, "s", "lower", definition)


def _numbers(record: CellRecord) -> Numbers:
    """The ledger of a cold start, with the server's own figures beside it."""
    own = own_figures(record.cell.engine, record.series(), record.server_log())
    numbers = ledger(_with_steady(record), own)
    numbers["rss_mib"] = mib(record.use.start.rss_bytes if record.use else None)
    return numbers


def _with_steady(record: CellRecord) -> Sequence[EventFile]:
    """The events, with the moment from which on the answers were steady where they became so."""
    t_ns = steady_ns(record.settled or [])
    return (
        record.events if t_ns is None else [*record.events, EventFile(name="steady", t_ns=t_ns, replica=0, detail="")]
    )


def _phases(numbers: Mapping[str, float | None], backend: str) -> dict[str, float | None]:
    """Seconds of each cold-start phase, by the event that ends it; a container's own only where it has them."""
    seconds = {phase: numbers.get(f"{phase}_s") for phase in phases_of(backend)}
    return {phase: s for phase, s in seconds.items() if s is not None or phase not in CONTAINER_LABELS}


def steady_ns(answers: Sequence[tuple[int, float]]) -> int | None:
    """When the first steady answer came, for the event `steady`; None where the latencies never settled."""
    index = steady_from([latency_ms for _, latency_ms in answers])
    return None if index is None else answers[index][0]


def ledger(events: Sequence[Event], own: Mapping[str, float | None]) -> dict[str, float | None]:
    """Seconds of a cold start of the first replica, None where an event is missing.

    `events` are those of events.json (name, t_ns, replica); `own` comes from `own_figures`. Keys: `PHASE_s` for each
    phase by the event that ends it; `total_s` from spawned to the first right answer; `to_steady_s` from spawned to
    steady; `deployment_s` from the order to start (event `start`: artifact checked, configuration written) to the
    first right answer; and `server_NAME_s` for each of the server's own. A container has phases of its own before
    that, and `port_bound_s` begins where it was started; its `total_s` holds the starting itself, as a process's does.
    A pod has the phases of POD_PHASES, and is spawned when it is created: `total_s` holds its scheduling and images.
    """
    times = _first_times(events)
    if "installed" in times:  # by Helm
        seconds = {f"{end}_s": _span_s(times, begin, end) for begin, end in itertools.pairwise(("start", *POD_PHASES))}
    else:
        seconds = {f"{end}_s": _span_s(times, begin, end) for begin, end in itertools.pairwise(PHASES)}
        seconds |= _container_phases(times)
    seconds["total_s"] = _span_s(times, "spawned", "first_right_answer")
    seconds["to_steady_s"] = _span_s(times, "spawned", "steady")
    deployment_s, drop_s = (
        _span_s(times, "start", "first_right_answer"),
        _span_s(times, "page_cache_drop", "page_cache_dropped"),
    )
    # nobody who deploys would drop the page cache
    seconds["deployment_s"] = None if deployment_s is None else deployment_s - (drop_s or 0.0)
    return seconds | {f"server_{name}": value for name, value in own.items()}


def _container_phases(times: Mapping[str, int]) -> dict[str, float | None]:
    """Seconds of a container's own phases; empty for a process."""
    passed = [name for name in CONTAINER_PHASES if name in times]
    if "created" not in passed:
        return {}
    return {
        f"{end}_s": _span_s(times, begin, end) for begin, end in itertools.pairwise(["start", *passed, "port_bound"])
    }


def _first_times(events: Sequence[Event]) -> dict[str, int]:
    times: dict[str, int] = {}
    for event in events:
        if event.replica in (None, 0):
            times.setdefault(event.name, event.t_ns)
    return times


def _span_s(times: Mapping[str, int], begin: str, end: str) -> float | None:
    return (times[end] - times[begin]) / 1e9 if begin in times and end in times else None


def own_figures(engine: str, series: Iterable[tuple[str, float]], log: str) -> dict[str, float | None]:
    """What the server itself says its start took: `import_s`, `load_s` and `warmup_s`, None where it does not say.

    `series` are (metric name, value) of its metrics page, read once after the first right answer; `log` is its log.
    TorchServe's WorkerLoadTime (ms) holds its Python worker's start, the load and the handler's warm-up. Of TensorFlow
    Serving, load latency and warm-up latency are apart; the embedded server counts warm-up into its load latency, so
    that it is subtracted here, and logs how long importing TensorFlow took.
    """
    # prometheus-client's parser names every counter _total, a Prometheus keeps the server's own name
    values = {name.removesuffix("_total"): value for name, value in series}
    if engine == "torchserve":
        return {"import_s": None, "load_s": _scaled(values.get("WorkerLoadTime"), 1e-3), "warmup_s": None}
    load_s = _scaled(values.get(":tensorflow:cc:saved_model:load_latency"), 1e-6)
    warmup_s = _scaled(values.get(":tensorflow:serving:model_warmup_latency_sum"), 1e-6)
    if engine == "savedmodel" and load_s is not None:
        load_s = max(0.0, load_s - (warmup_s or 0.0))
    imported = re.search(r"event=tensorflow_imported seconds=(\d+(?:\.\d+)?)", log)
    return {"import_s": float(imported[1]) if imported else None, "load_s": load_s, "warmup_s": warmup_s}


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
