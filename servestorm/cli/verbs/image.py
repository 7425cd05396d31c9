"""`servestorm image`: a model directory as an image with the model and `cp`, for volumes and init containers."""

from __future__ import annotations

import argparse

from servestorm import __version__
from servestorm.cli.exit_codes import work_begins
from servestorm.cli.option_types import AddVerb, name, path


def add_options(add: AddVerb) -> None:
    """The verb's options, for the command line."""
    parser = add(
        "image",
        "build a container image with a model, and nothing else, under /models",
        "servestorm image build/models/cnn --tag registry.example/models/cnn:1",
    )
    parser.add_argument("model", type=path, metavar="DIR", help="model directory, such as build/models/cnn")
    parser.add_argument(
        "--tag", type=name, metavar="REF", help=f"name of the image (default: servestorm/models-NAME:{__version__})"
    )
    parser.add_argument(
        "--base",
        type=name,
        metavar="IMAGE",
        help=f"image with `cp` to put the model on (default: servestorm/busybox:{__version__}, else the public one)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check the model, build the image, print its name, its size and how to use it."""
    from models.manifest import ModelDir
    from serving.backends.docker.engine import connect
    from serving.backends.docker.model_image import base_image, build, reference, verified

    work_begins()
    model = ModelDir(arguments.model)
    kinds = verified(model)
    tag = reference(model.name, arguments.tag)
    client = connect()
    image = build(client, model, tag, base_image(client, arguments.base))
    print(f"image: {tag}, {image.attrs['Size'] / 1e6:.1f} MB, {image.id}")
    print(f"carries: /models/{model.name} ({' and '.join(kinds)}, {len(model.manifest.golden)} golden images)")
    print(f"into a volume: docker run --rm -v VOLUME:/target {tag} cp -a /models/. /target")
    return 0
