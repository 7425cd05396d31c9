"""`servestorm export`: one set of weights in a SavedModel and a .mar, proved equal."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from servestorm.cli.option_types import AddVerb, count, data_options, models_dir

if TYPE_CHECKING:
    from models.manifest import ModelDir


def add_options(add: AddVerb) -> None:
    """The verb's options, for the command line."""
    parser = add(
        "export",
        "export one set of weights as a SavedModel and a .mar, and prove both equal",
        "servestorm export",
        "servestorm export --name cifar --dataset cifar10 --weights build/weights/cifar --weights-from torch",
    )
    data_options(parser)
    parser.add_argument("--name", default="cnn", help="model name in URLs (default: cnn)")
    parser.add_argument(
        "--weights",
        type=Path,
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
    parser.add_argument("--version", type=count, default=1, help="SavedModel version directory (default: 1)")
    models_dir(parser)


def run(arguments: argparse.Namespace) -> int:
    """Export, and print what lies where and how equal it is."""
    from models.quiet_import import import_tensorflow_quietly
    from servestorm.study.progress import Display, ProgressStep
    from serving.extras import require

    require("train", "servestorm export")
    import_tensorflow_quietly()
    from models.artifacts.export import export_model
    from models.datasets.load import load_dataset

    dataset = load_dataset(arguments.dataset, data_dir=arguments.data_dir, seed=arguments.seed)
    with Display([ProgressStep(f"export {arguments.name}", "the export", 25.0)]) as display, display.step():
        model = export_model(
            arguments.name,
            arguments.weights,
            dataset,
            out_dir=arguments.out,
            version=arguments.version,
            weights_from=arguments.weights_from,
            progress=display.fraction,
        )
    print(describe(model))
    return 0


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
