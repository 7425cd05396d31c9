"""model_volume.py check|record FOLDER NAME SETTINGS: whether the folder of models holds what is to be served.

`check` ends with exit code 0 if model NAME is there and whole, with 4 if there is no model yet, and with 3 and one
sentence if what is there is something else: a model of another name, files that are not those of the manifest, a newer
version beside it that TensorFlow Serving would serve, or a model that this trainer trained by another recipe (other
SETTINGS, or another version of servestorm). `record` notes the recipe of the model that was just trained. Both need
servestorm's packages.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from models.errors import ModelError
from models.manifest import MANIFEST_NAME, ModelDir, sha256_of
from servestorm import __version__

IN_ORDER, STALE, NO_MODEL = 0, 3, 4
ANEW = "remove it (docker compose down -v removes the volume) and the next start trains it again"
_ARTIFACTS: tuple[Literal["savedmodel", "mar"], ...] = ("savedmodel", "mar")


class StaleVolume(Exception):
    """The folder is not to be served from; the sentence says why and what to do."""


def check(folder: Path, name: str, recipe: str) -> bool:
    """True where the model is there, False where no model is. Raises StaleVolume."""
    if not (folder / name / MANIFEST_NAME).exists():
        _check_that_no_other_model_is_meant(folder, name)
        return False
    try:
        model = ModelDir(folder / name)
        for artifact in _ARTIFACTS:
            if getattr(model.manifest, artifact) is not None:
                model.verify(artifact)
    except ModelError as error:
        raise StaleVolume(f"{error} In a container: {ANEW}.") from None
    _check_name(model, folder / name)
    _check_recipe(folder, name, recipe)
    return True


def record(folder: Path, name: str, recipe: str) -> None:
    """Note by which recipe the model was trained that lies in the folder now."""
    _note(folder, name).write_text(f"{sha256_of(folder / name / MANIFEST_NAME)}\n{recipe}\n")


def _check_that_no_other_model_is_meant(folder: Path, name: str) -> None:
    others = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST_NAME}"))
    if others:
        raise StaleVolume(
            f"{folder} holds {', '.join(others)} and not {name}: set MODEL_NAME to what is there, set MODELS to a "
            f"folder with {name}, or remove what is there (docker compose down -v removes the volume) and {name} is "
            "trained."
        )


def _check_name(model: ModelDir, path: Path) -> None:
    if model.name != path.name:
        raise StaleVolume(f"{path} holds the model {model.name}: name the folder {model.name}, or export it again.")


def _check_recipe(folder: Path, name: str, recipe: str) -> None:
    """Only of a model that the trainer trained: what a person exported has no note, or one of another manifest."""
    note = _note(folder, name)
    if not note.exists():
        return
    manifest, _, trained_by = note.read_text().partition("\n")
    if manifest == sha256_of(folder / name / MANIFEST_NAME) and trained_by.strip() != recipe:
        raise StaleVolume(
            f"{folder / name} was trained with {trained_by.strip()}, and {recipe} is asked for: {ANEW}, or ask for "
            "what is there."
        )


def _note(folder: Path, name: str) -> Path:
    return folder / f".{name}.recipe"


def main(arguments: list[str]) -> int:
    """Run one of the two commands; returns the exit code."""
    command, folder, name, settings = arguments
    recipe = f"{settings} servestorm={__version__}"
    if command == "record":
        record(Path(folder), name, recipe)
        return IN_ORDER
    try:
        return IN_ORDER if check(Path(folder), name, recipe) else NO_MODEL
    except StaleVolume as stale:
        print(f"trainer: {stale}", file=sys.stderr)
    except OSError as error:
        print(
            f"trainer: {error.filename} cannot be read ({error.strerror}): user 10001 must be able to read the models.",
            file=sys.stderr,
        )
    return STALE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
