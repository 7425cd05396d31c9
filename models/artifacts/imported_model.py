"""A person's own artifacts: read what they take, compare what they answer, label what is not proved."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.answers import AnswerError, AnswerNames, rows
from models.artifacts.foreign_archive import pack, read_small, require_archive
from models.artifacts.handler.run import HandlerFailed, archive_manifest, probabilities, run_handler
from models.artifacts.parity import MAX_IMAGES, TOLERANCE, judge
from models.artifacts.publish import (
    DEFAULT_OUT_DIR,
    artifact,
    checked_target,
    publish,
    refuse_to_replace,
    write_golden,
)
from models.artifacts.signatures import ImageSignature, ImageSignatures, read_signatures, version_folder
from models.atomic import staging
from models.confined_paths import confined, require_confined
from models.datasets.dataset import Progress, no_progress
from models.datasets.image_folder import image_files, read_image
from models.errors import ModelError
from models.manifest import FOREIGN, NOT_PROVED, PROVED, InputSpec, Manifest, ModelDir, Parity
from models.preprocessing import preprocess
from models.provenance import git_commit, utc_now

Outputs = NDArray[np.float64]


class Unanswered(Exception):
    """An artifact cannot be run here; the message is the reason, in one sentence."""


@dataclass
class _Import:
    """What is being imported, and what was found out about it."""

    savedmodel: Path | None
    mar: Path | None
    images: list[bytes]
    tolerance: float
    input: InputSpec | None = None
    signatures: ImageSignatures | None = None
    labels: list[str] = field(default_factory=list)
    output: str | None = None
    """Name of the output that is compared, where the user gave one."""

    @property
    def names(self) -> AnswerNames:
        """What the manifest will know of the model's answers: both artifacts are read by it, as a load reads them."""
        signature = self.signatures and (self.signatures.image or self.signatures.tensor)
        return AnswerNames(tuple(self.labels), signature.output if signature else self.output)


def import_model(
    name: str,
    savedmodel: Path | None = None,
    mar: Path | None = None,
    images: Path | None = None,
    out_dir: Path = DEFAULT_OUT_DIR,
    tolerance: float = TOLERANCE,
    version: int = 1,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: tuple[int, int] | None = None,
    output: str | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> ModelDir:
    """Write `out_dir/name` from foreign artifacts, either of which may be missing.

    `savedmodel` is a SavedModel's folder or the folder of its versions. `mar` is an archive in any form that
    torch-model-archiver writes. `images` is a folder of JPEG and PNG files on which the two are compared; 32 of them
    become the golden images. `mean` and `std` (per channel, of pixel values scaled to 0..1) and `size` (height, width)
    define how images become the tensors of a SavedModel that takes no encoded images; one that takes uint8 gets pixels
    as they are. `output` names the output that is compared, where there are several. `tolerance` is the largest
    difference, in units of the image's largest number if that is over 1. A model that lies there already is left
    alone, unless `replace` is given.

    The manifest has `proved` only where both artifacts answered at least 256 images alike within `tolerance`, and
    otherwise NOT PROVED EQUAL with the reason. Raises ModelError where an artifact or an image is unusable.
    """
    tell = progress or no_progress
    target = checked_import(name, savedmodel, mar, images, out_dir, tolerance, version, mean, std, replace)
    with staging(target.parent) as stage:
        folder = stage / name
        folder.mkdir()
        tell("copying the artifacts", 0.0)
        job = _copied(folder, savedmodel, mar, version, tolerance, output)
        job.images = _read_images(images, tell)
        job.input = _input_spec(job.signatures, mean, std, size)
        parity, golden_from, outputs = _compare(job, tell)
        manifest = _manifest(job, folder, version, parity).model_copy(
            update={"golden_from": golden_from, "golden": write_golden(folder, job.images, outputs)}
        )
        model = publish(folder, target, manifest, replace=replace)
    tell("imported", 1.0)
    return model


def checked_import(
    name: str,
    savedmodel: Path | None,
    mar: Path | None,
    images: Path | None,
    out_dir: Path = DEFAULT_OUT_DIR,
    tolerance: float = TOLERANCE,
    version: int = 1,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    replace: bool = False,
) -> Path:
    """Absolute path of the model directory. Raises ModelError for what can be told wrong without any framework.

    The arguments are those of `import_model`.
    """
    if savedmodel is None and mar is None:
        raise ModelError("There is nothing to import: give --savedmodel DIR, --mar FILE, or both.")
    target = checked_target(name, out_dir, version)
    if not replace:
        refuse_to_replace(target, imported_only=False)
    if not 0 < tolerance < 1:
        raise ModelError(f"A tolerance of {tolerance} proves nothing: give one above 0 and below 1, for instance 1e-5.")
    _check_normalisation(mean, std)
    if savedmodel:
        _savedmodel_folder(savedmodel)
    if mar:
        require_archive(mar)
    if images:
        image_files(images)
    return target


def _check_normalisation(mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    if (mean is None) != (std is None):
        raise ModelError("A normalisation needs both: give --mean and --std.")
    if mean is None or std is None:
        return
    if len(mean) != len(std) or len(mean) not in (1, 3) or min(std) <= 0 or not all(map(math.isfinite, [*mean, *std])):
        raise ModelError(
            "A normalisation needs three means and three standard deviations above 0 (red, green, blue), or one of "
            "each for a grey image."
        )


def _savedmodel_folder(path: Path) -> Path:
    """The SavedModel itself, after its links were looked at: their targets are what is copied."""
    folder = version_folder(path)
    confined(folder, path)
    require_confined(folder)
    return folder


def _copied(
    folder: Path, savedmodel: Path | None, mar: Path | None, version: int, tolerance: float, output: str | None
) -> _Import:
    """The artifacts, copied into `folder`, from where they are read: nobody changes them there meanwhile."""
    job = _Import(None, None, [], tolerance, output=output)
    if mar:
        job.mar = folder / f"{folder.name}.mar"
        pack(mar, job.mar)
        archive_manifest(job.mar, called=mar)
        job.labels = _archive_labels(job.mar)
    if savedmodel:
        job.savedmodel = folder / str(version)
        source = _savedmodel_folder(savedmodel)
        job.signatures = read_signatures(source, output)
        shutil.copytree(source, job.savedmodel)
    return job


def _read_images(folder: Path | None, tell: Progress) -> list[bytes]:
    if folder is None:
        return []
    paths = image_files(folder)[:MAX_IMAGES]
    images = []
    for done, path in enumerate(paths):
        images.append(read_image(path))
        tell("reading the images", 0.1 * done / len(paths))
    return images


def _archive_labels(mar: Path) -> list[str]:
    """Labels by TorchServe's convention: index_to_name.json, {"0": "tabby"} or {"0": ["n02123045", "tabby"]}."""
    try:
        names = json.loads(read_small(mar, "index_to_name.json") or b"")
        ordered = [names[str(index)] for index in range(len(names))]
    except (KeyError, ValueError, TypeError, RecursionError):
        return []
    return [str(name[-1] if isinstance(name, list) else name) for name in ordered]


def _input_spec(
    signatures: ImageSignatures | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    size: tuple[int, int] | None,
) -> InputSpec | None:
    """The input spec where all of it is known: signatures contain a size and a type, never the normalisation."""
    tensor = signatures.tensor if signatures else None
    pixels = tensor is not None and tensor.dtype == "uint8"
    if pixels and mean is not None:
        raise ModelError("The SavedModel takes uint8 pixels, which are sent as they are: leave out --mean and --std.")
    if not pixels and (mean is None or std is None):
        return None
    stated = (tensor.channels if tensor else None) or (len(mean) if mean else 3)
    channels: Literal[1, 3] = 1 if stated == 1 else 3
    if mean is not None and len(mean) != channels:
        raise ModelError(f"The SavedModel takes {channels} channels: give as many numbers with --mean and --std.")
    height, width = size or ((tensor.height, tensor.width) if tensor else (None, None))
    if not height or not width:
        if mean is None and size is None:
            return None
        raise ModelError("The artifacts do not state their input's size: give it with --size.")
    if tensor and (tensor.height or height, tensor.width or width) != (height, width):
        raise ModelError(f"The SavedModel takes {tensor.height}x{tensor.width} pixels: leave out --size.")
    dtype: Literal["uint8", "float32"] = "uint8" if pixels else "float32"
    return InputSpec(
        height=height, width=width, channels=channels, dtype=dtype, mean=list(mean or ()), std=list(std or ())
    )


def _compare(job: _Import, tell: Progress) -> tuple[Parity, Literal["both", "savedmodel", "mar"] | None, Outputs]:
    """(parity, whose answers are golden, those answers); the answers of neither are an empty (n, 0) array."""
    if not job.images:
        nothing = np.empty((0, 0))
        return _unproved(job, "no images were given (--images)."), None, nothing
    tell("asking the SavedModel", 0.3)
    first, why_first = _ask(job, "savedmodel")
    tell("asking the handler", 0.6)
    second, why_second = _ask(job, "mar")
    if first is not None and second is not None:
        parity = judge(first, second, job.tolerance)
        return parity, "both" if parity.status == PROVED else "savedmodel", first
    failures = [why for path, why in ((job.savedmodel, why_first), (job.mar, why_second)) if path and why]
    parity = _unproved(job, " ".join(failures) or why_first or why_second)
    if first is not None:
        return parity, "savedmodel", first
    if second is not None:
        return parity, "mar", second
    return parity, None, np.empty((len(job.images), 0))


def _ask(job: _Import, which: Literal["savedmodel", "mar"]) -> tuple[Outputs | None, str]:
    """(outputs, "") of an artifact, or (None, why not)."""
    try:
        return (_savedmodel_outputs(job) if which == "savedmodel" else _handler_outputs(job)), ""
    except (Unanswered, HandlerFailed) as error:
        return None, str(error)


def _unproved(job: _Import, reason: str) -> Parity:
    return Parity(status=NOT_PROVED, tolerance=job.tolerance, images=0, reason=f"Parity cannot be checked: {reason}")


def _savedmodel_outputs(job: _Import) -> Outputs:
    if job.savedmodel is None or job.signatures is None:
        raise Unanswered("there is no SavedModel.")
    from models.artifacts.savedmodel import predictor

    signature, batches = _batches(job, job.signatures)
    try:
        predict = predictor(job.savedmodel, signature.name, signature.input, signature.output)
        answers = [predict(batch) for batch in batches]
    except Exception as error:  # TensorFlow raises errors of many kinds for a graph that it cannot load or run
        reason = " ".join(str(error).split())[:200]
        raise Unanswered(f"the SavedModel fails here ({type(error).__name__}: {reason}).") from error
    if any(answer.shape[:1] != (1,) for answer in answers):
        raise Unanswered(f"the SavedModel answers one image with a shape of {answers[0].shape}.")
    try:
        outputs = [rows(answer, job.names, images=1) for answer in answers]
    except AnswerError as error:
        raise Unanswered(f"the SavedModel's answer cannot be compared: {error}") from error
    if len({row.shape for row in outputs}) != 1:
        raise Unanswered("the SavedModel's answers differ in length.")
    return np.concatenate(outputs)


def _batches(
    job: _Import, signatures: ImageSignatures
) -> tuple[ImageSignature, list[list[bytes] | NDArray[np.float32] | NDArray[np.uint8]]]:
    """One image a batch, because a foreign graph may be fixed to one."""
    if signatures.image:
        return signatures.image, [[image] for image in job.images]
    if signatures.tensor is None or job.input is None:
        raise Unanswered(
            "the SavedModel takes tensors, and how images become tensors is not known (give --mean and --std, and "
            "--size if it states none; uint8 needs --size alone)."
        )
    spec = job.input
    return signatures.tensor, [preprocess(image, spec)[None] for image in job.images]


def _handler_outputs(job: _Import) -> Outputs:
    if job.mar is None:
        raise Unanswered("there is no .mar.")
    return probabilities(run_handler(job.mar, job.images), job.names)


def _manifest(job: _Import, folder: Path, version: int, parity: Parity) -> Manifest:
    signatures = job.signatures
    image, tensor = (signatures.image, signatures.tensor) if signatures else (None, None)
    if image and tensor and tensor.output != image.output:
        tensor = None  # the manifest knows one output name; the encoded images are what is compared
    return Manifest(
        name=folder.name,
        version=version,
        architecture=FOREIGN,
        labels=job.labels,
        input=job.input,
        image_signature=image.name if image else None,
        image_input=image.input if image else None,
        tensor_signature=tensor.name if tensor else None,
        tensor_input=tensor.input if tensor else None,
        output=job.names.output,
        savedmodel=artifact(folder, folder / str(version)) if job.savedmodel else None,
        mar=artifact(folder, folder / f"{folder.name}.mar") if job.mar else None,
        parity=parity,
        frameworks={"tensorflow": signatures.tensorflow} if signatures else {},
        git_commit=git_commit(),
        created_at=utc_now(),
    )
