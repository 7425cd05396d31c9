"""Runs of a round: which slices their figures are of, and what a hiccup of machine or generator costs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from servestorm.analysis import latency_split
from servestorm.analysis.latency_split import mean_splits
from servestorm.analysis.results import compute
from servestorm.analysis.run import Run
from servestorm.errors import StudyError
from servestorm.methods.run_figures import run_figures
from servestorm.plan.cells import Cell
from servestorm.rundir.counted_samples import read_counted_samples
from servestorm.rundir.record import read_run
from tests.stand_ins.synthetic_rounds import PLAN, Round, make_rounds, usual_latency_ms
from tests.stand_ins.synthetic_run import LATENCY_MS


def runs_of(results, repetition: int = 1) -> dict[str, Run]:
    """The steady runs of one round by engine."""
    return {run.engine: run for run in results.runs if run.repetition == repetition and run.scenario == "steady"}


def pooled_ms(run: Run, numbers) -> np.ndarray:
    """The latencies that the stand-in made up for these slices of a run, with its lag of 0.01 ms."""
    cell = Cell(int(run.id[:3]), run.scenario, run.engine, run.replicas, run.repetition, seed=0)
    return np.sort(np.concatenate([usual_latency_ms(cell, number, 200) for number in numbers])) + 0.01


def results_of(tmp_path, what: Round | None = None, plan: str = PLAN):
    return compute(read_run(make_rounds(tmp_path, what, plan)))


def nearest(values: np.ndarray, share: float) -> float:
    return float(values[int(np.ceil(share * values.size)) - 1])


def test_a_runs_percentile_is_of_the_answers_of_all_its_slices_together_without_lead_ins(tmp_path):
    results = results_of(tmp_path)
    for run in runs_of(results).values():
        values = pooled_ms(run, range(10))
        assert values.size == 2000 == run.samples
        assert run.numbers["p50"] == pytest.approx(nearest(values, 0.5), abs=1e-5)
        assert run.numbers["p99"] == pytest.approx(nearest(values, 0.99), abs=1e-5)
        assert run.numbers["mean_ms"] == pytest.approx(values.mean(), abs=1e-5)
        assert (run.slices.planned, run.slices.left_out, run.slices.length_s) == (10, 0, 2.0)
    assert results.metric("steady.p50").values["savedmodel"].n == 3


def test_throughput_and_cpu_time_are_those_of_the_slices(tmp_path):
    results = results_of(tmp_path, Round(cpu_s=lambda cell, number: None if number == 3 else 0.45))
    run = runs_of(results)["savedmodel"]
    assert run.numbers["images_per_s"] == pytest.approx(100.0, rel=0.01)
    # 200 requests of a slice and 25 of its lead-in; a slice whose CPU time was not read does not count for it
    assert run.numbers["cpu_ms_per_image"] == pytest.approx(1000 * 0.45 / 225)


def test_a_slice_that_lasts_longer_than_planned_lowers_the_throughput(tmp_path):
    def latency_ms(cell, number, size):
        values = np.full(size, 5.0)
        if (cell.engine, number, size) == ("savedmodel", 9, 200):  # the last slice of the round
            values[-1] = 1000.0
        return values

    run = runs_of(results_of(tmp_path, Round(latency_ms=latency_ms)))["savedmodel"]
    assert run.numbers["images_per_s"] == pytest.approx(2000 / 21.0, rel=0.002)


def test_a_disturbed_slice_of_one_engine_is_left_out_of_all_runs_of_its_round_and_of_no_other(tmp_path):
    def other(cell, number):
        return 0.6 if (cell.engine, cell.repetition, number) == ("torchserve", 1, 4) else 0.0

    results = results_of(tmp_path, Round(other_share=other))
    for run in runs_of(results).values():
        assert (run.slices.disturbed, run.disturbed, run.counts, run.samples) == (1, None, True, 1800)
        values = pooled_ms(run, [number for number in range(10) if number != 4])
        assert run.numbers["p50"] == pytest.approx(nearest(values, 0.5), abs=1e-5)
    assert {run.slices.disturbed for run in runs_of(results, 2).values()} == {0}
    assert any(note.startswith("2 of 60 slices of the runs under load are left out") for note in results.notes)
    assert not [doubt for doubt in results.doubts if doubt.severity == "grave"]


def test_a_run_is_disturbed_where_more_than_half_of_its_slices_are(tmp_path):
    def other(cell, number):
        return 0.6 if cell.repetition == 2 and number >= 4 else 0.0

    results = results_of(tmp_path, Round(other_share=other))
    for run in runs_of(results, 2).values():
        assert run.disturbed.reason == "other programs used 60 % of the study's cores in 6 of 10 slices"
        assert run.numbers["p50"] is not None and not run.counts
    assert all(run.counts for run in [*runs_of(results).values(), *runs_of(results, 3).values()])


def test_half_of_the_slices_may_be_disturbed(tmp_path):
    results = results_of(tmp_path, Round(other_share=lambda cell, number: 0.6 if number >= 5 else 0.0))
    assert [(run.counts, run.slices.left_out) for run in results.runs] == [(True, 5)] * 6


def test_without_a_record_of_the_machines_seconds_the_whole_run_is_judged(tmp_path):
    folder = make_rounds(tmp_path, Round(machine=False))
    (cell,) = folder.glob("cells/*-torchserve-2")
    watch = {"elapsed_s": 10.0, "cores": [0, 1], "ours_s": 4.0, "other_s": 14.8, "steal_s": 0.0}
    (cell / "use.json").write_text(json.dumps({"ready": {"cpu_s": 3.0}, "end": {"cpu_s": 4.0}, "watch": watch}))
    results = compute(read_run(folder))
    assert [run.id for run in results.runs if run.disturbed] == [cell.name]


def test_the_rule_on_disturbed_slices_is_off_where_the_plan_ignores_disturbance(tmp_path):
    results = results_of(tmp_path, Round(other_share=lambda *_: 0.9), PLAN + "disturbance: ignored\n")
    assert [(run.counts, run.slices.disturbed) for run in results.runs] == [(True, 0)] * 6


def late_in(*slices, engine="torchserve", ms=3.0, share=0.5):
    """A lag of so many milliseconds for a share of the requests of these slices of an engine's first run."""

    def lag_ms(cell, number, size):
        if (cell.engine, cell.repetition) == (engine, 1) and number in slices:
            return np.where(np.arange(size) < share * size, ms, 0.0)
        return np.zeros(size)

    return lag_ms


def test_a_late_slice_is_left_out_of_the_figures_that_it_moved_in_all_runs_of_the_round(tmp_path):
    results = results_of(tmp_path, Round(lag_ms=late_in(2, 7, ms=30.0)))
    for run in runs_of(results).values():
        assert run.counts and run.valid and not run.invalid_figures
        assert run.slices.late["p99"] == 2 and run.slices.left_out == 0
        kept = [number for number in range(10) if number not in (2, 7)]
        values = pooled_ms(run, kept) - 0.01
        assert run.numbers["p99"] == pytest.approx(nearest(values, 0.99), abs=1e-5)
        assert run.numbers["failed_percent"] == 0
    assert {bool(run.slices.late) for run in runs_of(results, 2).values()} == {False}


def test_a_figure_that_lag_decides_in_most_slices_is_invalid_and_the_others_stand(tmp_path):
    results = results_of(tmp_path, Round(lag_ms=late_in(*range(10), ms=40.0, share=0.015)))
    late, other = (runs_of(results)[engine] for engine in ("torchserve", "savedmodel"))
    assert late.valid and late.counts
    assert late.numbers["p99"] is None and late.numbers["p50"] is not None and late.numbers["images_per_s"] is not None
    assert "p99" in late.invalid_figures and "p50" not in late.invalid_figures
    assert late.invalid_figures["p99"].startswith("the load generator sent late: ")
    assert other.numbers["p99"] is not None and not other.invalid_figures and not other.slices.late
    shown = results.metric("steady.p99").values["torchserve"]
    assert (shown.n, shown.valid, shown.runs[0]) == (2, True, None)
    assert any("p99 of steady in 1 run" in note for note in results.notes)
    shares = [share for share, _ in results.figures.spectrum["steady"]["torchserve"]]
    assert 0.5 in shares


def test_a_figure_that_is_invalid_in_every_run_has_no_value_and_is_marked(tmp_path):
    results = results_of(tmp_path, Round(lag_ms=lambda cell, number, size: np.where(np.arange(size) % 20, 0.0, 60.0)))
    shown = results.metric("steady.p99").values["torchserve"]
    assert (shown.value, shown.valid, shown.counts) == (None, False, False)
    assert results.metric("steady.p50").values["torchserve"].counts
    assert all(run.counts for run in results.runs)


def test_the_reading_from_the_send_does_not_decide_a_figure_that_counts(tmp_path):
    """Lag that moves a figure by less than the rule allows stays in it: latencies run from the scheduled time."""
    slightly = 0.005 * LATENCY_MS["savedmodel"]
    plain = runs_of(results_of(tmp_path / "a", Round(lag_ms=lambda *_: 0.0)))["savedmodel"]
    late = runs_of(results_of(tmp_path / "b", Round(lag_ms=lambda *_: slightly)))["savedmodel"]
    assert late.numbers["p50"] == pytest.approx(plain.numbers["p50"] + slightly, abs=1e-5)


def test_a_slice_that_begins_while_any_engine_still_answers_is_left_out_of_the_round(tmp_path):
    def latency_ms(cell, number, size):
        values = np.full(size, 5.0)
        if (cell.engine, cell.repetition, number, size) == ("savedmodel", 1, 5, 200):
            values[-1] = 1500.0
        return values

    results = results_of(tmp_path, Round(latency_ms=latency_ms))
    # slice 5 of savedmodel is loaded after that of torchserve, and before a slice 6
    assert {run.slices.undrained for run in runs_of(results).values()} == {1}
    assert {run.samples for run in runs_of(results).values()} == {1800}
    assert {run.slices.undrained for run in runs_of(results, 2).values()} == {0}


def test_an_engine_that_never_drains_is_a_doubt_and_costs_no_figure(tmp_path):
    def latency_ms(cell, number, size):
        return np.full(size, 900.0 if cell.engine == "torchserve" else 5.0)

    results = results_of(tmp_path, Round(latency_ms=latency_ms))
    assert all(run.counts and run.samples == 2000 for run in results.runs)
    assert "undrained" in [doubt.kind for doubt in results.doubts]


@pytest.mark.parametrize(("idle_cpu_s", "doubted"), [(0.002, False), (0.2, True), (None, False)])
def test_servers_that_work_without_a_load_are_a_doubt(tmp_path, idle_cpu_s, doubted):
    results = results_of(tmp_path, Round(idle_cpu_s=idle_cpu_s))
    assert ("idle_engine" in [doubt.kind for doubt in results.doubts]) is doubted


def test_latency_over_time_is_on_the_time_of_the_slices_end_to_end(tmp_path):
    def latency_ms(cell, number, size):
        return np.full(size, 5.0 + number)

    results = results_of(tmp_path, Round(latency_ms=latency_ms, other_share=lambda c, k: 0.6 if k == 3 else 0.0))
    shown = results.figures.over_time["steady"]
    by_time = dict(zip(shown.t_s, shown.engines["torchserve"].median_ms, strict=True))
    assert max(shown.t_s) < 20
    assert [by_time[t] for t in (1.0, 4.0, 18.0)] == pytest.approx([5.01, 7.01, 14.01])
    assert by_time[6.0] is None
    assert shown.offered_per_s == pytest.approx([100.0] * len(shown.t_s), rel=0.35)


def test_slices_that_do_not_fit_the_samples_are_named(tmp_path):
    folder = make_rounds(tmp_path)
    path = next(folder.glob("cells/*-torchserve-1/slices.json"))
    slices = json.loads(path.read_text())
    for one in slices["slices"]:
        one["begin_ns"] += 10**8
        one["end_ns"] += 10**8
    path.write_text(json.dumps(slices))
    with pytest.raises(StudyError, match=r"samples\.parquet has requests outside of the slices of slices\.json"):
        compute(read_run(folder))


def test_the_results_keep_to_the_published_layout(tmp_path):
    document = json.loads(json.dumps(results_of(tmp_path).as_json(), allow_nan=False))
    run = document["runs"][0]
    assert run["slices"] == {"planned": 10, "length_s": 2.0, "disturbed": 0, "undrained": 0, "late": {}}
    assert (run["invalid_figures"], document["schema_version"]) == ({}, 4)


BURSTY = """\
name: synthetic
model: {name: cnn}
engines: [savedmodel, torchserve]
repetitions: 3
cold_starts: 0
bursty: {base_rate: 20, peak_rate: 120, on_s: 2, off_s: 4, duration_s: 18, objective_ms: 50}
cpus: {engine: [0], generator: [0]}
"""


def test_a_burst_is_judged_by_its_own_turn_and_a_disturbed_turn_has_none(tmp_path):
    def latency_ms(cell, number, size):
        values = np.full(size, 5.0)
        if number == 1:
            values[-30:] = 80.0
        return values

    what = Round(latency_ms=latency_ms, slices=3, length_s=6.0, other_share=lambda _, number: 0.6 if number == 2 else 0)
    results = results_of(tmp_path, what, BURSTY)
    for run in results.runs:
        assert [(burst.index, burst.start_s, burst.end_s) for burst in run.bursts] == [(0, 4.0, 6.0), (1, 10.0, 12.0)]
        assert [burst.violations for burst in run.bursts] == [0, 30]
        assert all(burst.queue_start <= 3 for burst in run.bursts)  # of 100 requests a second, 5 ms each
        requests = sum(burst.requests for burst in run.bursts)
        assert run.numbers["burst_violations_percent"] == pytest.approx(100 * 30 / requests)
        assert run.numbers["burst_recover_s"] is None


def test_the_parts_of_a_mean_request_are_over_all_that_a_server_counted_since_the_first_slice(tmp_path):
    def latency_ms(cell, number, size):
        return np.full(size, 500.0 if number < 0 else 8.0)  # the warm-up is slow

    folder = make_rounds(tmp_path, Round(latency_ms=latency_ms, lag_ms=lambda *_: 1.0))
    parts = mean_splits({"torchserve": [cell for cell in read_run(folder).cells if cell.cell.engine == "torchserve"]})
    assert parts["torchserve"].mean_ms == pytest.approx(9.0, abs=1e-3)
    times = {part.part: part.ms for part in parts["torchserve"].parts}
    assert times["generator lag"] == pytest.approx(1.0, abs=1e-3)


def test_a_servers_own_times_are_read_from_the_first_slice_on(tmp_path, monkeypatch):
    folder = make_rounds(tmp_path)
    cells = [cell for cell in read_run(folder).cells if cell.cell.id.endswith("savedmodel-1")]
    (cells[0].path / "metrics.parquet").touch()
    since = []
    monkeypatch.setattr(
        latency_split, "server_times", lambda *_, since_unix_ms: since.append(since_unix_ms) or latency_split.UNREAD
    )
    mean_splits({"savedmodel": cells})
    assert since == [1_767_225_600_000 + 2_250]  # the load's start, the warm-up turn and the first lead-in


def test_the_study_has_the_same_figures_without_the_analysis(tmp_path):
    record = read_run(make_rounds(tmp_path))
    samples = read_counted_samples(record.cells, record.study.plan)
    for run in compute(record).runs:
        live = run_figures(samples[run.id], duration_s=20.0, cpu_s=None)
        assert live == {name: run.numbers[name] for name in live}
