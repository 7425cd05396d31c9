"""`servestorm import`: a person's own artifacts as a model directory."""

from __future__ import annotations

import argparse
from pathlib import Path

from servestorm.cli.option_types import AddVerb, count, models_dir, numbers, size
from servestorm.cli.verbs.export import describe
from servestorm.errors import StudyError


def add_options(add: AddVerb) -> None:
    """The verb's options, for the command line."""
    parser = add(
        "import",
        "import your own model: a SavedModel, a .mar, or both",
        "servestorm import --name mine --savedmodel exported/1 --mar mine.mar --images photos",
    )
    parser.add_argument("--name", required=True, help="model name in URLs")
    parser.add_argument("--savedmodel", type=Path, metavar="DIR", help="folder that holds saved_model.pb")
    parser.add_argument("--mar", type=Path, metavar="FILE", help="TorchServe archive")
    parser.add_argument("--images", type=Path, metavar="DIR", help="JPEG and PNG files to compare both artifacts on")
    parser.add_argument(
        "--size",
        type=size,
        metavar="HxW",
        help="input size, if the SavedModel does not state it (such as 224x224)",
    )
    parser.add_argument("--output", metavar="NAME", help="output to compare, if the model has several")
    for name, what in (("mean", "subtracted from"), ("std", "divides")):
        parser.add_argument(
            f"--{name}",
            type=numbers,
            metavar="R,G,B",
            help=f"{what} pixel values of 0..1, for tensor inputs",
        )
    parser.add_argument("--version", type=count, default=1, help="SavedModel version directory (default: 1)")
    models_dir(parser)


def run(arguments: argparse.Namespace) -> int:
    """Import, and print what lies where and whether parity is proved."""
    if arguments.savedmodel is None and arguments.mar is None:
        raise StudyError("nothing to import: give --savedmodel DIR, --mar FILE, or both.")
    from models.quiet_import import import_tensorflow_quietly
    from servestorm.study.progress import Display, ProgressStep
    from serving.extras import require

    if arguments.savedmodel:
        require("train", "servestorm import", "tensorflow")
        import_tensorflow_quietly()
    if arguments.mar and arguments.images:
        require("train", "servestorm import", "torch", "ts")
    from models.artifacts.imported_model import import_model

    with Display([ProgressStep(f"import {arguments.name}", "the import", 25.0)]) as display, display.step():
        model = import_model(
            arguments.name,
            savedmodel=arguments.savedmodel,
            mar=arguments.mar,
            images=arguments.images,
            out_dir=arguments.out,
            version=arguments.version,
            mean=arguments.mean,
            std=arguments.std,
            size=arguments.size,
            output=arguments.output,
            progress=display.fraction,
        )
    print(describe(model))
    return 0
