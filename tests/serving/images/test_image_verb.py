"""`servestorm image`: a model as an image, and a sentence for whatever stands in its way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from servestorm import __version__
from servestorm.cli.main import main
from serving.backends.docker.model_image import base_image, context, reference
from serving.errors import EngineUnavailable
from tests.requirements_here import need_image
from tests.stand_ins.toy_model_dir import toy_model

TAG = f"servestorm/models-toy-test:{os.getpid()}"
"""Of this process alone: the tests of another one remove theirs."""
BUSYBOX = f"servestorm/busybox:{__version__}"


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=120).stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def built(tmp_path, capsys):
    """A toy model, and what the verb said when it made an image of it."""
    need_image(BUSYBOX)
    model = toy_model(tmp_path, "toy")
    assert main(["image", str(model.path), "--tag", TAG]) == 0
    yield model, capsys.readouterr().out
    docker("rmi", "--force", TAG)


@pytest.mark.docker
def test_a_volume_that_is_filled_from_the_image_equals_the_export_bytes_for_bytes(built, tmp_path):
    model, _ = built
    target = tmp_path / "target"
    target.mkdir()
    target.chmod(0o777)
    run = ["run", "--rm", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    docker(*run, "-v", f"{target}:/target", TAG, "cp", "-a", "/models/.", "/target")
    assert contents(target) == {f"toy/{name}": data for name, data in contents(model.path).items()}
    assert (target / "toy" / "1" / "variables").stat().st_uid == 10001


@pytest.mark.docker
def test_the_image_says_what_it_carries_and_runs_as_user_10001(built):
    _, told = built
    assert re.match(
        rf"image: {TAG}, \d+\.\d MB, sha256:[0-9a-f]{{64}}\ncarries: /models/toy \(SavedModel and MAR, 1 ", told
    )
    labels = docker("image", "inspect", "--format", "{{json .Config.Labels}} {{.Config.User}}", TAG)
    assert '"servestorm.model":"toy"' in labels and '"servestorm.parity":"NOT PROVED EQUAL"' in labels
    assert labels.strip().endswith("10001:10001")


@pytest.mark.docker
def test_a_base_that_is_not_here_and_cannot_be_pulled_is_one_sentence(tmp_path, capsys):
    need_image(BUSYBOX)
    model = toy_model(tmp_path)
    assert main(["image", str(model.path), "--base", "servestorm/nowhere:1"]) == 3
    told = capsys.readouterr().err
    assert "servestorm/nowhere:1 is not here" in told and "Traceback" not in told


def test_the_same_export_is_packed_into_the_same_bytes_whoever_copied_it_when(tmp_path):
    model = toy_model(tmp_path)
    with context(model, BUSYBOX) as stream:
        first = stream.read()
    for path in model.path.rglob("*"):
        os.utime(path, (1, 1))
    (model.path / "manifest.json").chmod(0o600)
    with context(model, BUSYBOX) as stream:
        assert stream.read() == first


def test_each_artifact_has_a_layer_of_its_own_so_that_another_manifest_moves_none(tmp_path):
    model = toy_model(tmp_path, "toy")
    with context(model, BUSYBOX) as stream, tarfile.open(fileobj=stream) as archive:
        names = archive.getnames()
        text = archive.extractfile("Dockerfile").read().decode()
    tops = {name.partition("/")[0] for name in names} - {"Dockerfile"}
    assert tops == {"savedmodel", "mar", "rest"}
    assert {"savedmodel/1/saved_model.pb", "mar/toy.mar", "rest/manifest.json"} <= set(names)
    assert [line.split()[2] for line in text.splitlines() if line.startswith("COPY")] == [
        "savedmodel/",
        "mar/",
        "rest/",
    ]
    packed = {name.partition("/")[2] for name in names}
    assert {path.relative_to(model.path).as_posix() for path in model.path.rglob("*")} <= packed


@pytest.mark.docker
def test_two_exports_of_the_same_artifacts_share_their_layers(built, capsys):
    model, _ = built
    manifest = model.path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "created_at": "2030-01-01T00:00:00+00:00"}))
    assert main(["image", str(model.path), "--tag", f"{TAG}-again"]) == 0
    try:
        first, again = (_layers(tag) for tag in (TAG, f"{TAG}-again"))
    finally:
        docker("rmi", "--force", f"{TAG}-again")
    assert len(first) == len(again) >= 4  # the base, both artifacts, and the rest
    assert first[:-1] == again[:-1] and first[-1] != again[-1]


def _layers(tag: str) -> list[str]:
    return json.loads(docker("image", "inspect", "--format", "{{json .RootFS.Layers}}", tag))


def test_a_corrupt_artifact_is_not_packed(tmp_path, capsys):
    model = toy_model(tmp_path)
    (model.path / "toy.mar").write_bytes(b"other")
    assert main(["image", str(model.path)]) == 2
    assert "toy.mar is corrupt" in capsys.readouterr().err


def test_a_folder_without_a_manifest_says_how_to_make_a_model(tmp_path, capsys):
    assert main(["image", str(tmp_path)]) == 2
    assert "manifest.json does not exist" in capsys.readouterr().err


def test_without_an_engine_it_says_what_to_start(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    model = toy_model(tmp_path)
    assert main(["image", str(model.path)]) == 3
    assert "no Docker Engine answers" in capsys.readouterr().err


def test_the_image_is_named_after_the_model_in_lower_case():
    assert reference("CNN-v2", None) == f"servestorm/models-cnn-v2:{__version__}"


@pytest.mark.parametrize("tag", ["registry.example:5000/team/cnn:1.0", "cnn", "a/b/c:v1"])
def test_a_tag_may_name_a_registry(tag):
    assert reference("cnn", tag) == tag


@pytest.mark.parametrize("tag", ["Team/CNN", "cnn:", "a b", "cnn:1:2"])
def test_a_tag_that_no_engine_takes_is_a_usage_error(tag, tmp_path, capsys):
    model = toy_model(tmp_path)
    assert main(["image", str(model.path), "--tag", tag]) == 2
    assert "no image name" in capsys.readouterr().err


def test_a_model_whose_name_ends_in_a_dot_needs_a_tag(tmp_path, capsys):
    model = toy_model(tmp_path, "cnn.")
    assert main(["image", str(model.path)]) == 2
    assert "choose one with --tag" in capsys.readouterr().err


class Engine:
    """An engine that holds these images and reaches no registry."""

    def __init__(self, *held: str) -> None:
        self.images = self
        self._held = held

    def get(self, name: str) -> object:
        from docker.errors import ImageNotFound

        if name not in self._held:
            raise ImageNotFound(f"no such image: {name}")
        return object()

    def pull(self, name: str) -> None:
        from docker.errors import APIError

        raise APIError(f"pull of {name}: no route to host")


def test_our_own_busybox_is_the_base_where_it_is_here():
    assert base_image(Engine(BUSYBOX, "busybox:1.37.0-musl"), None) == BUSYBOX


def test_the_public_busybox_is_the_base_where_ours_is_not():
    assert base_image(Engine("busybox:1.37.0-musl"), None) == "busybox:1.37.0-musl"


def test_without_any_base_both_ways_to_one_are_named():
    with pytest.raises(EngineUnavailable, match=r"make airgap-images.*--base"):
        base_image(Engine(), None)
