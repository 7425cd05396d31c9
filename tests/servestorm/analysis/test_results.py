"""From a run directory to its numbers: known samples give known results."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from servestorm.analysis.results import compute
from servestorm.analysis.run_numbers import measure
from servestorm.errors import StudyError
from servestorm.report import page, result_table, sentences
from servestorm.report.markdown import markdown
from servestorm.rundir.counted_samples import read_counted_samples
from servestorm.rundir.record import read_run
from servestorm.rundir.samples import read_samples
from tests.stand_ins.synthetic_run import make_run, write_samples


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path)


def cell(run, part: str):
    return sorted(folder for folder in (run / "cells").iterdir() if part in folder.name)[0]


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_latency_runs_from_the_scheduled_time_and_leaves_warm_up_and_failures_out(tmp_path):
    scheduled_s = np.array([0.0, 1.0, 2.0, 3.0])
    outcome = pa.array(["ok", "ok", "timeout", "ok"]).dictionary_encode()
    done = pa.array([5_000_000_000_000 + n for n in (10**7, 1_020_000_000)] + [None, 5_003_040_000_000], pa.int64())
    write_samples(tmp_path, scheduled_s, scheduled_s, warmup_s=0.5, outcome=outcome, done_ns=done)
    samples = read_samples(tmp_path / "samples.parquet")
    assert samples.image_latency_ms.tolist() == pytest.approx([20.0, 40.0])
    assert samples.ok.tolist() == [True, False, True]
    assert samples.images_with_warmup == 3


def test_latency_is_told_per_image(tmp_path):
    write_samples(tmp_path, np.array([0.0]), np.array([0.08]), images=np.array([8], np.int16))
    assert read_samples(tmp_path / "samples.parquet").image_latency_ms.tolist() == pytest.approx([10.0])


def test_nanoseconds_survive_a_long_uptime(tmp_path):
    start = 2**60  # 36 years: a double would be 128 ns off
    columns = {"scheduled_ns": np.array([start]), "done_ns": np.array([start + 1_000_001])}
    write_samples(tmp_path, np.array([0.0]), np.array([0.0]), **columns)
    assert read_samples(tmp_path / "samples.parquet").image_latency_ms[0] == pytest.approx(1.000001, abs=1e-9)


def test_throughput_lasts_until_the_last_answer(tmp_path):
    write_samples(tmp_path, np.array([0.0, 1.0]), np.array([0.5, 3.0]))
    assert read_samples(tmp_path / "samples.parquet").images_per_s(2.0) == pytest.approx(2 / 4.0)


def test_a_percentile_is_a_sample_of_each_run_and_the_figure_is_their_mean(whole):
    results = compute(read_run(whole))
    value = results.metric("steady.p95").values["savedmodel"]
    runs = [r for r in results.runs if r.scenario == "steady" and r.engine == "savedmodel"]
    latencies = [np.sort(read_samples(whole / "cells" / r.id / "samples.parquet").image_latency_ms) for r in runs]
    assert value.runs == [own[int(np.ceil(0.95 * own.size)) - 1] for own in latencies]
    assert value.value == pytest.approx(np.mean(value.runs))
    assert value.sd == pytest.approx(np.std(value.runs, ddof=1))
    assert value.samples == sum(own.size for own in latencies)
    assert value.value_from == "runs"


def test_a_percentile_that_no_run_has_answers_enough_for_is_of_all_together_and_is_not_judged(run):
    for folder in (run / "cells").glob("*-steady-*"):
        write_samples(folder, np.arange(300) / 10, np.linspace(0.001, 0.3, 300))
    results = compute(read_run(run))
    value = results.metric("steady.p99").values["savedmodel"]
    # of 900 latencies, three of each, the 891st
    assert value.value == pytest.approx(297.0, abs=0.01)
    assert (value.value_from, value.ci_from, value.n, value.sd) == ("samples", "samples", 0, None)
    assert value.runs == [None, None, None]
    judged = next(one for one in results.verdicts if one.metric == "steady.p99")
    assert (judged.verdict.outcome, judged.verdict.difference_percent) == ("inconclusive", None)
    (told,) = [text for text in sentences.summary(results) if "steady load, p99" in text]
    assert "Of savedmodel and TorchServe this is a percentile of all runs' answers together" in told


def test_figures_of_different_kinds_have_no_ratio(run):
    for folder in (run / "cells").glob("*-steady-savedmodel-*"):
        write_samples(folder, np.arange(300) / 10, np.linspace(0.001, 0.3, 300))
    metric = compute(read_run(run)).metric("steady.p99")
    assert [metric.values[engine].value_from for engine in ("savedmodel", "torchserve")] == ["samples", "runs"]
    assert metric.times_as_much() is None


def test_latencies_are_told_per_image_where_a_request_holds_several(run):
    assert " ms per image on " not in " ".join(sentences.summary(compute(read_run(run))))
    for folder in (run / "cells").glob("*-steady-*"):
        write_samples(folder, np.arange(800) / 70, np.linspace(0.01, 0.1, 800), images=np.full(800, 8, np.int16))
    results = compute(read_run(run))
    told = [text for text in sentences.summary(results) if "teady load" in text]
    assert len(told) == 2
    assert all(text.count(" ms per image on ") == 2 for text in told)
    units = {row.term: row.unit for card in result_table.cards(results) for row in card.rows}
    assert units["p99, steady load"] == "ms per image"
    assert units["p99, bursty load"] == "ms"


def test_a_percentile_of_too_few_samples_is_none(run):
    for folder in (run / "cells").glob("*-steady-savedmodel-*"):
        write_samples(folder, np.arange(100) / 10, np.full(100, 0.004))
    metric = compute(read_run(run)).metric("steady.p99")
    assert metric.values["savedmodel"].value is None
    assert metric.values["torchserve"].value is not None
    assert metric.p["savedmodel|torchserve"] is None


def test_invalid_runs_are_shown_and_left_out(run):
    folder = cell(run, "steady-savedmodel")
    edit(folder / "summary.json", valid=False, reasons=["3 answers were wrong"])
    results = compute(read_run(run))
    assert results.metric("steady.mean_ms").values["savedmodel"].n == 2
    shown = next(r for r in results.runs if r.id == folder.name)
    assert (shown.valid, shown.reasons, shown.counts) == (False, ["3 answers were wrong"], False)
    assert shown.numbers["p50"] is not None
    assert "1 of 26 runs is INVALID" in " ".join(results.notes)


def test_a_scenario_without_a_run_that_counts_is_an_open_question(run):
    for folder in (run / "cells").glob("*-bursty-torchserve-*"):
        edit(folder / "summary.json", valid=False)
    results = compute(read_run(run))
    assert results.unanswered() == [("bursty", "torchserve")]
    shown = results.metric("bursty.p50")
    assert (shown.values["torchserve"].valid, shown.values["savedmodel"].valid) == (False, True)
    assert shown.values["torchserve"].value > 0
    assert shown.p["savedmodel|torchserve"] is None
    assert sentences.better(results, shown) is None
    assert not any("11." in sentence for sentence in sentences.summary(results) if "bursty" in sentence)


def test_a_cell_that_was_killed_or_interrupted_is_not_counted(run):
    (cell(run, "steady-savedmodel") / "outcome.json").unlink()
    edit(cell(run, "bursty-savedmodel") / "outcome.json", state="interrupted", reason="interrupted")
    results = compute(read_run(run))
    states = sorted(r.state for r in results.runs if r.state != "complete")
    assert states == ["interrupted", "unfinished"]
    assert "24 of 26 runs are complete" in " ".join(results.notes)


def test_cold_start_phases_add_up_to_the_whole(whole):
    results = compute(read_run(whole))
    for run in (r for r in results.runs if r.scenario == "coldstart"):
        assert sum(run.phases_s.values()) == pytest.approx(run.numbers["to_steady_s"])
        assert run.numbers["to_steady_s"] - run.phases_s["steady"] == pytest.approx(run.numbers["total_s"])
    assert results.metric("coldstart.ready_s").values["torchserve"].value == pytest.approx(6.2, abs=0.5)


def test_a_phase_without_its_event_is_none(run):
    folder = cell(run, "coldstart-savedmodel")
    events = json.loads((folder / "events.json").read_text())
    (folder / "events.json").write_text(json.dumps([e for e in events if e["name"] != "ready"]))
    found = next(r for r in compute(read_run(run)).runs if r.id == folder.name)
    assert found.phases_s["ready"] is None
    assert found.phases_s["first_right_answer"] is None
    assert found.numbers["total_s"] is not None


def test_the_scaling_factor_is_the_ratio_of_one_repetitions_throughputs(whole):
    results = compute(read_run(whole))
    one = results.metric("scaling.images_per_s_x1").values["savedmodel"].value
    two = results.metric("scaling.images_per_s_x2").values["savedmodel"].value
    assert results.metric("scaling.factor_x2").values["savedmodel"].value == pytest.approx(two / one)


def test_cpu_an_image_counts_the_warm_ups_images_too(run):
    folder = cell(run, "steady-savedmodel")
    write_samples(folder, np.arange(40) / 10, np.full(40, 0.004), warmup_s=2.0)
    edit(folder / "use.json", ready={"cpu_s": 1.0}, end={"cpu_s": 1.2})
    found = next(r for r in compute(read_run(run)).runs if r.id == folder.name)
    assert found.numbers["cpu_ms_per_image"] == pytest.approx(200 / 40)
    assert found.numbers["rss_peak_mib"] is None


def test_results_are_json_without_nan(whole):
    text = json.dumps(compute(read_run(whole)).as_json(), allow_nan=False)
    assert json.loads(text)["metrics"][0]["key"] == "coldstart.total_s"


def test_the_same_directory_gives_the_same_results(whole):
    assert compute(read_run(whole)) == compute(read_run(whole))


def test_a_single_run_gives_no_deviation_and_no_p(whole):
    metric = compute(read_run(whole)).metric("scaling.images_per_s_x1")
    assert metric.values["savedmodel"].sd is None
    assert metric.p["savedmodel|torchserve"] is None


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("study.json", "{", "study.json is not JSON"),
        ("study.json", '{"schema_version": 99}', "is of version 99"),
        ("environment.json", None, "environment.json does not exist"),
    ],
)
def test_a_broken_run_directory_is_named(run, name, content, told):
    (run / name).unlink() if content is None else (run / name).write_text(content)
    with pytest.raises(StudyError, match=told):
        compute(read_run(run))


def test_a_cut_sample_file_is_named(run):
    path = cell(run, "steady-savedmodel") / "samples.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StudyError, match=r"samples\.parquet is no whole file"):
        compute(read_run(run))


def test_a_judged_metric_is_better_only_by_its_verdict(whole):
    results = compute(read_run(whole))
    metric = results.metric("steady.p50")
    assert sentences.better(results, metric) == "savedmodel"
    assert "savedmodel" in next(text for text in sentences.summary(results) if text.startswith("Under steady load"))
    doubtful = [replace(j, verdict=replace(j.verdict, outcome="inconclusive", reason="So.")) for j in results.verdicts]
    results = replace(results, verdicts=doubtful)
    assert sentences.better(results, metric) is None
    assert sentences.summary(results)[0].endswith("So.")


def test_a_difference_in_another_metric_is_called_real_only_under_five_percent(whole):
    results = compute(read_run(whole))
    metric = results.metric("steady.mean_ms")
    assert sentences.better(results, metric) == "savedmodel"
    metric.p["savedmodel|torchserve"] = 0.06
    assert sentences.better(results, metric) is None


def test_savedmodel_is_never_called_tensorflow_serving(whole):
    results = compute(read_run(whole))
    text = " ".join([sentences.title(results), *sentences.summary(results), *sentences.doubts(results)])
    assert "TensorFlow Serving" not in text


def test_artifacts_that_are_not_proved_equal_are_the_first_doubt(tmp_path):
    results = compute(read_run(make_run(tmp_path, parity="NOT PROVED EQUAL")))
    assert sentences.doubts(results)[0].startswith("NOT PROVED EQUAL: no images were given")
    assert sentences.parity_text(results.models[0]) == "NOT PROVED EQUAL"


def test_an_engine_that_cannot_keep_up_with_the_load_is_named(run):
    for folder in (run / "cells").glob("*-steady-torchserve-*"):
        write_samples(folder, np.arange(960) / 80, np.linspace(0, 4, 960))
    told = sentences.summary(compute(read_run(run)))
    assert any(sentence.startswith("Did not keep up with 80.0 images/s") for sentence in told)
    assert not any("savedmodel (" in sentence for sentence in told)


def put_gpus(run, *gpus):
    """Every run under steady load was watched, with such GPUs."""
    keys = ("name", "energy_j", "utilisation_percent", "memory_bytes")
    told = [dict(zip(keys, gpu, strict=True)) for gpu in gpus]
    for folder in (run / "cells").glob("*-steady-*"):
        edit(folder / "use.json", watch={"elapsed_s": 14.0, "gpus": told})


def test_gpus_are_rows_of_energy_an_image_utilisation_and_memory(run, monkeypatch):
    put_gpus(run, ("a", 100.0, 50.0, 2**30), ("b", 12.0, 20.0, 2**29))
    results = compute(read_run(run))
    images = 80 * 14  # the warm-up's too
    shown = {name: results.metric(f"steady.{name}") for name in ("gpu_j_per_image", "gpu_percent", "gpu_memory_mib")}
    assert {name: (row.values["savedmodel"].value, row.unit) for name, row in shown.items()} == {
        "gpu_j_per_image": (pytest.approx(112.0 / images), "J per image"),
        "gpu_percent": (35.0, "%"),
        "gpu_memory_mib": (1536.0, "MiB"),
    }
    assert results.metric("bursty.gpu_j_per_image") is None
    monkeypatch.setattr(page, "SECTIONS", ())
    text = markdown(page.page_of(results))
    assert "energy of the machine's GPUs" in text and "memory of the machine's GPUs at the end" in text


def test_a_figure_that_one_gpu_does_not_tell_is_left_out(run):
    put_gpus(run, ("a", 100.0, None, 2**30), ("b", None, 20.0, 2**29))
    results = compute(read_run(run))
    assert results.metric("steady.gpu_j_per_image") is None and results.metric("steady.gpu_percent") is None
    assert results.metric("steady.gpu_memory_mib").values["torchserve"].value == 1536.0


def test_without_a_gpu_there_is_no_row(whole):
    assert not [metric.key for metric in compute(read_run(whole)).metrics if "gpu" in metric.key]


@pytest.mark.parametrize("changes", [{"backend": "attach"}, {"backend": "kubernetes"}, {"load_from": "cluster"}])
def test_gpus_of_a_machine_that_the_servers_may_not_be_on_are_not_theirs(run, changes):
    put_gpus(run, ("a", 100.0, 50.0, 2**30))
    record = read_run(run)
    study = record.study.model_copy(update={"plan": record.study.plan.model_copy(update=changes)})
    cell = next(cell for cell in record.cells if cell.cell.scenario == "steady")
    samples = read_counted_samples(record.cells, record.study.plan)[cell.cell.id]
    assert measure(cell, record.study, samples).numbers["gpu_percent"] == 50.0
    assert "gpu_percent" not in measure(cell, study, samples).numbers


def test_an_edited_gpu_is_named_with_its_file(run):
    put_gpus(run, ("a", "much", 50.0, 2**30))
    with pytest.raises(
        StudyError, match=r"steady-\w+-\d/use\.json is not as servestorm wrote it \(watch\.gpus\.0\.ener"
    ):
        compute(read_run(run))


def test_every_run_under_load_is_audited_those_with_many_loads_too(run):
    busy = {"elapsed_s": 10.0, "cores": [0, 1], "steal_s": 0.5}
    edit(cell(run, "steady-savedmodel") / "use.json", watch=busy)
    folder = cell(run, "bursty-torchserve") / "load-02"
    folder.mkdir()
    (folder / "use.json").write_text(json.dumps({"end": {"t_ns": 5}, "watch": {**busy, "steal_s": 0.9}}))
    (steal,) = [doubt for doubt in compute(read_run(run)).doubts if doubt.kind == "steal"]
    assert len(steal.runs) == 2 and folder.parent.name in steal.runs
    assert steal.sentence.startswith("The hypervisor took 4 %") and steal.sentence.endswith(" 2 such runs of 16)")
