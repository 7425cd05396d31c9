"""A person's own artifacts: read what they take, compare what they answer, label what is not proved."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.answers import AnswerError, AnswerNames, rows
from models.artifacts.export import DEFAULT_OUT_DIR
from models.artifacts.handler.run import HandlerFailed, archive_manifest, probabilities, run_handler
from models.artifacts.parity import MAX_IMAGES, TOLERANCE, judge
from models.artifacts.publish import artifact, checked_target, publish, write_golden
from models.artifacts.signatures import ImageSignature, ImageSignatures, read_signatures, version_folder
from models.atomic import staging
from models.datasets.dataset import Progress, no_progress
from models.datasets.image_folder import image_files, read_image
from models.errors import ModelError
from models.manifest import NOT_PROVED, PROVED, InputSpec, Manifest, ModelDir, Parity
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
    progress: Progress | None = None,
) -> ModelDir:
    """Write `out_dir/name` from foreign artifacts, either of which may be missing.

    `savedmodel` is a SavedModel's folder or the folder of its versions. `images` is a folder of JPEG and PNG files
    on which the two are compared; 32 of them become the golden images. `mean` and `std` (per channel, of pixel
    values scaled to 0..1) and `size` (height, width) define how images become the tensors of a SavedModel that takes
    no encoded images. `output` names the output that is compared, where there are several.

    The manifest has `proved` only where both artifacts answered at least 256 images alike within `tolerance`, and
    otherwise NOT PROVED EQUAL with the reason. Raises ModelError where an artifact or an image is unusable.
    """
    tell = progress or no_progress
    target = checked_target(name, out_dir, version)
    job = _gather(savedmodel, mar, images, tolerance, output, tell)
    job.input = _input_spec(job.signatures, mean, std, size)
    with staging(target.parent) as stage:
        folder = stage / name
        folder.mkdir()
        tell("copying the artifacts", 0.1)
        _copy(job, folder, version)
        parity, golden_from, outputs = _compare(job, tell)
        manifest = _manifest(job, folder, version, parity).model_copy(
            update={"golden_from": golden_from, "golden": write_golden(folder, job.images, outputs)}
        )
        model = publish(folder, target, manifest)
    tell("imported", 1.0)
    return model


def _gather(
    savedmodel: Path | None,
    mar: Path | None,
    images: Path | None,
    tolerance: float,
    output: str | None,
    tell: Progress,
) -> _Import:
    if savedmodel is None and mar is None:
        raise ModelError("There is nothing to import: name a SavedModel with --savedmodel, a .mar with --mar, or both.")
    if tolerance <= 0:
        raise ModelError(f"A tolerance of {tolerance} cannot be met: give one above 0, for instance 1e-5.")
    tell("reading the artifacts", 0.0)
    savedmodel_folder = version_folder(savedmodel) if savedmodel else None
    job = _Import(savedmodel_folder, mar, _read_images(images, tell), tolerance, output=output)
    if mar:
        archive_manifest(mar)
        job.labels = _archive_labels(mar)
    if savedmodel_folder:
        job.signatures = read_signatures(savedmodel_folder, output)
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
        with zipfile.ZipFile(mar) as archive:
            names = json.loads(archive.read("index_to_name.json"))
        ordered = [names[str(index)] for index in range(len(names))]
    except (KeyError, ValueError, TypeError):
        return []
    return [str(name[-1] if isinstance(name, list) else name) for name in ordered]


def _input_spec(
    signatures: ImageSignatures | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    size: tuple[int, int] | None,
) -> InputSpec | None:
    """The input spec where all of it is known: signatures contain a size, never the normalisation."""
    if (mean is None) != (std is None):
        raise ModelError("A normalisation needs both: give --mean and --std.")
    if mean is None or std is None:
        return None
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ModelError("A normalisation needs three means and three standard deviations above 0 (red, green, blue).")
    tensor = signatures.tensor if signatures else None
    height, width = size or ((tensor.height, tensor.width) if tensor else (None, None))
    if not height or not width:
        raise ModelError("The artifacts do not state their input's size: give it with --size.")
    return InputSpec(height=height, width=width, mean=list(mean), std=list(std))


def _copy(job: _Import, folder: Path, version: int) -> None:
    if job.savedmodel:
        shutil.copytree(job.savedmodel, folder / str(version))
    if job.mar:
        shutil.copyfile(job.mar, folder / f"{folder.name}.mar")


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
) -> tuple[ImageSignature, list[list[bytes] | NDArray[np.float32]]]:
    """One image a batch, because a foreign graph may be fixed to one."""
    if signatures.image:
        return signatures.image, [[image] for image in job.images]
    if signatures.tensor is None or job.input is None:
        raise Unanswered(
            "the SavedModel takes tensors, and how images become tensors is not known (give --mean and --std)."
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
        architecture="foreign",
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
