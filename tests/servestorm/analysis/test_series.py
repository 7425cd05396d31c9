"""The numbers behind the figures: bins, spectrum, fitted law, sweep, cost, and where the time goes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from servestorm.analysis import latency_split
from servestorm.analysis.cost import capacity_costs
from servestorm.analysis.figures import Figures, Law
from servestorm.analysis.latency_split import Parts, mean_splits
from servestorm.analysis.metric import Metric, Value
from servestorm.analysis.rows import Rows
from servestorm.analysis.run import Run, SweepPoint
from servestorm.analysis.scenario import GroupOfRuns
from servestorm.analysis.scenarios.table import SCENARIO_ANALYSES
from servestorm.analysis.series import over_time, spectrum
from servestorm.analysis.server_times import ServerTimes
from servestorm.errors import StudyError
from servestorm.methods.samples import Samples, pooled_ms
from servestorm.methods.slices import whole
from servestorm.plan.cells import Cell
from servestorm.report.write import write_report
from servestorm.rundir.record import CellRecord
from servestorm.rundir.samples import read_samples
from servestorm.rundir.shapes.cell import SummaryFile
from tests.stand_ins.synthetic_run import bare_record, make_run, write_samples

ENGINES = ["savedmodel", "torchserve"]


def run_of(scenario: str, name: str = "000", engine: str = "savedmodel", **more) -> Run:
    known = {"replicas": 1, "repetition": 1, "state": "complete", "valid": True, "reasons": [], "numbers": {}}
    return Run(id=name, scenario=scenario, engine=engine, group=scenario, **{**known, **more})


def samples_of(scheduled_s, latency_ms, ok=None, images=1) -> Samples:
    size = len(scheduled_s)
    scheduled_ns = np.array([round(t * 1e9) for t in scheduled_s], np.int64)
    return Samples(
        scheduled_ns=scheduled_ns,
        lag_ns=np.zeros(size, np.int32),
        use=whole(10**9, int(scheduled_ns.max(initial=0)), 0.0),
        latency_ns=np.array([round(ms * 1e6) for ms in latency_ms], np.int64),
        ok=np.ones(size, np.bool_) if ok is None else np.array(ok),
        images=np.full(size, images, np.int16),
        images_with_warmup=size,
    )


def figures_of(scenario, engines, runs, metrics=(), record=None) -> Figures:
    """The figures of one group of runs."""
    figures = Figures()
    SCENARIO_ANALYSES[scenario].add_figures(figures, GroupOfRuns(scenario, engines, runs, {}, metrics, record))
    return figures


def rows_of(scenario, runs, samples) -> dict:
    """The rows of one group of runs by their keys."""
    return {row.key: row for row in SCENARIO_ANALYSES[scenario].rows(Rows(ENGINES, runs, samples), scenario, None)}


def test_bins_hold_the_median_and_the_slowest_answer_of_their_time_in_any_order_of_the_file():
    scheduled_s = np.arange(1200) / 100
    latency_ms = np.where(scheduled_s < 6, 5.0, 9.0) + np.arange(1200) % 3
    order = np.random.default_rng(1).permutation(1200)
    ok = np.ones(1200, np.bool_)
    ok[::10] = False
    samples = samples_of(scheduled_s[order], latency_ms[order], ok[order])
    found = over_time({"savedmodel": [samples]})
    assert (found.bin_s, len(found.t_s)) == (0.5, 24)
    assert found.offered_per_s[:23] == pytest.approx([100.0] * 23)
    for index, begin_s in enumerate(found.t_s):
        inside = np.sort(latency_ms[(scheduled_s >= begin_s) & (scheduled_s < begin_s + 0.5) & ok])
        assert found.engines["savedmodel"].median_ms[index] == inside[math.ceil(inside.size / 2) - 1]
        assert found.engines["savedmodel"].slowest_ms[index] == inside[-1]


def test_few_answers_make_wide_bins():
    scheduled_s = np.arange(60) * 2.0
    samples = samples_of(scheduled_s, np.full(60, 5.0))
    found = over_time({"savedmodel": [samples]})
    assert (found.bin_s, found.t_s) == (60, [0, 60])


def test_the_spectrum_is_the_mean_over_runs_and_holds_the_rows_percentiles():
    runs = [run_of("steady", name) for name in "ab"]
    samples = {
        "a": samples_of(np.arange(200), np.arange(1.0, 201)),
        "b": samples_of(np.arange(200), np.arange(1.0, 201) * 3),
    }
    points = dict(spectrum(list(samples.values())))
    assert (points[0.5], points[0.9], points[0.95]) == pytest.approx((200.0, 360.0, 380.0))
    numbers = {"a": {"p50": 100.0, "p90": 180.0}, "b": {"p50": 300.0, "p90": 540.0}}
    rows = rows_of("steady", [replace(run, numbers=numbers[run.id]) for run in runs], samples)
    for name, share in (("p50", 0.5), ("p90", 0.9)):
        assert rows[f"steady.{name}"].values["savedmodel"].value == pytest.approx(points[share])


def test_linear_scaling_and_the_laws_means_are_those_of_the_rows():
    rates = {1: [90.0, 110.0], 2: [150.0, 170.0], 4: [200.0, 240.0]}
    runs = [
        run_of("scaling", f"{n}-{r}", replicas=n, repetition=r, numbers={"images_per_s": rate})
        for n, own in rates.items()
        for r, rate in enumerate(own)
    ]
    plan = SimpleNamespace(scaling=SimpleNamespace(replicas=[1, 2, 4], measure="throughput"))
    record = SimpleNamespace(study=SimpleNamespace(plan=plan))
    rows = list(SCENARIO_ANALYSES["scaling"].rows(Rows(ENGINES, runs, {}), "scaling", record))
    law = figures_of("scaling", ENGINES, runs, rows).scaling_law["scaling"]["savedmodel"]
    assert law.means == [(1, 100.0), (2, 160.0), (4, 220.0)]
    assert law.linear == [(1, 100.0), (2, 200.0), (4, 400.0)]
    by_key = {row.key: row.values["savedmodel"] for row in rows}
    assert by_key["scaling.images_per_s_x4"].value == 220.0
    # within repetitions 200 / 90 and 240 / 110
    assert by_key["scaling.factor_x4"].value == pytest.approx((200 / 90 + 240 / 110) / 2)


def test_a_capacity_stands_among_its_probes_in_their_unit():
    variants = [SimpleNamespace(label="gRPC", images_per_request=8)]
    record = bare_record(Path("none"), [0])
    record.study.variants[:] = variants
    row = replace(capacity_row(400.0), key="capacity[gRPC].images_per_s", group="capacity[gRPC]")
    figures = Figures()
    runs = GroupOfRuns("capacity[gRPC]", ENGINES, [], {}, [row], record)
    SCENARIO_ANALYSES["capacity"].add_figures(figures, runs)
    assert figures.capacity_per_s == {"capacity[gRPC]": {"savedmodel": 50.0, "torchserve": None}}


def test_the_spectrum_is_exact_and_ends_where_samples_do():
    latency_ms = np.random.default_rng(2).permutation(np.arange(1, 701.0))
    samples = samples_of(np.arange(700) / 100, latency_ms)
    points = spectrum([samples])
    assert points[0] == pytest.approx([0.5, 350])
    assert {0.5, 0.9, 0.95, 0.99} <= {share for share, _ in points}
    assert all(value == math.ceil(share * 700) for share, value in points)
    assert 0.99 <= points[-1][0] < 0.992


def test_runs_are_pooled_per_image_and_sorted():
    pooled = pooled_ms([samples_of([0, 1], [30.0, 10.0], images=10), samples_of([0, 1], [2.0, 9.0], ok=[True, False])])
    assert pooled.tolist() == [1.0, 2.0, 3.0]


def test_the_law_is_fitted_to_every_run_and_left_out_under_three_counts():
    def rate(n: int) -> float:
        return 100 * n / (1 + 0.1 * (n - 1) + 0.02 * n * (n - 1))

    runs = [run_of("scaling", f"{n}", replicas=n, numbers={"images_per_s": rate(n)}) for n in (1, 2, 4, 8)]
    found = figures_of("scaling", ENGINES, runs).scaling_law["scaling"]
    assert found["savedmodel"].sigma == pytest.approx(0.1, rel=1e-3)
    assert found["savedmodel"].kappa == pytest.approx(0.02, rel=1e-3)
    assert found["savedmodel"].curve[-1] == pytest.approx([8, rate(8)], rel=1e-3)
    unknown = dict.fromkeys(("lambda_", "sigma", "kappa", "r2", "peak_replicas"))
    assert found["torchserve"] == Law(**unknown, points=[], curve=[])
    two = figures_of("scaling", ENGINES, runs[:2]).scaling_law["scaling"]["savedmodel"]
    assert (two.lambda_, len(two.points)) == (None, 2)


def point(batch: int, rate: float | None, p99_ms: float | None, valid: bool = True) -> SweepPoint:
    fixed = {"threads": 2, "timeout_us": 1000, "replicas": 1, "images_per_request": 1, "concurrency": 16, "reasons": []}
    return SweepPoint(**fixed, max_batch_size=batch, images_per_s=rate, p50_ms=None, p99_ms=p99_ms, valid=valid)


def test_a_sweep_names_what_varies_and_takes_the_mean_of_valid_loads():
    rates = [(1, 100.0, 10.0), (8, 300.0, 30.0), (16, 290.0, 40.0)]
    runs = [run_of("sweep", f"{r}", points=[point(b, x + r, y) for b, x, y in rates]) for r in (0, 0, 3)]
    runs.append(run_of("sweep", "9", points=[point(8, 9000.0, 1.0, valid=False)]))
    rows = figures_of("sweep", ENGINES, runs).sweep["sweep"]["savedmodel"]
    assert [(row.label, row.images_per_s, row.front) for row in rows] == [
        ("no server batch", 101.0, True),
        ("server batch 8", 301.0, True),
        ("server batch 16", 291.0, False),
    ]


def test_one_run_gives_its_percentiles_of_images_and_of_requests_the_intervals_of_its_samples():
    samples = {"000": samples_of(np.arange(100), np.arange(100, 0, -1), images=2)}
    runs = [run_of("steady", numbers={"p50": 25.0, "request_p50": 50.0, "mean_ms": 25.25})]
    rows = {row.key: row.values["savedmodel"] for row in rows_of("steady", runs, samples).values()}
    # of 100 the 40th and the 61st
    assert (rows["steady.p50"].ci, rows["steady.p50"].ci_from) == ((20.0, 30.5), "samples")
    assert (rows["steady.request_p50"].ci, rows["steady.request_p50"].ci_from) == ((40.0, 61.0), "samples")
    assert (rows["steady.mean_ms"].ci, rows["steady.mean_ms"].ci_from) == (None, None)
    assert (rows["steady.p99"].value, rows["steady.p99"].ci) == (None, None)
    assert (rows["steady.p50"].value, rows["steady.p50"].value_from) == (25.0, "runs")


def test_a_percentile_that_too_few_runs_tell_has_the_value_and_the_interval_of_all_samples_together():
    runs = [run_of("steady", name, numbers={"p50": 5.0 + place, "p90": None}) for place, name in enumerate("ab")]
    samples = {run.id: samples_of(np.arange(40), np.arange(1, 41)) for run in runs}
    rows = {row.key: row.values["savedmodel"] for row in rows_of("steady", runs, samples).values()}
    assert rows["steady.p50"].ci_from == "runs"
    assert rows["steady.p90"].ci_from == "samples"  # 64 samples are needed, a run has 40
    assert (rows["steady.p90"].value, rows["steady.p90"].value_from) == (36.0, "samples")


def test_a_percentile_of_one_run_of_several_is_that_runs_and_so_is_its_interval():
    runs = [run_of("steady", "a", numbers={"p90": 90.0}), run_of("steady", "b", numbers={"p90": None})]
    samples = {"a": samples_of(np.arange(100), np.arange(1, 101)), "b": samples_of(np.arange(20), np.full(20, 500.0))}
    value = rows_of("steady", runs, samples)["steady.p90"].values["savedmodel"]
    assert (value.value, value.n, value.value_from, value.ci_from) == (90.0, 1, "runs", "samples")
    assert 80 < value.ci[0] < 90 < value.ci[1] <= 100
    assert value.samples == 120


def test_a_share_is_not_thought_to_be_over_100_percent():
    runs = [run_of("steady", str(share), numbers={"failed_percent": share}) for share in (5.0, 100.0)]
    rows = {row.key: row.values["savedmodel"] for row in rows_of("steady", runs, {}).values()}
    assert rows["steady.failed_percent"].ci[1] == 100


def capacity_row(rate: float | None, valid: bool = True) -> Metric:
    value = Value(rate, None, 1, [rate], valid=valid)
    none = Value(None, None, 0, [])
    values = {"savedmodel": value, "torchserve": none}
    return Metric("capacity.images_per_s", "capacity", "capacity", "", "images/s", "higher", "", values, {})


PRICE = """instances:
  - {name: one, provider: Own, region: here, vcpus: 4, memory_gib: 4, usd_per_hour: 3.6, dated: 2026-01-01,
     source: "https://example.org/prices"}
"""


def test_cost_is_told_at_capacity_with_the_runs_own_prices(tmp_path):
    (tmp_path / "prices.yaml").write_text(PRICE)
    found = capacity_costs(capacity_row(100.0), [capacity_row(100.0)], bare_record(tmp_path, [0, 1]))
    assert [(row.instance, row.usd_per_million) for row in found["savedmodel"]] == [("one", pytest.approx(5.0))]
    assert found["torchserve"] == []


def memory_row(mib: float) -> Metric:
    values = {engine: Value(mib, None, 2, [mib - 1, mib]) for engine in ("savedmodel", "torchserve")}
    return Metric("steady.rss_peak_mib", "steady", "steady", "", "MiB", "lower", "", values, {})


@pytest.mark.parametrize(("mib", "enough"), [(2047.0, True), (2049.0, False)])
def test_a_machine_has_memory_enough_by_the_peak_of_the_servers(tmp_path, mib, enough):
    (tmp_path / "prices.yaml").write_text(PRICE)  # four vCPUs and 4 GiB: two such studies of two cores
    metrics = [memory_row(mib), capacity_row(100.0)]
    (found,) = capacity_costs(metrics[1], metrics, bare_record(tmp_path, [0, 1]))["savedmodel"]
    assert found.memory_enough is enough


def test_memory_of_another_variant_says_nothing_and_that_of_the_probes_does(tmp_path):
    (tmp_path / "prices.yaml").write_text(PRICE)
    other = replace(memory_row(9000.0), group="steady[gRPC]", key="steady[gRPC].rss_peak_mib")
    rate = capacity_row(100.0)
    (found,) = capacity_costs(rate, [other, rate], bare_record(tmp_path, [0, 1]))["savedmodel"]
    assert found.memory_enough is None
    cell = Cell(0, "capacity", "savedmodel", replicas=1, repetition=1, seed=0)
    folder = tmp_path / "cells" / cell.id
    (folder / "probe-01").mkdir(parents=True)
    use = folder / "probe-01" / "use.json"
    for peak, enough in ((2**31, True), (2**31 + 4096, False), (None, None)):
        use.write_text(json.dumps({"end": {"rss_peak_bytes": peak}}))
        record = bare_record(tmp_path, [0, 1], [CellRecord(folder, cell, None, [], None, None)])
        (found,) = capacity_costs(rate, [other, rate], record)["savedmodel"]
        assert found.memory_enough is enough


def test_there_is_no_cost_without_a_capacity_that_may_be_quoted(tmp_path):
    record = bare_record(tmp_path, [0])
    assert figures_of("capacity", ENGINES, [], [], record).cost == {}
    rate = replace(capacity_row(100.0, valid=False), key="capacity.crossing_images_per_s")
    assert figures_of("capacity", ENGINES, [], [rate], record).cost["capacity"]["savedmodel"] == []


def test_a_split_is_the_mean_over_runs_and_tells_its_notes_once(tmp_path, monkeypatch):
    cells = []
    for name, sent_ms in (("a", 1.0), ("b", 3.0)):
        scheduled_s = np.arange(10) / 10
        sent = 5_000_000_000_000 + ((scheduled_s + sent_ms / 1000) * 1e9).astype(np.int64)
        write_samples(tmp_path / name, scheduled_s, np.full(10, 0.02), sent_ns=sent)
        (tmp_path / name / "metrics.parquet").touch()
        path = tmp_path / name
        begun = {"started_at": "2026-01-01T00:00:00+00:00", "warmup_s": 2.5}
        summary = SummaryFile(valid=True, reasons=[], **begun) if name == "a" else None
        own = SimpleNamespace(id=name, engine="savedmodel")
        files = {"samples_path": path / "samples.parquet", "metrics_path": path / "metrics.parquet"}
        cells.append(SimpleNamespace(path=path, **files, summary=summary, slices=None, cell=own))
    told = ServerTimes(requests=10, total_ms=12.0, inference_ms=10.0, notes=("No queue is told.",))
    since = []
    monkeypatch.setattr(latency_split, "server_times", lambda *_, since_unix_ms: since.append(since_unix_ms) or told)
    found = mean_splits({"savedmodel": cells, "torchserve": []})
    assert since == [1_767_225_602_500, None]  # the servers' means leave the warm-up out too, where its end is known
    parts = {row.part: row.ms for row in found["savedmodel"].parts}
    assert parts["generator lag"] == pytest.approx(2.0, abs=1e-6)
    assert parts["inference"] == 10.0
    assert parts["server queue"] is None
    assert sum(ms for ms in parts.values() if ms is not None) == pytest.approx(20.0, abs=1e-6)
    assert found["savedmodel"].notes.count("No queue is told.") == 1
    assert found["savedmodel"].mean_ms == pytest.approx(20.0, abs=1e-6)
    assert found["torchserve"] == Parts(mean_ms=None, parts=[], notes=[])


def test_parts_that_one_run_does_not_know_are_in_the_rest_of_all_so_that_they_add_up(tmp_path, monkeypatch):
    cells = []
    for name in ("a", "b"):
        write_samples(tmp_path / name, np.arange(10) / 10, np.full(10, 0.02 if name == "a" else 0.04))
        own = SimpleNamespace(id=name, engine="savedmodel")
        files = {"samples_path": tmp_path / name / "samples.parquet", "metrics_path": tmp_path / name}
        cells.append(SimpleNamespace(path=tmp_path / name, **files, summary=None, slices=None, cell=own))
    told = {
        "a": ServerTimes(requests=10, total_ms=12.0, queue_ms=1.0, inference_ms=10.0),
        "b": ServerTimes(requests=10, total_ms=30.0, inference_ms=25.0),
    }
    monkeypatch.setattr(latency_split, "server_times", lambda _, path, since_unix_ms: told[path.name])
    found = mean_splits({"savedmodel": cells})["savedmodel"]
    parts = {row.part: row.ms for row in found.parts}
    assert (parts["server queue"], parts["inference"]) == (None, 17.5)
    assert found.mean_ms == pytest.approx(30.0, abs=1e-6)
    assert sum(ms for ms in parts.values() if ms is not None) == pytest.approx(found.mean_ms)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"images": np.zeros(3, np.int16)}, "request without images|request of 0 images"),
        ({"done_ns": np.array([1, 2, 3])}, "reply from before its request"),
        ({"warmup": pa.array([True, None, False])}, "gaps in its column warmup"),
        ({"scheduled_ns": pa.array(["a", "b", "c"])}, "has string in its column scheduled_ns"),
    ],
)
def test_samples_that_were_edited_are_named(tmp_path, columns, told):
    write_samples(tmp_path, np.arange(3.0), np.full(3, 0.01), **columns)
    with pytest.raises(StudyError, match=told):
        read_samples(tmp_path / "samples.parquet")


def test_plain_strings_for_outcomes_are_read_too(tmp_path):
    write_samples(tmp_path, np.arange(3.0), np.full(3, 0.01), outcome=pa.array(["ok", "timeout", "ok"]))
    assert read_samples(tmp_path / "samples.parquet").ok.tolist() == [True, False, True]


def test_loads_of_warm_up_alone_have_no_samples_and_still_a_report(tmp_path):
    run = make_run(tmp_path)
    for folder in (run / "cells").glob("*-steady-*"):
        write_samples(folder, np.arange(9.0), np.full(9, 0.01), warmup_s=100.0)
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps({**summary, "scheduled": 0}))
    results, page = write_report(run)
    assert "Latency over time, Bursty load" in page.read_text()
    assert "Latency over time, Steady load" not in page.read_text()
    assert results.metric("steady.p50").values["savedmodel"].value is None
    assert results.figures.spectrum["steady"]["savedmodel"] == []
