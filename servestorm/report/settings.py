"""What the study was asked to do, in words and numbers. Of the report only this module and facts.py read the plan."""

from __future__ import annotations

from typing import Any

from servestorm.analysis.results import Results
from servestorm.plan.limits import limits_of


def load_text(plan: dict[str, Any], scenario: str) -> str:
    """What was asked in a scenario, such as '70 requests/s for 11 s, 3 runs'."""
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
        text = _objective_text(plan["capacity"])
    elif scenario == "sweep":
        text = f"closed loop for {load['duration_s']:g} s each"
    else:
        text = f"closed loop, {load['concurrency']} requests in flight for {load['duration_s']:g} s"
    return f"{text}, {_times(load.get('repetitions') or plan['repetitions'], 'run')}"


def _objective_text(capacity: dict[str, Any]) -> str:
    return (
        f"p99 of at most {capacity['p99_ms']:g} ms and at most {capacity['max_error_percent']:g} % errors, probes of "
        f"{capacity['probe_s']:g} s"
    )


def _times(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


def cores_text(results: Results) -> str:
    """'core 0' or 'cores 0, 1'."""
    cores = results.study["cores"]["engine"]
    return f"core{'s' if len(cores) > 1 else ''} {', '.join(map(str, cores))}"


def placed_text(results: Results) -> str:
    """Where replicas ran together: 'all replicas on core 0', or 'each replica a pod'."""
    in_cluster = results.study["plan"]["backend"] == "kubernetes"
    return "each replica a pod" if in_cluster else f"all replicas on {cores_text(results)}"


def limits_text(results: Results) -> str:
    """', each limited to 0.25 CPU and 2,048 MiB'; '' without limits."""
    cpus, memory_mib = limits_of(results.study["plan"])
    said = [f"{cpus:g} CPU" if cpus else "", f"{memory_mib:,} MiB" if memory_mib else ""]
    return f", each limited to {' and '.join(filter(None, said))}" if any(said) else ""
