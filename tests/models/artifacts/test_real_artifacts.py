"""Artifacts as people have them: pixels as uint8, grey images, logits, archives in each form, links, names in use."""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zipfile

import numpy as np
import psutil
import pytest
import tensorflow as tf
from PIL import Image

from models.artifacts import foreign_archive
from models.artifacts.export import export_model
from models.artifacts.handler import run
from models.artifacts.handler.run import HandlerFailed, archive_manifest, run_handler
from models.artifacts.imported_model import import_model
from models.errors import ModelError
from models.manifest import ModelDir
from models.preprocessing import decode_image
from serving.orphans import OWNER_VARIABLE, owner_tag
from serving.wire import Tolerance
from tests.models.artifacts.test_imported_model import WEIGHTS, write_mar
from tests.stand_ins.pictures import encode, picture


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """256 pictures of 8x8 pixels, enough for a proof."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(256):
        tinted = (picture(8, 8, seed=index) * np.random.default_rng(index).uniform(0, 1, 3)).astype(np.uint8)
        (folder / f"{index:03d}.png").write_bytes(encode(tinted, "PNG"))
    return folder


@pytest.fixture(scope="module")
def few_images(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("few")
    for path in sorted(images.iterdir())[:3]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


class Pixels(tf.Module):
    """What a network of pixels takes: each method is a signature."""

    def __init__(self):
        super().__init__()
        self.scale = tf.Variable(1000.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.uint8, name="image")])
    def bytes_of_colour(self, image):
        return {"mean": tf.reduce_mean(tf.cast(image, tf.float32), (1, 2))}

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="image")])
    def bytes_of_any_size(self, image):
        return {"mean": tf.reduce_mean(tf.cast(image, tf.float32), (1, 2))}

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32, name="image")])
    def grey(self, image):
        return {"mean": tf.reduce_mean(image, (1, 2))}

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.uint8, name="image")])
    def grey_bytes(self, image):
        return {"mean": tf.reduce_mean(tf.cast(image, tf.float32), (1, 2))}

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 4], tf.float32, name="image")])
    def four(self, image):
        return {"mean": tf.reduce_mean(image, (1, 2))}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def logits(self, image_bytes):
        def mean(data):
            return tf.reduce_mean(tf.cast(tf.io.decode_png(data, channels=3), tf.float32), (0, 1))

        means = tf.map_fn(mean, image_bytes, fn_output_signature=tf.TensorSpec([3], tf.float32))
        return {"logits": self.scale * tf.matmul(means / 255, WEIGHTS)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def half(self, image_bytes):
        logits = self.logits(image_bytes)["logits"]
        return {"classes": tf.argmax(logits, 1), "probabilities": tf.cast(tf.nn.softmax(logits), tf.float16)}


@pytest.fixture(scope="module")
def savedmodels(tmp_path_factory):
    folder, module = tmp_path_factory.mktemp("pixels"), Pixels()
    for name in ("bytes_of_colour", "bytes_of_any_size", "grey", "grey_bytes", "four", "logits", "half"):
        tf.saved_model.save(module, str(folder / name / "1"), signatures={"serving_default": getattr(module, name)})
    return folder


def first(folder):
    return decode_image(sorted(folder.iterdir())[0].read_bytes())


def luma(image):
    return np.asarray(Image.fromarray(image).convert("L"))


COLOUR_MEANS = "pixels.mean(axis=(0, 1)).tolist()"
GREY_MEAN = '[np.asarray(Image.open(io.BytesIO(bytes(row["body"]))).convert("L"), dtype=np.float64).mean()]'


@pytest.mark.parametrize(
    ("name", "size", "reply", "channels"),
    [
        ("bytes_of_colour", None, COLOUR_MEANS, 3),
        ("bytes_of_any_size", (8, 8), COLOUR_MEANS, 3),
        ("grey_bytes", None, GREY_MEAN, 1),
    ],
)
def test_uint8_pixels_go_to_the_network_as_they_are(savedmodels, images, tmp_path, name, size, reply, channels):
    mar = write_mar(tmp_path / "my.mar", reply)
    manifest = import_model("mine", savedmodels / name, mar, images, tmp_path / "out", size=size).manifest
    assert (manifest.parity.status, manifest.parity.reason) == ("proved", None)
    assert (manifest.input.dtype, manifest.input.channels, manifest.input.mean) == ("uint8", channels, [])
    pixels = first(images) if channels == 3 else luma(first(images))[:, :, None]
    np.testing.assert_allclose(manifest.golden[0].probabilities, pixels.mean((0, 1)), rtol=1e-5)


def test_a_grey_network_gets_the_luma_normalised(savedmodels, images, tmp_path):
    mar = write_mar(tmp_path / "my.mar", f"[({GREY_MEAN}[0] / 255 - 0.5) / 0.25]")
    manifest = import_model(
        "mine", savedmodels / "grey", mar, images, tmp_path / "out", mean=[0.5], std=[0.25]
    ).manifest
    assert (manifest.parity.status, manifest.parity.reason) == ("proved", None)
    assert (manifest.input.dtype, manifest.input.channels) == ("float32", 1)
    expected = (luma(first(images)).mean() / 255 - 0.5) / 0.25
    np.testing.assert_allclose(manifest.golden[0].probabilities, [expected], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("bytes_of_colour", {"mean": [0.5] * 3, "std": [0.5] * 3}, "uint8 pixels, which are sent as they are: leave"),
        ("grey", {"mean": [0.5] * 3, "std": [0.5] * 3}, "takes 1 channels: give as many numbers"),
        ("bytes_of_colour", {"size": (9, 9)}, "takes 8x8 pixels: leave out --size"),
        ("four", {}, r"float32 or uint8 with 1 or 3 channels.*serving_default \(image -> mean\)\.$"),
    ],
)
def test_what_contradicts_the_signature_is_refused(savedmodels, few_images, tmp_path, name, given, sentence):
    with pytest.raises(ModelError, match=sentence):
        import_model("mine", savedmodels / name, None, few_images, tmp_path / "out", **given)


def test_logits_of_thousands_are_compared_in_units_of_the_largest(savedmodels, images, tmp_path):
    mar = write_mar(tmp_path / "my.mar", "[1000 * float(logit) for logit in logits]")
    manifest = import_model("mine", savedmodels / "logits", mar, images, tmp_path / "out").manifest
    assert (manifest.parity.status, manifest.parity.reason) == ("proved", None)
    assert max(abs(value) for golden in manifest.golden for value in golden.probabilities) > 500


def test_a_wider_tolerance_proves_more_and_loads_judge_by_it(savedmodels, images, tmp_path):
    mar = write_mar(tmp_path / "my.mar", "[1003 * float(logit) for logit in logits]")
    manifest = import_model("mine", savedmodels / "logits", mar, images, tmp_path / "out").manifest
    assert manifest.parity.status == "NOT PROVED EQUAL"
    assert Tolerance.of(manifest) == Tolerance()
    wider = import_model(
        "mine", savedmodels / "logits", mar, images, tmp_path / "out", tolerance=5e-3, replace=True
    ).manifest
    assert (wider.parity.status, wider.golden_from, wider.parity.tolerance) == ("proved", "both", 5e-3)
    assert Tolerance.of(wider) == Tolerance(absolute=5e-3, relative=5e-3)


@pytest.mark.parametrize("tolerance", [0, -1, 1, float("nan"), float("inf")])
def test_a_tolerance_that_proves_nothing_is_refused(tmp_path, tolerance):
    with pytest.raises(ModelError, match="tolerance"):
        import_model("mine", None, write_mar(tmp_path / "my.mar"), out_dir=tmp_path / "out", tolerance=tolerance)


def test_the_one_float_matrix_is_compared_whatever_its_precision(savedmodels, few_images, tmp_path):
    manifest = import_model("mine", savedmodels / "half", None, few_images, tmp_path / "out").manifest
    assert (manifest.output, len(manifest.golden[0].probabilities)) == ("probabilities", 3)


def tgz(mar, path, folder="colours/"):
    with zipfile.ZipFile(mar) as archive, tarfile.open(path, "w:gz") as packed:
        for name in archive.namelist():
            entry = tarfile.TarInfo(folder + name)
            entry.size = len(archive.read(name))
            packed.addfile(entry, io.BytesIO(archive.read(name)))
    return path


def unpacked(mar, path):
    with zipfile.ZipFile(mar) as archive:
        archive.extractall(path)
    return path


FORMS = {
    "a .tar.gz": lambda mar, path: tgz(mar, path / "my.tar.gz"),
    "a .tar.gz without a folder": lambda mar, path: tgz(mar, path / "my.tar.gz", ""),
    "a .tar.gz of ./": lambda mar, path: tgz(mar, path / "my.tar.gz", "./"),
    "a folder": lambda mar, path: unpacked(mar, path / "my"),
    "a folder of one": lambda mar, path: unpacked(mar, path / "store" / "my").parent,
}


@pytest.mark.parametrize("form", FORMS)
def test_an_archive_in_each_form_of_the_archiver_becomes_a_mar(few_images, tmp_path, form):
    mar = write_mar(tmp_path / "my.mar", index_to_name={"0": "red", "1": "green", "2": "blue"})
    model = import_model("mine", None, FORMS[form](mar, tmp_path), few_images, tmp_path / "out")
    assert (model.manifest.golden_from, model.manifest.labels) == ("mar", ["red", "green", "blue"])
    with zipfile.ZipFile(mar) as before, zipfile.ZipFile(model.verify("mar")) as after:
        assert {name: after.read(name) for name in after.namelist()} == {n: before.read(n) for n in before.namelist()}
    assert archive_manifest(model.mar_path)["model"]["handler"] == "handler.py"


def tar_of(path, entry, content=b""):
    with tarfile.open(path, "w:gz") as packed:
        entry.size = len(content)
        packed.addfile(entry, io.BytesIO(content))
    return path


def a_link_in_a_tar(path):
    entry = tarfile.TarInfo("colours/handler.py")
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/hostname"
    return tar_of(path / "my.tar.gz", entry)


def a_name_that_leads_out(path):
    return tar_of(path / "my.tar.gz", tarfile.TarInfo("../handler.py"), b"x")


def a_zip_name_that_leads_out(path):
    with zipfile.ZipFile(path / "my.mar", "w") as archive:
        archive.writestr("../handler.py", "x")
    return path / "my.mar"


def a_folder_with_a_link_out(path):
    folder = unpacked(write_mar(path / "my.mar"), path / "my")
    (folder / "weights.pt").symlink_to("/etc/hostname")
    return folder


def a_truncated_tar(path):
    packed = tgz(write_mar(path / "my.mar", padding="x" * 5000), path / "my.tar.gz")
    packed.write_bytes(packed.read_bytes()[:-300])
    return packed


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (a_link_in_a_tar, "a link or no file at all"),
        (a_name_that_leads_out, "leads out of it"),
        (a_zip_name_that_leads_out, "leads out of it"),
        (a_folder_with_a_link_out, "leads to /etc/hostname, outside"),
        (a_truncated_tar, "is damaged"),
    ],
)
def test_an_archive_that_leads_elsewhere_or_is_broken_is_refused(few_images, tmp_path, make, sentence):
    source = make(tmp_path)
    with pytest.raises(ModelError, match=sentence) as refusal:
        import_model("mine", None, source, few_images, tmp_path / "out")
    assert "\n" not in str(refusal.value) and str(source) in str(refusal.value)
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


@pytest.mark.parametrize("form", ["a .mar", *FORMS])
def test_what_an_archive_unpacks_to_is_bounded(few_images, tmp_path, monkeypatch, form):
    mar = write_mar(tmp_path / "my.mar", padding="x" * 5000)
    source = FORMS[form](mar, tmp_path) if form in FORMS else mar
    import_model("mine", None, source, few_images, tmp_path / "out")
    monkeypatch.setattr(foreign_archive, "MOST_UNPACKED_BYTES", 5000)
    with pytest.raises(ModelError, match="unpacks to more than"):
        import_model("other", None, source, few_images, tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr(foreign_archive, "MOST_FILES", 2)
    with pytest.raises(ModelError, match="holds more than 2 files"):
        import_model("other", None, source, few_images, tmp_path / "out")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("place", ["first", "second"])
def test_a_name_in_a_tar_that_does_not_fit_into_memory_is_not_read(tmp_path, kind, place):
    size, source = 64 << 20, tmp_path / "my.tar.gz"
    with tarfile.open(source, "w:gz", compresslevel=1) as archive:
        if place == "second":
            archive.addfile(tarfile.TarInfo("MAR-INF/MANIFEST.json"))
        name = tarfile.TarInfo("././@LongLink")
        name.type, name.size = kind, size
        archive.fileobj.write(name.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(64):
            archive.fileobj.write(b"\0" * (1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=r"my\.tar\.gz is (damaged|not a \.mar)"):
            foreign_archive.require_archive(source)
        assert tracemalloc.get_traced_memory()[1] < size // 2
    finally:
        tracemalloc.stop()


def test_a_manifest_that_does_not_fit_into_memory_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(foreign_archive, "MOST_JSON_BYTES", 20)
    with pytest.raises(ModelError, match=r"MANIFEST.json of .* bytes, over 20"):
        archive_manifest(write_mar(tmp_path / "my.mar"))


ENVIRONMENT_HANDLER = """
import json, os

def handle(data, context):
    return None if data is None else [json.dumps(dict(os.environ)) for _ in data]
"""


def test_a_handler_sees_none_of_our_environment(tmp_path, monkeypatch):
    for name in ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "PYTHONPATH", "HOME", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, "/of/ours")
    mar = write_mar(tmp_path / "my.mar", source=ENVIRONMENT_HANDLER)
    (reply,) = run_handler(mar, [b"an image"])
    seen = json.loads(reply["body"])
    assert "/of/ours" not in seen.values()
    assert seen["PATH"] == os.environ["PATH"]
    assert seen["HOME"] == seen["TMPDIR"] != os.environ["HOME"]


def test_a_handler_is_known_by_the_owner_of_the_command_that_runs_it(tmp_path, monkeypatch):
    monkeypatch.setenv(OWNER_VARIABLE, owner_tag())
    (reply,) = run_handler(write_mar(tmp_path / "my.mar", source=ENVIRONMENT_HANDLER), [b"an image"])
    assert json.loads(reply["body"])[OWNER_VARIABLE] == owner_tag()


LOUD_HANDLER = """
import os

def handle(data, context):
    for _ in range(100):
        os.write(1, b"x" * 1_000_000)
        os.write(2, b"x" * 1_000_000)
    os.write(2, b"\\nthe last words\\n")
    os._exit(3)
"""


def test_what_a_handler_writes_is_not_kept_in_memory(tmp_path):
    mar = write_mar(tmp_path / "my.mar", source=LOUD_HANDLER)
    tracemalloc.start()
    try:
        with pytest.raises(HandlerFailed, match=r"ended its process: the last words$"):
            run_handler(mar, [b"an image"])
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_what_a_handler_answers_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "MOST_REPLY_BYTES", 10)
    with pytest.raises(HandlerFailed, match="answers with more than"):
        run_handler(write_mar(tmp_path / "my.mar"), [encode(picture(6, 7, seed=1), "PNG")])


SLEEPING_HANDLER = """
import os, pathlib, time

def handle(data, context):
    if data is not None:
        pathlib.Path({pid!r}).write_text(str(os.getpid()))
        time.sleep(600)
"""


def test_a_killed_import_leaves_no_handler_and_no_folder(few_images, tmp_path):
    pid, temporary = tmp_path / "pid", tmp_path / "temporary"
    temporary.mkdir()
    mar = write_mar(tmp_path / "my.mar", source=SLEEPING_HANDLER.format(pid=str(pid)))
    command = ["import", "--name", "mine", "--mar", str(mar), "--images", str(few_images), "--out", str(tmp_path)]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen([sys.executable, "-m", "servestorm", *command], env=environment) as process:
        wait_until(lambda: pid.exists() and pid.read_text())
        process.kill()
    wait_until(lambda: not psutil.pid_exists(int(pid.read_text())) and not list(temporary.iterdir()))


def wait_until(happens, longest_s=60.0):
    ends_s = time.monotonic() + longest_s
    while not happens():
        assert time.monotonic() < ends_s
        time.sleep(0.05)


def test_a_second_import_leaves_the_first_alone_unless_forced(savedmodels, few_images, tmp_path):
    before = import_model("mine", savedmodels / "logits", None, few_images, tmp_path)
    mar = write_mar(tmp_path / "my.mar")
    with pytest.raises(ModelError, match=r"holds a model already.*--force"):
        import_model("mine", None, mar, few_images, tmp_path)
    assert ModelDir(tmp_path / "mine").manifest == before.manifest
    before.verify("savedmodel")
    after = import_model("mine", None, mar, few_images, tmp_path, replace=True).manifest
    assert (after.savedmodel, after.golden_from) == (None, "mar")
    assert not (tmp_path / "mine" / "1").exists()  # TensorFlow Serving would serve the replaced one


def test_a_model_that_appears_during_an_import_is_left_alone(savedmodels, few_images, tmp_path):
    def another(what, _share):
        if what == "asking the handler" and not (tmp_path / "mine").exists():
            import_model("mine", None, write_mar(tmp_path / "my.mar"), few_images, tmp_path)

    with pytest.raises(ModelError, match="holds a model already"):
        import_model("mine", savedmodels / "logits", None, few_images, tmp_path, progress=another)
    assert ModelDir(tmp_path / "mine").manifest.golden_from == "mar"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_export_leaves_an_imported_model_alone(few_digits, weights_dir, few_images, tmp_path):
    before = import_model("mine", None, write_mar(tmp_path / "my.mar"), few_images, tmp_path)
    with pytest.raises(ModelError, match="holds an imported model"):
        export_model("mine", weights_dir, few_digits, tmp_path)
    assert ModelDir(tmp_path / "mine").manifest == before.manifest


def test_links_of_a_savedmodel_are_followed_within_it_alone(savedmodels, few_images, tmp_path):
    copied = import_model("first", savedmodels / "logits", None, few_images, tmp_path).path / "1"
    source = tmp_path / "source"
    source.mkdir()
    (copied / "saved_model.pb").rename(source / "graph")
    (copied / "variables").rename(source / "variables")
    (source / "saved_model.pb").symlink_to("graph")
    model = import_model("second", source, None, few_images, tmp_path)
    assert not (model.verify("savedmodel") / "saved_model.pb").is_symlink()
    (source / "assets").mkdir()
    for target, sentence in (("/etc/hostname", "leads to /etc/hostname, outside"), ("absent", "link to absent, which")):
        link = source / "assets" / "vocabulary"
        link.symlink_to(target)
        with pytest.raises(ModelError, match=sentence) as refusal:
            import_model("third", source, None, few_images, tmp_path)
        assert re.search(r"assets/vocabulary", str(refusal.value))
        link.unlink()


def test_a_version_that_is_a_link_to_elsewhere_is_refused(savedmodels, few_images, tmp_path):
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / "3").symlink_to(savedmodels / "logits" / "1")
    with pytest.raises(ModelError, match=r"outside .*versions"):
        import_model("mine", tmp_path / "versions", None, few_images, tmp_path / "out")
    assert import_model("mine", tmp_path / "versions" / "3", None, few_images, tmp_path / "out").manifest.savedmodel


def test_what_is_no_file_is_refused(savedmodels, few_images, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes((savedmodels / "logits" / "1" / "saved_model.pb").read_bytes())
    os.mkfifo(folder / "pipe")
    with pytest.raises(ModelError, match="pipe is neither a file nor a folder"):
        import_model("mine", folder, None, few_images, tmp_path / "out")


def test_an_image_that_is_a_link_to_nowhere_is_named(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").symlink_to("absent.png")
    with pytest.raises(ModelError, match=r"a\.png is a link to absent\.png, which does not exist"):
        import_model("mine", None, write_mar(tmp_path / "my.mar"), tmp_path / "images", tmp_path / "out")
