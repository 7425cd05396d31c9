"""A person's own artifacts are taken as they are, and called equal only where that was shown."""

import json
import textwrap
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from models.artifacts.imported_model import import_model
from models.errors import ModelError
from models.manifest import ModelDir
from tests.stand_ins.pictures import encode, picture

WEIGHTS = np.array([[4.0, -3.0, 1.0], [-2.0, 5.0, 1.0], [0.5, -1.0, 3.0]], np.float32)
"""The foreign model: softmax of the mean colour (0..1) times this."""


class Colours(tf.Module):
    """As a person might have saved it, with signature and tensor names of their own."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="jpegs")])
    def from_bytes(self, jpegs):
        def mean(data):
            return tf.reduce_mean(
                tf.cast(tf.io.decode_image(data, channels=3, expand_animations=False), tf.float32), (0, 1)
            )

        means = tf.map_fn(mean, jpegs, fn_output_signature=tf.TensorSpec([3], tf.float32))
        return {"scores": tf.nn.softmax(tf.matmul(means / 255, WEIGHTS))}

    @tf.function(input_signature=[tf.TensorSpec([None, 224, 224, 3], tf.float32, name="pixels")])
    def from_tensor(self, pixels):
        return {"scores": tf.nn.softmax(tf.matmul(tf.reduce_mean(pixels, (1, 2)), WEIGHTS))}

    @tf.function(input_signature=[tf.TensorSpec([None, 5], tf.float32, name="features")])
    def from_features(self, features):
        return {"scores": features}


@pytest.fixture(scope="module")
def savedmodels(tmp_path_factory):
    """A SavedModel for each kind of signature, by name."""
    folder, module = tmp_path_factory.mktemp("savedmodels"), Colours()
    signatures = {
        "bytes": {"classify": module.from_bytes, "serving_default": module.from_features},
        "tensor": {"serving_default": module.from_tensor},
        "both": {"classify": module.from_bytes, "serving_default": module.from_tensor},
        "features": {"serving_default": module.from_features},
    }
    for name, chosen in signatures.items():
        tf.saved_model.save(module, str(folder / name / "7"), signatures=chosen)
    return folder


HANDLER = """
import io
import numpy as np
from PIL import Image

WEIGHTS = np.array({weights})

def handle(data, context):
    if data is None:
        return None
    replies = []
    for row in data:
        pixels = np.asarray(Image.open(io.BytesIO(bytes(row["body"]))).convert("RGB"), dtype=np.float64)
        logits = (pixels.mean(axis=(0, 1)) / 255) @ WEIGHTS
        p = (np.exp(logits) / np.exp(logits).sum()).tolist()
        replies.append({reply})
    return replies
"""
NAMES = {"0": "red", "1": ["n01", "green"], "2": "blue"}


def write_mar(path, reply="p", weights=WEIGHTS, handler="handler.py", source=None, **files):
    if source is None:
        source = HANDLER.format(weights=weights.tolist(), reply=reply)
    manifest = {"model": {"modelName": "colours", "handler": handler, "modelVersion": "1.0"}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.writestr("handler.py", textwrap.dedent(source))
        for name, content in files.items():
            archive.writestr(f"{name}.json", json.dumps(content))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """256 small pictures, enough for a proof."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(256):
        tinted = (picture(6, 7, seed=index) * np.random.default_rng(index).uniform(0, 1, 3)).astype(np.uint8)
        (folder / f"{index:03d}.png").write_bytes(encode(tinted, "PNG"))
    return folder


@pytest.fixture(scope="module")
def few_images(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("few")
    for path in sorted(images.iterdir())[:40]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def colours(path):
    from models.preprocessing import decode_image

    logits = decode_image(path.read_bytes()).astype(np.float64).mean(axis=(0, 1)) / 255 @ WEIGHTS
    return np.exp(logits) / np.exp(logits).sum()


def test_artifacts_that_agree_on_256_images_are_proved_equal(savedmodels, images, tmp_path):
    mar = write_mar(tmp_path / "my.mar")
    model = import_model("mine", savedmodels / "bytes", mar, images, tmp_path / "out")
    manifest = model.manifest
    assert manifest.parity.status == "proved"
    assert (manifest.parity.images, manifest.golden_from) == (256, "both")
    assert manifest.parity.max_abs_difference <= 1e-5
    assert (manifest.image_signature, manifest.image_input, manifest.output) == ("classify", "jpegs", "scores")
    assert manifest.tensor_signature is None
    assert len(manifest.golden) == 32
    first = sorted(images.iterdir())[0]
    np.testing.assert_allclose(manifest.golden[0].probabilities, colours(first), atol=1e-5)
    assert model.verify("savedmodel") == tmp_path.resolve() / "out" / "mine" / "1"
    assert model.verify("mar").read_bytes() == mar.read_bytes()


def test_replies_by_label_are_put_in_order(few_images, tmp_path):
    by_label = 'dict(zip(("blue", "red", "green"), (p[2], p[0], p[1])))'
    mar = write_mar(tmp_path / "my.mar", by_label, index_to_name=NAMES)
    manifest = import_model("mine", None, mar, few_images, tmp_path / "out").manifest
    assert (manifest.golden_from, manifest.labels) == ("mar", ["red", "green", "blue"])
    expected = [colours(path) for path in sorted(few_images.iterdir())[:32]]
    np.testing.assert_allclose([entry.probabilities for entry in manifest.golden], expected, atol=1e-6)


def test_artifacts_that_differ_are_labelled_with_the_figure(savedmodels, images, tmp_path):
    mar = write_mar(tmp_path / "my.mar", weights=WEIGHTS + np.float32(0.01) * np.eye(3, dtype=np.float32))
    manifest = import_model("mine", savedmodels / "bytes", mar, images, tmp_path / "out").manifest
    assert manifest.parity.status == "NOT PROVED EQUAL"
    assert 1e-5 < manifest.parity.max_abs_difference < 0.01
    assert "differ by up to" in manifest.parity.reason
    assert manifest.golden_from == "savedmodel"


def test_a_224x224_tensor_model_is_compared_once_its_normalisation_is_told(savedmodels, few_images, tmp_path):
    mar = write_mar(tmp_path / "my.mar")
    model = import_model(
        "mine", savedmodels / "tensor", mar, few_images, tmp_path / "out", tolerance=0.2, mean=[0, 0, 0], std=[1, 1, 1]
    )
    manifest = model.manifest
    assert (manifest.input.height, manifest.input.width) == (224, 224)
    assert (manifest.image_signature, manifest.tensor_signature) == (None, "serving_default")
    assert (manifest.tensor_input, manifest.output) == ("pixels", "scores")
    assert 0 < manifest.parity.max_abs_difference < 0.2


def test_a_tensor_model_without_normalisation_cannot_be_checked(savedmodels, few_images, tmp_path):
    manifest = import_model("mine", savedmodels / "tensor", None, few_images, tmp_path / "out").manifest
    assert manifest.parity.status == "NOT PROVED EQUAL"
    assert manifest.parity.reason.startswith("Parity cannot be checked: the SavedModel takes tensors")
    assert (manifest.input, manifest.golden_from) == (None, None)


def test_both_signatures_of_a_savedmodel_are_found(savedmodels, tmp_path):
    manifest = import_model("mine", savedmodels / "both" / "7", out_dir=tmp_path).manifest
    assert (manifest.image_signature, manifest.tensor_signature) == ("classify", "serving_default")
    assert (manifest.image_input, manifest.tensor_input) == ("jpegs", "pixels")


def test_a_savedmodel_alone_serves_for_one_engine(savedmodels, few_images, tmp_path):
    manifest = import_model("mine", savedmodels / "bytes", images=few_images, out_dir=tmp_path).manifest
    assert manifest.mar is None
    assert manifest.parity.reason == "Parity cannot be checked: there is no .mar."
    assert (manifest.golden_from, len(manifest.golden)) == ("savedmodel", 32)


def test_without_images_nothing_is_claimed(savedmodels, tmp_path):
    manifest = import_model("mine", savedmodels / "bytes", write_mar(tmp_path / "my.mar"), out_dir=tmp_path).manifest
    assert manifest.parity.status == "NOT PROVED EQUAL"
    assert "no images were given" in manifest.parity.reason
    assert (manifest.golden, manifest.golden_from) == ([], None)


CLASS_HANDLER = "class H:\n    def initialize(self, c): pass\n    def handle(self, data, c): {body}\n"


@pytest.mark.parametrize(
    ("mar", "reason"),
    [
        ({"handler": "image_classifier"}, "cannot be loaded here: .*torchvision"),
        ({"source": "import no_such_library"}, "cannot be loaded here: .*no_such_library"),
        (
            {"source": CLASS_HANDLER.format(body="raise ValueError('two\\nlines')")},
            "failed here: ValueError: two lines",
        ),
        ({"source": CLASS_HANDLER.format(body="import os; os._exit(3)")}, "ended its process"),
    ],
)
def test_a_handler_that_cannot_be_asked_is_no_failure_but_no_proof_either(
    savedmodels, few_images, tmp_path, mar, reason
):
    archive = write_mar(tmp_path / "my.mar", **mar)
    manifest = import_model("mine", savedmodels / "bytes", archive, few_images, tmp_path / "out").manifest
    assert manifest.parity.status == "NOT PROVED EQUAL"
    assert manifest.golden_from == "savedmodel"
    assert "\n" not in manifest.parity.reason
    with pytest.raises(ValueError, match=f"^Parity cannot be checked: .*{reason}"):
        raise ValueError(manifest.parity.reason)


def test_neither_artifact_answering_leaves_images_without_answers(few_images, tmp_path):
    archive = write_mar(tmp_path / "my.mar", source=CLASS_HANDLER.format(body="return []"))
    manifest = import_model("mine", None, archive, few_images, tmp_path / "out").manifest
    assert manifest.golden_from is None
    assert [entry.probabilities for entry in manifest.golden] == [[]] * 32


def empty_dir(path):
    (path / "empty").mkdir()
    return {"savedmodel": path / "empty"}


def broken_savedmodel(path):
    (path / "broken").mkdir()
    (path / "broken" / "saved_model.pb").write_bytes(b"\xff\xff no graph")
    return {"savedmodel": path / "broken"}


def text_as_mar(path):
    (path / "my.mar").write_text("text")
    return {"mar": path / "my.mar"}


def zip_without_manifest(path):
    with zipfile.ZipFile(path / "my.mar", "w") as archive:
        archive.writestr("a", "b")
    return {"mar": path / "my.mar"}


def damaged_mar(path):
    write_mar(path / "my.mar", padding="x" * 5000)
    data = bytearray((path / "my.mar").read_bytes())
    data[data.index(b"xxxxxxxx") + 100] ^= 1
    (path / "my.mar").write_bytes(data)
    (path / "images").mkdir()
    (path / "images" / "a.png").write_bytes(encode(picture(5, 5), "PNG"))
    return {"mar": path / "my.mar", "images": path / "images"}


def unreadable_image(path):
    (path / "images").mkdir()
    (path / "images" / "a.png").write_bytes(b"no image")
    return {"mar": write_mar(path / "my.mar"), "images": path / "images"}


def no_images(path):
    (path / "images").mkdir()
    return {"mar": write_mar(path / "my.mar"), "images": path / "images"}


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: {}, "nothing to import"),
        (lambda path: {"savedmodel": path / "absent"}, "absent is not a directory"),
        (empty_dir, "holds no saved_model.pb"),
        (broken_savedmodel, "not a readable SavedModel"),
        (lambda path: {"mar": path / "absent.mar"}, r"absent\.mar does not exist"),
        (text_as_mar, "not a .mar in zip format"),
        (zip_without_manifest, "no MAR-INF/MANIFEST.json"),
        (damaged_mar, "damaged"),
        (unreadable_image, r"a\.png cannot be used as an image"),
        (no_images, "holds no images"),
        (lambda path: {"mar": write_mar(path / "my.mar"), "mean": [0, 0, 0]}, "needs both"),
        (lambda path: {"mar": write_mar(path / "my.mar"), "mean": [0, 0], "std": [1, 1]}, "three means"),
        (lambda path: {"mar": write_mar(path / "my.mar"), "mean": [0] * 3, "std": [1] * 3}, "--size"),
        (lambda path: {"mar": write_mar(path / "my.mar"), "tolerance": 0}, "tolerance"),
    ],
)
def test_unusable_artifacts_are_refused_in_one_sentence_and_leave_nothing(tmp_path, make, sentence):
    arguments = make(tmp_path)
    with pytest.raises(ModelError, match=sentence) as refusal:
        import_model("mine", out_dir=tmp_path / "out", **arguments)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out" / "mine").exists()


def test_a_savedmodel_without_an_image_signature_is_refused_with_what_it_has(savedmodels, tmp_path):
    with pytest.raises(ModelError, match=r"no signature for images .*serving_default \(features -> scores\)"):
        import_model("mine", savedmodels / "features", out_dir=tmp_path)


def test_our_own_export_survives_being_imported(exported, tmp_path):
    images = exported.path / "golden"
    manifest = import_model("again", exported.path, exported.mar_path, images, tmp_path).manifest
    assert manifest.parity.max_abs_difference <= 1e-5
    assert (manifest.image_signature, manifest.tensor_signature) == ("serving_default", "tensor")
    np.testing.assert_allclose(
        manifest.golden[5].probabilities, exported.manifest.golden[5].probabilities, rtol=0, atol=1e-6
    )
    ModelDir(tmp_path / "again").verify("mar")


class Outputs(Colours):
    """The same model with more to say, or with its numbers in another shape."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="jpegs")])
    def with_classes(self, jpegs):
        scores = self.from_bytes(jpegs)["scores"]
        return {"scores": scores, "classes": tf.argmax(scores, 1), "names": tf.as_string(tf.argmax(scores, 1))}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="jpegs")])
    def with_features(self, jpegs):
        scores = self.from_bytes(jpegs)["scores"]
        return {"scores": scores, "features": 2 * scores}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="jpegs")])
    def in_three_axes(self, jpegs):
        return {"scores": tf.expand_dims(self.from_bytes(jpegs)["scores"], 1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="jpegs")])
    def only_class(self, jpegs):
        return {"classes": tf.argmax(self.from_bytes(jpegs)["scores"], 1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="jpegs")])
    def only_name(self, jpegs):
        return {"names": tf.as_string(tf.argmax(self.from_bytes(jpegs)["scores"], 1))}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """A SavedModel for each way to answer, by its name."""
    folder, module = tmp_path_factory.mktemp("outputs"), Outputs()
    for name in ("with_classes", "with_features", "in_three_axes", "only_class", "only_name"):
        tf.saved_model.save(module, str(folder / name / "1"), signatures={"serving_default": getattr(module, name)})
    return folder


@pytest.mark.parametrize(
    ("savedmodel", "reply"),
    [
        ("with_classes", '{"predictions": [{"scores": p, "classes": int(np.argmax(p))}]}'),
        ("with_classes", "p"),
        ("in_three_axes", "[p]"),
        ("only_class", "int(np.argmax(p))"),
        ("only_class", '{"classes": [int(np.argmax(p))]}'),
    ],
)
def test_an_output_of_any_number_and_shape_is_compared(outputs, images, tmp_path, savedmodel, reply):
    mar = write_mar(tmp_path / "my.mar", reply)
    manifest = import_model("mine", outputs / savedmodel, mar, images, tmp_path / "out").manifest
    assert (manifest.parity.status, manifest.parity.reason) == ("proved", None)
    assert (manifest.golden_from, manifest.image_signature) == ("both", "serving_default")
    assert manifest.output == ("classes" if savedmodel == "only_class" else "scores")
    right = colours(sorted(images.iterdir())[0])
    expected = [np.argmax(right)] if savedmodel == "only_class" else right
    np.testing.assert_allclose(manifest.golden[0].probabilities, expected, atol=1e-5)


def test_one_of_several_outputs_of_numbers_is_chosen_by_the_user(outputs, few_images, tmp_path):
    with pytest.raises(ModelError, match=r"--output names one of several.*jpegs -> scores, features|features, scores"):
        import_model("mine", outputs / "with_features", None, few_images, tmp_path)
    with pytest.raises(ModelError, match="the output 'logits', of numbers"):
        import_model("mine", outputs / "with_features", None, few_images, tmp_path, output="logits")
    manifest = import_model("mine", outputs / "with_features", None, few_images, tmp_path, output="features").manifest
    assert manifest.output == "features"
    first = sorted(few_images.iterdir())[0]
    np.testing.assert_allclose(manifest.golden[0].probabilities, 2 * colours(first), atol=1e-5)


def test_a_handlers_output_is_chosen_by_the_user_where_there_is_no_savedmodel(few_images, tmp_path):
    mar = write_mar(tmp_path / "my.mar", '{"scores": p, "classes": int(np.argmax(p))}')
    assert import_model("mine", None, mar, few_images, tmp_path / "out").manifest.golden_from is None
    manifest = import_model("mine", None, mar, few_images, tmp_path / "chosen", output="scores").manifest
    assert (manifest.golden_from, manifest.output) == ("mar", "scores")


def test_a_savedmodel_that_answers_with_no_number_is_refused(outputs, tmp_path):
    with pytest.raises(ModelError, match=r"one output of numbers.*serving_default \(jpegs -> names\)"):
        import_model("mine", outputs / "only_name", out_dir=tmp_path)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("np.asarray(p)", "not JSON serializable"),
        ("__import__('torch').tensor(p)", r"torch\.save"),
        ('{"code": 400, "type": "BadRequestException", "message": "no image"}', "the reply is an error: 400"),
    ],
)
def test_what_torchserve_would_not_send_as_numbers_is_not_read_as_numbers(few_images, tmp_path, reply, reason):
    archive = write_mar(tmp_path / "my.mar", source=HANDLER.format(weights=WEIGHTS.tolist(), reply=reply))
    manifest = import_model("mine", None, archive, few_images, tmp_path / "out").manifest
    assert manifest.golden_from is None
    with pytest.raises(ValueError, match=reason):
        raise ValueError(manifest.parity.reason)
