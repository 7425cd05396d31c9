"""A study on a made-up machine that others use: what it keeps, repeats and counts, and when it ends early."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from servestorm.analysis.results import compute
from servestorm.errors import StudyError, StudyInvalid
from servestorm.plan.study_plan import parse_plan
from servestorm.rundir.record import read_run
from servestorm.study import runner
from tests.source_tree import STAND_INS
from tests.stand_ins.made_up_machine import QUIET, MadeUpMachine
from tests.stand_ins.toy_engine import toy_engines, toy_generator, toy_plan

pytestmark = pytest.mark.usefixtures("built_in_scraper")

BUSY = (0.74, 0.0)
STOLEN = (0.0, 0.12)
STEADY = {"cold_starts": 0, "scaling": None, "design": "blocks"}
"""Six loads, one after the other: three of each engine."""
ONE = {**STEADY, "engines": ["savedmodel"]}
CAPACITY = {"p99_ms": 20, "start_rate_per_s": 100, "probe_s": 8, "warmup_s": 0, "tolerance_percent": 20}
SEARCH = {**ONE, "steady": None, "capacity": CAPACITY}
CPUS = {"engine": [min(os.sched_getaffinity(0))], "generator": [max(os.sched_getaffinity(0))]}


@pytest.fixture
def study(tmp_path, model, monkeypatch):
    """Makes a Study on a made-up machine."""

    def make(*watches, resume=None, generator="valid", **changes):
        monkeypatch.setattr(runner, "ENGINES", toy_engines())
        text = toy_plan(model, cpus=CPUS, **changes)
        stand_ins = {"generator": toy_generator(generator), "machine": MadeUpMachine(*watches)}
        return runner.Study(parse_plan(text, "plan"), text, tmp_path / "runs", resume=resume, **stand_ins)

    return make


def loads_of(path):
    return [cell for cell in read_run(path).cells if cell.cell.scenario != "coldstart"]


def test_every_load_and_every_timed_start_keeps_what_the_machine_did_second_by_second(study):
    record = read_run(study(QUIET, (0.0, 0.04), engines=["savedmodel"], scaling=None).carry_out())
    start, *loads = record.cells
    assert start.cell.scenario == "coldstart"
    assert {second.steal_share for second in start.machine()} == {0.0}
    for load in loads:
        assert load.machine()
        assert {(second.steal_share, second.other_share) for second in load.machine()} == {(0.04, 0.0)}


def test_a_disturbed_run_is_shown_and_counts_for_nothing(study):
    results = compute(read_run(study(QUIET, QUIET, BUSY, QUIET, QUIET, QUIET, **STEADY).carry_out()))
    (disturbed,) = [run for run in results.runs if not run.counts]
    assert (disturbed.valid, disturbed.disturbed.cause) == (True, "other_load")
    assert disturbed.disturbed.reason == "other programs used 74 % of the study's cores"
    assert disturbed.numbers["p50"] is not None
    row = results.metric("steady.p50")
    assert row.values[disturbed.engine].n == 2 and row.values[disturbed.engine].counts
    sentence = "1 of 6 runs is DISTURBED (at worst, other programs used 74 % of the study's cores) and left out"
    assert sentence in " ".join(results.notes)
    assert results.unanswered() == []


def test_a_disturbed_load_is_offered_again_and_the_attempt_keeps_its_own_seconds(study):
    path = study(BUSY, QUIET, load_attempts=2, **ONE).carry_out()
    first, *others = loads_of(path)
    assert [len(cell.attempts) for cell in (first, *others)] == [1, 0, 0]
    (attempt,) = first.attempts
    assert {second.other_share for second in attempt.machine()} == {0.74}
    assert {second.other_share for second in first.machine()} == {0.0}
    results = compute(read_run(path))
    assert all(run.counts for run in results.runs)
    assert any(note.startswith("1 attempt at a load was DISTURBED") for note in results.notes)
    assert not any("INVALID" in note for note in results.notes)


def test_a_load_is_offered_no_oftener_than_the_plan_says_and_the_last_attempt_stands(study):
    path = study(QUIET, BUSY, BUSY, BUSY, QUIET, load_attempts=3, **ONE).carry_out()
    assert [cell.repeats for cell in loads_of(path)] == [0, 2, 0]
    assert [bool(run.disturbed) for run in compute(read_run(path)).runs] == [False, True, False]


def test_where_the_first_load_of_every_engine_is_disturbed_the_study_ends_with_cause_and_remedy(study):
    made = study(STOLEN, load_attempts=2, **STEADY)
    with pytest.raises(StudyInvalid, match=r"the first run under load of every engine was DISTURBED") as raised:
        made.carry_out()
    assert "took 12 % of the study's cores for other machines (steal); the limit is 5 %" in str(raised.value)
    assert "use a machine with cores of its own" in str(raised.value)
    assert raised.value.exit_code == 4
    record = read_run(made.path)
    assert (record.study.state, len(record.cells)) == ("failed", 2)
    assert {cell.cell.engine for cell in record.cells} == {"savedmodel", "torchserve"}
    assert [cell.repeats for cell in record.cells] == [1, 1]
    assert [run.disturbed.cause for run in compute(record).runs] == ["steal", "steal"]


def test_one_engine_whose_first_load_was_quiet_lets_the_study_go_on(study):
    results = compute(read_run(study(STOLEN, QUIET, STOLEN, **STEADY).carry_out()))
    assert len(results.runs) == 6
    assert sum(run.counts for run in results.runs) == 1


def test_disturbed_cold_starts_alone_end_no_study_and_leave_the_question_open(study):
    results = compute(read_run(study(BUSY, steady=None, scaling=None, engines=["savedmodel"]).carry_out()))
    assert [run.disturbed.cause for run in results.runs] == ["other_load"]
    assert results.unanswered() == [("coldstart", "savedmodel")]
    assert results.metric("coldstart.total_s").values["savedmodel"].disturbed


def test_a_plan_may_set_other_limits_or_none(study):
    for disturbance in ({"other_percent": 80}, {"other_percent": 100, "steal_percent": 1}, "ignored"):
        results = compute(read_run(study(BUSY, disturbance=disturbance, **ONE).carry_out()))
        assert all(run.counts for run in results.runs)
        assert ("grave", "other_load") in [(doubt.severity, doubt.kind) for doubt in results.doubts]
    with pytest.raises(StudyInvalid, match="the limit is 2 %"):
        study((0.03, 0.0), disturbance={"other_percent": 2}, **ONE).carry_out()


def test_a_stopped_study_may_go_on_and_count_what_was_disturbed(study):
    first = study(BUSY, **STEADY)
    with pytest.raises(StudyInvalid):
        first.carry_out()
    record = read_run(first.path)
    with pytest.raises(StudyError, match="does not give the study that was begun"):
        study(QUIET, resume=record, disturbance={"other_percent": 90}, **STEADY)
    assert study(BUSY, resume=record, disturbance="ignored", **STEADY).carry_out() == first.path
    results = compute(read_run(first.path))
    assert results.state == "complete"
    assert [run.counts for run in results.runs] == [True] * 6


def test_a_disturbed_probe_decides_nothing(study):
    record = read_run(study(QUIET, BUSY, QUIET, generator="queue", **SEARCH).carry_out())
    verdicts = [probe.verdict for probe in record.cells[0].capacity.probes]
    assert verdicts[:3] == ["pass", "disturbed", "pass"]
    assert record.cells[0].capacity.probes[1].reason == "other programs used 74 % of the study's cores"
    rates = [probe.rate_per_s for probe in record.cells[0].capacity.probes]
    assert rates[1] == rates[2]
    assert all(run.counts for run in compute(record).runs)


def test_a_capacity_that_a_disturbed_rate_limits_is_disturbed(study):
    quiet_below = [QUIET, QUIET, BUSY, BUSY, QUIET, QUIET, QUIET]
    text = {**SEARCH, "capacity": {**CAPACITY, "tolerance_percent": 50}}
    results = compute(read_run(study(*quiet_below, generator="queue", **text).carry_out()))
    search = results.runs[0].capacity
    assert search.high is not None and search.confirmed
    assert "DISTURBED twice (other programs used 74 % of the study's cores)" in search.reason
    assert not results.runs[0].counts and results.runs[0].valid
    assert all(run.counts for run in results.runs[1:])


def test_a_search_on_a_machine_that_is_never_quiet_ends_after_two_probes(study):
    made = study(BUSY, **SEARCH)
    with pytest.raises(StudyInvalid):
        made.carry_out()
    (cell,) = read_run(made.path).cells
    assert [probe.verdict for probe in cell.capacity.probes] == ["disturbed", "disturbed"]


def test_a_disturbed_load_of_a_sweep_is_marked_and_never_on_the_front(study):
    sweep = {"max_batch_size": [1], "timeout_us": [100], "concurrency": [1, 4], "duration_s": 8, "warmup_s": 0}
    results = compute(read_run(study(QUIET, BUSY, **{**ONE, "steady": None, "sweep": sweep}).carry_out()))
    quiet, busy = results.figures.sweep["sweep"]["savedmodel"]
    assert (quiet.disturbed, quiet.front, busy.disturbed, busy.front) == (False, True, True, False)
    assert busy.images_per_s is not None
    assert results.runs[0].counts


def test_servers_that_ran_already_are_no_other_programs(study):
    plan = {"backend": "attach", "attach": {"savedmodel": {"rest": "http://127.0.0.1:9"}}, "engines": ["savedmodel"]}
    text = json.dumps({"name": "a", "steady": {"rate_per_s": 1, "duration_s": 1}, **plan})
    limits = parse_plan(text, "plan").disturbance_limits
    assert (limits.other_percent, limits.steal_percent) == (float("inf"), 5.0)


def test_what_this_machine_does_is_no_fact_of_a_load_from_a_cluster():
    text = "name: a\nengines: [savedmodel]\nbackend: kubernetes\nload_from: cluster\n"
    assert parse_plan(text, "plan").disturbance_limits is None


# as a process of its own --------------------------------------------------------------------------------------------


def run_verb(folder, plan: str, machine: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "plan.yaml").write_text(plan)
    command = [sys.executable, str(STAND_INS / "toy_engine.py"), "answer", "valid", "run", *options]
    environment = {**os.environ, "TOY_MACHINE": machine}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False, env=environment
    )


def test_a_study_says_what_it_sees_of_the_machine_before_it_begins(tmp_path, model):
    done = run_verb(tmp_path, toy_plan(model, cpus=CPUS, **ONE), "0.02,0.01", "plan.yaml")
    assert done.returncode == 0, done.stderr
    assert "machine, over 1 s: other programs used 2 % of core" in done.stderr
    assert (
        "the hypervisor took 1 % (steal), 6.0 of 8.0 GiB of memory are available, 0.0 GiB are in swap." in done.stderr
    )
    assert "not quiet" not in done.stderr
    assert done.stderr.index("machine, over") < done.stderr.index("steady load 1 of 3")


def test_a_machine_that_is_not_quiet_ends_with_4_and_may_be_ignored(tmp_path, model):
    plan = toy_plan(model, cpus=CPUS, **ONE)
    done = run_verb(tmp_path, plan, "0.74,0", "plan.yaml")
    assert done.returncode == 4, done.stderr
    assert "This machine is not quiet: other programs used 74 % of the study's cores" in done.stderr
    assert "servestorm: the first run under load of every engine was DISTURBED" in done.stderr
    assert "1 of 3 runs are complete" in done.stdout and "Traceback" not in done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    again = run_verb(tmp_path, plan, "0.74,0", "--resume", run.name, "--ignore-disturbance")
    assert again.returncode == 0, again.stderr
    assert json.loads((run / "study.json").read_text())["plan"]["disturbance"] == "ignored"
    whole = run_verb(tmp_path, plan, "0.74,0", "plan.yaml", "--ignore-disturbance")
    assert whole.returncode == 0, whole.stderr


def test_where_only_disturbed_runs_are_left_the_exit_code_is_4_and_the_sentence_names_the_cause(tmp_path, model):
    plan = toy_plan(model, cpus=CPUS, scaling=None, steady=None, engines=["savedmodel"])
    done = run_verb(tmp_path, plan, "0,0.4", "plan.yaml")
    assert done.returncode == 4, done.stderr
    sentence = "servestorm: every run was DISTURBED of: cold start of savedmodel (the hypervisor took 40 % of"
    assert sentence in done.stderr
    assert "no valid run of" not in done.stderr
