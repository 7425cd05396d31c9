"""Made-up pictures: seeded, of any size, and such that a network can learn them."""

import numpy as np
import pytest

from models.datasets.load import load_dataset
from models.datasets.synthetic import load_synthetic
from models.errors import ModelError
from models.preprocessing import decode_image
from models.training.train import train


def test_the_same_seed_makes_the_same_pictures_and_another_others():
    first, again, other = (load_synthetic((20, 30), classes=4, images=256, seed=seed) for seed in (1, 1, 2))
    assert first.sha256 == again.sha256 != other.sha256
    assert decode_image(first.train.images[0]).shape == (20, 30, 3)
    assert (len(first.train.images) + len(first.test.images), len(first.classes)) == (256, 4)


def test_classes_are_of_nearly_equal_size():
    made = load_synthetic((16, 16), classes=7, images=300)
    counts = np.bincount(np.concatenate([made.train.labels, made.test.labels]))
    assert counts.max() - counts.min() <= 1


def test_it_can_be_learnt_and_is_not_learnt_at_once(tmp_path):
    dataset = load_synthetic((32, 32), classes=10, images=1000)
    record = train("torch", dataset, tmp_path, epochs=3)
    assert record.epochs[-1].top1 > 0.9
    assert record.epochs[0].training_loss > 0.5


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"classes": 1}, "at least two classes"),
        ({"images": 100}, "100 images are too few for 10 classes: ask for --images 256 or more"),
        ({"classes": 200, "images": 300}, "ask for --images 400 or more"),
        ({"size": (2000, 2000)}, "1000 images of 2000x2000 pixels take over 2 GiB"),
    ],
)
def test_what_cannot_be_made_is_refused(asked, sentence):
    with pytest.raises(ModelError, match=sentence):
        load_synthetic(**{"size": (32, 32), **asked})


def test_other_data_sets_take_no_number_of_classes():
    with pytest.raises(ModelError, match="Only data set synthetic takes a number of classes"):
        load_dataset("digits", classes=3)


def test_digits_are_resized_to_the_networks_input():
    assert load_dataset("digits", size=(28, 28)).size == (28, 28)
