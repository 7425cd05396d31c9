"""Photographs in class folders: resized by the shorter side, the centre cut out, train and val kept."""

import numpy as np
import pytest

from models.datasets.imagenet_folder import centre, load_imagenet_folder
from models.datasets.load import load_dataset
from models.errors import ModelError
from models.preprocessing import decode_image
from tests.stand_ins.pictures import encode, picture


def class_folders(folder, classes, count=5):
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for image in range(count):
            photograph = picture(40 + 7 * image, 30 + 9 * number)
            (folder / name / f"{image}.JPEG").write_bytes(encode(photograph, "JPEG"))
    return folder


@pytest.mark.parametrize(("height", "width"), [(60, 200), (200, 60), (64, 64), (20, 30)])
def test_the_centre_is_cut_out_and_keeps_its_proportions(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :] = 255
    cut = decode_image(centre(encode(image, "PNG"), (56, 56)))
    assert cut.shape == (56, 56, 3)
    assert cut[:, :20].max() == 0 and cut[:, 36:].min() == 255


@pytest.mark.parametrize(("border", "left"), [(4, 0), (6, 2)])
def test_of_64_pixels_the_middle_56_remain(border, left):
    image = np.full((64, 64, 3), 255, np.uint8)
    image[border:-border, border:-border] = 0
    cut = decode_image(centre(encode(image, "PNG"), (56, 56)))
    assert (cut[28] > 0).any(axis=1).sum() == 2 * left


def test_a_fifth_is_held_out_where_there_is_no_split(tmp_path):
    dataset = load_dataset("imagenet-folder", data_dir=class_folders(tmp_path / "photos", "abc"), size=(24, 32))
    assert (len(dataset.train.images), len(dataset.test.images), dataset.classes) == (12, 3, ["a", "b", "c"])
    assert decode_image(dataset.train.images[0]).shape == (24, 32, 3)


def test_train_and_val_are_the_split(tmp_path):
    class_folders(tmp_path / "photos" / "train", "ab")
    class_folders(tmp_path / "photos" / "val", "ab", count=2)
    dataset = load_imagenet_folder(tmp_path / "photos", (24, 24))
    assert (len(dataset.train.images), len(dataset.test.images), dataset.classes) == (10, 4, ["a", "b"])


def test_classes_that_differ_are_refused(tmp_path):
    class_folders(tmp_path / "photos" / "train", "abc")
    class_folders(tmp_path / "photos" / "val", "ab")
    with pytest.raises(ModelError, match="has class c in only one of train and val"):
        load_imagenet_folder(tmp_path / "photos", (24, 24))


def test_a_class_without_images_is_refused(tmp_path):
    folder = class_folders(tmp_path / "photos", "ab")
    (folder / "empty").mkdir()
    with pytest.raises(ModelError, match="empty holds no images"):
        load_imagenet_folder(folder, (24, 24))
