"""Training is real, seeded, recorded, and leaves earlier weights alone when it fails."""

import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from models.datasets.augmentation import augment
from models.datasets.dataset import DatasetSplit
from models.datasets.pixels import normalise_in_place, training_spec
from models.errors import ModelEnvironmentError, ModelError
from models.preprocessing import normalise
from models.training.record import load_record
from models.training.scores import cross_entropy, top_k
from models.training.train import train
from models.training.weight_files import load_weights

FRAMEWORKS = ("keras", "torch")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_digits_reach_97_percent_on_held_out_images(digits, tmp_path, framework):
    record = train(framework, digits, tmp_path)
    assert record.test_images == 359
    assert record.top1 >= 0.97
    assert record.epochs[-1].top5 > 0.99


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_record_on_disk_says_what_was_done(few_digits, weights_dir, framework):
    record = json.loads((weights_dir / f"training-{framework}.json").read_text())
    assert record["dataset"] == "digits"
    assert record["dataset_sha256"] == few_digits.sha256
    assert (record["train_images"], record["test_images"], record["seed"]) == (192, 80, 3)
    assert len(record["epochs"]) == 1
    epoch = record["epochs"][0]
    assert epoch["seconds"] > 0 and epoch["loss"] > 0 and 0 < epoch["top1"] <= epoch["top5"] <= 1
    assert (weights_dir / record["weights"]).is_file()
    assert {"tensorflow", "torch", "keras"} <= set(record["frameworks"])


def test_both_frameworks_train_the_same_number_of_values(weights_dir):
    counts = {load_record(weights_dir, framework).parameters for framework in FRAMEWORKS}
    assert len(counts) == 1


def tiny(dataset):
    return replace(
        dataset,
        train=DatasetSplit(dataset.train.images[:32], dataset.train.labels[:32]),
        test=DatasetSplit(dataset.test.images[:16], dataset.test.labels[:16]),
    )


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_same_seed_trains_the_same_weights(digits, tmp_path, framework):
    kernels = []
    for run, seed in enumerate((1, 1, 2)):
        record = train(framework, tiny(digits), tmp_path / str(run), epochs=1, seed=seed)
        kernels.append(load_weights(tmp_path / str(run), record)["probabilities"]["kernel"])
    np.testing.assert_allclose(kernels[0], kernels[1], rtol=0, atol=1e-6)
    assert np.abs(kernels[0] - kernels[2]).max() > 1e-3


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_progress_grows_to_the_end(digits, tmp_path, framework):
    told = []
    train(framework, tiny(digits), tmp_path, epochs=2, progress=lambda what, fraction: told.append((what, fraction)))
    fractions = [fraction for what, fraction in told if what.startswith("training")]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_single_leftover_image_does_not_stop_the_training(digits, tmp_path, framework):
    odd = replace(tiny(digits), train=DatasetSplit(digits.train.images[:17], digits.train.labels[:17]))
    assert np.isfinite(train(framework, odd, tmp_path, epochs=1, batch_size=16).epochs[-1].loss)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [({"epochs": 0}, "0 epochs"), ({"batch_size": 1}, "batch size of 1"), ({"learning_rate": 0.0}, "learning rate")],
)
def test_wrong_arguments_are_refused(digits, tmp_path, wrong, sentence):
    with pytest.raises(ModelError, match=sentence):
        train("torch", digits, tmp_path, **wrong)


def test_an_unknown_framework_is_refused(digits, tmp_path):
    with pytest.raises(ModelError, match=r"'jax'.*keras, torch"):
        train("jax", tiny(digits), tmp_path)


def test_a_broken_image_in_the_data_is_named(digits, tmp_path):
    broken = replace(digits, train=DatasetSplit([b"\x89PNG no"], np.zeros(1, np.int64)))
    with pytest.raises(ModelError, match="Image 0 of the data set is unusable"):
        train("torch", broken, tmp_path)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_full_disk_leaves_the_earlier_weights(digits, weights_dir, tmp_path, monkeypatch, framework):
    shutil.copytree(weights_dir, tmp_path, dirs_exist_ok=True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    if framework == "keras":
        monkeypatch.setattr("models.atomic.shutil.disk_usage", lambda path: SimpleNamespace(free=5 << 20))
    else:
        monkeypatch.setattr(Path, "write_bytes", out_of_space)
    with pytest.raises(ModelEnvironmentError, match="no space left"):
        train(framework, tiny(digits), tmp_path, epochs=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def out_of_space(path, data):
    with path.open("wb") as file:
        file.write(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


def test_missing_and_broken_records_say_what_to_run(tmp_path):
    with pytest.raises(ModelError, match="servestorm train --framework keras"):
        load_record(tmp_path, "keras")
    (tmp_path / "training-keras.json").write_text("{}")
    with pytest.raises(ModelError, match="is not a training record"):
        load_record(tmp_path, "keras")


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_broken_weights_are_named(weights_dir, tmp_path, framework):
    record = load_record(weights_dir, framework)
    with pytest.raises(ModelError, match=f"{record.weights} is missing"):
        load_weights(tmp_path, record)
    (tmp_path / record.weights).write_bytes(b"not weights")
    with pytest.raises(ModelError, match=f"{record.weights} does not hold this network's weights"):
        load_weights(tmp_path, record)


# what training is made of


def test_top_k_counts_rows_whose_label_is_among_the_k_best():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3]], np.float32)
    labels = np.array([0, 1, 0])
    assert [top_k(probabilities, labels, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


def test_cross_entropy_is_the_mean_negative_log_likelihood():
    probabilities = np.array([[0.25, 0.75], [0.5, 0.5]], np.float32)
    assert cross_entropy(probabilities, np.array([0, 1])) == pytest.approx(-(np.log(0.25) + np.log(0.5)) / 2)


def test_the_input_spec_normalises_the_training_pixels():
    pixels = np.random.default_rng(0).uniform(0, 255, (10, 4, 5, 3)).astype(np.float32)
    spec = training_spec(pixels)
    assert (spec.height, spec.width, spec.channels) == (4, 5, 3)
    np.testing.assert_allclose(spec.mean, pixels.mean(axis=(0, 1, 2)) / 255, atol=1e-5)
    np.testing.assert_allclose(spec.std, pixels.std(axis=(0, 1, 2)) / 255, atol=1e-5)


def test_normalising_in_place_is_normalising():
    pixels = np.random.default_rng(0).uniform(0, 255, (10, 4, 5, 3)).astype(np.float32)
    spec = training_spec(pixels)
    np.testing.assert_array_equal(normalise(pixels, spec), normalise_in_place(pixels.copy(), spec))


def test_a_channel_without_variation_does_not_divide_by_nothing():
    assert min(training_spec(np.zeros((2, 4, 4, 3), np.float32)).std) > 0


def numbered(count=200):
    return np.arange(count * 6 * 8 * 3, dtype=np.float32).reshape(count, 6, 8, 3)


def test_augmented_images_are_shifted_copies():
    images = numbered()
    shifted = augment(images, np.random.default_rng(0), padding=2, flip=False)
    rows = {round(float(s[3, 3, 0] - i[3, 3, 0]) / (8 * 3) + 0.01) for s, i in zip(shifted, images, strict=True)}
    assert rows == {-2, -1, 0, 1, 2}
    assert all(np.isin(s, i).all() for s, i in zip(shifted, images, strict=True))


def test_half_of_the_images_are_mirrored_only_where_that_is_allowed():
    def mirrored(flip):
        shifted = augment(numbered(), np.random.default_rng(0), padding=1, flip=flip)
        return np.mean(shifted[:, 3, 2, 0] > shifted[:, 3, 5, 0])

    assert mirrored(flip=False) == 0
    assert 0.4 < mirrored(flip=True) < 0.6
