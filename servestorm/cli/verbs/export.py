"""`servestorm export`: one set of weights in a SavedModel and a .mar, proved equal."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from servestorm.cli.exit_codes import work_begins
from servestorm.cli.option_types import NETWORK_NAMES, AddVerb, data_options, models_dir, path, size, version
from servestorm.errors import StudyError

if TYPE_CHECKING:
    from models.datasets.dataset import Progress
    from models.manifest import ModelDir


def add_options(add: AddVerb) -> None:
    """The verb's options, for the command line."""
    parser = add(
        "export",
        "export one set of weights as a SavedModel and a .mar, and prove both equal",
        "servestorm export",
        "servestorm export --name cifar --dataset cifar10 --weights build/weights/cifar --weights-from torch",
        "servestorm export --name resnet50 --pretrained resnet50.pth --network resnet50-torchvision --labels names.txt",
    )
    data_options(parser, of_training=False)
    parser.add_argument("--name", default="cnn", help="model name in URLs (default: cnn)")
    parser.add_argument(
        "--weights",
        type=path,
        default=Path("build/weights/cnn"),
        metavar="DIR",
        help="output of `servestorm train` (default: build/weights/cnn)",
    )
    parser.add_argument(
        "--weights-from",
        choices=("keras", "torch"),
        default="keras",
        help="the framework whose weights both artifacts get (default: keras)",
    )
    parser.add_argument(
        "--pretrained",
        type=path,
        metavar="FILE",
        help="published weights with their own classes, in place of a training's (.weights.h5 of Keras, .pth of torch)",
    )
    parser.add_argument("--network", choices=NETWORK_NAMES, help="of those weights")
    parser.add_argument(
        "--size", type=size, metavar="HEIGHTxWIDTH", help="input of that network in pixels (default: 224x224)"
    )
    parser.add_argument(
        "--labels", type=path, metavar="FILE", help="its class names, one a line (default: class 0, class 1, ...)"
    )
    parser.add_argument("--version", type=version, default=1, help="SavedModel version directory (default: 1)")
    models_dir(parser)


def run(arguments: argparse.Namespace) -> int:
    """Export, and print what lies where and how equal it is."""
    from servestorm.study.progress import Display, ProgressStep
    from serving.extras import require

    require("train", "servestorm export")
    export = _published(arguments) if arguments.pretrained else _trained(arguments)
    with Display([ProgressStep(f"export {arguments.name}", "the export", 25.0)]) as display, display.step():
        model = export(display.fraction)
    print(describe(model))
    return 0


def _trained(arguments: argparse.Namespace) -> Callable[[Progress], ModelDir]:
    from models.artifacts.export import checked_export, export_model, trained_on

    for option in ("network", "size", "labels"):
        if getattr(arguments, option) is not None:
            raise StudyError(f"--{option} belongs to --pretrained: a training has its own.")
    checked_export(arguments.name, arguments.weights, arguments.out, arguments.version, arguments.weights_from)
    work_begins()
    dataset = trained_on(
        arguments.weights, arguments.weights_from, arguments.dataset, arguments.data_dir, arguments.seed
    )
    return lambda progress: export_model(
        arguments.name,
        arguments.weights,
        dataset,
        out_dir=arguments.out,
        version=arguments.version,
        weights_from=arguments.weights_from,
        progress=progress,
    )


def _published(arguments: argparse.Namespace) -> Callable[[Progress], ModelDir]:
    from models.artifacts.export import checked_published, export_published
    from models.artifacts.parity import MIN_IMAGES
    from models.datasets.load import load_dataset

    if arguments.network is None:
        raise StudyError("--pretrained needs --network: whose weights are they?")
    side = checked_published(
        arguments.name, arguments.network, arguments.pretrained, arguments.out, arguments.version
    ).side
    work_begins()
    dataset = load_dataset(
        arguments.dataset or "synthetic",
        data_dir=arguments.data_dir,
        seed=arguments.seed or 0,
        size=arguments.size or (side, side),
        images=None if arguments.dataset not in (None, "synthetic") else MIN_IMAGES,
    )
    return lambda progress: export_published(
        arguments.name,
        arguments.network,
        arguments.pretrained,
        dataset,
        out_dir=arguments.out,
        version=arguments.version,
        labels=arguments.labels,
        progress=progress,
    )


def describe(model: ModelDir) -> str:
    """What a model directory holds, and whether its artifacts are proved equal: one line each."""
    manifest, parity = model.manifest, model.manifest.parity
    lines = [f"model directory: {model.path}"]
    for name, artifact in (("SavedModel", manifest.savedmodel), ("MAR", manifest.mar)):
        if artifact:
            lines.append(f"{name}: {artifact.path}, {artifact.size_bytes / 2**20:.1f} MiB")
    figure = f"{parity.max_abs_difference:.1e}" if parity.max_abs_difference is not None else "unknown"
    lines.append(
        f"parity: {parity.status}; largest difference of any output {figure} on {parity.images} images, "
        f"{parity.tolerance:g} allowed"
    )
    if parity.reason:
        lines.append(f"reason: {parity.reason}")
    return "\n".join(lines)
