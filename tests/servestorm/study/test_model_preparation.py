"""A model that is missing is made once, whatever runs at the same time."""

from __future__ import annotations

import threading
from pathlib import Path

from servestorm.plan.study_plan import ModelPlan
from servestorm.study import model_preparation
from tests.stand_ins.toy_engine import write_toy_model

LONGEST_S = 30


def test_of_two_commands_that_lack_a_model_one_makes_it_and_the_other_waits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begun, waits = threading.Event(), threading.Event()
    made, told, prepared = [], [], []

    def make(plan, _progress):
        made.append(plan.name)
        begun.set()
        assert waits.wait(LONGEST_S)
        write_toy_model(Path("build/models") / plan.name)

    def tell(what, _share):
        told.append(what)
        waits.set()

    monkeypatch.setattr(model_preparation, "_make_in_child", make)
    monkeypatch.setattr(model_preparation, "require", lambda *_: None)
    plan = ModelPlan(name="toy")
    first = threading.Thread(target=lambda: prepared.append(model_preparation.prepare(plan, lambda *_: None).name))
    first.start()
    assert begun.wait(LONGEST_S)
    prepared.append(model_preparation.prepare(plan, tell).name)
    first.join(LONGEST_S)
    assert (made, told, prepared) == (
        ["toy"],
        ["waiting for another command that makes the model"],
        ["toy", "toy"],
    )
