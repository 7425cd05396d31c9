"""A study carried out with stand-ins for servers and generator: what is kept and what is left, whatever happens."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from servestorm.analysis.results import compute
from servestorm.errors import StudyError
from servestorm.plan.study_plan import parse_plan
from servestorm.rundir.owner import owned
from servestorm.rundir.record import read_run
from servestorm.study import runner, scraper
from serving import processes
from serving.errors import DeploymentError
from serving.orphans import OWNER_VARIABLE
from tests.source_tree import ROOT, STAND_INS
from tests.stand_ins.made_up_machine import MadeUpMachine
from tests.stand_ins.toy_engine import toy_engines, toy_generator, toy_plan, write_toy_model

WAIT_S = 60


@pytest.fixture(scope="module", autouse=True)
def built_in_scraper():
    """The stand-in servers have no metrics, for which a Prometheus would wait; it has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scraper, "_start_prometheus", lambda *_: None)
        yield


@pytest.fixture
def model(tmp_path) -> Path:
    return write_toy_model(tmp_path / "toy")


@pytest.fixture
def study(tmp_path, model, monkeypatch):
    """Makes a Study on the stand-ins."""

    def make(server="answer", generator="valid", **changes):
        monkeypatch.setattr(runner, "ENGINES", toy_engines(server))
        text = toy_plan(model, **changes)
        return runner.Study(
            parse_plan(text, "plan"), text, tmp_path / "runs", toy_generator(generator), machine=MadeUpMachine()
        )

    return make


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The run directory of a study that ran to its end."""
    folder = tmp_path_factory.mktemp("whole")
    text = toy_plan(write_toy_model(folder / "toy"), repetitions=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "ENGINES", toy_engines())
        return runner.Study(
            parse_plan(text, "plan"), text, folder / "runs", toy_generator(), machine=MadeUpMachine()
        ).carry_out()


def left_of(owner: int | None = None) -> list[int]:
    """Pids that carry the tag of an owner: this process, unless told otherwise."""
    prefix = f"{owner or os.getpid()}:"
    return [pid for pid, tag in processes.tagged(OWNER_VARIABLE) if tag.startswith(prefix)]


def test_a_study_leaves_a_whole_run_directory_and_no_process(whole):
    record = read_run(whole)
    assert record.study.state == "complete"
    assert [cell.cell.id for cell in record.cells] == record.study.cells
    assert all(cell.complete for cell in record.cells)
    steady = next(cell for cell in record.cells if cell.cell.scenario == "steady").path
    kept = {file.name for file in steady.iterdir()}
    assert kept >= {"samples.parquet", "summary.json", "events.json", "use.json", "server.log", "metrics.parquet"}
    assert not list(whole.rglob("*.tmp"))
    assert left_of() == []


def test_its_results_tell_the_engines_apart(whole):
    results = compute(read_run(whole))
    p50 = results.metric("steady.p50")
    assert p50.values["savedmodel"].value == pytest.approx(3.5, abs=0.2)
    assert p50.values["torchserve"].value == pytest.approx(9.5, abs=0.2)
    assert p50.p["savedmodel|torchserve"] < 0.001
    assert results.metric("coldstart.total_s").values["savedmodel"].value > 0
    assert results.unanswered() == []


def test_both_engines_see_the_same_seeds_and_options(whole):
    commands = {}
    for file in whole.glob("cells/*-steady-*/generator.json"):
        cell = json.loads((file.parent / "cell.json").read_text())
        command = json.loads(file.read_text())
        commands[cell["engine"], cell["repetition"]] = {
            name: command[command.index(name) + 1] for name in ("--rate", "--duration", "--seed", "--payload")
        }
    assert commands["savedmodel", 1] == commands["torchserve", 1]
    assert commands["savedmodel", 1] != commands["savedmodel", 2]


def test_scaling_hands_every_replica_to_the_generator(whole):
    (file,) = whole.glob("cells/*-scaling-savedmodel-x2-*/generator.json")
    command = json.loads(file.read_text())
    assert command[command.index("--host") + 1].count("http://127.0.0.1:") == 2
    assert command[command.index("--closed-loop") + 1] == "4"


def test_a_load_of_a_late_generator_is_tried_again_and_every_try_is_kept(study):
    path = study(generator="late-once", engines=["savedmodel"], repetitions=3, load_attempts=2).carry_out()
    record = read_run(path)
    loads = [cell for cell in record.cells if cell.summary]
    assert loads
    assert all(cell.summary.valid and cell.repeats == 1 for cell in loads)
    assert all((cell.path / "attempt-1" / "samples.parquet").is_file() for cell in loads)
    assert any(f"{len(loads)} tries of a load are INVALID" in note for note in compute(record).notes)


def test_one_try_that_was_repeated_is_told_as_one(study):
    record = read_run(study(generator="late-once", engines=["savedmodel"], repetitions=3, load_attempts=2).carry_out())
    kept, *others = [cell for cell in record.cells if cell.summary]
    for cell in others:
        shutil.rmtree(cell.path / "attempt-1")
    assert kept.repeats == 1
    assert any(
        note.startswith("1 try of a load is INVALID") and "; it was repeated" in note for note in compute(record).notes
    )


def test_a_load_is_tried_no_oftener_than_the_plan_says(study):
    path = study(generator="invalid", engines=["savedmodel"], repetitions=3, load_attempts=3).carry_out()
    loads = [cell for cell in read_run(path).cells if cell.summary]
    assert [cell.repeats for cell in loads] == [2] * len(loads)
    assert not any(cell.summary.valid for cell in loads)


def test_invalid_runs_are_kept_and_the_question_stays_open(study):
    path = study(generator="invalid", engines=["savedmodel"], repetitions=3).carry_out()
    results = compute(read_run(path))
    assert ("steady", "savedmodel") in results.unanswered()
    assert ("coldstart", "savedmodel") not in results.unanswered()


def test_an_engine_that_never_starts_ends_the_study_after_two_tries(study):
    made = study(server="crash", engines=["savedmodel"], cold_starts=5)
    with pytest.raises(DeploymentError, match=r"(?s)failed 2 times without a success.*weights are missing"):
        made.carry_out()
    record = read_run(made.path)
    assert (record.study.state, len(record.cells)) == ("failed", 2)
    log = record.cells[0].path / "server.log"
    assert "the weights are missing" in log.read_text()
    assert str(log) in record.cells[0].outcome.reason
    assert left_of() == []


def test_a_server_that_answers_wrongly_is_no_success(study):
    made = study(server="wrong", engines=["savedmodel"], timeouts={"answer_s": 1})
    with pytest.raises(DeploymentError, match="no right answer"):
        made.carry_out()


def test_a_generator_without_a_summary_fails_its_cell_and_not_the_study(study):
    made = study(generator="crash", engines=["savedmodel"], scaling=None)
    path = made.carry_out()
    states = {cell.cell.scenario: cell.outcome for cell in read_run(path).cells}
    assert states["coldstart"].state == "complete"
    assert states["steady"].state == "failed"
    assert "ended with code 1 and without a summary: what now" in states["steady"].reason


def test_a_study_with_a_run_that_failed_is_incomplete_and_going_on_with_it_repeats_the_run(study, monkeypatch):
    made = study(generator="crash", engines=["savedmodel"], scaling=None, repetitions=3)
    path = made.carry_out()
    record = read_run(path)
    assert record.study.state == "incomplete"
    assert record.study.reason == f"3 runs failed; `servestorm run --resume {path}` repeats them"
    whole = {file: file.read_bytes() for file in (path / "cells").glob("*-coldstart-*/*")}
    again = runner.Study(made.plan, made.plan_text, made.out, toy_generator(), resume=record, machine=MadeUpMachine())
    assert again.carry_out() == path
    record = read_run(path)
    assert (record.study.state, record.study.reason) == ("complete", None)
    assert all(cell.complete for cell in record.cells)
    assert whole and all(file.read_bytes() == content for file, content in whole.items())


def test_a_run_that_fails_again_does_not_make_the_study_complete(study):
    made = study(generator="crash", engines=["savedmodel"], scaling=None, repetitions=3)
    path = made.carry_out()
    again = runner.Study(
        made.plan, made.plan_text, made.out, toy_generator("crash"), resume=read_run(path), machine=MadeUpMachine()
    )
    with pytest.raises(DeploymentError, match="failed 2 times without a success"):
        again.carry_out()
    assert read_run(path).study.state == "failed"


def test_two_studies_cannot_go_on_with_one_run(study):
    made = study(generator="crash", engines=["savedmodel"], scaling=None, repetitions=3)
    path = made.carry_out()
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    again = runner.Study(
        made.plan, made.plan_text, made.out, toy_generator(), resume=read_run(path), machine=MadeUpMachine()
    )
    with owned(path), pytest.raises(StudyError, match=f"in use by process {os.getpid()}"):
        again.carry_out()
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_a_run_that_another_study_went_on_with_meanwhile_is_left_alone(study):
    made = study(generator="crash", engines=["savedmodel"], scaling=None, repetitions=3)
    path = made.carry_out()
    first, second = (
        runner.Study(
            made.plan, made.plan_text, made.out, toy_generator(), resume=read_run(path), machine=MadeUpMachine()
        )
        for _ in range(2)
    )
    first.carry_out()
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(StudyError, match="another command has just gone on with"):
        second.carry_out()
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_runs_that_a_killed_study_repeated_meanwhile_are_left_alone(study):
    """It had the directory until it was killed, and could not write its end into study.json."""
    made = study(generator="crash", engines=["savedmodel"], scaling=None, repetitions=3)
    path = made.carry_out()
    again = runner.Study(
        made.plan, made.plan_text, made.out, toy_generator(), resume=read_run(path), machine=MadeUpMachine()
    )
    failed = next(cell.path for cell in read_run(path).cells if not cell.complete)
    outcome = json.loads((failed / "outcome.json").read_text())
    (failed / "outcome.json").write_text(json.dumps({**outcome, "reason": "another fault"}))
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    with pytest.raises(StudyError, match="another command has just gone on with"):
        again.carry_out()
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_options_that_the_generator_refuses_end_the_study_at_once(study):
    made = study(generator="refuse", engines=["savedmodel"])
    with pytest.raises(StudyError, match="refuses its options: --rate must be over 0"):
        made.carry_out()
    assert read_run(made.path).study.state == "failed"


def test_a_generator_that_never_ends_is_ended(study):
    made = study(
        generator="hang",
        engines=["savedmodel"],
        scaling=None,
        repetitions=3,
        steady={"rate_per_s": 5, "duration_s": 0.5, "warmup_s": 0},
        timeouts={"generator_s": 0.5},
    )
    record = read_run(made.carry_out())
    assert "was still busy after 1 s and was ended" in record.cells[-1].outcome.reason
    assert left_of() == []


# a study as a process of its own ------------------------------------------------------------------------------------


def begin(tmp_path, model, server: str, generator: str) -> subprocess.Popen[str]:
    (tmp_path / "plan.yaml").write_text(toy_plan(model))
    command = [sys.executable, str(STAND_INS / "toy_engine.py"), server, generator, "run", "plan.yaml"]
    return subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def until(condition) -> None:
    """Wait for an event that must come."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "the awaited event did not come"
        time.sleep(0.01)


# phase: (server's mode, generator's mode, the file that tells that the phase is reached)
PHASES = {
    "while a server starts": ("hang", "valid", "runs/*/cells/000-*/cell.json"),
    "under load": ("answer", "hang", "runs/*/cells/*/hanging"),
    "between cells": ("answer", "valid", "runs/*/cells/000-*/outcome.json"),
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_study_keeps_what_it_has_and_leaves_nothing_running(tmp_path, model, phase, number):
    server, generator, sign = PHASES[phase]
    process = begin(tmp_path, model, server, generator)
    until(lambda: list(tmp_path.glob(sign)) and left_of(process.pid))
    process.send_signal(number)
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, err
    assert "interrupted; what was measured is kept." in err
    assert "Traceback" not in err
    assert left_of(process.pid) == []
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "study.json").read_text())["state"] == "interrupted"
    assert json.loads((run / "results.json").read_text())["state"] == "interrupted"
    assert (run / "report.html").is_file()
    assert f"report: {run / 'report.html'}" in out


def supervisor_of(study: subprocess.Popen[str]) -> psutil.Process:
    children = psutil.Process(study.pid).children()
    (supervisor,) = [child for child in children if "supervisor_process.py" in " ".join(child.cmdline())]
    return supervisor


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_what_a_killed_study_started_ends_by_itself(tmp_path, model):
    process = begin(tmp_path, model, "answer", "hang")
    until(lambda: list(tmp_path.glob("runs/*/cells/*/hanging")))
    supervisor = supervisor_of(process)
    assert left_of(process.pid) != []
    process.kill()
    process.communicate(timeout=WAIT_S)
    until(lambda: has_ended(supervisor))
    assert left_of(process.pid) == []


@pytest.mark.alone
def test_what_a_killed_study_left_is_ended_by_the_next_command_and_its_files_are_whole(tmp_path, model):
    process = begin(tmp_path, model, "answer", "hang")
    until(lambda: list(tmp_path.glob("runs/*/cells/*/hanging")))
    supervisor = supervisor_of(process)
    supervisor.kill()
    until(lambda: has_ended(supervisor))
    process.kill()
    process.communicate(timeout=WAIT_S)
    assert left_of(process.pid) != []
    (run,) = (tmp_path / "runs").iterdir()
    done = subprocess.run(
        [sys.executable, "-m", "servestorm.cli.main", "report", str(run)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "that an earlier, killed command had left" in done.stderr
    assert left_of(process.pid) == []
    results = json.loads((run / "results.json").read_text())
    *complete, first, second = results["runs"]  # the round that was killed is of two runs
    assert [run["state"] for run in (first, second)] == ["unfinished"] * 2
    assert {r["state"] for r in complete} == {"complete"}


ON_A_FULL_DISK = """
mount -t tmpfs -o size=200k tmpfs full
head -c 10M /dev/zero > full/zeros 2>/dev/null
truncate -s -$FREE_BYTES full/zeros
"$@"
code=$?
ls -A full
exit $code
"""
"""Runs a command beside a folder `full` that is a disk of its own, and lists what it left there."""


@pytest.mark.parametrize("free_bytes", [0, 12_288])
def test_a_disk_that_is_full_when_a_study_begins_is_one_message_and_no_run(tmp_path, model, free_bytes):
    own_mounts = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*own_mounts, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here, in which a test may mount a disk")
    (tmp_path / "plan.yaml").write_text(toy_plan(model))
    (tmp_path / "full").mkdir()
    command = [sys.executable, str(STAND_INS / "toy_engine.py"), "answer", "valid", "run", "plan.yaml", "--out", "full"]
    done = subprocess.run(
        [*own_mounts, "sh", "-c", ON_A_FULL_DISK, "sh", *command],
        cwd=tmp_path,
        env={**os.environ, "FREE_BYTES": str(free_bytes)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("servestorm: ")]
    assert len(said) == 1 and "no space left on device" in said[0]
    assert "Traceback" not in done.stderr
    assert done.stdout.split() == ["zeros"]


def test_a_run_that_another_process_is_changing_is_not_read(tmp_path):
    """Half of what the owner changes may look like a broken run: the owner is the reason to name."""
    run = tmp_path / "runs" / "20261129-120000-toy"
    (run / "cells").mkdir(parents=True)
    (run / "study.json").write_text("{")
    command = [sys.executable, "-m", "servestorm", "run", "--resume", str(run)]
    with owned(run):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"servestorm: {run} is in use by process {os.getpid()}")


@pytest.mark.parametrize("command", [["report"], ["run", "--resume"]])
def test_a_running_study_owns_its_run_directory(tmp_path, model, command):
    process = begin(tmp_path, model, "answer", "hang")
    until(lambda: list(tmp_path.glob("runs/*/cells/*/hanging")))
    (run,) = (tmp_path / "runs").iterdir()
    before = {file: file.read_bytes() for file in run.glob("cells/*/outcome.json")}
    done = subprocess.run(
        [sys.executable, str(STAND_INS / "toy_engine.py"), "answer", "valid", *command, str(run)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert f"{run} is in use by process {process.pid}, which writes into it: wait until that ends" in done.stderr
    assert done.stderr.count("\n") == 1
    assert before and {file: file.read_bytes() for file in run.glob("cells/*/outcome.json")} == before
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=WAIT_S)


def test_runs_that_are_missing_are_in_the_exit_code_and_can_be_repeated(tmp_path, model):
    process = begin(tmp_path, model, "answer", "crash-once")
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 4, err
    (run,) = (tmp_path / "runs").iterdir()
    assert f"2 runs failed; `servestorm run --resume {run}` repeats them." in err
    done = subprocess.run(
        [sys.executable, str(STAND_INS / "toy_engine.py"), "answer", "valid", "run", "--resume", str(run)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "study.json").read_text())["state"] == "complete"


@pytest.mark.parametrize(("generator", "code"), [("valid", 0), ("invalid", 4)])
def test_the_exit_code_says_whether_every_question_has_a_valid_answer(tmp_path, model, generator, code):
    process = begin(tmp_path, model, "answer", generator)
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == code, err
    assert ("no valid run of" in err) == bool(code)


def test_a_port_in_use_is_named(tmp_path, model):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [
            sys.executable,
            str(STAND_INS / "toy_engine.py"),
            "answer",
            "valid",
            "serve",
            "--engine",
            "savedmodel",
        ]
        done = subprocess.run(
            [*command, "--model", str(model), "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
    assert done.returncode == 3
    assert f"port {port} on 127.0.0.1 is in use" in done.stderr


@pytest.mark.parametrize("engine", ["savedmodel", "torchserve"])
def test_serve_tells_where_it_listens_and_how_to_ask_and_ends_with_ctrl_c(model, engine):
    command = [sys.executable, str(STAND_INS / "toy_engine.py"), "answer", "valid", "serve", "--engine", engine]
    process = subprocess.Popen(
        [*command, "--model", str(model), "--replicas", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    lines = []
    while not lines or not lines[-1].startswith("curl "):
        lines.append(process.stdout.readline())
        assert lines[-1], process.stderr.read()
    assert sum("REST http://127.0.0.1:" in line for line in lines) == 2
    answer = subprocess.run(["bash", "-c", lines[-1]], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout)["predictions"] == [[0.25, 0.75]]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    assert left_of(process.pid) == []


def test_a_payload_that_the_savedmodel_does_not_take_is_refused_before_a_server_starts(study, model):
    manifest = json.loads((model / "manifest.json").read_text())
    (model / "manifest.json").write_text(json.dumps({**manifest, "image_signature": None}))
    made = study(engines=["savedmodel"])
    with pytest.raises(StudyError, match="no signature for payload 'image': write `payload: tensor` in the plan"):
        made.carry_out()
    assert made.path is None
    assert left_of() == []
