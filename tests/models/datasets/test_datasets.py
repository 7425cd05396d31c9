"""Data sets are real images, split the same way every time, and refused plainly where they cannot be used."""

import hashlib
import io
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from models.datasets.cifar10 import ARCHIVE_NAME, load_cifar10
from models.datasets.dataset import stratified_split
from models.datasets.image_folder import load_folder
from models.datasets.load import load_dataset
from models.errors import ModelEnvironmentError, ModelError
from models.preprocessing import decode_image
from tests.stand_ins.pictures import encode, picture


def test_digits_are_the_1797_that_scikit_learn_ships(digits):
    from sklearn import datasets

    assert len(digits.train.images) + len(digits.test.images) == 1797
    counts = np.bincount(np.concatenate([digits.train.labels, digits.test.labels]))
    np.testing.assert_array_equal(counts, np.bincount(datasets.load_digits().target))
    assert digits.classes == list("0123456789")


def test_digits_are_32x32_rgb_png(digits):
    assert all(image.startswith(b"\x89PNG") for image in digits.train.images)
    pixels = decode_image(digits.train.images[0])
    assert pixels.shape == (32, 32, 3)
    assert pixels.max() > 200


def test_digits_are_not_mirrored(digits):
    assert not digits.may_flip


def test_the_same_seed_gives_the_same_digits_and_another_seed_another_split(digits):
    assert load_dataset("digits").sha256 == digits.sha256
    assert load_dataset("digits", seed=1).sha256 != digits.sha256


def test_no_image_is_both_learnt_from_and_held_out():
    train, test = stratified_split(np.arange(100) % 3, seed=5)
    assert sorted([*train, *test]) == list(range(100))


def test_a_split_holds_out_a_fifth_of_every_class():
    labels = np.repeat([0, 1, 2], [100, 50, 5])
    _, test = stratified_split(labels, seed=0)
    assert np.bincount(labels[test]).tolist() == [20, 10, 1]


def test_an_unknown_data_set_is_refused_with_the_known_ones():
    with pytest.raises(ModelError, match=r"'mnist'.*digits, cifar10, folder"):
        load_dataset("mnist")


# CIFAR-10


def batch(count, seed):
    rng = np.random.default_rng(seed)
    return {
        b"data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
        b"labels": [int(label) for label in rng.integers(0, 10, count)],
    }


def cifar_archive(path, leave_out=None):
    """A small archive laid out as the published one; returns its batches and its sha256."""
    batches = {f"data_batch_{number}": batch(4, number) for number in range(1, 6)} | {"test_batch": batch(3, 9)}
    batches["batches.meta"] = {b"label_names": [f"class {number}".encode() for number in range(10)]}
    with tarfile.open(path, "w:gz") as tar:
        for name, content in batches.items():
            if name == leave_out:
                continue
            data = pickle.dumps(content, protocol=2)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return batches, hashlib.sha256(path.read_bytes()).hexdigest()


def test_cifar10_keeps_its_own_split_pixels_and_labels(tmp_path):
    batches, sha256 = cifar_archive(tmp_path / ARCHIVE_NAME)
    dataset = load_cifar10(tmp_path, sha256=sha256)
    assert (len(dataset.train.images), len(dataset.test.images)) == (20, 3)
    assert dataset.test.labels.tolist() == batches["test_batch"][b"labels"]
    row = batches["data_batch_2"][b"data"][1]
    pixels = decode_image(dataset.train.images[5])
    np.testing.assert_array_equal(pixels[:, :, 0].ravel(), row[:1024])
    np.testing.assert_array_equal(pixels[:, :, 2].ravel(), row[2048:])
    assert dataset.classes[3] == "class 3"
    assert dataset.may_flip


def test_cifar10_may_be_named_by_its_file(tmp_path):
    _, sha256 = cifar_archive(tmp_path / "mine.tar.gz")
    assert len(load_cifar10(tmp_path / "mine.tar.gz", sha256=sha256).test.images) == 3


def test_cifar10_is_downloaded_where_it_is_not_there(tmp_path):
    _, sha256 = cifar_archive(tmp_path / "published.tar.gz")
    url = (tmp_path / "published.tar.gz").as_uri()
    dataset = load_cifar10(tmp_path / "data", sha256=sha256, url=url)
    assert len(dataset.train.images) == 20
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == [ARCHIVE_NAME]


def test_cifar10_offline_is_an_environment_error_in_one_line(tmp_path):
    with pytest.raises(ModelEnvironmentError, match="--data-dir") as refusal:
        load_cifar10(tmp_path, url="http://127.0.0.1:9/cifar-10-python.tar.gz")
    assert "\n" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_another_archive_than_the_published_one_is_refused(tmp_path):
    cifar_archive(tmp_path / ARCHIVE_NAME)
    with pytest.raises(ModelError, match="not the published archive"):
        load_dataset("cifar10", tmp_path)


def test_an_archive_without_a_batch_is_refused(tmp_path):
    _, sha256 = cifar_archive(tmp_path / ARCHIVE_NAME, leave_out="data_batch_3")
    with pytest.raises(ModelError, match="does not hold CIFAR-10"):
        load_cifar10(tmp_path, sha256=sha256)


# folder


def image_folder(folder, classes):
    """A directory per class with that many images, of several sizes and both formats."""
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            kind, suffix = (("PNG", "png"), ("JPEG", "jpg"))[index % 2]
            data = encode(picture(20 + index, 30, seed=index), kind)
            (folder / name / f"{index:03d}.{suffix}").write_bytes(data)
    return folder


def test_a_folder_has_a_class_per_directory_and_keeps_the_bytes(tmp_path):
    folder = image_folder(tmp_path, {"dog": 10, "cat": 5})
    (folder / "dog" / ".DS_Store").write_bytes(b"hidden files are not images")
    dataset = load_dataset("folder", folder, seed=2, size=(24, 28))
    assert dataset.classes == ["cat", "dog"]
    assert dataset.size == (24, 28)
    assert (len(dataset.train.images), len(dataset.test.images)) == (12, 3)
    on_disk = {path.read_bytes() for path in (folder / "dog").glob("*.*") if not path.name.startswith(".")}
    dogs = [
        image
        for split in (dataset.train, dataset.test)
        for image, label in zip(split.images, split.labels, strict=True)
        if label == 1
    ]
    assert set(dogs) == on_disk


def test_a_folder_splits_the_same_by_seed(tmp_path):
    folder = image_folder(tmp_path, {"dog": 10, "cat": 10})
    assert load_folder(folder, 1).sha256 == load_folder(folder, 1).sha256 != load_folder(folder, 2).sha256


def nothing(folder):
    folder.mkdir()


def unreadable(folder):
    image_folder(folder, {"cat": 2, "dog": 2})
    (folder / "dog" / "broken.jpg").write_bytes(b"\xff\xd8\xff but no more")


def other_format(folder):
    image_folder(folder, {"cat": 2, "dog": 2})
    Image.fromarray(picture(9, 9)).save(folder / "cat" / "moving.gif")


def empty_class(folder):
    image_folder(folder, {"cat": 2, "dog": 0})


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: None, "is not a directory"),
        (nothing, "holds no class directories"),
        (lambda folder: image_folder(folder, {"cat": 3}), r"one class only \(cat\)"),
        (lambda folder: image_folder(folder, {"cat": 3, "dog": 1}), "dog holds one image only"),
        (empty_class, "dog holds no images"),
        (unreadable, r"dog/broken\.jpg cannot be used as an image"),
        (other_format, r"cat/moving\.gif cannot be used .* convert it to JPEG or PNG"),
    ],
)
def test_an_unusable_folder_is_refused_in_one_sentence(tmp_path, make, sentence):
    make(tmp_path / "data")
    with pytest.raises(ModelError, match=sentence) as refusal:
        load_dataset("folder", tmp_path / "data")
    assert "\n" not in str(refusal.value)


def test_a_folder_needs_to_be_named():
    with pytest.raises(ModelError, match="--data-dir"):
        load_dataset("folder")


def test_an_input_too_small_for_the_network_is_refused(tmp_path):
    with pytest.raises(ModelError, match="at least 4x4"):
        load_dataset("folder", image_folder(tmp_path, {"cat": 2, "dog": 2}), size=(3, 32))
