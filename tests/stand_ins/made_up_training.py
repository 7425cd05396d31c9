"""Trainings without a framework: what a process of a study would say, with made-up times and answers."""

from __future__ import annotations

import base64
import io
import random

from PIL import Image

from models.errors import ModelEnvironmentError
from models.manifest import InputSpec
from models.training.record import (
    Classification,
    ClassScore,
    Epoch,
    ResourceUse,
    SampleAnswer,
    StudyTraining,
    TrainingRecord,
    UseSample,
)
from servestorm.plan.study_plan import parse_plan
from servestorm.study.trainings import round as training_round
from servestorm.study.trainings import study as training_study
from servestorm.study.trainings.study import TrainingStudy
from tests.stand_ins.made_up_machine import QUIET, MadeUpMachine

PLAN = """\
name: trainings
training:
  data: {dataset: synthetic, size: 16x16}
  epochs: 4
  reach_top1_percent: 80
repetitions: 5
"""
SECONDS = {"keras": 1.0, "torch": 2.0}
"""Of an epoch; the first of Keras takes three times as long."""
LABELS = ["cat", "dog", "pelican"]


class MadeUpTraining:
    """Stands where a FrameworkProcess would; `turns` are the frameworks in the order in which epochs were asked for."""

    turns: list[str]
    killed: str | None
    """The framework whose process is killed in its second epoch."""

    def __init__(self, name, work, order, *, progress, remedy):
        self.order, self.remedy, self._epochs, self._words = order, remedy, 0, ["ready"]

    def wait_for(self, word):
        assert self._words.pop(0) == word, "the study waits for what comes next"
        return (made_up(self.order).model_dump(mode="json"),) if word == "done" else ()

    def tell(self, word):
        assert word == "go"
        if self._epochs == self.order.epochs:
            self._words.append("done")
            return
        self._epochs += 1
        self.turns.append(self.order.framework)
        if self.order.framework == self.killed and self._epochs == 2:
            raise ModelEnvironmentError(f"the process that trains was killed (out of memory?): {self.remedy}.")
        self._words += ["epoch", "ready"]

    def stop(self):
        self._words = []


def made_up(order) -> StudyTraining:
    """What the training of an order leaves."""
    chance = random.Random(f"{order.framework} {order.seed}{order.processes if order.processes > 1 else ''}")
    usual_s = SECONDS[order.framework] / (1 + 0.6 * (order.processes - 1))
    usual_s *= random.Random(order.seed).uniform(0.9, 1.1)  # a bad moment hits both
    epochs = []
    for number in range(order.epochs):
        seconds = usual_s * chance.uniform(0.98, 1.02) * (3 if order.framework == "keras" and number == 0 else 1)
        share = min(0.98, 0.6 + 0.1 * number + chance.uniform(0, 0.02))
        epochs.append(
            Epoch(
                seconds=seconds,
                cpu_s=1.5 * seconds,
                training_loss=1 / (number + 1),
                training_top1=share,
                training_top5=1.0,
                loss=1.1 / (number + 1),
                top1=share - 0.01,
                top5=1.0,
            )
        )
    learnt_s = sum(epoch.seconds for epoch in epochs)
    record = TrainingRecord(
        framework=order.framework,
        architecture=order.network,
        dataset=order.data.dataset,
        dataset_sha256="0" * 64,
        train_images=240,
        test_images=60,
        labels=LABELS,
        input=InputSpec(height=16, width=16, mean=[0.5] * 3, std=[0.5] * 3),
        seed=order.seed,
        split_seed=order.seed,
        batch_size=order.batch_size,
        learning_rate=order.learning_rate,
        processes=order.processes,
        parameters=1000,
        weights="weights",
        epochs=epochs,
        use=ResourceUse(cores=2, rss_peak_bytes=500 << 20, samples=list(_samples(learnt_s))),
        classification=_report(),
        frameworks={order.framework: "1.0"},
        git_commit=None,
    )
    return StudyTraining(record=record, threads=order.threads or 2, samples=_answers())


def _samples(learnt_s):
    for number in range(1, 11):
        yield UseSample(
            t_s=learnt_s * number / 10,
            cpu_s=1.5 * learnt_s * number / 10,
            rss_bytes=(400 + 10 * number) << 20,
            read_ops=number,
            read_bytes=number << 20,
            write_ops=2 * number,
            write_bytes=0,
        )


def _report():
    classes = [ClassScore(name=name, precision=0.9, recall=0.8, f1=0.85, support=20) for name in LABELS]
    return Classification(
        classes=classes, precision=0.9, recall=0.8, f1=0.85, confusion=[[16, 3, 1], [2, 18, 0], [0, 0, 20]]
    )


def _answers():
    sink = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 30)).save(sink, "PNG")
    png = base64.b64encode(sink.getvalue()).decode("ascii")
    right = SampleAnswer(label="cat", answer="cat", probability=0.97, right=True, png=png)
    return [right, SampleAnswer(label="dog", answer="pelican", probability=0.4, right=False, png=png)]


def study_of_trainings(monkeypatch, out, text=PLAN, killed=None, resume=None, machine=None):
    """A study whose trainings are made up; MadeUpTraining.turns has their turns."""
    monkeypatch.setattr(MadeUpTraining, "turns", [], raising=False)
    monkeypatch.setattr(MadeUpTraining, "killed", killed, raising=False)
    monkeypatch.setattr(training_round, "FrameworkProcess", MadeUpTraining)
    monkeypatch.setattr(training_study, "require", lambda *_: None)
    watched = machine or MadeUpMachine(QUIET)
    return TrainingStudy(parse_plan(text, "plan"), text, out, resume=resume, machine=watched)
