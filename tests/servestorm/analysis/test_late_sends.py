"""A generator that sent late makes a figure INVALID and not a run, also in runs that an earlier generator judged."""

from __future__ import annotations

import json

import numpy as np
import pytest

from servestorm.analysis.results import compute
from servestorm.rundir.record import read_run
from tests.stand_ins.synthetic_run import START_NS, make_run, write_samples

LATE = "the generator sent late: p99 lag 1.62 ms, over 1.00 ms"


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path)


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def late_samples(run, runs: str, lag_ms, latency_ms=10.0):
    """12 s of 100 requests/s in these runs, with a lag for each request."""
    for folder in sorted(run.glob(f"cells/*-{runs}")):
        due_s = np.arange(1200) / 100
        random = np.random.default_rng(3)
        service_ms = latency_ms * (0.7 + random.gamma(1.5, 0.2, due_s.size))
        sent_ns = START_NS + (due_s * 1e9).astype(np.int64) + (lag_ms * 1e6).astype(np.int64)
        write_samples(folder, due_s, (service_ms + lag_ms) / 1000, sent_ns=sent_ns)


def first(results, runs: str):
    return next(one for one in results.runs if one.id.endswith(runs))


def test_a_run_that_was_called_invalid_only_for_late_sends_is_judged_anew_by_its_samples(run):
    for folder in run.glob("cells/*-steady-torchserve-*"):
        edit(folder / "summary.json", valid=False, reasons=[LATE])
    late_samples(run, "steady-torchserve-*", np.where(np.arange(1200) % 90, 0.02, 1.62))
    results = compute(read_run(run))
    shown = first(results, "steady-torchserve-1")
    assert (shown.valid, shown.counts, shown.reasons, shown.invalid_figures) == (True, True, [], {})
    assert shown.numbers["p50"] is not None and shown.numbers["p99"] is not None
    assert results.metric("steady.p50").values["torchserve"].n == 3


def test_late_sends_that_decide_a_figure_make_that_figure_invalid(run):
    edit(next(run.glob("cells/*-steady-torchserve-1")) / "summary.json", valid=False, reasons=[LATE])
    late_samples(run, "steady-torchserve-1", np.where(np.arange(1200) % 30, 0.0, 60.0))
    results = compute(read_run(run))
    shown = first(results, "steady-torchserve-1")
    assert shown.valid and shown.counts
    assert shown.numbers["p99"] is None and "p99" in shown.invalid_figures
    assert shown.numbers["p50"] is not None and "p50" not in shown.invalid_figures
    assert shown.numbers["failed_percent"] == 0
    assert results.metric("steady.p99").values["torchserve"].n == 2


def test_another_fault_beside_late_sends_still_makes_the_run_invalid(run):
    folder = next(run.glob("cells/*-steady-torchserve-1"))
    edit(folder / "summary.json", valid=False, reasons=[LATE, "3 answers were wrong"])
    shown = first(compute(read_run(run)), "steady-torchserve-1")
    assert (shown.valid, shown.reasons) == (False, ["3 answers were wrong"])


def test_a_run_without_any_percentile_that_counts_keeps_its_other_figures(run):
    late_samples(run, "steady-torchserve-1", np.full(1200, 30.0))
    shown = first(compute(read_run(run)), "steady-torchserve-1")
    assert {name for name in ("p50", "p90", "p95", "p99", "mean_ms") if shown.numbers[name] is None} == {
        *("p50", "p90", "p95", "p99", "mean_ms")
    }
    assert shown.counts and shown.numbers["images_per_s"] == pytest.approx(100, rel=0.01)


def test_bursts_stand_with_the_tail_that_they_show_in(run):
    late_samples(run, "bursty-torchserve-1", np.where(np.arange(1200) % 30, 0.0, 60.0))
    shown = first(compute(read_run(run)), "bursty-torchserve-1")
    assert shown.bursts == [] and shown.numbers.get("burst_queue_peak") is None
    assert {"p99", "burst_queue_peak", "burst_recover_s"} <= shown.invalid_figures.keys()


def test_a_closed_loop_has_no_schedule_that_it_could_be_late_for(run):
    late_samples(run, "scaling-torchserve-x1-1", np.full(1200, 30.0))
    shown = first(compute(read_run(run)), "scaling-torchserve-x1-1")
    assert not shown.invalid_figures and shown.numbers["p50"] is not None
