"""The calibration's real studies of one engine against itself, carried out with stand-ins."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from models.manifest import ModelDir
from servestorm.plan.study_plan import parse_plan
from servestorm.rundir.record import read_run
from servestorm.study import runner, scraper
from tests.stand_ins.made_up_machine import QUIET, MadeUpMachine
from tests.stand_ins.toy_engine import toy_engines, toy_generator, toy_plan, write_toy_model

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks" / "calibration"
STUDY = {
    "cold_starts": 0,
    "scaling": None,
    "engines": ["torchserve"],
    "steady": {"rate_per_s": 100, "duration_s": 4, "warmup_s": 1},
}


@pytest.fixture
def two_sides(monkeypatch):
    monkeypatch.setattr(scraper, "_start_prometheus", lambda *_: None)
    monkeypatch.setattr(runner, "ENGINES", toy_engines())
    spec = importlib.util.spec_from_file_location("two_sides", BENCHMARKS / "two_sides.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "two_sides", module)
    spec.loader.exec_module(module)
    return module


def carried_out(two_sides, tmp_path, other=None):
    text = toy_plan(write_toy_model(tmp_path / "toy"), **STUDY)
    study = two_sides.TwoSided(parse_plan(text, "p"), text, tmp_path / "runs", other)
    study.generator, study.machine = toy_generator("valid"), MadeUpMachine(QUIET)
    return study, read_run(study.carry_out())


def test_each_round_has_two_servers_of_the_engine_one_for_each_side_which_take_turns(two_sides, tmp_path):
    study, record = carried_out(two_sides, tmp_path)
    assert [cell.cell.repetition for cell in record.cells] == [1, 1, 2, 2, 3, 3]
    assert {cell.cell.engine for cell in record.cells} == {"torchserve"} and all(cell.slices for cell in record.cells)
    sides = [study.side_of[cell.cell.id] for cell in record.cells]
    assert [sorted(sides[place : place + 2]) for place in (0, 2, 4)] == [[0, 1]] * 3


def test_only_side_b_serves_the_other_model(two_sides, tmp_path):
    other = ModelDir(write_toy_model(tmp_path / "other"))
    study, record = carried_out(two_sides, tmp_path, other)
    for cell in record.cells:
        command = json.loads((cell.path / "generator.json").read_text())
        manifest = Path(command[command.index("--manifest") + 1])
        assert (manifest.parent == other.path) == (study.side_of[cell.cell.id] == 1)


def test_numbers_are_paired_by_round_and_side_and_a_run_that_does_not_count_is_missing(two_sides):
    table = [("a1", 1, 4.0, True), ("b1", 1, 5.0, True), ("b2", 2, 7.0, True), ("a2", 2, 6.0, True)]
    table += [("a3", 3, 6.5, True), ("b3", 3, 1.0, False)]
    runs = [SimpleNamespace(id=i, repetition=r, numbers={"p50": p50}, counts=counts) for i, r, p50, counts in table]
    rounds = two_sides.pairs("p50", runs, {i: "ab".index(i[0]) for i, *_ in table})
    assert rounds == [[4.0, 5.0], [6.0, 7.0], [6.5, None]]
    verdict = two_sides.shown(two_sides.verdicts({0: two_sides.question(rounds)})[0])
    assert verdict["rounds"] == 2 and verdict["ratio"] == pytest.approx(12 / 10)
