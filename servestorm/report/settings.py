"""What the study was asked to do, in numbers and in words. In this room only settings.py and facts.py read the plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from servestorm.analysis.results import Results
from servestorm.analysis.server_settings import ServerSetting
from servestorm.plan.cells import batching_label
from servestorm.plan.labels import ENGINE_SHORT
from servestorm.plan.scenarios import Autoscaling, Bursty
from servestorm.rundir.shapes.study import PlanFile

Asked = TypeVar("Asked")


def backend(results: Results) -> str:
    """Where the servers ran: process, docker, kubernetes or attach."""
    return results.study.plan.backend


def margin_percent(results: Results) -> float:
    """The difference up to which two engines count as equivalent."""
    return results.study.plan.margin_percent


def capacity_p99_ms(results: Results) -> float:
    """The objective of a search for the capacity."""
    return _planned(results.study.plan.capacity).p99_ms


def burst_objective_ms(results: Results) -> float | None:
    """The objective of a request under bursty load; None without one."""
    return _planned(results.study.plan.bursty).objective_ms


def autoscaling_objective_ms(results: Results) -> float:
    """The objective of a request under an autoscaler."""
    return _planned(results.study.plan.autoscaling).objective_ms


def most_replicas(results: Results) -> int:
    """The most replicas that the autoscaler may ask for."""
    return _planned(results.study.plan.autoscaling).max_replicas


def scaling_counts(results: Results) -> list[int]:
    """The numbers of replicas whose throughput was measured; empty without such a scenario."""
    scaling = results.study.plan.scaling
    return scaling.replicas if scaling else []


def scaling_measures_capacity(results: Results) -> bool:
    """Whether the throughput of replicas is their capacity under the objective, or that of a closed loop."""
    return _planned(results.study.plan.scaling).measure == "capacity"


def scaling_concurrency(results: Results) -> int:
    """Requests in flight in the closed loop that measures the throughput of replicas."""
    return _planned(results.study.plan.scaling).concurrency


def load_text(results: Results, group: str) -> str:
    """The load of a group of runs, such as '70 requests/s for 11 s, 3 runs'."""
    return _LOAD_TEXTS[group.partition("[")[0]](results.study.plan)


def _planned(scenario: Asked | None) -> Asked:
    """A scenario's part of the plan: rows of the results, and so their texts, exist only for what the plan asks for."""
    assert scenario
    return scenario


def _repeated(plan: PlanFile) -> str:
    """How often the loads of a plan are repeated."""
    if plan.budget is None:
        return _times(plan.repetitions, "run")
    whole_minutes = plan.budget >= 60 and plan.budget % 60 == 0
    budget = f"{plan.budget / 60:g} min" if whole_minutes else f"{plan.budget:g} s"
    return f"as many runs as a budget of {budget} holds"


def _cold_start_text(plan: PlanFile) -> str:
    return _times(plan.cold_starts, "start")


def _steady_text(plan: PlanFile) -> str:
    load = _planned(plan.steady)
    return f"{load.rate_per_s:g} requests/s for {load.duration_s:g} s, {_repeated(plan)}"


def _bursts_text(load: Bursty | Autoscaling) -> str:
    return (
        f"{load.base_rate:g} requests/s with bursts of {load.peak_rate:g}/s ({load.on_s:g} s on, {load.off_s:g} s off) "
        f"for {load.duration_s:g} s"
    )


def _bursty_text(plan: PlanFile) -> str:
    return f"{_bursts_text(_planned(plan.bursty))}, {_repeated(plan)}"


def _autoscaling_text(plan: PlanFile) -> str:
    asked = _planned(plan.autoscaling)
    return (
        f"{_bursts_text(asked)}, {asked.min_replicas} to {asked.max_replicas} replicas at {asked.cpu_percent} % of "
        f"their CPU, objective {asked.objective_ms:g} ms, {_times(asked.repetitions or plan.repetitions, 'run')}"
    )


def _search_text(plan: PlanFile) -> str:
    search = _planned(plan.capacity)
    return (
        f"p99 of at most {search.p99_ms:g} ms and at most {search.max_error_percent:g} % errors, probes of "
        f"{search.probe_s:g} s"
    )


def _capacity_text(plan: PlanFile) -> str:
    return f"{_search_text(plan)}, {_repeated(plan)}"


def _scaling_text(plan: PlanFile) -> str:
    asked = _planned(plan.scaling)
    loop = f"closed loop, {asked.concurrency} requests in flight for {asked.duration_s:g} s"
    text = _search_text(plan) if asked.measure == "capacity" else loop
    return f"{text}, {_times(asked.repetitions or plan.repetitions, 'run')}"


def _sweep_text(plan: PlanFile) -> str:
    assert plan.sweep
    return f"closed loop for {plan.sweep.duration_s:g} s each, {_times(plan.sweep.repetitions, 'run')}"


def _training_text(plan: PlanFile) -> str:
    asked = _planned(plan.training)
    turns = ", epochs in turns" if plan.interleaved else ""
    return f"{_times(asked.epochs, 'epoch')}, {_times(plan.repetitions, 'run')}{turns}"


def trained_text(results: Results) -> str:
    """'cnn on digits', or '2 networks on 3 data sets'; '' of a study of servers."""
    asked = results.study.plan.training
    if not asked:
        return ""
    networks = asked.networks[0] if len(asked.networks) == 1 else f"{len(asked.networks)} networks"
    data = asked.data[0].label if len(asked.data) == 1 else f"{len(asked.data)} data sets"
    return f"{networks} on {data}"


def of_trainings(results: Results) -> list[tuple[str, str]]:
    """(term, value) of what the plan asks of trainings; nothing of a study of servers."""
    asked = results.study.plan.training
    if not asked:
        return []
    threads = ", ".join(map(str, asked.threads)) if asked.threads else "one for each core"
    return [
        ("Networks", ", ".join(asked.networks)),
        ("Data sets", "; ".join(data.label for data in asked.data)),
        ("Epochs", str(asked.epochs)),
        ("Batch size", ", ".join(map(str, asked.batch_size))),
        ("Threads of an operation", threads),
        ("Device", {"cpu": "CPU", "gpu": "the first GPU"}[asked.device]),
        ("Compiled step", " and ".join("yes" if compiled else "no" for compiled in asked.compiled)),
        ("Precision", ", ".join(asked.precision)),
        ("Learning rate", f"{asked.learning_rate:g}, falling along a half cosine (Adam)"),
        ("Pretrained weights", asked.pretrained.name if asked.pretrained else "none"),
        ("Accuracy whose time is measured", f"{asked.reach_top1_percent:g} %"),
    ]


_LOAD_TEXTS: Final[Mapping[str, Callable[[PlanFile], str]]] = {
    "coldstart": _cold_start_text,
    "steady": _steady_text,
    "bursty": _bursty_text,
    "capacity": _capacity_text,
    "scaling": _scaling_text,
    "sweep": _sweep_text,
    "autoscaling": _autoscaling_text,
    "training": _training_text,
}


def _times(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


def _cores_text(results: Results) -> str:
    """'core 0' or 'cores 0, 1'."""
    cores = results.study.cores.engine
    return f"core{'s' if len(cores) > 1 else ''} {', '.join(map(str, cores))}"


def placed_text(results: Results) -> str:
    """Where replicas ran together: 'all replicas on core 0', or 'each replica a pod'."""
    return "each replica a pod" if backend(results) == "kubernetes" else f"all replicas on {_cores_text(results)}"


def limits_text(results: Results) -> str:
    """', each limited to 0.25 CPU and 2,048 MiB'; '' without limits."""
    cpus, memory_mib = results.study.plan.replica_limits
    limits = [f"{cpus:g} CPU" if cpus else "", f"{memory_mib:,} MiB" if memory_mib else ""]
    return f", each limited to {' and '.join(filter(None, limits))}" if any(limits) else ""


_LABELS: Final[Mapping[str, tuple[str, str]]] = {
    "workers": ("workers", ""),
    "max_batch_size": ("images in a batch", ""),
    "batch_delay_us": ("wait for a batch", " µs"),
    "queue_size": ("requests in the queue", ""),
    "response_timeout_s": ("limit of an answer", " s"),
    "threads": ("threads of an operation", ""),
}
"""What each server setting is called, and its unit."""


def of_servers(results: Results) -> list[tuple[str, str]]:
    """(term, value) of what each engine's servers reported that they ran with.

    Of a run in which nothing was read back, what was asked for; nothing where somebody else started the servers.
    """
    if results.server_settings:
        return [
            (f"{ENGINE_SHORT[setting.engine]}: {_LABELS[setting.name][0]}", _setting_text(setting))
            for setting in results.server_settings
        ]
    plan = results.study.plan
    if plan.runs_already or plan.training:
        return []
    return [
        ("Threads a replica", f"asked for {' or '.join(map(str, plan.threads))}"),
        ("Batching", f"asked for {'; '.join(batching_label(batching) for batching in plan.batching)}"),
    ]


def _setting_text(setting: ServerSetting) -> str:
    """'1 (GET /models/cnn)', 'none: batching is off', or 'not readable: ...; the study set 1'."""
    reasons, unit = "; ".join(setting.reasons), _LABELS[setting.name][1]
    if setting.values:
        text = f"{_numbers(setting.values)}{unit} ({'; '.join(setting.sources)})"
        return f"{text}; {_not_read(setting)}: {reasons}" if reasons else text
    asked = f"; the study set {_numbers(setting.ordered)}{unit}" if setting.ordered and setting.applies else ""
    return f"{_not_read(setting)}: {reasons}{asked}"


def _not_read(setting: ServerSetting) -> str:
    return "not readable" if setting.applies else "none"


def _numbers(values: Sequence[int]) -> str:
    return " or ".join(f"{value:,}" for value in values)
