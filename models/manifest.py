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
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import ModelError

MANIFEST_NAME = "manifest.json"
PROVED: Final = "proved"
NOT_PROVED: Final = "NOT PROVED EQUAL"


class _ManifestPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputSpec(_ManifestPart):
    """What the network takes: float32 NHWC of (batch, height, width, channels), (x / 255 - mean) / std."""

    height: int = Field(gt=0, description="pixels")
    width: int = Field(gt=0, description="pixels")
    channels: int = Field(default=3, gt=0, description="colour channels, RGB order")
    mean: list[float] = Field(description="per channel, of pixel values scaled to 0..1")
    std: list[float] = Field(description="per channel, of pixel values scaled to 0..1")


class Artifact(_ManifestPart):
    """One exported artifact."""

    path: str = Field(description="relative to the manifest's folder: a directory (SavedModel) or a file (.mar)")
    sha256: str = Field(description="of the file, or of a directory's sorted relative names and contents")
    size_bytes: int = Field(ge=0)


class Parity(_ManifestPart):
    """How far the exported artifacts' softmax outputs were apart, encoded bytes in."""

    status: Literal["proved", "NOT PROVED EQUAL"] = Field(description="what later results are labelled with")
    tolerance: float = Field(description="largest difference allowed")
    images: int = Field(ge=0, description="real images compared")
    max_abs_difference: float | None = Field(
        default=None,
        description="of any number, in units of the image's largest number if that is over 1; None where unchecked",
    )
    reason: str | None = Field(default=None, description="why parity is not proved, in one sentence")


class Golden(_ManifestPart):
    """An image with the answer every deployment must give."""

    path: str = Field(description="relative to the manifest's folder")
    sha256: str = Field(description="of the encoded bytes")
    probabilities: list[float] = Field(description="the output, a number per label; empty where unknown")


class Manifest(_ManifestPart):
    """Everything that a server, a load generator or a report needs to know of a model."""

    schema_version: Literal[1] = 1
    name: str = Field(description="model name in URLs")
    version: int = Field(default=1, ge=1, description="SavedModel version directory")
    architecture: str = Field(description="for instance cnn, or foreign for imported artifacts")
    dataset: str | None = Field(default=None, description="what it was trained on")
    labels: list[str] = Field(description="class names in output order; empty where unknown")
    input: InputSpec | None = Field(description="None where an imported artifact does not state it")
    image_signature: str | None = Field(default="serving_default", description="takes encoded image bytes")
    tensor_signature: str | None = Field(default="tensor", description="takes float32 NHWC")
    image_input: str | None = Field(default="image_bytes", description="input name of the image signature")
    tensor_input: str | None = Field(default="images", description="input name of the tensor signature")
    output: str | None = Field(default="probabilities", description="output name of both signatures")
    savedmodel: Artifact | None = None
    mar: Artifact | None = None
    parity: Parity
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

    Raises ModelError where the manifest is missing, unreadable or not of this schema.
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
        return self.path / self.manifest.mar.path if self.manifest.mar else None

    def verify(self, artifact: Literal["savedmodel", "mar"]) -> Path:
        """Path of the artifact, after its SHA-256 was compared with the manifest's."""
        entry: Artifact | None = getattr(self.manifest, artifact)
        if entry is None:
            raise ModelError(f"{self.path} holds no {artifact} artifact: export or import the model with one.")
        path = self.path / entry.path
        if not path.exists():
            raise ModelError(f"{path} is missing: run `servestorm export` (or `import`) again.")
        if (actual := sha256_of(path)) != entry.sha256:
            raise ModelError(
                f"{path} is corrupt: its sha256 is {actual[:12]}…, the manifest says {entry.sha256[:12]}…; "
                "run `servestorm export` (or `import`) again."
            )
        return path

    def golden_images(self) -> list[bytes]:
        """Encoded bytes of the golden images, in the manifest's order."""
        return [(self.path / g.path).read_bytes() for g in self.manifest.golden]


def _read_manifest(path: Path) -> Manifest:
    try:
        return Manifest.model_validate(json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise ModelError(
            f"{path} does not exist: make the model with `servestorm train` and `servestorm export`."
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not JSON ({error}): export or import the model again.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"{path} is not a manifest of this version: {where}: {first['msg']}.") from error
