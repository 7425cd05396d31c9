"""What a training records beside its weights: accuracy on both sides, the report by class, CPU, memory and disk."""

import json
import os
import time

import numpy as np
import pytest

from models.datasets.synthetic import load_synthetic
from models.training.record import load_record
from models.training.resource_watch import MOST_SAMPLES, ResourceWatch
from models.training.scores import classification
from models.training.train import train

LABELS = np.array([0, 0, 0, 1, 1, 2])
ANSWERS = np.eye(4, dtype=np.float32)[[0, 0, 1, 1, 1, 0]]
"""Two of three 0 right, both 1 right, the 2 wrong; nothing is called 2 or 3, and nothing is of class 3."""


def test_the_report_by_class_is_that_of_its_definition():
    report = classification(ANSWERS, LABELS, ["a", "b", "c", "d"])
    assert [(one.name, one.precision, one.recall, one.support) for one in report.classes] == [
        ("a", pytest.approx(2 / 3), pytest.approx(2 / 3), 3),
        ("b", pytest.approx(2 / 3), 1.0, 2),
        ("c", 0.0, 0.0, 1),
        ("d", 0.0, 0.0, 0),
    ]
    assert report.classes[1].f1 == pytest.approx(0.8)
    assert report.confusion == [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert report.precision == pytest.approx((3 * 2 / 3 + 2 * 2 / 3) / 6)
    assert report.recall == pytest.approx(4 / 6)
    assert report.f1 == pytest.approx((3 * 2 / 3 + 2 * 0.8) / 6)


def test_cpu_memory_and_disk_are_those_of_this_process(tmp_path):
    with ResourceWatch(every_s=0.05) as watch, watch.running():
        spun_s, data = time.process_time() + 0.3, os.urandom(3 << 20)
        while time.process_time() < spun_s:
            pass
        with (tmp_path / "written").open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    use = watch.use
    last = use.samples[-1]
    assert [sample.t_s for sample in use.samples] == sorted(sample.t_s for sample in use.samples)
    assert len(use.samples) >= 3
    assert 0.25 <= last.cpu_s <= last.t_s * use.cores + 0.1
    assert last.write_ops >= 1
    assert use.rss_peak_bytes >= max(sample.rss_bytes for sample in use.samples) * 0.9 > 10_000_000


def test_what_happens_outside_its_turns_is_not_of_a_training():
    begun_s, outside_s = time.monotonic(), 0.0
    with ResourceWatch(every_s=0.02) as watch:
        for _ in range(2):
            with watch.running():
                spin(0.1)
            left_s = time.monotonic()
            spin(0.3)
            outside_s += time.monotonic() - left_s
    last = watch.use.samples[-1]
    assert 0.15 <= last.cpu_s <= 0.5  # of 0.8
    assert 0 < last.t_s <= time.monotonic() - begun_s - outside_s
    assert [sample.t_s for sample in watch.use.samples] == sorted(sample.t_s for sample in watch.use.samples)


def spin(cpu_s):
    """Use CPU time."""
    end_s = time.thread_time() + cpu_s
    while time.thread_time() < end_s:
        pass


def test_a_long_watch_keeps_a_bounded_number_of_samples():
    with ResourceWatch(every_s=1e-4) as watch, watch.running():
        deadline_s = time.monotonic() + 30
        while watch.every_s < 3e-4 and time.monotonic() < deadline_s:
            time.sleep(0.01)
    assert watch.every_s >= 4e-4
    assert len(watch.use.samples) <= MOST_SAMPLES


@pytest.mark.parametrize("framework", ["keras", "torch"])
def test_a_training_records_what_it_measured(framework, tmp_path):
    dataset = load_synthetic((16, 16), classes=3, images=300)
    record = train(framework, dataset, tmp_path, epochs=3)
    assert load_record(tmp_path, framework) == record
    for epoch in record.epochs:
        assert epoch.cpu_s > 0
        assert 0 < epoch.training_top1 <= epoch.training_top5 == 1
    assert sum(map(sum, record.classification.confusion)) == record.test_images
    right = sum(record.classification.confusion[place][place] for place in range(3))
    assert right / record.test_images == pytest.approx(record.top1)
    assert [one.name for one in record.classification.classes] == dataset.classes
    assert record.use.samples[-1].t_s >= record.seconds * 0.99
    assert record.use.samples[-1].cpu_s >= 0.9 * sum(epoch.cpu_s for epoch in record.epochs)
    assert record.images_per_s == pytest.approx(3 * record.train_images / record.seconds)


def test_seconds_to_an_accuracy_are_those_of_the_epochs_until_then(weights_dir):
    record = load_record(weights_dir, "torch")
    first = record.epochs[0]
    epochs = [first.model_copy(update={"seconds": 2.0, "top1": top1}) for top1 in (0.3, 0.8, 0.7)]
    record = record.model_copy(update={"epochs": epochs})
    assert [record.seconds_to(top1) for top1 in (0.1, 0.3, 0.31, 0.8, 0.9)] == [2.0, 2.0, 4.0, 4.0, None]


def test_a_record_of_an_older_version_is_read(weights_dir, tmp_path):
    document = json.loads((weights_dir / "training-torch.json").read_text())
    for name in ("use", "classification", "frozen", "pretrained_sha256"):
        del document[name]
    for epoch in document["epochs"]:
        for name in ("cpu_s", "training_top1", "training_top5"):
            del epoch[name]
    (tmp_path / "training-torch.json").write_text(json.dumps(document))
    assert load_record(tmp_path, "torch").use is None
