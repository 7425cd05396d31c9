"""The report of a study of trainings: its chapter, its texts, and nothing about servers."""

from __future__ import annotations

import re

import pytest

from servestorm.report.write import write_report
from tests.stand_ins.made_up_training import study_of_trainings

SEVERAL = """\
name: several
training:
  data: [{dataset: synthetic, size: 16x16}, {dataset: digits}]
  batch_size: [16, 32]
  epochs: 2
repetitions: 3
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        return study_of_trainings(patch, tmp_path_factory.mktemp("runs")).carry_out()


@pytest.fixture(scope="module")
def results(run):
    results, _ = write_report(run)
    return results


@pytest.fixture(scope="module")
def page(run, results):
    return re.sub(r"\s+", " ", (run / "report.html").read_text())


def test_the_first_line_is_the_verdict_on_time(page):
    assert re.search(r"Keras trains 1\.3\d times as fast as PyTorch \(1\.3\d to 1\.3\d\)", page)
    assert "Keras and PyTorch, training cnn on synthetic 16x16" in page


@pytest.mark.parametrize(
    "text",
    [
        "Training and accuracy",
        "4 epochs, 5 runs, epochs in turns",
        "all 10 trainings count",
        "10 of 10 trainings are complete.",
        "time to the accuracy asked for",
        "Classification report",
        "pelican",
        "Sample answers",
        "Use over time",
        "one for each core",
        "Scatter between runs",
        "c7i.large",
    ],
)
def test_the_page_has_every_part_of_the_chapter(page, text):
    assert text in page


@pytest.mark.parametrize(
    "text", ["cold start", "requests/s", "Generator's cores", "serving cnn", "images a request", "p99"]
)
def test_the_page_says_nothing_of_servers(page, text):
    shown = page[: page.index('id="method"')]
    assert text not in re.sub(r"<caption.*?</caption>|<style.*?</style>", "", shown)


def test_accuracies_have_no_interval_beyond_100_percent(results):
    for name in ("top1_percent", "top5_percent", "training_top1_percent", "recall_percent"):
        for value in results.metric(f"training.{name}").values.values():
            assert value.ci is None or value.ci[1] <= 100


def test_curves_use_and_confusion_are_those_of_the_records(results):
    keras = results.figures.training["training"]["keras"]
    assert keras.loss == pytest.approx([1.1, 0.55, 1.1 / 3, 0.275])
    assert [len(seconds) for seconds in keras.epoch_s] == [4] * 5
    assert keras.cpu_percent[0] == pytest.approx([75.0] * 20)  # 1.5 of 2 cores, all the time
    assert keras.rss_mib[0][-1] == pytest.approx(500) and keras.rss_mib[0][0] < 420
    assert sum(keras.read_mib_per_s[0]) / 20 == pytest.approx(10 / sum(keras.epoch_s[0]))
    assert keras.confusion == [[80, 15, 5], [10, 90, 0], [0, 0, 100]]
    assert (keras.height, keras.training_images, keras.held_out_images) == (16, 240, 60)


def test_the_time_to_an_accuracy_is_that_of_the_epochs_before_it(results):
    row = results.metric("training.to_top1_s").values["torch"]
    for reached_s, seconds in zip(row.runs, results.figures.training["training"]["torch"].epoch_s, strict=True):
        assert reached_s == pytest.approx(sum(seconds[:3])) or reached_s == pytest.approx(sum(seconds))


def test_costs_are_hours_by_the_price_of_the_share_that_is_used(results):
    keras = results.figures.training["training"]["keras"]
    seconds = sum(map(sum, keras.epoch_s)) / 5
    cores = len(results.study.cores.engine)
    costs = {cost.instance: cost.usd for cost in keras.costs}
    assert costs["c7i.large"] == pytest.approx(seconds / 3600 * 0.08925 * cores / 2)
    assert costs["c3-standard-4"] == pytest.approx(seconds / 3600 * 0.201608 * cores / 4)


def test_claims_on_training_are_spoken_to(page):
    assert "Published claims" in page
    assert "D5, quoting Novac and others 2022: an epoch of training" in page


def test_several_combinations_have_figures_of_their_own(monkeypatch, tmp_path):
    path = study_of_trainings(monkeypatch, tmp_path, SEVERAL).carry_out()
    results, _ = write_report(path)
    assert list(results.groups) == [
        f"training[{data}, batches of {size}]" for data in ("synthetic 16x16", "digits") for size in (16, 32)
    ]
    page = (path / "report.html").read_text()
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert page.count("Classification report (Training (digits, batches of 16))") >= 1
    assert "Keras and PyTorch, training cnn on 2 data sets" in page


PARALLEL = """\
name: parallel
training:
  frameworks: torch
  data: {dataset: synthetic, size: 16x16}
  processes: [1, 2]
  epochs: 3
repetitions: 5
"""


def test_training_in_several_processes_has_a_speed_up_and_an_efficiency_with_intervals(monkeypatch, tmp_path):
    path = study_of_trainings(monkeypatch, tmp_path, PARALLEL).carry_out()
    results, _ = write_report(path)
    assert list(results.figures.data_parallel) == ["training[2 processes]"]
    found = results.figures.data_parallel["training[2 processes]"]["torch"]
    assert (found.processes, found.fewest) == (2, 1)
    assert found.speedup == pytest.approx(1.6, abs=0.02)  # as made up
    low, high = found.speedup_ci
    assert low < 1.6 < high and high / low < 1.05  # a repetition that is slow is so with one process and with two
    assert found.efficiency_percent == pytest.approx(50 * found.speedup)
    assert found.efficiency_percent_ci == pytest.approx((50 * low, 50 * high))
    page = re.sub(r"\s+", " ", (path / "report.html").read_text())
    assert "divided by those of one process" in page and "Training in several processes" in page


def test_without_several_processes_there_is_no_such_part(page):
    assert "Training in several processes" not in page
