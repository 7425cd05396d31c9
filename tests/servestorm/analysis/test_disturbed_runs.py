"""DISTURBED runs in the results: by use.json alone, whatever the latencies were, also of runs older than the rule."""

from __future__ import annotations

import json

import pytest

from servestorm.analysis.results import compute, usable
from servestorm.rundir.counted_samples import read_counted_samples
from servestorm.rundir.machine_table import MachineSecond, machine_bytes
from servestorm.rundir.record import read_run
from tests.stand_ins.synthetic_run import PLAN, START_NS, make_run

BUSY = {"other_s": 14.8}
"""74 % of two cores in ten seconds."""
WATCH = {"elapsed_s": 10.0, "cores": [0, 1], "ours_s": 4.0, "other_s": 0.1, "steal_s": 0.0}
REASON = "other programs used 74 % of the study's cores"


def watch(run, runs: str, **changes):
    """Let the machine have done that during the loads of these runs; gives their ids."""
    folders = sorted(run.glob(f"cells/*-{runs}"))
    for folder in folders:
        use = json.loads((folder / "use.json").read_text())
        (folder / "use.json").write_text(json.dumps({**use, "watch": {**WATCH, **changes}}))
    return [folder.name for folder in folders]


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path)


def test_disturbed_runs_are_left_out_while_others_are_left(run):
    watch(run, "steady-*")
    (name,) = watch(run, "steady-torchserve-1", **BUSY)
    results = compute(read_run(run))
    value = results.metric("steady.mean_ms").values["torchserve"]
    assert (value.n, value.counts, value.disturbed) == (2, True, None)
    (shown,) = [one for one in results.runs if one.disturbed]
    assert (shown.id, shown.counts, shown.valid, shown.disturbed.reason) == (name, False, True, REASON)
    assert shown.numbers["p50"] is not None
    assert all(judged.withheld is None for judged in results.verdicts)


def test_where_only_disturbed_runs_are_left_there_is_a_figure_and_no_verdict(run):
    assert len(watch(run, "steady-torchserve-*", **BUSY)) == 3
    results = compute(read_run(run))
    metric = results.metric("steady.p50")
    shown, other = metric.values["torchserve"], metric.values["savedmodel"]
    assert shown.value > 0 and shown.disturbed.reason == REASON
    assert (shown.valid, shown.counts, other.counts) == (True, False, True)
    assert metric.p["savedmodel|torchserve"] is None
    judged = next(one for one in results.verdicts if one.metric == "steady.p50")
    assert (judged.withheld, judged.verdict.outcome, judged.verdict.p) == ("disturbed", "inconclusive", None)
    assert judged.verdict.reason == f"No verdict: the runs of TorchServe were disturbed ({REASON})."
    assert results.unanswered() == [("steady", "torchserve")]
    assert results.disturbed("steady", "torchserve").reason == REASON
    assert results.figures.over_time["steady"].engines.keys() == {"savedmodel", "torchserve"}
    assert all(one.withheld is None for one in results.verdicts if not one.metric.startswith("steady"))


def test_an_objective_is_neither_met_nor_missed_by_disturbed_runs(tmp_path):
    run = make_run(tmp_path, PLAN + "objectives: [{metric: steady.p50, at_most: 1000}]\n")
    watch(run, "steady-torchserve-*", **BUSY)
    assert [one.met for one in compute(read_run(run)).objectives] == [True, None]


def test_the_rule_sees_neither_the_engine_nor_a_latency(run):
    assert all(one.counts for one in compute(read_run(run)).runs)
    busy = watch(run, "steady-*", **BUSY)
    assert [one.id for one in compute(read_run(run)).runs if one.disturbed] == busy


def test_disturbed_runs_come_before_invalid_ones_and_an_invalid_run_stays_invalid(run):
    first, *_ = watch(run, "steady-torchserve-*", **BUSY)
    path = run / "cells" / first / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "valid": False, "reasons": ["3 answers were wrong"]}))
    results = compute(read_run(run))
    value = results.metric("steady.mean_ms").values["torchserve"]
    assert (value.n, value.valid, value.counts) == (2, True, False)
    assert first not in [one.id for one in usable(results.runs)]


@pytest.mark.parametrize(
    ("changes", "disturbance", "cause"),
    [
        ({"steal_s": 1.2}, "", "steal"),
        ({"steal_s": 1.2}, "disturbance: {steal_percent: 7}", None),
        ({"other_s": 3.2}, "", "other_load"),
        ({"other_s": 2.9}, "", None),
        ({"other_s": 0.5}, "disturbance: {other_percent: 2}", "other_load"),
        ({"other_s": 19.0}, "disturbance: ignored", None),
        (dict.fromkeys(WATCH), "", None),
    ],
)
def test_the_limits_are_the_plans(tmp_path, changes, disturbance, cause):
    run = make_run(tmp_path, f"{PLAN}{disturbance}\n")
    watched = watch(run, "steady-savedmodel-*", **changes)
    found = {one.id: one.disturbed.cause for one in compute(read_run(run)).runs if one.disturbed}
    assert found == (dict.fromkeys(watched, cause) if cause else {})


def test_servers_in_swap_disturb_a_run_by_their_share_of_the_memory(run):
    for folder in run.glob("cells/*-steady-savedmodel-*"):
        use = json.loads((folder / "use.json").read_text())
        size = {"rss_bytes": 98 * 2**20, "swap_bytes": 2 * 2**20}
        (folder / "use.json").write_text(json.dumps({**use, "end": {**use["end"], **size}}))
    results = compute(read_run(run))
    assert {one.disturbed.reason for one in results.runs if one.disturbed} == {"2 % of the servers' memory was in swap"}


def test_what_a_run_is_disturbed_by_is_in_results_json(run):
    watch(run, "steady-*", **BUSY)
    document = json.loads(json.dumps(compute(read_run(run)).as_json(), allow_nan=False))
    found = next(one["disturbed"] for one in document["runs"] if one["disturbed"])
    assert found == {"cause": "other_load", "percent": pytest.approx(74.0), "limit_percent": 15.0, "reason": REASON}


def record_seconds(run, runs: str, other, steal=0.0):
    """machine.parquet of these runs' loads, from a second before the first request on; `other` is a share a second."""
    for folder in sorted(run.glob(f"cells/*-{runs}")):
        moments = [START_NS + second * 10**9 for second in range(-1, len(other))]
        seconds = [
            MachineSecond(begin_ns, begin_ns + 10**9, steal, share, None, None, None, None, None)
            for begin_ns, share in zip(moments, other, strict=False)
        ]
        (folder / "machine.parquet").write_bytes(machine_bytes(seconds))


def test_a_hiccup_costs_the_seconds_in_which_it_fell_and_not_the_run(run):
    busy = [0.0] * 6 + [0.9] * 2 + [0.0] * 10
    watch(run, "steady-*", **BUSY)
    record_seconds(run, "steady-*", [0.0] * 18)
    record_seconds(run, "steady-torchserve-1", busy)
    results = compute(read_run(run))
    assert not any(one.disturbed for one in results.runs)
    hit = next(one for one in results.runs if one.id.endswith("steady-torchserve-1"))
    samples = read_counted_samples(read_run(run).cells, results.study.plan)[hit.id]
    assert (hit.slices.disturbed, hit.slices.length_s, hit.counts) == (int(samples.use.disturbed.sum()), 1.0, True)
    assert hit.slices.disturbed in (2, 3)
    assert hit.numbers["images_per_s"] == pytest.approx(80, rel=0.1)
    assert hit.samples < hit.requests
    others = [one for one in results.runs if one.scenario == "steady" and one.id != hit.id]
    assert {one.slices.left_out for one in others} == {0}


def test_a_run_that_was_disturbed_most_of_the_time_is_disturbed_as_a_whole(run):
    watch(run, "steady-*")
    record_seconds(run, "steady-torchserve-1", [0.0] * 4 + [0.9] * 14)
    (shown,) = [one for one in compute(read_run(run)).runs if one.disturbed]
    assert shown.disturbed.reason.startswith("other programs used 90 % of the study's cores in ")
    assert shown.numbers["p50"] is not None


def test_a_load_with_bursts_is_judged_by_whole_cycles(run):
    watch(run, "bursty-*")
    record_seconds(run, "bursty-torchserve-1", [0.0] * 4 + [0.9] * 3 + [0.0] * 17)
    hit = next(one for one in compute(read_run(run)).runs if one.id.endswith("bursty-torchserve-1"))
    assert (hit.slices.planned, hit.slices.length_s, hit.slices.disturbed) == (3, 6.0, 1)
    assert [burst.index for burst in hit.bursts] == [1, 2]


def test_what_the_seconds_do_not_tell_is_judged_by_the_whole_load(run):
    watch(run, "steady-*", **BUSY)
    record_seconds(run, "steady-*", [None] * 18)
    assert {one.disturbed.reason for one in compute(read_run(run)).runs if one.disturbed} == {REASON}
