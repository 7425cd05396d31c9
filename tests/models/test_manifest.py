"""A model's manifest names files of its own folder alone, and they are the ones that it names."""

import json

import pytest

from models.errors import ModelError
from models.manifest import InputSpec, ModelDir, sha256_of
from serving.backends.docker.model_image import verified
from tests.stand_ins.toy_model_dir import toy_model


@pytest.fixture
def model(tmp_path):
    (tmp_path / "secret").write_text("of another folder")
    return toy_model(tmp_path)


def changed(model, change):
    """The directory's path, after `change` of the manifest's JSON."""
    path = model.path / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return model.path


@pytest.mark.parametrize("path", ["../secret", "/etc/hostname", "golden/../../secret", "", ".", "golden/\0"])
@pytest.mark.parametrize("part", ["golden", "savedmodel", "mar"])
def test_a_path_that_leaves_the_folder_is_refused_before_anything_is_read(model, part, path):
    def change(document):
        (document["golden"][0] if part == "golden" else document[part])["path"] = path

    with pytest.raises(ModelError, match=rf"{part}.*leaves the model's folder") as refusal:
        ModelDir(changed(model, change))
    assert "\n" not in str(refusal.value)


def test_a_golden_image_that_is_a_link_to_elsewhere_is_not_read(model, tmp_path):
    image = model.path / "golden" / "000.png"
    image.unlink()
    image.symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match=r"outside .*toy: put a copy in its place"):
        model.golden_images()
    with pytest.raises(ModelError, match=r"outside"):
        verified(model)


def test_a_golden_image_that_is_another_one_is_refused(model):
    assert model.golden_images() == [b"\x89PNG\r\n"]
    (model.path / "golden" / "000.png").write_bytes(b"\x89PNG\r\n another")
    with pytest.raises(ModelError, match=r"not the golden image of the manifest"):
        model.golden_images()
    with pytest.raises(ModelError, match=r"not the golden image of the manifest"):
        verified(model)


@pytest.mark.parametrize("artifact", ["savedmodel", "mar"])
def test_an_artifact_that_is_a_link_to_elsewhere_is_refused_though_its_bytes_are_right(model, tmp_path, artifact):
    place = model.path / getattr(model.manifest, artifact).path
    moved = place.rename(tmp_path / "moved")
    place.symlink_to(moved)
    with pytest.raises(ModelError, match=r"leads to .*moved, outside"):
        model.verify(artifact)


def test_a_file_of_an_artifact_that_is_a_link_out_of_it_is_refused(model, tmp_path):
    index = model.path / "1" / "variables" / "variables.index"
    moved = index.rename(tmp_path / "moved")
    index.symlink_to(moved)
    with pytest.raises(ModelError, match=r"leads to .*moved, outside"):
        model.verify("savedmodel")


def test_a_link_that_ends_nowhere_is_named_with_its_end(model):
    index = model.path / "1" / "variables" / "variables.index"
    index.unlink()
    index.symlink_to("absent.index")
    with pytest.raises(ModelError, match=r"variables\.index is a link to absent\.index, which does not exist"):
        model.verify("savedmodel")


def test_nothing_else_in_the_folder_leads_out_of_the_image_that_carries_it(model, tmp_path):
    (model.path / "notes").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match=r"notes leads to .*secret, outside"):
        verified(model)


@pytest.mark.parametrize("name", ["a/b", "..", "", "a b", "é"])
def test_a_name_that_is_no_name_is_refused(model, name):
    with pytest.raises(ModelError, match=r"is no model name"):
        ModelDir(changed(model, lambda document: document.update(name=name)))


@pytest.mark.parametrize("text", ["{", "[1]", "\xff", "[" * 100_000, "", "NaN"])
def test_a_file_that_is_no_manifest_is_refused_in_one_sentence(model, text):
    (model.path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelError, match=r"manifest\.json is not") as refusal:
        ModelDir(model.path)
    assert "\n" not in str(refusal.value)


def test_an_answer_that_is_no_number_is_refused(model):
    path = model.path / "manifest.json"
    path.write_text(path.read_text().replace('"probabilities":[]', '"probabilities":[NaN]'))
    with pytest.raises(ModelError, match=r"golden\.0\.probabilities\.0"):
        ModelDir(model.path)


@pytest.mark.parametrize(
    ("channels", "dtype", "mean", "std", "fault"),
    [
        (3, "float32", [0.5], [0.5], "needs 3 means"),
        (1, "float32", [0.5] * 3, [0.5] * 3, "needs 1 means"),
        (3, "uint8", [0.5] * 3, [0.5] * 3, "needs 0 means"),
        (3, "float32", [0.5] * 3, [0.5, 0.5, 0], "over 0"),
        (3, "float32", [0.5, 0.5, float("nan")], [0.5] * 3, "finite"),
        (4, "uint8", [], [], "1 or 3"),
    ],
)
def test_an_input_spec_normalises_each_of_its_channels(channels, dtype, mean, std, fault):
    with pytest.raises(ValueError, match=fault):
        InputSpec(height=2, width=2, channels=channels, dtype=dtype, mean=mean, std=std)


def test_the_digest_of_a_folder_is_that_of_its_files(model):
    assert model.verify("savedmodel") == model.path / "1"
    assert sha256_of(model.path / "1") == model.manifest.savedmodel.sha256


@pytest.mark.parametrize("newer", ["2", "10"])
def test_a_newer_version_that_a_server_would_prefer_is_refused(model, newer):
    (model.path / newer).mkdir()
    with pytest.raises(ModelError, match=rf"holds version {newer} too, which no manifest describes"):
        model.verify("savedmodel")
    assert model.verify("mar")


@pytest.mark.parametrize("other", ["0", "golden-2", "01"])
def test_an_older_version_and_other_folders_may_lie_beside_it(model, other):
    (model.path / other).mkdir()
    assert model.verify("savedmodel") == model.path / "1"
