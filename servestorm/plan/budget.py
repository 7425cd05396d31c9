"""How many repetitions of its loads a study has, and how many fit into a budget of time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from servestorm.plan.turns import bursty_slicing, steady_slicing

if TYPE_CHECKING:
    from servestorm.plan.study_plan import Plan

LEAST_ROUNDS: Final = 2
"""One instance of each engine would say nothing about how instances differ."""
LEAST_PROBES: Final = 3
"""Of a search for the largest rate."""


def repetitions_of(plan: Plan) -> int:
    """Repetitions of the plan's loads; with a budget, the most that it can hold."""
    if plan.budget is None:
        return plan.repetitions
    round_s = shortest_round_s(plan)
    rounds = math.floor((plan.budget - shortest_rest_s(plan)) / round_s) if round_s else 0
    return min(10_000, max(LEAST_ROUNDS, rounds))


def shortest_study_s(plan: Plan) -> float:
    """Seconds that two rounds of everything need at least: their loads, without any start of a server."""
    return shortest_rest_s(plan) + LEAST_ROUNDS * shortest_round_s(plan)


def shortest_round_s(plan: Plan) -> float:
    """Seconds under load in one repetition of every load of the plan."""
    engines, variants = len(plan.engines), variant_count(plan)
    one_s = 0.0
    if plan.steady:
        one_s += steady_slicing(plan.steady, plan.backend).seconds(engines)
    if plan.bursty:
        one_s += bursty_slicing(plan.bursty).seconds(engines)
    if plan.capacity:
        one_s += engines * LEAST_PROBES * (plan.capacity.probe_s + plan.capacity.warmup_s)
    return one_s * variants


def shortest_rest_s(plan: Plan) -> float:
    """Seconds under load of what a budget does not repeat: scaling, sweep and autoscaling."""
    engines, variants, seconds = len(plan.engines), variant_count(plan), 0.0
    if scaling := plan.scaling:
        runs = (scaling.repetitions or plan.repetitions) * len(scaling.replicas) * engines * variants
        seconds += runs * (scaling.duration_s + scaling.warmup_s)
    if sweep := plan.sweep:
        servers = len(sweep.workers) * len(sweep.threads) * len(sweep.max_batch_size) * len(sweep.timeout_us)
        loads = servers * len(sweep.images_per_request) * len(sweep.concurrency) * sweep.repetitions * engines
        seconds += loads * (sweep.duration_s + sweep.warmup_s)
    if asked := plan.autoscaling:
        runs = (asked.repetitions or plan.repetitions) * engines * variants
        seconds += runs * (asked.duration_s + asked.warmup_s + asked.watch_after_s)
    return seconds


def variant_count(plan: Plan) -> int:
    """How many combinations of the plan's lists are studied."""
    requests = len(plan.protocol) * len(plan.payload) * len(plan.images_per_request)
    return requests * len(plan.model) * len(plan.threads) * len(plan.batching)
