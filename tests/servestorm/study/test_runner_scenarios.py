"""Searches, sweeps, variants, objectives, dry runs and resumed studies, carried out with stand-ins."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import yaml

from servestorm.analysis.results import compute
from servestorm.errors import StudyError
from servestorm.plan.study_plan import parse_plan
from servestorm.rundir.owner import owned
from servestorm.rundir.record import read_run
from servestorm.study import runner
from serving.errors import DeploymentError
from tests.source_tree import STAND_INS
from tests.stand_ins.made_up_machine import MadeUpMachine
from tests.stand_ins.toy_engine import toy_engines, toy_generator, toy_plan

pytestmark = pytest.mark.usefixtures("built_in_scraper")

LOADS_OUT = {"steady": None, "scaling": None, "cold_starts": 0}
CAPACITY = {"p99_ms": 20, "start_rate_per_s": 100, "probe_s": 8, "warmup_s": 0, "tolerance_percent": 5}


@pytest.fixture
def study(tmp_path, model, monkeypatch):
    """Makes a Study on the stand-ins."""

    def make(server="answer", generator="valid", resume=None, **changes):
        monkeypatch.setattr(runner, "ENGINES", toy_engines(server))
        text = toy_plan(model, **{"engines": ["savedmodel"], **changes})
        stand_ins = {"generator": toy_generator(generator), "machine": MadeUpMachine()}
        return runner.Study(parse_plan(text, "plan"), text, tmp_path / "runs", resume=resume, **stand_ins)

    return make


def test_a_search_finds_the_rate_beyond_which_answers_are_late(study):
    record = read_run(study(**{**LOADS_OUT, "capacity": CAPACITY}).carry_out())
    results = compute(record)
    found = results.metric("capacity.images_per_s").values["savedmodel"]
    assert len(found.runs) == 3
    assert all(280 <= rate <= 300 for rate in found.runs)
    assert found.valid
    cell = record.cells[0]
    assert cell.capacity.confirmed
    # the generator of this test answers in 5 ms or in 100 ms: nothing between tells where p99 meets 20 ms
    assert results.runs[0].capacity.crossing is None
    assert len(cell.capacity.probes) == len(list(cell.path.glob("probe-*/samples.parquet")))


def test_the_searches_of_a_round_alternate_on_servers_that_stand_together(study):
    changes = {**LOADS_OUT, "capacity": CAPACITY, "engines": ["savedmodel", "torchserve"]}
    record = read_run(study(generator="queue", **changes).carry_out())
    for repetition in (1, 2, 3):
        round_ = [cell for cell in record.cells if cell.cell.repetition == repetition]
        assert all(cell.capacity.confirmed for cell in round_)
        begun = sorted(
            (event["t_ns"], cell.cell.engine)
            for cell in round_
            for event in json.loads((cell.path / "events.json").read_text())
            if event["name"] == "load_started"
        )
        fewest = min(len(cell.capacity.probes) for cell in round_)
        engines = [engine for _, engine in begun]
        assert all(set(engines[2 * n : 2 * n + 2]) == {"savedmodel", "torchserve"} for n in range(fewest))
    (judged,) = [one for one in compute(record).verdicts if one.metric == "capacity.crossing_images_per_s"]
    assert judged.verdict.paired
    assert judged.verdict.outcome == "A"


def test_where_p99_meets_the_objective_is_a_row_of_its_own_in_images(study):
    changes = {**LOADS_OUT, "capacity": CAPACITY, "images_per_request": 4}
    results = compute(read_run(study(generator="queue", **changes).carry_out()))
    # 4 ms / (1 - rate / 400) is 20 ms at 320 requests/s
    assert results.metric("capacity.crossing_images_per_s").values["savedmodel"].value == pytest.approx(
        4 * 320, rel=0.01
    )
    assert results.runs[0].capacity.crossing.rate_per_s == pytest.approx(320, rel=0.01)


def test_capacity_counts_images_and_not_requests(study):
    results = compute(read_run(study(**{**LOADS_OUT, "capacity": CAPACITY, "images_per_request": 4}).carry_out()))
    assert results.metric("capacity.images_per_s").values["savedmodel"].value == pytest.approx(4 * 290, rel=0.05)


def test_a_search_that_the_generator_limits_leaves_the_question_open(study):
    changes = {**LOADS_OUT, "capacity": {**CAPACITY, "most_probes": 4}}
    results = compute(read_run(study(generator="invalid", **changes).carry_out()))
    assert results.unanswered() == [("capacity", "savedmodel")]
    assert "generator" in results.runs[0].reasons[0]


def test_scaling_by_capacity_searches_at_every_count(study):
    scaling = {"replicas": [1, 2], "measure": "capacity", "duration_s": 1, "repetitions": 1}
    changes = {**LOADS_OUT, "capacity": CAPACITY, "scaling": scaling}
    results = compute(read_run(study(generator="queue", **changes).carry_out()))
    assert results.metric("scaling.factor_x2").values["savedmodel"].value == pytest.approx(1.0, abs=0.01)
    assert results.metric("scaling.efficiency_x2").values["savedmodel"].value == pytest.approx(50, abs=1)


def test_a_sweep_tries_every_setting_and_keeps_a_point_of_each(study):
    sweep = {"max_batch_size": [1, 8], "timeout_us": [100, 1000], "concurrency": [1, 4], "duration_s": 8, "warmup_s": 0}
    record = read_run(study(**LOADS_OUT, sweep=sweep).carry_out())
    settings = {(c.cell.max_batch_size, c.cell.timeout_us) for c in record.cells}
    assert settings == {(1, 0), (8, 100), (8, 1000)}  # without batching there is no wait
    results = compute(record)
    points = results.figures.sweep["sweep"]["savedmodel"]
    assert len(points) == 6
    assert any(point.front for point in points)
    assert results.unanswered() == []


def test_every_variant_is_a_group_of_its_own_and_sees_its_own_requests(study):
    path = study(scaling=None, protocol=["rest", "grpc"], images_per_request=[1, 8]).carry_out()
    results = compute(read_run(path))
    assert list(results.groups) == [
        "coldstart",
        "steady[REST, 1 image]",
        "steady[REST, 8 images]",
        "steady[gRPC, 1 image]",
        "steady[gRPC, 8 images]",
    ]
    eight = results.metric("steady[gRPC, 8 images].images_per_s")
    assert eight.values["savedmodel"].n == 3
    for folder in (path / "cells").glob("*-steady-*"):
        command = json.loads((folder / "generator.json").read_text())
        variant = int(folder.name.partition("-v")[2].partition("-")[0] or 0)
        sent = [command[command.index(name) + 1] for name in ("--protocol", "--images-per-request")]
        assert sent == [["rest", "1"], ["rest", "8"], ["grpc", "1"], ["grpc", "8"]][variant]


def test_cold_starts_without_the_server_s_warm_up_are_told_apart(study):
    results = compute(read_run(study(steady=None, scaling=None, server_warmup=[True, False]).carry_out()))
    assert list(results.groups.values()) == ["Cold start", "Cold start (without warm-up)"]
    assert results.metric("coldstart[without warm-up].total_s").values["savedmodel"].value > 0


def run_verb(folder, plan: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "plan.yaml").write_text(plan)
    command = [sys.executable, str(STAND_INS / "toy_engine.py"), "answer", "valid", "run", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("objective", "code", "told"),
    [
        (
            {"metric": "steady.p50", "at_most": 50},
            0,
            "the objective steady.p50 of at most 50 ms per image: it is",
        ),
        ({"metric": "steady.p50", "at_most": 1}, 1, "missed objectives: steady.p50 of savedmodel"),
        ({"metric": "steady.images_per_s", "at_least": 1e6}, 1, "missed objectives: steady.images_per_s of savedmodel"),
        ({"metric": "steady.p999", "at_most": 1}, 4, "objectives without a number: steady.p999 of savedmodel"),
    ],
)
def test_the_exit_code_says_whether_the_objectives_are_kept(tmp_path, model, objective, code, told):
    plan = toy_plan(model, engines=["savedmodel"], scaling=None, cold_starts=0, objectives=[objective])
    done = run_verb(tmp_path, plan, "plan.yaml")
    assert done.returncode == code, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert told in done.stderr + (run / "report.html").read_text()


def test_a_dry_run_tells_the_runs_and_the_time_and_starts_nothing(tmp_path, model):
    done = run_verb(tmp_path, toy_plan(model), "plan.yaml", "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 + 6 / 2 + 4 + 1
    assert "savedmodel and torchserve: steady load 1 of 3" in done.stdout
    assert lines[-1].startswith("12 runs, about ")
    assert not (tmp_path / "runs").exists()


def test_a_stopped_study_goes_on_where_it_stopped(study, tmp_path):
    first = study(server="answer", generator="refuse", scaling=None)
    with pytest.raises(StudyError, match="refuses its options"):
        first.carry_out()
    before = read_run(first.path)
    kept = {cell.cell.id: cell.outcome.started_at for cell in before.cells if cell.complete}
    assert len(kept) == 1  # the cold start
    second = study(scaling=None, resume=before)
    assert second.carry_out() == first.path
    after = read_run(first.path)
    assert after.study.state == "complete"
    assert len(after.study.resumed_at) == 1
    assert [cell.cell.id for cell in after.cells] == after.study.cells
    assert all(cell.complete for cell in after.cells)
    assert {c.cell.id: c.outcome.started_at for c in after.cells if c.cell.id in kept} == kept


def test_a_study_is_resumed_only_as_it_was_begun(study, model):
    first = study(server="crash", steady=None, scaling=None, cold_starts=3)
    with pytest.raises(DeploymentError):
        first.carry_out()
    record = read_run(first.path)
    with pytest.raises(StudyError, match="does not give the study that was begun"):
        study(steady=None, scaling=None, cold_starts=4, resume=record)
    manifest = json.loads((model / "manifest.json").read_text())
    (model / "manifest.json").write_text(json.dumps({**manifest, "created_at": "2026-02-02T00:00:00Z"}))
    with pytest.raises(StudyError, match=r"model toy is not what .* was begun with"):
        study(steady=None, scaling=None, cold_starts=3, resume=record).carry_out()


def test_a_whole_study_is_not_resumed(study):
    path = study(steady=None, scaling=None).carry_out()
    with pytest.raises(StudyError, match=r"is complete: draw it again with `servestorm report"):
        study(steady=None, scaling=None, resume=read_run(path))


def test_a_dry_run_of_a_run_that_goes_on_tells_what_is_left_or_that_nothing_is(tmp_path, model, study):
    whole = study(steady=None, scaling=None).carry_out()
    done = run_verb(tmp_path, toy_plan(model), "--resume", whole.name, "--dry-run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is complete: draw it again" in done.stderr
    part = study(generator="crash", scaling=None, repetitions=3).carry_out()
    done = run_verb(tmp_path, toy_plan(model), "--resume", part.name, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "\n3 runs, about" in done.stdout and "steady" in done.stdout and "cold start" not in done.stdout
    with owned(part):
        done = run_verb(tmp_path, toy_plan(model), "--resume", part.name, "--dry-run")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"in use by process {os.getpid()}" in done.stderr


def test_a_run_that_is_not_there_is_named_with_the_newest(tmp_path, model, study):
    path = study(steady=None, scaling=None).carry_out()
    done = run_verb(tmp_path, toy_plan(model), "--resume", "nothing")
    assert done.returncode == 2
    assert f"there is no run nothing in runs; the newest there: {path.name}." in done.stderr


def test_an_endpoint_that_runs_already_is_loaded_and_nothing_is_started(tmp_path, model):
    from serving.ports import free_ports

    (port,) = free_ports(1)
    server = subprocess.Popen([sys.executable, "-S", str(STAND_INS / "toy_server.py"), str(port), "answer"])
    try:
        attach = {"savedmodel": {"rest": f"http://127.0.0.1:{port}"}}
        plan = yaml.safe_load(toy_plan(model, engines=["savedmodel"], scaling=None, backend="attach", attach=attach))
        del plan["cold_starts"]
        done = run_verb(tmp_path, json.dumps(plan), "plan.yaml")
        assert done.returncode == 0, done.stderr
        assert server.poll() is None
    finally:
        server.kill()
        server.wait()
    (run,) = (tmp_path / "runs").iterdir()
    results = json.loads((run / "results.json").read_text())
    assert set(results["groups"]) == {"steady"}
    assert any("ran already" in note for note in results["notes"])
