"""A study of trainings: turns, faults, and what is kept, without a framework."""

from __future__ import annotations

import json

import pytest

from models.errors import ModelError
from servestorm.analysis.results import compute
from servestorm.errors import StudyError, StudyInvalid
from servestorm.plan.cells import cells_of, rounds_of
from servestorm.plan.study_plan import parse_plan
from servestorm.plan.training import settings_of
from servestorm.rundir.record import read_run
from servestorm.study.early_refusals import refuse_early
from servestorm.study.expected_time import steps
from servestorm.study.gpu_counters import GpuChange
from servestorm.study.machine_counters import MachineChange
from servestorm.study.trainings import refusals
from servestorm.study.trainings.round import together
from serving.errors import DeploymentError
from tests.stand_ins.made_up_machine import QUIET, MadeUpMachine
from tests.stand_ins.made_up_training import PLAN, SECONDS, MadeUpTraining, study_of_trainings


def plan_of(training, **more):
    return parse_plan(json.dumps({"name": "t", "training": training, **more}), "plan.yaml")


def test_each_combination_is_trained_in_each_framework_in_every_repetition():
    data = [{"dataset": "digits"}, {"dataset": "synthetic", "size": "64x64"}]
    plan = plan_of({"networks": ["cnn", "googlenet"], "data": data, "batch_size": [16, 32]}, repetitions=3)
    rounds = rounds_of(plan, cells_of(plan))
    assert len(rounds) == 3 * 2 * 2 * 2
    assert all({cell.engine for cell in cells} == {"keras", "torch"} for cells in rounds)
    assert all(len({(cell.training, cell.repetition, cell.seed) for cell in cells}) == 1 for cells in rounds)
    assert len({cell.id for cells in rounds for cell in cells}) == 48
    titles = {step.title for step in steps(plan, rounds, [])}
    assert "keras and torch: training 1 of 3 (googlenet, synthetic 64x64, batches of 16)" in titles


def test_compilers_and_precisions_are_combinations_too():
    plan = plan_of({"compiled": [False, True], "precision": ["float32", "bfloat16"], "threads": [1, 2]}, repetitions=3)
    labels = [setting.label for setting in settings_of(plan.training)]
    assert labels[:3] == [
        "1 thread, not compiled, float32",
        "1 thread, not compiled, bfloat16",
        "1 thread, compiled, float32",
    ]
    assert len(labels) == 8


def test_numbers_of_processes_are_combinations_too():
    plan = plan_of({"frameworks": "torch", "processes": [1, 2], "threads": 1}, repetitions=3)
    assert [(one.processes, one.label) for one in settings_of(plan.training)] == [(1, "1 process"), (2, "2 processes")]


def test_a_plan_that_asks_for_one_process_is_written_as_before_there_were_several():
    assert "processes" not in plan_of({"processes": 1}).model_dump()["training"]
    assert plan_of({"frameworks": "torch", "processes": [1, 2]}).model_dump()["training"]["processes"] == [1, 2]


def test_a_compiled_step_of_torch_needs_a_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(StudyError, match=r"needs a C\+\+ compiler, and there is none on the PATH: install one"):
        refuse_early(plan_of({"compiled": True}))
    refuse_early(plan_of({"compiled": True, "frameworks": "keras"}))


def test_a_gpu_that_is_not_there_is_told_before_anything_starts(monkeypatch):
    monkeypatch.setattr(refusals, "gpus", lambda: None)
    with pytest.raises(StudyError, match=r"training\.device: a GPU is asked for, and none is seen here"):
        refuse_early(plan_of({"device": "gpu"}))


def test_blocks_train_one_after_the_other():
    plan = plan_of({}, repetitions=3, design="blocks")
    assert [len(cells) for cells in rounds_of(plan, cells_of(plan))] == [1] * 6


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ({"training": {}, "engines": ["savedmodel"]}, "`engines` is about"),
        ({"training": {}, "steady": {"rate_per_s": 1, "duration_s": 1}}, "`steady` is about"),
        ({"training": {}, "budget": "10 min"}, "`budget` is about"),
        ({"engines": ["keras"], "cold_starts": 1}, "keras is no server: put it under training.frameworks"),
        ({"training": {"frameworks": ["jax"]}}, "training.frameworks"),
        ({"training": {"frameworks": ["keras", "keras"]}}, "frameworks names one twice: keras, keras"),
        ({"training": {"data": [{"dataset": "digits"}] * 2}}, "data names one twice: digits"),
        (
            {"training": {"data": {"dataset": "digits", "classes": 3}}},
            "only data set synthetic takes classes or images",
        ),
        ({"training": {"networks": ["vgg16", "cnn"], "pretrained": "w.pth"}}, "pretrained weights are of one network"),
        ({"training": {"epochs": 0}}, "training.epochs"),
        ({"training": {"batch_size": 1}}, "training.batch_size"),
        ({"training": {"processes": [1, 2]}}, "set frameworks: [torch]"),
        ({"training": {"frameworks": "torch", "processes": 2, "compiled": True}}, "without torch.compile"),
        ({"training": {"frameworks": "torch", "processes": 2, "device": "gpu"}}, "train together on the CPU"),
        ({"training": {"frameworks": "torch", "processes": 4, "batch_size": [32, 7]}}, "7 images are too few for 4"),
        ({"training": {"frameworks": "torch", "processes": 0}}, "training.processes"),
        ({"training": 5}, "training"),
    ],
)
def test_a_plan_of_trainings_that_cannot_be_is_refused(written, sentence):
    with pytest.raises(StudyError) as caught:
        parse_plan(json.dumps({"name": "t", **written}), "plan.yaml")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("training", "sentence"),
    [
        ({"data": {"dataset": "folder"}}, "training.data: folder needs data_dir"),
        ({"data": {"dataset": "xray", "data_dir": "nowhere"}}, "training.data: nowhere does not exist"),
        ({"networks": "vgg16", "data": {"size": "16x16"}}, "vgg16 needs images of at least"),
        ({"data": {"dataset": "synthetic", "images": 60}}, "60 images are too few"),
        ({"networks": "vgg16", "pretrained": "nowhere.h5"}, "nowhere.h5 does not exist"),
    ],
)
def test_trainings_that_cannot_be_carried_out_are_refused_before_anything_starts(
    tmp_path, monkeypatch, training, sentence
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((StudyError, ModelError)) as caught:
        refuse_early(plan_of(training))
    assert sentence in str(caught.value)


def test_frameworks_take_turns_by_epochs_in_an_order_that_changes(tmp_path, monkeypatch):
    record = read_run(study_of_trainings(monkeypatch, tmp_path).carry_out())
    turns = MadeUpTraining.turns
    pairs = [tuple(turns[place : place + 2]) for place in range(0, len(turns), 2)]
    assert len(turns) == 2 * 4 * 5 and {frozenset(pair) for pair in pairs} == {frozenset(SECONDS)}
    assert any(len(set(pairs[first : first + 4])) == 2 for first in range(0, len(pairs), 4))  # within a round too
    assert record.study.state == "complete" and len(record.cells) == 10
    for cell in record.cells:
        assert cell.training.record.framework == cell.cell.engine
        assert cell.use.watch.elapsed_s == pytest.approx(4.0)  # a made-up second for each of its turns
    seeds = {cell.cell.repetition: cell.training.record.seed for cell in record.cells}
    assert len(set(seeds.values())) == 5


def test_a_verdict_pairs_the_trainings_of_a_round(tmp_path, monkeypatch):
    results = compute(read_run(study_of_trainings(monkeypatch, tmp_path).carry_out()))
    (judged,) = [one for one in results.verdicts if one.metric == "training.epoch_s"]
    assert (judged.a, judged.b, judged.verdict.outcome, judged.verdict.paired) == ("keras", "torch", "A", True)
    assert judged.verdict.ratio == pytest.approx(4 / 3, rel=0.02)  # 2 s against (3 + 1 + 1 + 1) / 4 s
    low, high = judged.verdict.ratio_ci
    assert low > 1.3 and high < 1.37  # though rounds differ by 20 %


def test_a_training_that_is_killed_fails_its_round_and_can_be_repeated(tmp_path, monkeypatch):
    study = study_of_trainings(monkeypatch, tmp_path, killed="torch")
    with pytest.raises(DeploymentError, match=r"failed 2 times without a success: .* killed \(out of memory\?\)"):
        study.carry_out()
    record = read_run(study.path)
    assert record.study.state == "failed"
    assert [cell.outcome.state for cell in record.cells] == ["failed"] * 4
    assert "choose fewer images" in record.cells[0].outcome.reason
    again = study_of_trainings(monkeypatch, tmp_path, resume=record)
    assert again.carry_out() == study.path
    whole = read_run(study.path)
    assert whole.study.state == "complete" and all(cell.complete for cell in whole.cells)


def test_a_disturbed_machine_disturbs_trainings(tmp_path, monkeypatch):
    machine = MadeUpMachine((0.0, 0.4), look=QUIET)
    with pytest.raises(StudyInvalid, match="the first run under load of every engine was DISTURBED"):
        study_of_trainings(monkeypatch, tmp_path, machine=machine).carry_out()
    ignored = PLAN + "disturbance: ignored\n"
    path = study_of_trainings(monkeypatch, tmp_path, ignored, machine=MadeUpMachine((0.0, 0.4))).carry_out()
    assert all(run.counts for run in compute(read_run(path)).runs)


def change(**values):
    usual = {
        "elapsed_s": 1.0,
        "wall_drift_ms": 0.5,
        "clocksource": "tsc",
        "cores": (0, 1),
        "ours_s": 1.5,
        "other_s": 0.1,
        "steal_s": 0.2,
        "swapped_pages": 3,
        "throttled_s": 0.0,
        "gpus": None,
    }
    return MachineChange(**{**usual, **values})


def test_turns_are_added_up():
    both = together([change(), change(elapsed_s=3.0, other_s=0.3)])
    assert both == change(elapsed_s=4.0, wall_drift_ms=1.0, ours_s=3.0, other_s=0.4, steal_s=0.4, swapped_pages=6)
    assert together([change(steal_s=None), change()]).steal_s is None


def test_of_gpus_energy_is_added_use_averaged_and_the_most_memory_kept():
    first = change(gpus=(GpuChange("H200", 100.0, 50.0, 2 << 30),))
    second = change(gpus=(GpuChange("H200", 20.0, 90.0, 1 << 30),))
    assert together([first, second]).gpus == (GpuChange("H200", 120.0, 70.0, 2 << 30),)
    assert together([first, change()]).gpus is None
