"""What the study was asked to do, in numbers and in words. In this room only settings.py and facts.py read the plan."""

from __future__ import annotations

from servestorm.analysis.results import Results
from servestorm.plan.limits import limits_of


def backend(results: Results) -> str:
    """Where the servers ran: process, docker, kubernetes or attach."""
    return str(results.study["plan"]["backend"])


def margin_percent(results: Results) -> float:
    """The difference up to which two engines count as equivalent."""
    return float(results.study["plan"]["margin_percent"])


def capacity_p99_ms(results: Results) -> float:
    """The objective of a search for the capacity."""
    return float(results.study["plan"]["capacity"]["p99_ms"])


def burst_objective_ms(results: Results) -> float | None:
    """The objective of a request under bursty load; None without one."""
    objective_ms: float | None = results.study["plan"]["bursty"]["objective_ms"]
    return objective_ms


def autoscaling_objective_ms(results: Results) -> float:
    """The objective of a request under an autoscaler."""
    return float(results.study["plan"]["autoscaling"]["objective_ms"])


def most_replicas(results: Results) -> int:
    """The most replicas that the autoscaler may ask for."""
    return int(results.study["plan"]["autoscaling"]["max_replicas"])


def scaling_counts(results: Results) -> list[int]:
    """The numbers of replicas whose throughput was measured; empty without such a scenario."""
    scaling = results.study["plan"]["scaling"]
    return list(scaling["replicas"]) if scaling else []


def scaling_measures_capacity(results: Results) -> bool:
    """Whether the throughput of replicas is their capacity under the objective, or that of a closed loop."""
    return bool(results.study["plan"]["scaling"]["measure"] == "capacity")


def scaling_concurrency(results: Results) -> int:
    """Requests in flight in the closed loop that measures the throughput of replicas."""
    return int(results.study["plan"]["scaling"]["concurrency"])


def steady_images_per_s(results: Results, group: str) -> float:
    """The rate that a group of runs under steady load was asked for."""
    label = group.partition("[")[2].removesuffix("]")
    variant = next(variant for variant in results.study["variants"] if variant["label"] == label)
    return float(results.study["plan"]["steady"]["rate_per_s"] * variant["images_per_request"])


def load_text(results: Results, group: str) -> str:
    """The load of a group of runs, such as '70 requests/s for 11 s, 3 runs'."""
    plan, scenario = results.study["plan"], group.partition("[")[0]
    if scenario == "coldstart":
        return _times(plan["cold_starts"], "start")
    load = plan[scenario]
    if scenario == "steady":
        text = f"{load['rate_per_s']:g} requests/s for {load['duration_s']:g} s"
    elif scenario == "bursty":
        text = (
            f"{load['base_rate']:g} requests/s with bursts of {load['peak_rate']:g}/s ({load['on_s']:g} s on, "
            f"{load['off_s']:g} s off) for {load['duration_s']:g} s"
        )
    elif scenario == "autoscaling":
        text = (
            f"{load['base_rate']:g} requests/s with bursts of {load['peak_rate']:g}/s ({load['on_s']:g} s on, "
            f"{load['off_s']:g} s off) for {load['duration_s']:g} s, {load['min_replicas']} to {load['max_replicas']} "
            f"replicas at {load['cpu_percent']} % of their CPU, objective {load['objective_ms']:g} ms"
        )
    elif scenario == "capacity" or load.get("measure") == "capacity":
        text = _search_text(results)
    elif scenario == "sweep":
        text = f"closed loop for {load['duration_s']:g} s each"
    else:
        text = f"closed loop, {load['concurrency']} requests in flight for {load['duration_s']:g} s"
    return f"{text}, {_times(load.get('repetitions') or plan['repetitions'], 'run')}"


def _search_text(results: Results) -> str:
    search = results.study["plan"]["capacity"]
    return (
        f"p99 of at most {search['p99_ms']:g} ms and at most {search['max_error_percent']:g} % errors, probes of "
        f"{search['probe_s']:g} s"
    )


def _times(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


def _cores_text(results: Results) -> str:
    """'core 0' or 'cores 0, 1'."""
    cores = results.study["cores"]["engine"]
    return f"core{'s' if len(cores) > 1 else ''} {', '.join(map(str, cores))}"


def placed_text(results: Results) -> str:
    """Where replicas ran together: 'all replicas on core 0', or 'each replica a pod'."""
    return "each replica a pod" if backend(results) == "kubernetes" else f"all replicas on {_cores_text(results)}"


def limits_text(results: Results) -> str:
    """', each limited to 0.25 CPU and 2,048 MiB'; '' without limits."""
    cpus, memory_mib = limits_of(results.study["plan"])
    limits = [f"{cpus:g} CPU" if cpus else "", f"{memory_mib:,} MiB" if memory_mib else ""]
    return f", each limited to {' and '.join(filter(None, limits))}" if any(limits) else ""
