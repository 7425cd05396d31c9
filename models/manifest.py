"""The manifest beside a model's artifacts: what they are, where they came from, what they must answer.

A model directory is laid out so that TensorFlow Serving can take it as a base path::

    build/models/cnn/
        1/                 the SavedModel, version 1
        cnn.mar            the TorchServe archive
        golden/000.png     encoded images whose answers are known
        manifest.json      this file

This module is imported by the load generator, so it must stay free of tensorflow and torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from models.confined_paths import confined, require_confined
from models.errors import ModelEnvironmentError, ModelError

MANIFEST_NAME = "manifest.json"
PROVED: Final = "proved"
NOT_PROVED: Final = "NOT PROVED EQUAL"
FOREIGN: Final = "foreign"
"""Architecture of an imported model."""
MODEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""What does in URLs, in paths and in the names of containers; matched as a whole."""


def _inside(path: str) -> str:
    """The path, if it is one below the manifest's folder by its text; links are looked at where it is opened."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise ValueError(f"{path!r} leaves the model's folder: name what lies below it")
    return path


def _usable_in_urls(name: str) -> str:
    if not MODEL_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no model name: letters, digits, '-', '_' and '.', a letter or digit first")
    return name


InnerPath = Annotated[str, AfterValidator(_inside)]
"""Of a file or folder below the manifest's own."""


class _ManifestPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputSpec(_ManifestPart):
    """What the network takes, NHWC: float32 of (x / 255 - mean) / std, or the pixels x as uint8."""

    height: int = Field(gt=0, description="pixels")
    width: int = Field(gt=0, description="pixels")
    channels: Literal[1, 3] = Field(default=3, description="3: colours in RGB order; 1: grey")
    dtype: Literal["float32", "uint8"] = Field(default="float32", description="float32: normalised; uint8: 0 to 255")
    mean: list[FiniteFloat] = Field(description="per channel, of pixel values scaled to 0..1; empty for uint8")
    std: list[FiniteFloat] = Field(description="per channel, of pixel values scaled to 0..1; empty for uint8")

    @model_validator(mode="after")
    def _normalises_each_channel(self) -> InputSpec:
        needed = 0 if self.dtype == "uint8" else self.channels
        if not len(self.mean) == len(self.std) == needed or min(self.std, default=1) <= 0:
            raise ValueError(
                f"{self.dtype} of {self.channels} channels needs {needed} means and {needed} standard deviations over 0"
            )
        return self


class Artifact(_ManifestPart):
    """One exported artifact."""

    path: InnerPath = Field(description="relative to the manifest's folder: a directory (SavedModel) or a file (.mar)")
    sha256: str = Field(description="of the file, or of a directory's sorted relative names and contents")
    size_bytes: int = Field(ge=0)


class Parity(_ManifestPart):
    """How far the exported artifacts' softmax outputs were apart, encoded bytes in."""

    status: Literal["proved", "NOT PROVED EQUAL"] = Field(description="what later results are labelled with")
    tolerance: FiniteFloat = Field(
        description="largest difference allowed, in units of the image's largest number if that is over 1"
    )
    images: int = Field(ge=0, description="real images compared")
    max_abs_difference: float | None = Field(
        default=None,
        description="of any number, in units of the image's largest number if that is over 1; None where unchecked",
    )
    max_logit_difference: float | None = Field(
        default=None,
        description="of any logit less the mean of its image's, in units of the image's largest; None where unchecked",
    )
    reason: str | None = Field(default=None, description="why parity is not proved, in one sentence")


class Accuracy(_ManifestPart):
    """How well the exported network recognises images that it has not learnt from."""

    images: int = Field(ge=1, description="held-out images, encoded, that the SavedModel was asked")
    top1: float = Field(ge=0, le=1, description="share of them whose class came first")
    top5: float = Field(ge=0, le=1, description="share of them whose class was among the first five")


class Golden(_ManifestPart):
    """An image with the answer every deployment must give."""

    path: InnerPath = Field(description="relative to the manifest's folder")
    sha256: str = Field(description="of the encoded bytes")
    probabilities: list[FiniteFloat] = Field(description="the output, a number per label; empty where unknown")


class Manifest(_ManifestPart):
    """Everything that a server, a load generator or a report needs to know of a model."""

    schema_version: Literal[1] = 1
    name: Annotated[str, AfterValidator(_usable_in_urls)] = Field(description="model name in URLs")
    version: int = Field(default=1, ge=1, description="SavedModel version directory")
    architecture: str = Field(description="for instance cnn, or foreign for imported artifacts")
    dataset: str | None = Field(default=None, description="what it was trained on")
    labels: list[str] = Field(description="class names in output order; empty where unknown")
    input: InputSpec | None = Field(description="None where an imported artifact does not state it")
    image_signature: str | None = Field(default="serving_default", description="takes encoded image bytes")
    tensor_signature: str | None = Field(default="tensor", description="takes float32 or uint8 NHWC")
    image_input: str | None = Field(default="image_bytes", description="input name of the image signature")
    tensor_input: str | None = Field(default="images", description="input name of the tensor signature")
    output: str | None = Field(default="probabilities", description="output name of both signatures")
    savedmodel: Artifact | None = None
    mar: Artifact | None = None
    parity: Parity
    accuracy: Accuracy | None = Field(
        default=None, description="None of imported artifacts, and of weights with other classes than the images have"
    )
    golden: list[Golden] = Field(default_factory=list)
    golden_from: Literal["both", "savedmodel", "mar"] | None = Field(
        default="both", description="whose answers the golden probabilities are; None where they are unknown"
    )
    weights_from: str | None = Field(default=None, description="framework that trained the weights")
    frameworks: dict[str, str] = Field(default_factory=dict, description="library name to version")
    seed: int | None = None
    git_commit: str | None = None
    created_at: str = Field(description="ISO 8601, UTC")

    def answers_of(self, artifact: Literal["savedmodel", "mar"]) -> list[list[float]] | None:
        """What the artifact must answer to each golden image; None where that is not known.

        An answer holds only for the artifact that gave it, unless both were proved equal.
        """
        if self.golden_from not in ("both", artifact):
            return None
        return [golden.probabilities for golden in self.golden]


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, or of a directory's sorted relative names and contents."""
    digest = hashlib.sha256()
    if path.is_file():
        _feed(digest, path)
        return digest.hexdigest()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        _feed(digest, file)
    return digest.hexdigest()


def _feed(digest: hashlib._Hash, file: Path) -> None:
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files under a directory."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


class ModelDir:
    """A model directory on disk: the manifest and absolute paths to what it names.

    Raises ModelError where the manifest is missing, unreadable or not of this schema, and where a path in it leads
    out of the directory: at once where its text does, and as soon as it is used where a link does.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path).resolve()
        self.manifest = _read_manifest(self.path / MANIFEST_NAME)

    @property
    def name(self) -> str:
        """Model name in URLs."""
        return self.manifest.name

    @property
    def savedmodel_base_path(self) -> Path | None:
        """TensorFlow Serving's model_base_path (the folder that holds version directories)."""
        return self.path if self.manifest.savedmodel else None

    @property
    def mar_path(self) -> Path | None:
        """The TorchServe archive."""
        return self.inner(self.manifest.mar.path) if self.manifest.mar else None

    def inner(self, path: str) -> Path:
        """Absolute path of what the manifest names. Raises ModelError where it is missing or leads elsewhere."""
        confined(self.path / path, self.path)
        return self.path / path

    def verify(self, artifact: Literal["savedmodel", "mar"]) -> Path:
        """Path of the artifact, after its SHA-256 was compared with the manifest's.

        Raises ModelError where it is missing, another one, has links that lead out of it, or is a SavedModel beside a
        newer version, which TensorFlow Serving would serve in its place.
        """
        entry: Artifact | None = getattr(self.manifest, artifact)
        if entry is None:
            raise ModelError(f"{self.path} holds no {artifact} artifact: export or import the model with one.")
        path = self.inner(entry.path)
        require_confined(path)
        if artifact == "savedmodel":
            self._refuse_newer_version(path)
        if (actual := sha256_of(path)) != entry.sha256:
            raise ModelError(
                f"{path} is corrupt: its sha256 is {actual[:12]}…, the manifest says {entry.sha256[:12]}…; "
                "run `servestorm export` (or `import`) again."
            )
        return path

    def _refuse_newer_version(self, path: Path) -> None:
        versions = [int(entry.name) for entry in self.path.iterdir() if entry.is_dir() and entry.name.isdecimal()]
        if path.name.isdecimal() and (newest := max(versions, default=0)) > int(path.name):
            raise ModelError(
                f"{self.path} holds version {newest} too, which no manifest describes and a server would serve in "
                f"place of version {path.name}: remove that folder."
            )

    def golden_images(self) -> list[bytes]:
        """Encoded bytes of the golden images, in the manifest's order.

        Raises ModelError where one is missing, not the one of the manifest, or outside the directory.
        """
        return [self._golden_image(golden) for golden in self.manifest.golden]

    def _golden_image(self, golden: Golden) -> bytes:
        try:
            image = self.inner(golden.path).read_bytes() if os.path.lexists(path := self.path / golden.path) else None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ModelEnvironmentError(f"the golden image {path} cannot be read ({reason}): repair it.") from error
        if image is None:
            raise ModelEnvironmentError(f"the golden image {path} is missing: export or import the model again.")
        if (actual := hashlib.sha256(image).hexdigest()) != golden.sha256:
            raise ModelError(
                f"{path} is not the golden image of the manifest: its sha256 is {actual[:12]}…, not "
                f"{golden.sha256[:12]}…; run `servestorm export` (or `import`) again."
            )
        return image


def _read_manifest(path: Path) -> Manifest:
    try:
        return Manifest.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ModelError(
            f"{path} does not exist: make the model with `servestorm train` and `servestorm export`."
        ) from error
    except (NotADirectoryError, IsADirectoryError, PermissionError) as error:
        reason = (error.strerror or str(error)).lower()
        raise ModelError(f"{path} cannot be read ({reason}): name a model directory.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "all of it"
        reason = first["msg"].removeprefix("Value error, ")
        raise ModelError(f"{path} is not a manifest of this version: {where}: {reason}.") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON ({error}): export or import the model again.") from error
