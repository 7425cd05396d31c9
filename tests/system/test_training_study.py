"""A study of real trainings in both frameworks, from its plan to its report."""

from __future__ import annotations

import json

import pytest

from servestorm.cli.main import main
from servestorm.rundir.record import read_run

PLAN = """\
name: trainings
training:
  data: {dataset: synthetic, size: 16x16, classes: 3, images: 256}
  epochs: 2
  threads: 1
  reach_top1_percent: 40
repetitions: 3
disturbance: ignored
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trainings")
    (folder / "plan.yaml").write_text(PLAN)
    assert main(["run", str(folder / "plan.yaml"), "--out", str(folder / "runs")]) == 0
    (run,) = (folder / "runs").iterdir()
    return run


def test_both_frameworks_learn_the_same_data_in_turns(run):
    record = read_run(run)
    assert record.study.state == "complete" and len(record.cells) == 6
    for repetition in (1, 2, 3):
        keras, torch = (
            next(c.training for c in record.cells if (c.cell.engine, c.cell.repetition) == (name, repetition))
            for name in ("keras", "torch")
        )
        assert keras.record.dataset_sha256 == torch.record.dataset_sha256
        assert keras.record.labels == torch.record.labels and keras.record.input == torch.record.input
        for left in (keras, torch):
            assert left.threads == 1 and len(left.record.epochs) == 2
            assert left.record.top1 > 0.5  # of three classes
            assert 0 < left.record.epochs[1].cpu_s <= 3 * left.record.epochs[1].seconds
            assert {sample.right for sample in left.samples} <= {True, False} and left.samples
    assert len({cell.training.record.dataset_sha256 for cell in record.cells}) == 3


def test_its_results_have_every_figure_and_a_verdict(run):
    results = json.loads((run / "results.json").read_text())
    rows = {metric["key"]: metric["values"] for metric in results["metrics"]}
    for key in (
        "epoch_s",
        "to_top1_s",
        "top1_percent",
        "cpu_ms_per_image",
        "rss_peak_mib",
        "disk_writes",
        "f1_percent",
    ):
        for framework in ("keras", "torch"):
            assert rows[f"training.{key}"][framework]["n"] == 3, key
    assert {one["metric"].partition(".")[2] for one in results["verdicts"]} == {
        "epoch_s",
        "cpu_ms_per_image",
        "top1_percent",
        "rss_peak_mib",
        "cpu_percent",
    }
    learning = results["figures"]["training"]["training"]["torch"]
    assert len(learning["top1_percent"]) == 2 and len(learning["cpu_percent"]) == 3
    assert sum(map(sum, learning["confusion"])) == 3 * 51  # held-out images of three runs
    assert "Training and accuracy" in (run / "report.html").read_text()


def test_it_is_reported_and_compared_again(run, capsys):
    assert main(["report", str(run)]) == 0
    assert "Keras and PyTorch, training cnn on synthetic 16x16" in capsys.readouterr().out
    assert main(["compare", str(run), str(run)]) == 0
    assert "time of an epoch" in capsys.readouterr().out
