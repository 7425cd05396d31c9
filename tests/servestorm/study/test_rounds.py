"""Engines that take turns, carried out with stand-ins: the same load for each, one at a time, complete as a whole."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.start_file import ready_file
from servestorm.errors import StudyError
from servestorm.plan.cells import cells_of, rounds_of
from servestorm.plan.study_plan import parse_plan
from servestorm.plan.turns import WARM_AGAIN_S
from servestorm.rundir.machine_table import MachineSecond, machine_bytes
from servestorm.rundir.record import read_run
from servestorm.rundir.shapes.slices import SlicesFile
from servestorm.study import round_load, runner, study_run
from servestorm.study.cell_load import disturbance_in
from servestorm.study.expected_time import expected_s, title
from servestorm.study.load import GeneratorError
from servestorm.study.resume import complete_cells
from serving import processes
from serving.errors import DeploymentError
from serving.orphans import OWNER_VARIABLE
from tests.stand_ins.made_up_machine import QUIET, MadeUpMachine
from tests.stand_ins.toy_engine import ToyEngine, toy_engines, toy_generator, toy_plan

pytestmark = pytest.mark.usefixtures("built_in_scraper")

BUSY = (0.74, 0.0)
TURNS = {"cold_starts": 0, "scaling": None, "steady": {"rate_per_s": 100, "duration_s": 8, "warmup_s": 1}}
"""Three rounds of two engines, with four slices each."""


@pytest.fixture
def study(tmp_path, model, monkeypatch):
    """Makes a Study on the stand-ins."""

    def make(*watches, engines=None, generator="valid", resume=None, **changes):
        monkeypatch.setattr(runner, "ENGINES", engines or toy_engines())
        text = toy_plan(model, **{**TURNS, **changes})
        source = toy_generator(generator) if isinstance(generator, str) else generator
        machine = MadeUpMachine(*watches or (QUIET,))
        return runner.Study(parse_plan(text, "p"), text, tmp_path / "runs", source, resume=resume, machine=machine)

    return make


BOTH_LOADS = {**TURNS, "bursty": {"base_rate": 50, "peak_rate": 90, "on_s": 1, "off_s": 1, "duration_s": 2}}


def test_steady_and_bursty_load_come_one_after_the_other_on_one_start_of_the_servers(study, monkeypatch):
    starts = []
    monkeypatch.setattr(ToyEngine, "launch", recording(starts, ToyEngine.launch))
    path = study(**BOTH_LOADS).carry_out()
    record = read_run(path)
    assert all(cell.complete for cell in record.cells)
    assert [cell.cell.scenario for cell in record.cells] == ["steady", "steady", "bursty", "bursty"] * 3
    assert sorted(starts) == ["savedmodel"] * 3 + ["torchserve"] * 3
    for place in (0, 4, 8):
        steady, bursty = ({c.cell.engine: c for c in record.cells[place + k : place + k + 2]} for k in (0, 2))
        for engine, first in steady.items():
            then = bursty[engine]
            assert option(first.path, "--host") == option(then.path, "--host")
            loads = [{e.name: e.t_ns for e in one.events} for one in (first, then)]
            assert loads[0]["load_ended"] < loads[1]["load_started"] and loads[0]["stopped"] == loads[1]["stopped"]
            assert [e.detail for one in (first, then) for e in one.events if e.name == "load_started"] == [
                first.path.name,
                then.path.name,
            ]
            names = {file.name for file in then.path.iterdir()}
            assert names >= {
                "samples.parquet",
                "summary.json",
                "use.json",
                "slices.json",
                "server.log",
                "settings.json",
            }
            assert names >= {"metrics.parquet"}
            (warm_up, *_) = loaded(then.path, "turns.json")["turns"]
            assert warm_up["lead_s"] == WARM_AGAIN_S < read_plan(path)["bursty"]["warmup_s"]


def recording(starts: list[str], launch):
    """`launch`, which also notes the engine."""

    def launched(self, *arguments):
        starts.append(self.name)
        return launch(self, *arguments)

    return launched


def read_plan(path: Path):
    return loaded(path, "study.json")["plan"]


class BurstsFail:
    """A generator that gives no summary under bursty load."""

    def __init__(self) -> None:
        self._toy = toy_generator()

    def offer(self, order):
        if order.command.file == "bursty.py":
            raise GeneratorError("no summary came")
        self._toy.offer(order)


def test_what_one_load_measured_outlives_a_fault_of_the_next_and_only_that_one_is_run_again(study):
    made = study(generator=BurstsFail(), **BOTH_LOADS)
    path = made.carry_out()
    states = {(cell.cell.scenario, cell.outcome.state) for cell in read_run(path).cells}
    assert states == {("steady", "complete"), ("bursty", "failed")}
    stored = loaded(path, "study.json")
    (path / "study.json").write_text(json.dumps({**stored, "state": "interrupted"}))
    before, record = written_at(path), read_run(path)
    assert len(complete_cells(record, made.cells, made.plan)) == 6
    study(resume=record, **BOTH_LOADS).carry_out()
    after, again = written_at(path), read_run(path)
    assert all(cell.complete for cell in again.cells)
    assert {name for name in after if after[name] != before[name]} == {
        c.cell.id for c in again.cells if c.cell.scenario == "bursty"
    }
    for cell in again.cells:
        if cell.cell.scenario == "bursty":  # whose servers are fresh: they get the whole warm-up
            assert loaded(cell.path, "turns.json")["turns"][0]["lead_s"] == read_plan(path)["bursty"]["warmup_s"]


def rounds_in(path: Path) -> list[list[Path]]:
    folders = sorted((path / "cells").iterdir())
    return [folders[place : place + 2] for place in range(0, len(folders), 2)]


def loaded(folder: Path, name: str):
    return json.loads((folder / name).read_text())


def option(folder: Path, name: str) -> str:
    command = loaded(folder, "generator.json")
    return command[command.index(name) + 1]


def test_both_generators_of_a_round_get_one_start_the_same_arrivals_and_turns_that_never_overlap(study):
    path = study().carry_out()
    assert len(rounds_in(path)) == 3
    for first, second in rounds_in(path):
        assert (first / "start-ns").read_text() == (second / "start-ns").read_text()
        for name in ("--seed", "--rate", "--duration"):
            assert option(first, name) == option(second, name)
        assert (option(first, "--duration"), option(first, "--warmup")) == ("8", "0")
        turns = [turn for folder in (first, second) for turn in loaded(folder, "turns.json")["turns"]]
        ends = sorted((turn["begin_s"], turn["begin_s"] + turn["lead_s"] + turn["length_s"]) for turn in turns)
        assert all(begin > end for (_, end), (begin, _) in itertools.pairwise(ends))
        assert [turn["length_s"] for turn in loaded(first, "turns.json")["turns"]] == [0, 2, 2, 2, 2]
        assert option(first, "--turns") == str(first / "turns.json")
    assert not list(path.glob("cells/*/*.ready"))


def test_the_servers_of_a_round_stand_at_the_same_time_and_each_run_keeps_what_a_run_keeps(study):
    path = study(QUIET, (0.0, 0.04)).carry_out()
    record = read_run(path)
    assert all(cell.complete for cell in record.cells) and len(record.cells) == 6
    for first, second in rounds_in(path):
        events = [loaded(folder, "events.json") for folder in (first, second)]
        times = [{event["name"]: event["t_ns"] for event in of_one} for of_one in events]
        assert max(one["ready"] for one in times) < min(one["load_started"] for one in times)
        assert max(one["load_ended"] for one in times) < min(one["stopped"] for one in times)
        for folder in (first, second):
            names = {file.name for file in folder.iterdir()}
            assert names >= {"samples.parquet", "summary.json", "use.json", "slices.json", "server.log"}
            slices = SlicesFile.model_validate(loaded(folder, "slices.json"))
            start_ns, turns = int((folder / "start-ns").read_text()), loaded(folder, "turns.json")["turns"][1:]
            assert [one.begin_ns for one in slices.slices] == [start_ns + round(t["begin_s"] * 1e9) for t in turns]
    assert [[second.steal_share for second in cell.machine()][:1] for cell in record.cells[2:]] == [[0.04]] * 4


def test_cpu_time_is_read_in_the_gaps_while_the_generators_run(study, monkeypatch):
    """A generator that ends when its turns do; time passes as fast as it is waited for."""
    clock = Clock(monkeypatch)
    path = study(generator=clock.generator(), steady={"rate_per_s": 100, "duration_s": 4, "warmup_s": 1}).carry_out()
    for folders in rounds_in(path):
        for folder in folders:
            slices = SlicesFile.model_validate(loaded(folder, "slices.json")).slices
            assert len(slices) == 2 and all(one.cpu_s is not None and one.idle_s is not None for one in slices)
    assert len(clock.waited_s) == 3 * 5  # before the first slice and after each


class Clock:
    """Stands in for the waits of a round: each returns at once, and the clock has moved on as if it had not."""

    def __init__(self, monkeypatch) -> None:
        self.waited_s: list[float] = []
        self.ended = threading.Event()
        self._ahead_ns = 0
        self._due = 0
        monkeypatch.setattr(round_load, "wait", self.wait)
        monkeypatch.setattr(round_load, "monotonic_ns", self.now_ns)

    def now_ns(self) -> int:
        return time.monotonic_ns() + self._ahead_ns

    def wait(self, futures, timeout=None, return_when=None):
        import concurrent.futures

        if timeout is None:
            self.ended.set()
            done = concurrent.futures.wait(futures)
            self.ended.clear()
            return done
        self.waited_s.append(timeout)
        self._ahead_ns += round(timeout * 1e9)
        return concurrent.futures.wait(futures, 0, return_when)

    def generator(self):
        real = toy_generator()

        class Waiting:
            def offer(_, order):
                ready_file(order.start_file).touch()
                assert self.ended.wait(20)
                real.offer(order)

        return Waiting()


class FailingSource:
    """A generator that gives no summary for one engine, and for another one goes on until it is cancelled."""

    def __init__(self, failing: str) -> None:
        self.failing, self.cancelled = failing, []

    def offer(self, order):
        if order.engine == self.failing:
            raise GeneratorError("no summary came")
        assert order.cancelled.wait(20)
        self.cancelled.append(order.engine)
        raise GeneratorError("cancelled")


@pytest.mark.parametrize(("failing", "other"), [("torchserve", "savedmodel"), ("savedmodel", "torchserve")])
def test_a_fault_of_one_ends_the_load_of_the_other_and_fails_the_round_with_its_name(study, failing, other):
    source = FailingSource(failing)
    made = study(generator=source)
    with pytest.raises(DeploymentError, match=f"^{failing} failed 2 times without a success: {failing}: no summary"):
        made.carry_out()
    assert source.cancelled == [other] * 2
    record = read_run(made.path)
    assert len(record.cells) == 4 and {cell.outcome.state for cell in record.cells} == {"failed"}
    for folders in rounds_in(made.path):
        outcomes = [loaded(folder, "outcome.json") for folder in folders]
        assert {outcome["reason"] for outcome in outcomes} == {f"{failing}: no summary came"}
        (at_fault,) = {outcome["fault_of"] for outcome in outcomes}
        assert failing in at_fault


def test_a_server_that_does_not_start_beside_the_other_says_what_to_do(study):
    made = study(engines={**toy_engines(), "torchserve": ToyEngine("torchserve", "crash")})
    with pytest.raises(DeploymentError, match="torchserve failed 2 times without a success"):
        made.carry_out()
    for folders in rounds_in(made.path):
        own = next(folder for folder in folders if "torchserve" in folder.name)
        (reason,) = {loaded(folder, "outcome.json")["reason"] for folder in folders}
        assert reason.startswith("torchserve: ") and str(own / "server.log") in reason
        assert "started beside savedmodel: if both cannot stand at once here, set `design: blocks`." in reason
    assert not [tag for _, tag in processes.tagged(OWNER_VARIABLE) if tag.startswith(f"{os.getpid()}:")]


def test_a_disturbed_round_is_offered_again_as_a_whole(study):
    path = study(BUSY, QUIET, load_attempts=2).carry_out()
    attempts = [[(folder / "attempt-1" / "slices.json").is_file() for folder in folders] for folders in rounds_in(path)]
    assert attempts == [[True, True], [False, False], [False, False]]


def test_a_round_is_resumed_as_a_whole(study):
    made = study()
    path = made.carry_out()
    broken, kept = rounds_in(path)[1][0], rounds_in(path)[1][1]
    (broken / "outcome.json").unlink()
    stored = loaded(path, "study.json")
    (path / "study.json").write_text(json.dumps({**stored, "state": "interrupted"}))
    before = written_at(path)
    record = read_run(path)
    assert len(complete_cells(record, made.cells, made.plan)) == 4
    study(resume=record).carry_out()
    after = written_at(path)
    assert {name for name in after if after[name] != before.get(name)} == {broken.name, kept.name}


def written_at(path: Path) -> dict[str, int]:
    return {file.parent.name: file.stat().st_mtime_ns for file in path.glob("cells/*/outcome.json")}


def test_a_study_that_began_before_there_were_rounds_goes_on_in_blocks(tmp_path, study):
    from servestorm.cli.verbs.run import _planned

    path = study(design="blocks").carry_out()
    stored = loaded(path, "study.json")
    assert "design" not in stored["plan"]
    (path / "study.json").write_text(json.dumps({**stored, "state": "interrupted"}))
    written = json.loads((path / "plan.yaml").read_text())
    text = json.dumps({key: value for key, value in written.items() if key != "design"})
    (path / "plan.yaml").write_text(text)
    record = read_run(path)
    plan = _planned(path / "plan.yaml", None, record)
    assert not plan.interleaved and len(complete_cells(record, cells_of(plan), plan)) == 6
    with pytest.raises(StudyError, match="does not give the study that was begun"):
        complete_cells(record, cells_of(parse_plan(text, "p")), parse_plan(text, "p"))


def test_an_interrupted_round_ends_its_generators_and_keeps_what_lies_there(study):
    made = study(generator="hang")
    interrupt_when(lambda: len(list((made.path or Path("/")).glob("cells/*/start-ns"))) == 2 if made.path else False)
    with pytest.raises(KeyboardInterrupt):
        made.carry_out()
    record = read_run(made.path)
    assert record.study.state == "interrupted"
    assert [cell.outcome.state for cell in record.cells] == ["interrupted"] * 2
    for folder in rounds_in(made.path)[0]:
        assert all(one.cpu_s is None for one in SlicesFile.model_validate(loaded(folder, "slices.json")).slices)
        assert (folder / "machine.parquet").is_file() and (folder / "use.json").is_file()
    assert not [tag for _, tag in processes.tagged(OWNER_VARIABLE) if tag.startswith(f"{os.getpid()}:")]


def interrupt_when(condition) -> None:
    """Ctrl-C for this process, once the condition holds."""

    def watch() -> None:
        until = time.monotonic() + 300
        while not condition():
            if time.monotonic() > until:
                return
            threading.Event().wait(0.01)
        print("SIGINT is sent", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


def test_progress_and_dry_run_speak_of_rounds(model):
    text = toy_plan(model, **TURNS)
    plan = parse_plan(text, "p")
    together = rounds_of(plan, cells_of(plan))[0]
    assert title(plan, runner.variants_of(plan), together) == "savedmodel and torchserve: steady load 1 of 3"
    blocks = parse_plan(toy_plan(model, design="blocks", **TURNS), "p")
    apart_s = sum(expected_s(blocks, [cell]) for cell in cells_of(blocks)[:2])
    assert abs(expected_s(plan, together) - apart_s) < 10  # the same seconds of load, and leads, gaps and one start
    planned = parse_plan(toy_plan(model, **{**TURNS, "repetitions": None, "budget": "10 min"}), "p")
    first = rounds_of(planned, cells_of(planned))[0]
    assert "steady load 1 of at most" in title(planned, runner.variants_of(planned), first)


def test_two_cells_of_the_same_engine_may_stand_together(study, monkeypatch):
    """As a calibration of one engine against itself does."""
    made = study()
    twins = [replace(made.cells[0], index=place, engine="savedmodel", repetition=1 + place) for place in (0, 1)]
    monkeypatch.setattr(study_run, "rounds_of", lambda *_: [twins])
    made.cells = twins
    path = made.carry_out()
    assert [cell.complete for cell in read_run(path).cells] == [True, True]
    assert len({option(folder, "--host") for folder in rounds_in(path)[0]}) == 2


class ReadyInTurn:
    """Generators that wait for their start as the real ones do, of which the second is ready later than the first."""

    def __init__(self) -> None:
        self.starts: list[tuple[int, int]] = []
        self._toy, self._first = toy_generator(), threading.Event()

    def offer(self, order):
        if order.engine == "torchserve":
            assert self._first.wait(20)
        ready_ns = time.monotonic_ns()
        ready_file(order.start_file).touch()
        if order.engine == "savedmodel":
            assert not order.start_file.exists()
            self._first.set()
        while not order.start_file.exists():
            time.sleep(0.01)
        self.starts.append((ready_ns, int(order.start_file.read_text())))
        self._toy.offer(order)
        self._first.clear()


def test_the_generators_of_a_round_begin_together_once_all_are_ready(study):
    source = ReadyInTurn()
    study(generator=source).carry_out()
    assert len(source.starts) == 6
    for place in range(0, 6, 2):
        (first_ns, start_ns), (second_ns, other_start_ns) = source.starts[place : place + 2]
        assert start_ns == other_start_ns > max(first_ns, second_ns)


def load_in(folder: Path, begins_s, slices_s, other_share) -> Path:
    """What disturbance is judged by: seconds of the machine from `begins_s` on, and two slices at `slices_s`."""
    folder.mkdir()
    seconds = [
        MachineSecond(int(t * 1e9), int((t + 1) * 1e9), 0.0, share, None, None, None, None, None)
        for t, share in zip(begins_s, other_share, strict=True)
    ]
    (folder / "machine.parquet").write_bytes(machine_bytes(seconds))
    watch = {"elapsed_s": 10.0, "cores": [0], "other_s": 10 * sum(other_share) / len(other_share), "steal_s": 0.0}
    (folder / "use.json").write_text(json.dumps({"end": {}, "watch": watch}))
    slices = [
        {"begin_ns": int(t * 1e9), "end_ns": int((t + 2) * 1e9), "cpu_s": None, "idle_cpu_s": None, "idle_s": None}
        for t in slices_s
    ]
    (folder / "slices.json").write_text(json.dumps({"lead_s": 0.0, "length_s": 2.0, "slices": slices}))
    return folder


def test_a_load_in_turns_is_disturbed_where_most_of_its_own_slices_are(tmp_path, model):
    plan = parse_plan(toy_plan(model), "p")
    others_turn = [0.0, 0.0, 0.9, 0.9, 0.9, 0.9, 0.0, 0.0]
    quiet = load_in(tmp_path / "quiet", range(8), (0, 6), others_turn)
    busy = load_in(tmp_path / "busy", range(8), (2, 4), others_turn)
    assert disturbance_in(quiet, plan) is None
    assert disturbance_in(busy, plan).reason.endswith("in 2 of 2 slices")
    stopped = load_in(tmp_path / "stopped", range(8), (20, 40), others_turn)
    assert disturbance_in(stopped, plan).cause == "other_load"
