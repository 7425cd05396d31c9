"""`servestorm import`: a person's own artifacts as a model directory."""

from __future__ import annotations

import argparse

from models.quiet_import import import_tensorflow_quietly
from servestorm.cli.verbs.export import describe
from servestorm.errors import StudyError
from servestorm.study.progress import Display, ProgressStep


def run(arguments: argparse.Namespace) -> int:
    """Import, and print what lies where and whether parity is proved."""
    if arguments.savedmodel is None and arguments.mar is None:
        raise StudyError("nothing to import: give --savedmodel DIR, --mar FILE, or both.")
    if arguments.savedmodel:
        import_tensorflow_quietly()
    from models.artifacts.imported_model import import_model

    with Display([ProgressStep(f"import {arguments.name}", "import", 25.0)]) as display, display.step():
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
            progress=display.fraction,
        )
    print(describe(model))
    return 0
