"""An export is two artifacts of one function, with a manifest that says so, written whole or not at all."""

import json
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from models.artifacts.export import export_model, export_source
from models.artifacts.parity import MIN_IMAGES
from models.artifacts.savedmodel import predict_images, predictor
from models.artifacts.source import of_training
from models.datasets.dataset import DatasetSplit
from models.errors import ModelEnvironmentError, ModelError, ParityError
from models.manifest import ModelDir
from models.training.record import load_record
from tests.stand_ins.pictures import encode, picture


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_parity_is_proved_on_the_artifacts_with_at_least_256_images(exported):
    parity = exported.manifest.parity
    assert parity.status == "proved"
    assert parity.images >= 256
    assert parity.max_abs_difference <= 1e-5


def test_the_manifest_describes_what_lies_beside_it(exported, few_digits):
    manifest = exported.manifest
    exported.verify("savedmodel")
    exported.verify("mar")
    assert manifest.labels == few_digits.classes
    assert (manifest.architecture, manifest.dataset, manifest.weights_from) == ("cnn", "digits", "keras")
    assert (manifest.input.height, manifest.input.width, manifest.input.channels) == (32, 32, 3)
    assert manifest.seed == 3
    assert {"tensorflow", "torch", "keras"} <= set(manifest.frameworks)


def test_the_manifest_says_how_accurate_the_artifacts_are_on_held_out_images(exported, few_digits, weights_dir):
    accuracy = exported.manifest.accuracy
    record = load_record(weights_dir, "keras")
    assert accuracy.images == record.test_images == len(few_digits.test.images)
    assert accuracy.top1 == pytest.approx(record.top1, abs=1e-9)
    assert accuracy.top5 == pytest.approx(record.epochs[-1].top5, abs=1e-9)


def test_nothing_is_said_of_accuracy_on_images_of_other_classes(weights_dir, few_digits, tmp_path):
    others = replace(few_digits, classes=[f"not {name}" for name in few_digits.classes])
    model = export_source(of_training(weights_dir, "keras"), tmp_path / "cnn", others)
    assert model.manifest.accuracy is None


def test_golden_answers_are_the_savedmodels_for_32_held_out_images(exported, few_digits):
    images = exported.golden_images()
    assert images == few_digits.test.images[:32]
    answers = [entry.probabilities for entry in exported.manifest.golden]
    np.testing.assert_allclose(predict_images(exported.path / "1", images), answers, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.sum(answers, axis=1), 1, atol=1e-5)
    assert np.ptp(answers, axis=0).max() > 0.01


def test_both_signatures_agree(exported):
    from models.preprocessing import preprocess

    manifest = exported.manifest
    images = exported.golden_images()[:3]
    tensors = np.stack([preprocess(image, manifest.input) for image in images])
    from_tensors = predictor(exported.path / "1", manifest.tensor_signature, manifest.tensor_input, manifest.output)
    from_bytes = predictor(exported.path / "1", manifest.image_signature, manifest.image_input, manifest.output)
    np.testing.assert_allclose(from_tensors(tensors), from_bytes(images), rtol=0, atol=1e-6)


def test_the_savedmodel_takes_images_of_any_size_in_one_batch(exported):
    mixed = [encode(picture(50, 20), "JPEG"), exported.golden_images()[0], encode(picture(8, 8), "PNG")]
    together = predict_images(exported.path / "1", mixed)
    alone = predict_images(exported.path / "1", mixed, batch_size=1)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


def test_the_savedmodel_carries_a_warmup_request_that_it_answers(exported):
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    records = list(tf.data.TFRecordDataset(str(exported.path / "1" / "assets.extra" / "tf_serving_warmup_requests")))
    request = prediction_log_pb2.PredictionLog.FromString(records[0].numpy()).predict_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == ("tiny", "serving_default")
    image = tf.make_ndarray(request.inputs["image_bytes"])
    assert predict_images(exported.path / "1", list(image)).shape == (1, 10)


def test_the_archive_holds_torchscript_handler_and_preprocessing(exported):
    with zipfile.ZipFile(exported.mar_path) as archive:
        names = set(archive.namelist())
        model = json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]
    assert {"network.pt", "handler.py", "preprocessing.py", "input.json"} <= names
    assert (model["modelName"], model["serializedFile"], model["handler"]) == ("tiny", "network.pt", "handler.py")


def test_weights_from_torch_make_a_new_version_beside_the_older_one(few_digits, weights_dir, exported, tmp_path):
    shutil.copytree(exported.path, tmp_path / "tiny")
    before = snapshot(tmp_path / "tiny" / "1")
    model = export_model("tiny", weights_dir, few_digits, tmp_path, version=2, weights_from="torch")
    assert (model.manifest.version, model.manifest.weights_from) == (2, "torch")
    assert model.manifest.parity.status == "proved"
    assert model.verify("savedmodel").name == "2"
    assert snapshot(tmp_path / "tiny" / "1") == before
    with pytest.raises(ModelError, match="holds version 2 already"):
        export_model("tiny", weights_dir, few_digits, tmp_path, version=1)
    assert model.verify("mar") == tmp_path / "tiny" / "tiny.mar"


def sabotaged(monkeypatch):
    """Make the .mar of a slightly different network, as a wrong transposition would."""
    from models.artifacts import archive

    original = archive.to_torch

    def wrong(network, weights, module):
        original(network, weights, module)
        module.classifier[1].bias.data += 0.05

    monkeypatch.setattr(archive, "to_torch", wrong)


def test_an_export_of_two_functions_is_refused_with_the_figure(few_digits, weights_dir, tmp_path, monkeypatch):
    sabotaged(monkeypatch)
    with pytest.raises(ParityError, match=r"differ by up to \d\.\d\de-0\d on 256 images"):
        export_model("tiny", weights_dir, few_digits, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_savedmodel_unlike_the_trained_network_is_refused(few_digits, weights_dir, tmp_path, monkeypatch):
    from models.artifacts import served_network

    right = served_network.folded
    monkeypatch.setattr(served_network, "folded", lambda conv, norm, epsilon: right(conv, norm, 0.5))
    with pytest.raises(ParityError, match="differs from the keras network in memory"):
        export_model("tiny", weights_dir, few_digits, tmp_path)


@pytest.fixture
def earlier(exported, tmp_path):
    """An earlier export in a folder of its own."""
    shutil.copytree(exported.path, tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_full_disk_leaves_the_earlier_export(few_digits, weights_dir, earlier, monkeypatch):
    import tensorflow as tf

    def no_space(*args, **kwargs):
        raise tf.errors.ResourceExhaustedError(None, None, "saved_model.pb; No space left on device")

    before = snapshot(earlier.parent)
    monkeypatch.setattr(tf.saved_model, "save", no_space)
    with pytest.raises(ModelEnvironmentError, match="no space left"):
        export_model("tiny", weights_dir, few_digits, earlier.parent)
    assert snapshot(earlier.parent) == before


@pytest.mark.parametrize("moment", ["writing the .mar", "proving that both artifacts answer alike"])
def test_an_interrupted_export_leaves_the_earlier_one(few_digits, weights_dir, earlier, moment):
    def interrupt(what, fraction):
        if what == moment:
            raise KeyboardInterrupt

    before = snapshot(earlier.parent)
    with pytest.raises(KeyboardInterrupt):
        export_model("tiny", weights_dir, few_digits, earlier.parent, progress=interrupt)
    assert snapshot(earlier.parent) == before
    ModelDir(earlier).verify("mar")


def test_an_export_of_another_data_set_than_the_one_trained_on_is_refused(digits, weights_dir, tmp_path):
    with pytest.raises(ModelError, match="trained on other images"):
        export_model("tiny", weights_dir, digits, tmp_path)


def test_too_few_images_for_a_proof_are_refused(few_digits, weights_dir, tmp_path):
    few = replace(few_digits, train=DatasetSplit(few_digits.train.images[:100], few_digits.train.labels[:100]))
    with pytest.raises(ModelError, match=f"180 images.*at least {MIN_IMAGES}"):
        export_source(of_training(weights_dir, "keras"), tmp_path / "tiny", few)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "../up"}, "no model name"),
        ({"version": 0}, "Version 0"),
        ({"weights_from": "jax"}, "'jax'"),
    ],
)
def test_wrong_arguments_are_refused(few_digits, weights_dir, tmp_path, arguments, sentence):
    with pytest.raises(ModelError, match=sentence):
        export_model(
            **{"name": "tiny", "weights_dir": weights_dir, "dataset": few_digits, "out_dir": tmp_path} | arguments
        )


def test_untrained_weights_say_what_to_run(few_digits, tmp_path):
    with pytest.raises(ModelError, match="servestorm train"):
        export_model("tiny", tmp_path, few_digits, tmp_path / "out")


def test_a_folder_that_is_no_model_directory_is_not_replaced(few_digits, weights_dir, tmp_path):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "thesis.txt").write_text("mine")
    with pytest.raises(ModelError, match="no model directory"):
        export_model("tiny", weights_dir, few_digits, tmp_path)
    assert (tmp_path / "tiny" / "thesis.txt").read_text() == "mine"


def test_a_changed_artifact_is_found_corrupt(earlier):
    with (earlier / "tiny.mar").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ModelError, match=r"tiny\.mar is corrupt"):
        ModelDir(earlier).verify("mar")
    ModelDir(earlier).verify("savedmodel")
