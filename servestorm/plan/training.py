"""The plan's section that asks for trainings, and the settings that its lists make."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from servestorm.plan.values import (
    Count,
    DatasetName,
    DeviceName,
    FrameworkName,
    NetworkName,
    OneOrMore,
    Percent,
    PixelSize,
    PrecisionName,
    Strict,
)

YOUNGER = {"processes": [1]}
"""Keys that are younger than run directories that may go on, with what they are where a plan does not use them."""


class TrainingData(Strict):
    """A data set that networks are trained on."""

    dataset: DatasetName = Field(default="digits", description="which one")
    size: PixelSize | None = Field(
        default=None,
        description="HEIGHTxWIDTH in pixels to which images are resized, such as 64x64; empty: 32x32 for cnn, else "
        "224x224",
    )
    classes: Count | None = Field(default=None, description="of data set synthetic; empty: 10")
    images: Count | None = Field(default=None, description="of data set synthetic, in all; empty: 1000")
    data_dir: Path | None = Field(default=None, description="directory or file of that data set")

    @property
    def label(self) -> str:
        """'synthetic 32x32, 10 classes, 1,000 images', as far as the plan says it."""
        parts = [
            f"{self.dataset} {self.size}" if self.size else self.dataset,
            f"{self.classes} classes" if self.classes else "",
            f"{self.images:,} images" if self.images else "",
            self.data_dir.name if self.data_dir else "",
        ]
        return ", ".join(filter(None, parts))


class Training(Strict):
    """Trainings of each network on each data set, with each batch size and number of threads, in each framework."""

    frameworks: OneOrMore[FrameworkName] = Field(
        default=["keras", "torch"], description="those that are compared; a list: each of them"
    )
    networks: OneOrMore[NetworkName] = Field(default=["cnn"], description="what is trained; a list: each of them")
    data: OneOrMore[TrainingData] = Field(
        default_factory=lambda: [TrainingData()], description="what it is trained on; a list: each of them"
    )
    batch_size: OneOrMore[Annotated[int, Field(ge=2, le=10_000)]] = Field(
        default=[32], description="images in a training step; a list: each of them"
    )
    threads: OneOrMore[Count] | None = Field(
        default=None,
        description="intra-op threads of the framework; a list: each of them; empty: one for each usable core, shared "
        "among the processes",
    )
    processes: OneOrMore[Annotated[int, Field(ge=1, le=256)]] = Field(
        default=[1],
        description="that train one network together, data-parallel: each computes a part of every batch with its own "
        "`threads`, and gradients are averaged; torch alone (DistributedDataParallel over gloo), on the CPU; a list: "
        "each of them, and how well training scales",
    )
    compiled: OneOrMore[bool] = Field(
        default=[False],
        description="whether the framework's compiler makes the training step: Keras's `jit_compile` (XLA), "
        "`torch.compile` (Inductor, which needs a C++ compiler); a list: each of them",
    )
    precision: OneOrMore[PrecisionName] = Field(
        default=["float32"],
        description="of the layers' outputs; bfloat16 is mixed precision, in which weights stay float32; a list: each "
        "of them",
    )
    device: DeviceName = Field(
        default="cpu",
        description="on which both frameworks train; gpu: the first NVIDIA GPU, which must be there for each of them",
    )
    epochs: Count = Field(default=5, description="passes over the training data")
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=1e-3, description="of Adam at the begin; it falls along a half cosine"
    )
    reach_top1_percent: Percent = Field(default=90, description="held-out accuracy whose time is measured, percent")
    pretrained: Path | None = Field(
        default=None,
        description="file of published weights of the network: their features stay, and a new dense head learns; "
        "empty: all of it learns",
    )

    @model_validator(mode="after")
    def _can_be_carried_out(self) -> Training:
        for name in ("frameworks", "networks", "batch_size", "threads", "processes", "compiled", "precision"):
            values = getattr(self, name) or []
            if len(set(values)) != len(values):
                raise ValueError(f"{name} names one twice: {', '.join(map(str, values))}")
        labels = [data.label for data in self.data]
        if twice := next((label for label in labels if labels.count(label) > 1), None):
            raise ValueError(f"data names one twice: {twice}")
        for data in self.data:
            if data.dataset != "synthetic" and (data.classes or data.images):
                raise ValueError(f"only data set synthetic takes classes or images: leave them out for {data.dataset}")
        if self.pretrained and len(self.networks) > 1:
            raise ValueError("pretrained weights are of one network: give one under networks")
        if max(self.processes) > 1:
            self._can_be_data_parallel()
        return self

    def _can_be_data_parallel(self) -> None:
        if "keras" in self.frameworks:
            raise ValueError(
                "processes: Keras trains in one, for its fit refuses MultiWorkerMirroredStrategy (Keras 3.15.1, "
                "TensorFlow 2.21.0); set frameworks: [torch]"
            )
        if True in self.compiled or self.device == "gpu":
            raise ValueError("processes train together on the CPU and without torch.compile: leave the other out")
        if min(self.batch_size) < 2 * max(self.processes):
            raise ValueError(
                f"batch_size: {min(self.batch_size)} images are too few for {max(self.processes)} processes, each of "
                f"which needs two; give {2 * max(self.processes)} or more"
            )

    @model_serializer(mode="wrap")
    def _as_before_where_nothing_is_said(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)  # of every type that a plan has; pydantic's own signature
        return {key: value for key, value in dumped.items() if key not in YOUNGER or value != YOUNGER[key]}


@dataclass(frozen=True)
class TrainingSetting:
    """One combination of what `training` gives several values of."""

    network: NetworkName
    data: TrainingData
    batch_size: int
    threads: int | None
    """None: one for each usable core, shared among the processes."""
    processes: int
    compiled: bool
    precision: PrecisionName
    label: str
    """What tells it from the others, such as 'cnn, digits'; '' where it is the only one."""


def settings_of(training: Training) -> list[TrainingSetting]:
    """Every combination, in the order of the section's lists."""
    threads_of: list[int | None] = list(training.threads or ()) or [None]
    step_options = (training.compiled, training.precision)
    axes = (training.networks, training.data, training.batch_size, threads_of, training.processes, *step_options)
    varied = [len(values) > 1 for values in axes]
    settings = []
    for network, data, batch_size, threads, processes, compiled, precision in itertools.product(*axes):
        count = f"{threads} thread{'' if threads == 1 else 's'}"
        together = f"{processes} process{'' if processes == 1 else 'es'}"
        how = "compiled" if compiled else "not compiled"
        words = (network, data.label, f"batches of {batch_size}", count, together, how, precision)
        label = ", ".join(itertools.compress(words, varied))
        settings.append(TrainingSetting(network, data, batch_size, threads, processes, compiled, precision, label))
    return settings
