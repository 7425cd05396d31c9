"""`servestorm import`: a person's own artifacts as a model directory."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from servestorm.cli.exit_codes import work_begins
from servestorm.cli.option_types import AddVerb, models_dir, name, numbers, path, size, tolerance, version
from servestorm.cli.verbs.export import describe


def add_options(add: AddVerb) -> None:
    """The verb's options, for the command line."""
    parser = add(
        "import",
        "import your own model: a SavedModel, a .mar, or both",
        "servestorm import --name mine --savedmodel exported/1 --mar mine.mar --images photos",
    )
    parser.add_argument("--name", required=True, help="model name in URLs")
    parser.add_argument("--savedmodel", type=path, metavar="DIR", help="folder that holds saved_model.pb")
    parser.add_argument(
        "--mar",
        type=path,
        metavar="FILE",
        help="TorchServe archive: a .mar, a .tar.gz, or the folder of one; its handler is run",
    )
    parser.add_argument("--images", type=path, metavar="DIR", help="JPEG and PNG files to compare both artifacts on")
    parser.add_argument(
        "--size",
        type=size,
        metavar="HxW",
        help="input size, if the SavedModel does not state it (such as 224x224)",
    )
    parser.add_argument(
        "--output",
        type=name,
        metavar="NAME",
        help="output to compare, if the model has several (default: the one float matrix)",
    )
    parser.add_argument(
        "--tolerance",
        type=tolerance,
        default=1e-5,
        metavar="X",
        help="largest difference of a proof, in units of the image's largest number if that is over 1 (default: 1e-5)",
    )
    for statistic, what in (("mean", "subtracted from"), ("std", "divides")):
        parser.add_argument(
            f"--{statistic}",
            type=numbers,
            metavar="R,G,B",
            help=f"{what} pixel values of 0..1, for inputs of float tensors; one number for a grey image",
        )
    parser.add_argument("--version", type=version, default=1, help="SavedModel version directory (default: 1)")
    parser.add_argument("--force", action="store_true", help="replace the model of this name, its artifacts and proof")
    models_dir(parser)


def run(arguments: argparse.Namespace) -> int:
    """Import, and print what lies where and whether parity is proved."""
    from models.artifacts.imported_model import checked_import, import_model
    from models.quiet_import import import_tensorflow_quietly
    from servestorm.study.progress import Display, ProgressStep
    from serving.extras import require

    if arguments.savedmodel:
        require("train", "servestorm import", "tensorflow")
    if arguments.mar and arguments.images:
        require("train", "servestorm import", "torch", "ts")
    checked_import(
        arguments.name,
        arguments.savedmodel,
        arguments.mar,
        arguments.images,
        arguments.out,
        arguments.tolerance,
        arguments.version,
        arguments.mean,
        arguments.std,
        arguments.force,
    )
    if arguments.savedmodel:
        import_tensorflow_quietly()

    work_begins()
    shown = Display([ProgressStep(f"import {arguments.name}", "the import", 25.0)])
    with _found_after_a_kill(), shown as display, display.step():
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
            tolerance=arguments.tolerance,
            replace=arguments.force,
            progress=display.fraction,
        )
    print(describe(model))
    return 0


@contextmanager
def _found_after_a_kill() -> Iterator[None]:
    """The archive's handler ends with this process, and what it was unpacked into goes, also where this is killed."""
    from serving.orphans import OWNER_VARIABLE, owner_tag, scratch_folder
    from serving.supervisor import supervise

    supervise()
    owner, temporary = os.environ.get(OWNER_VARIABLE), tempfile.tempdir
    folder = scratch_folder()
    os.environ[OWNER_VARIABLE], tempfile.tempdir = owner_tag(), str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = temporary
        os.environ.pop(OWNER_VARIABLE)
        if owner is not None:
            os.environ[OWNER_VARIABLE] = owner
        shutil.rmtree(folder, ignore_errors=True)
