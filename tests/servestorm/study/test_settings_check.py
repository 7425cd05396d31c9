"""What the servers of a run really run with is read back, written down and held against what was ordered."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import pytest

from servestorm.plan.study_plan import parse_plan
from servestorm.rundir.record import read_run
from servestorm.study import runner, scraper
from servestorm.study.settings_check import check_settings
from serving.deployment import Endpoint
from serving.errors import DeploymentError
from serving.server_settings import OrderedSettings, read, unreadable_settings
from tests.stand_ins.made_up_machine import MadeUpMachine
from tests.stand_ins.toy_engine import toy_engines, toy_generator, toy_plan, write_toy_model

ONLY_STEADY = {"scaling": None, "cold_starts": 0, "engines": ["torchserve"]}


class Reporting:
    """An engine whose replicas report these sizes of a batch."""

    name = "torchserve"

    def __init__(self, *sizes):
        self.sizes = sizes

    def settings(self, server, model):
        size = self.sizes[server.replica]
        unknown = unreadable_settings("not asked")
        return dataclasses.replace(unknown, max_batch_size=read(size, "GET /models/toy"), notes=("it is a toy",))


def deployment(replicas):
    endpoints = [Endpoint(index, "", "", "") for index in range(replicas)]
    return SimpleNamespace(endpoints=endpoints, server=lambda endpoint: endpoint)


def check(folder, ordered, *sizes):
    check_settings(Reporting(*sizes), None, deployment(len(sizes)), ordered, folder)


def test_each_replica_s_settings_are_written_beside_those_that_were_ordered(tmp_path):
    check(tmp_path, OrderedSettings(max_batch_size=4), 4, 4)
    written = json.loads((tmp_path / "settings.json").read_text())
    assert written["ordered"] == dict.fromkeys(written["ordered"]) | {"max_batch_size": 4}
    assert [replica["replica"] for replica in written["replicas"]] == [0, 1]
    assert written["replicas"][1]["max_batch_size"] == {
        "value": 4,
        "source": "GET /models/toy",
        "reason": "",
        "applies": True,
    }
    assert written["replicas"][0]["threads"]["value"] is None
    assert written["replicas"][0]["threads"]["reason"] == "not asked"
    assert written["replicas"][0]["notes"] == ["it is a toy"]


def test_another_setting_than_ordered_is_refused_and_still_written(tmp_path):
    with pytest.raises(DeploymentError, match="torchserve replica 1 runs with 4 images in a batch instead of 1"):
        check(tmp_path, OrderedSettings(max_batch_size=1), 1, 4)
    assert (tmp_path / "settings.json").is_file()


def test_servers_that_ran_already_may_have_any_setting_but_all_replicas_the_same(tmp_path):
    check(tmp_path, None, 7, 7)
    assert json.loads((tmp_path / "settings.json").read_text())["ordered"] is None
    with pytest.raises(DeploymentError, match=r"replica 1 runs with 8 images in a batch instead of 7 .* of replica 0"):
        check(tmp_path, None, 7, 8)


@pytest.fixture
def carried_out(tmp_path, monkeypatch):
    """Carries a study out whose servers report these settings; its run."""

    def carry_out(runs_with, **changes):
        engines = toy_engines()
        for engine in engines.values():
            engine.runs_with = runs_with
        monkeypatch.setattr(scraper, "_start_prometheus", lambda *_: None)
        monkeypatch.setattr(runner, "ENGINES", engines)
        text = toy_plan(write_toy_model(tmp_path / "toy"), **changes)
        plan, runs = parse_plan(text, "plan"), tmp_path / "runs"
        study = runner.Study(plan, text, runs, toy_generator(), machine=MadeUpMachine())
        try:
            study.carry_out()
        except DeploymentError as error:
            assert "instead of" in str(error)
        return read_run(study.path)

    return carry_out


def test_a_study_does_not_load_a_server_that_runs_with_other_settings(carried_out):
    run = carried_out({"max_batch_size": 4}, **ONLY_STEADY)
    for cell in run.cells:
        assert cell.outcome.state == "failed"
        assert "torchserve replica 0 runs with 4 images in a batch instead of 1 (GET /toy)" in cell.outcome.reason
        assert cell.samples_path is None
        assert cell.settings.replicas[0].max_batch_size.value == 4


def test_every_run_of_a_study_keeps_what_its_servers_ran_with(carried_out):
    run = carried_out({"max_batch_size": 1, "threads": 1}, scaling=None)
    assert {cell.cell.scenario for cell in run.cells} == {"coldstart", "steady"}
    for cell in run.cells:
        assert cell.complete
        assert cell.settings.ordered.max_batch_size == 1
        assert cell.settings.replicas[0].threads.value == 1
