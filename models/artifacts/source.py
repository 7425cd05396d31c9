"""Whose weights are exported: those of a training of ours, or published ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from models.errors import ModelError
from models.manifest import InputSpec
from models.networks.catalogue import network_named
from models.networks.network import Network
from models.networks.pretrained import read_pretrained
from models.networks.weights import Weights
from models.training.learner import FRAMEWORKS
from models.training.record import TrainingRecord, load_record
from models.training.weight_files import load_weights


@dataclass(frozen=True)
class ExportSource:
    """Weights, and what the manifest says of them. It can be sent to another process."""

    network: Network
    read: Callable[[], Weights]
    """Reads them anew each time, so that nobody has to keep them."""
    input: InputSpec
    labels: list[str]
    """In the order of the outputs."""
    dataset: str | None
    """What the network was trained on; None where a file does not say so."""
    weights_from: str
    """Framework that trained the weights."""
    seed: int | None
    weights_bytes: int
    """In float32."""


def training_record(weights_dir: Path, weights_from: str) -> TrainingRecord:
    """The record of the training in `weights_dir`; raises ModelError where there is none."""
    if weights_from not in FRAMEWORKS:
        raise ModelError(f"There are no weights from {weights_from!r}: choose one of {', '.join(FRAMEWORKS)}.")
    return load_record(weights_dir, weights_from)


def of_training(weights_dir: Path, weights_from: str) -> ExportSource:
    """What `train` left in `weights_dir`. Raises ModelError where it is missing; the weights are read later."""
    record = training_record(weights_dir, weights_from)
    return ExportSource(
        network_named(record.architecture),
        partial(load_weights, weights_dir, record),
        record.input,
        record.labels,
        record.dataset,
        record.framework,
        record.seed,
        4 * record.parameters,
    )


def of_file(network: str, path: Path, size: tuple[int, int] | None = None, labels: Path | None = None) -> ExportSource:
    """Published weights as they are, with their own classes.

    `size` is (height, width), the network's own if None; `labels` a text file with a class name a line. Raises
    ModelError where the file is not of this network, has no dense layers, or has another number of classes than labels.
    """
    chosen = network_named(network)
    pretrained = read_pretrained(chosen, path)
    if not pretrained.classes:
        raise ModelError(
            f"{path} holds no dense layers, so it gives no answers: train a head with `servestorm train --pretrained`."
        )
    names = [f"class {number}" for number in range(pretrained.classes)] if labels is None else class_names(labels)
    if len(names) != pretrained.classes:
        raise ModelError(f"{labels} names {len(names)} classes, and the weights in {path} have {pretrained.classes}.")
    weights_from = "keras" if path.suffix == ".h5" else "torch"
    spec = pretrained.scale.spec(size or (chosen.side, chosen.side))
    values = sum(array.size for layer in pretrained.weights.values() for array in layer.values())
    return ExportSource(chosen, partial(_weights_in, chosen, path), spec, names, None, weights_from, None, 4 * values)


def _weights_in(network: Network, path: Path) -> Weights:
    return read_pretrained(network, path).weights


def class_names(path: Path) -> list[str]:
    """The lines of a text file, without blanks around them. Raises ModelError where it cannot be read."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ModelError(f"{path} cannot be read ({reason.lower()}): name a text file with a class a line.") from error
