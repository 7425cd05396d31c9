"""The trainer's look at the volume of models: what lies there is what is asked for, or a sentence says why not."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from models.manifest import ModelDir
from tests.source_tree import ROOT
from tests.stand_ins.toy_model_dir import toy_model

ENTRY_POINT = ROOT / "serving" / "images" / "trainer" / "entrypoint.sh"
# Writes down how it was called; `servestorm export` copies a model to where it should lie.
SERVESTORM = """\
#!/bin/sh
echo "servestorm $1" >> "$CALLS"
echo "$*" >> "$CALLS.whole"
while [ "$1" != --out ]; do [ $# -gt 0 ] || exit 0; shift; done
[ "$2" = /tmp/weights ] || cp -r "$EXPORTED" "$2/$MODEL_NAME"
"""


@pytest.fixture
def exported(tmp_path) -> ModelDir:
    """A model as an export leaves it, outside of the volume."""
    (tmp_path / "exported").mkdir()
    return toy_model(tmp_path / "exported")


@pytest.fixture
def volume(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def start(tmp_path, volume, exported):
    """Starts the trainer; gives its end and what it ran of servestorm."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "servestorm").write_text(SERVESTORM)
    (programs / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)

    def run(name=exported.name, epochs="6", network="", size=""):
        calls = tmp_path / "calls"
        calls.write_text("")
        env = {"PATH": f"{programs}:/usr/bin:/bin", "MODEL_BASE_PATH": str(volume), "MODEL_NAME": name}
        env |= {"EPOCHS": epochs, "DATASET": "digits", "SEED": "0", "EXPORTED": str(exported.path), "CALLS": str(calls)}
        env |= {"NETWORK": network, "SIZE": size}
        done = subprocess.run(["sh", ENTRY_POINT], env=env, capture_output=True, text=True, check=False)
        return done, calls.read_text().splitlines()

    return run


def refused(done, calls) -> str:
    assert (done.returncode, calls) == (3, []), done.stderr
    assert done.stderr.startswith("trainer: ") and len(done.stderr.splitlines()) == 1
    return done.stderr


def test_an_empty_volume_gets_a_model_which_is_then_left_alone(start):
    done, calls = start()
    assert (done.returncode, calls) == (0, ["servestorm train", "servestorm export"]), done.stderr
    done, calls = start()
    assert (done.returncode, calls) == (0, []), done.stderr
    assert "is there already; nothing to do." in done.stdout


def test_what_a_person_exported_is_served_whatever_the_trainer_would_train(start, volume, exported):
    shutil.copytree(exported.path, volume / exported.name)
    done, calls = start(epochs="99")
    assert (done.returncode, calls) == (0, []), done.stderr


def test_a_model_of_the_trainer_s_that_a_person_replaced_is_theirs(start, volume):
    start()
    manifest = next(volume.glob("*/manifest.json"))
    manifest.write_text(manifest.read_text() + "\n")
    done, calls = start(epochs="99")
    assert (done.returncode, calls) == (0, []), done.stderr


def test_a_volume_with_a_model_of_another_name_is_refused(start, exported):
    start()
    sentence = refused(*start(name="zebra"))
    assert f"holds {exported.name} and not zebra: set MODEL_NAME" in sentence and "docker compose down -v" in sentence


def test_a_volume_that_was_trained_otherwise_is_refused(start):
    start(epochs="6")
    sentence = refused(*start(epochs="1"))
    assert "was trained with EPOCHS=6 DATASET=digits SEED=0" in sentence
    assert "EPOCHS=1" in sentence and "docker compose down -v" in sentence


def test_another_network_of_another_size_is_trained_and_is_part_of_the_recipe(start, tmp_path):
    start(network="googlenet", size="64x64")
    train, export = (tmp_path / "calls.whole").read_text().splitlines()
    assert " --network googlenet --size 64x64 --framework keras " in train and "--size" not in export
    assert start(network="googlenet", size="64x64")[1] == []
    sentence = refused(*start())
    assert "was trained with EPOCHS=6 DATASET=digits SEED=0 NETWORK=googlenet SIZE=64x64" in sentence


def test_the_usual_network_is_trained_at_its_own_size(start, tmp_path):
    start()
    train = (tmp_path / "calls.whole").read_text().splitlines()[0]
    assert " --network cnn --framework keras " in train and "--size" not in train


def test_a_volume_of_another_version_of_servestorm_is_refused(start, volume):
    start()
    note = next(volume.glob(".*.recipe"))
    note.write_text(note.read_text().replace("servestorm=", "servestorm=0.0."))
    assert "servestorm=0.0." in refused(*start())


@pytest.mark.parametrize("artifact", ["savedmodel", "mar"])
def test_files_that_are_not_the_manifest_s_are_refused(artifact, start, volume, exported):
    start()
    entry = getattr(exported.manifest, artifact)
    path = volume / exported.name / entry.path
    file = next(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else path
    file.write_bytes(file.read_bytes() + b"x")
    assert "is corrupt" in refused(*start())


def test_a_newer_version_than_the_manifest_s_is_refused_because_tensorflow_serving_would_serve_it(
    start, volume, exported
):
    start()
    shutil.copytree(volume / exported.name / "1", volume / exported.name / "2")
    assert "holds version 2 too, which no manifest describes" in refused(*start())
    (volume / exported.name / "2").rename(volume / exported.name / "0")
    assert start()[0].returncode == 0, "older versions are kept by every export"


def test_a_file_that_cannot_be_read_is_named(start, volume, exported):
    start()
    manifest = volume / exported.name / "manifest.json"
    manifest.unlink()
    manifest.mkdir()
    assert f"{manifest} cannot be read" in refused(*start())


def test_a_folder_that_was_renamed_is_refused(start, volume, exported):
    start()
    (volume / exported.name).rename(volume / "zebra")
    assert f"holds the model {exported.name}: name the folder {exported.name}" in refused(*start(name="zebra"))
