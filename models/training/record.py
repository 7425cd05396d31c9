"""What a training did, as it lies beside the weights: training-FRAMEWORK.json."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.errors import ModelError
from models.manifest import InputSpec
from models.training.learner import Device, Framework, Precision


class _RecordPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Epoch(_RecordPart):
    """One pass over the training images."""

    seconds: float = Field(description="training alone, evaluation left out")
    cpu_s: float | None = Field(default=None, description="CPU time of all threads in these seconds")
    training_loss: float = Field(description="mean cross-entropy over the epoch's batches, augmented images")
    training_top1: float | None = Field(
        default=None,
        description="share of as many training images as are held out, not augmented, whose class came first after it",
    )
    training_top5: float | None = Field(default=None, description="the same for the first five classes")
    loss: float = Field(description="mean cross-entropy on held-out images")
    top1: float = Field(description="share of held-out images whose class came first")
    top5: float = Field(description="share of held-out images whose class was among the first five")


class UseSample(_RecordPart):
    """What the training had used so far, all threads of its processes together."""

    t_s: float = Field(description="in which it learnt and was evaluated, up to now")
    cpu_s: float
    rss_bytes: int = Field(description="resident memory at this moment")
    read_ops: int = Field(description="calls that read, from disk or cache")
    read_bytes: int = Field(description="that came from a disk")
    write_ops: int = Field(description="calls that wrote, to disk or cache")
    write_bytes: int = Field(description="that went, or will go, to a disk")


class ResourceUse(_RecordPart):
    """What a training used while it learnt and was evaluated."""

    cores: int = Field(description="that the process may run on")
    rss_peak_bytes: int = Field(description="largest resident memory so far, with the data set; sum of its processes")
    samples: list[UseSample]


class ClassScore(_RecordPart):
    """How well one class was recognised among the held-out images."""

    name: str
    precision: float = Field(description="right ones of those that were called so; 0 if none was")
    recall: float = Field(description="right ones of those that are of this class; 0 if there is none")
    f1: float = Field(description="harmonic mean of both")
    support: int = Field(description="held-out images of this class")


class Classification(_RecordPart):
    """The last epoch's answers to the held-out images."""

    classes: list[ClassScore]
    precision: float = Field(description="mean over classes, weighted by support")
    recall: float = Field(description="the same")
    f1: float = Field(description="the same")
    confusion: list[list[int]] = Field(description="[true class][class that came first]: numbers of images")


class TrainingRecord(_RecordPart):
    """What a training did: training-FRAMEWORK.json beside the weights."""

    schema_version: Literal[1] = 1
    framework: Framework
    architecture: str = Field(description="name of the network")
    dataset: str
    dataset_sha256: str
    train_images: int
    test_images: int
    labels: list[str]
    input: InputSpec
    seed: int
    split_seed: int = Field(description="seed of the split into training and held-out images")
    batch_size: int
    learning_rate: float
    compiled: bool = Field(default=False, description="whether the framework's compiler made the training step")
    precision: Precision = Field(default="float32", description="of the layers' outputs while it learnt")
    device: Device = Field(default="cpu", description="on which it learnt")
    processes: int = Field(default=1, description="that computed a part of each batch")
    parameters: int = Field(description="trainable and running-statistics values")
    frozen: int = Field(default=0, description="of these values, those of pretrained features, which did not learn")
    pretrained_sha256: str | None = Field(
        default=None, description="of the file of pretrained weights, if one was used"
    )
    weights: str = Field(description="file beside this one")
    epochs: list[Epoch]
    use: ResourceUse | None = Field(default=None, description="None of a training by an older version")
    classification: Classification | None = Field(default=None, description="None of a training by an older version")
    frameworks: dict[str, str]
    git_commit: str | None

    @property
    def top1(self) -> float:
        """Held-out top-1 accuracy after the last epoch."""
        return self.epochs[-1].top1

    @property
    def seconds(self) -> float:
        """Of all epochs, evaluation left out."""
        return sum(epoch.seconds for epoch in self.epochs)

    @property
    def images_per_s(self) -> float:
        """Images learnt from in a second, over all epochs."""
        return len(self.epochs) * self.train_images / self.seconds

    def seconds_to(self, top1: float) -> float | None:
        """Training seconds until the held-out top-1 accuracy was first at least `top1`; None if it never was."""
        spent_s = 0.0
        for epoch in self.epochs:
            spent_s += epoch.seconds
            if epoch.top1 >= top1:
                return spent_s
        return None


class SampleAnswer(_RecordPart):
    """What the trained network says of one held-out image."""

    label: str
    answer: str = Field(description="the class that came first")
    probability: Annotated[float, Field(ge=0, le=1)] = Field(description="that it gives to its answer")
    right: bool
    png: str = Field(description="the image, base64, no side longer than 96 pixels")


class StudyTraining(_RecordPart):
    """What a training of a study leaves: training.json in its run's folder."""

    record: TrainingRecord
    threads: Annotated[int, Field(ge=1)] = Field(description="intra-op threads of the framework")
    samples: list[SampleAnswer]


def record_path(weights_dir: Path, framework: str) -> Path:
    """Where a framework's training record lies."""
    return weights_dir / f"training-{framework}.json"


def load_record(weights_dir: Path, framework: str) -> TrainingRecord:
    """Read a training record; raises ModelError where it is missing or not one."""
    path = record_path(weights_dir, framework)
    try:
        return TrainingRecord.model_validate_json(path.read_text())
    except FileNotFoundError as error:
        raise ModelError(
            f"{path} does not exist: train the network with `servestorm train --framework {framework}` first."
        ) from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not a training record of this version: train the network again.") from error
