"""MedMNIST's files and X-ray folders: read as their authors lay them out, or refused with the reason."""

import hashlib

import numpy as np
import pytest

from models.datasets.load import load_dataset
from models.datasets.medmnist import load_medmnist
from models.datasets.xray import load_xray
from models.errors import ModelError
from models.preprocessing import decode_image
from tests.stand_ins.pictures import encode, picture


def arrays(classes=2, count=20, side=28, colours=True, one_column=True):
    rng = np.random.default_rng(0)
    made = {}
    for split in ("train", "val", "test"):
        made[f"{split}_images"] = rng.integers(0, 255, (count, side, side, *((3,) if colours else ())), np.uint8)
        labels = (np.arange(count) % classes).astype(np.uint8)
        made[f"{split}_labels"] = labels[:, None] if one_column else labels
    return made


def saved(path, **changes):
    made = {**arrays(), **changes}
    np.savez(path, **{name: array for name, array in made.items() if array is not None})
    return path


@pytest.mark.parametrize("colours", [True, False])
@pytest.mark.parametrize("side", [28, 64])
def test_a_file_is_read_with_its_own_split(tmp_path, colours, side):
    made = arrays(side=side, colours=colours)
    dataset = load_medmnist(saved(tmp_path / "mine.npz", **made))
    assert (len(dataset.train.images), len(dataset.test.images), dataset.size) == (20, 20, (side, side))
    assert dataset.classes == ["0", "1"]
    first = decode_image(dataset.test.images[0])
    expected = made["test_images"][0]
    np.testing.assert_array_equal(first, expected if colours else np.repeat(expected[:, :, None], 3, axis=2))
    np.testing.assert_array_equal(dataset.train.labels, np.arange(20) % 2)


@pytest.mark.parametrize(("name", "side"), [("breastmnist.npz", 28), ("breastmnist_64.npz", 64)])
def test_label_0_of_breastmnist_is_malignant(tmp_path, name, side):
    file = saved(tmp_path / name, **arrays(side=side, colours=False))
    dataset = load_medmnist(file, checksums={name: hashlib.md5(file.read_bytes()).hexdigest()})
    assert dataset.classes == ["malignant", "normal, benign"]


def test_a_published_name_with_other_content_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"bloodmnist.npz is not the published file"):
        load_dataset("medmnist", data_dir=saved(tmp_path / "bloodmnist.npz"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"test_labels": None}, "it has no test_labels"),
        ({"train_images": np.zeros((20, 28, 28, 4), np.uint8)}, r"shape \(20, 28, 28, 4\)"),
        ({"train_images": np.zeros((20, 28, 28), np.float32)}, "type float32"),
        ({"train_labels": np.zeros((20, 14), np.uint8)}, r"train_labels of shape \(20, 14\) for 20 images: one label"),
        ({"train_labels": np.ones((20, 1), np.uint8)}, r"no training image of class 0 \(0\)"),
        ({"test_images": np.zeros((0, 28, 28), np.uint8), "test_labels": np.zeros((0, 1), np.uint8)}, "no test images"),
    ],
)
def test_another_layout_is_named(tmp_path, changes, sentence):
    with pytest.raises(ModelError, match=sentence):
        load_medmnist(saved(tmp_path / "mine.npz", **changes))


def test_a_label_beyond_the_sets_classes_is_refused(tmp_path):
    file = saved(tmp_path / "breastmnist_28.npz", **arrays(classes=3, colours=False))
    with pytest.raises(ModelError, match="has label 2, and breastmnist_28 has 2 classes"):
        load_medmnist(file)


@pytest.mark.parametrize("keep", [0, 100, 4000])
def test_a_truncated_file_is_one_sentence(tmp_path, keep):
    file = saved(tmp_path / "mine.npz")
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"mine.npz cannot be read \(.*\): download it again"):
        load_medmnist(file)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"nowhere.npz is not a file"):
        load_medmnist(tmp_path / "nowhere.npz")
    with pytest.raises(ModelError, match=r"medmnist needs --data-dir: an .npz file"):
        load_dataset("medmnist")


def elbow(folder, patients, images=2, split=""):
    """Studies of patients: (number, endings)."""
    for number, endings in patients:
        for study, ending in enumerate(endings):
            place = folder / split / f"patient{number:05d}" / f"study{study + 1}_{ending}"
            place.mkdir(parents=True)
            for image in range(images):
                (place / f"image{image + 1}.png").write_bytes(encode(picture(8 + number, 9 + image), "PNG"))
    return folder


PATIENTS = [(number, ["positive" if number % 2 else "negative"]) for number in range(12)] + [
    (20, ["negative", "positive"])
]


def patients_of(dataset, folder, side):
    """Patients whose images are on a side, by their bytes."""
    by_bytes = {}
    for path in folder.rglob("*.png"):
        by_bytes.setdefault(path.read_bytes(), set()).add(path.parent.parent.name)
    return set().union(*(by_bytes[image] for image in getattr(dataset, side).images))


def test_studies_are_labelled_by_their_folders_and_split_by_patient(tmp_path):
    folder = elbow(tmp_path / "XR_ELBOW", PATIENTS)
    dataset = load_dataset("xray", data_dir=folder, size=(32, 32))
    assert dataset.classes == ["negative", "positive"]
    assert len(dataset.train.images) + len(dataset.test.images) == 28
    assert 4 <= len(dataset.test.images) <= 10
    assert not patients_of(dataset, folder, "train") & patients_of(dataset, folder, "test")
    assert set(dataset.train.labels) == set(dataset.test.labels) == {0, 1}
    again, other = (load_xray(folder, (32, 32), seed) for seed in (0, 1))
    assert again.sha256 == dataset.sha256 != other.sha256


def test_the_sets_own_split_is_kept(tmp_path):
    folder = elbow(tmp_path / "mura", PATIENTS[:8], split="train")
    elbow(folder, PATIENTS[8:], split="valid")
    dataset = load_xray(folder, (32, 32))
    assert (len(dataset.train.images), len(dataset.test.images)) == (16, 12)
    assert patients_of(dataset, folder / "valid", "test") == {
        "patient00008",
        "patient00009",
        "patient00010",
        "patient00011",
        "patient00020",
    }


def test_a_patient_on_both_sides_is_refused(tmp_path):
    folder = elbow(tmp_path / "mura", PATIENTS, split="train")
    elbow(folder, PATIENTS[:2], split="valid")
    with pytest.raises(ModelError, match=r"Patient patient00000 is in .*train and in .*valid"):
        load_xray(folder, (32, 32))


def test_an_image_in_no_study_is_refused(tmp_path):
    folder = elbow(tmp_path / "mura", PATIENTS)
    (folder / "patient00001" / "notes.png").write_bytes(b"")
    with pytest.raises(ModelError, match=r"notes.png lies in no study"):
        load_xray(folder, (32, 32))


@pytest.mark.parametrize(
    ("patients", "sentence"),
    [
        ([(1, ["negative"]), (2, ["negative"])], "mura has no positive image: add patients"),
        ([(1, ["negative"]), (2, ["positive"])], "no negative and no positive image among its training patients"),
        (
            [(1, ["positive"]), *((number, ["negative"]) for number in range(2, 6))],
            "no positive image among its training patients",
        ),
    ],
)
def test_a_side_without_a_class_is_refused(tmp_path, patients, sentence):
    with pytest.raises(ModelError, match=sentence):
        load_xray(elbow(tmp_path / "mura", patients), (32, 32))


def test_a_side_of_the_own_split_without_a_class_is_refused(tmp_path):
    folder = elbow(tmp_path / "mura", [(1, ["negative", "positive"])], split="train")
    elbow(folder, [(2, ["negative"])], split="valid")
    with pytest.raises(ModelError, match="no positive image among its held-out patients"):
        load_xray(folder, (32, 32))
