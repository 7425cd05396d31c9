"""`servestorm image`: a model directory as an image with the model and `cp`, for volumes and init containers."""

from __future__ import annotations

import argparse
import io
import re
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from servestorm import __version__
from servestorm.cli.option_types import AddVerb
from servestorm.errors import StudyError

if TYPE_CHECKING:
    from models.manifest import ModelDir

PUBLIC_BASE = "busybox:1.37.0-musl"
"""The smallest official image with `cp`; taken where our own BusyBox was not built."""

_USER = 10001
_REFERENCE = re.compile(r"([\w.-]+(:\d+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:[\w][\w.-]{0,127})?")


def add_options(add: AddVerb) -> None:
    """The verb's options, for the command line."""
    parser = add("image", "make a container image that carries a model and nothing else, under /models")
    parser.add_argument("model", type=Path, metavar="DIR", help="model directory, such as build/models/cnn")
    parser.add_argument(
        "--tag", metavar="REF", help=f"name of the image (default: servestorm/models-NAME:{__version__})"
    )
    parser.add_argument(
        "--base",
        metavar="IMAGE",
        help=f"image with `cp` to put the model on (default: servestorm/busybox:{__version__}, else {PUBLIC_BASE})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check the model, build the image, print its name, its size and how to use it."""
    from models.manifest import ModelDir
    from serving.backends.docker.engine import connect

    model = ModelDir(arguments.model)
    kinds = _verified(model)
    tag = reference(model.name, arguments.tag)
    client = connect()
    image = build(client, model, tag, base_image(client, arguments.base))
    print(f"image: {tag}, {image.attrs['Size'] / 1e6:.1f} MB, {image.id}")
    print(f"carries: /models/{model.name} ({' and '.join(kinds)}, {len(model.manifest.golden)} golden images)")
    print(f"into a volume: docker run --rm -v VOLUME:/target {tag} cp -a /models/. /target")
    return 0


def _verified(model: ModelDir) -> list[str]:
    """What the model holds, after each artifact was compared with the manifest's SHA-256."""
    kinds = []
    if model.manifest.savedmodel:
        model.verify("savedmodel")
        kinds.append("SavedModel")
    if model.manifest.mar:
        model.verify("mar")
        kinds.append("MAR")
    return kinds


def reference(name: str, tag: str | None) -> str:
    """The image's name: `tag`, or one made of the model's. Raises StudyError where an engine would refuse it."""
    wanted = tag or f"servestorm/models-{name.lower()}:{__version__}"
    if _REFERENCE.fullmatch(wanted):
        return wanted
    if tag:
        raise StudyError(f"--tag {tag} is no image name: write it like registry/name:tag, the name in lower case.")
    raise StudyError(f"model name {name} cannot be part of an image's name: choose one with --tag.")


def base_image(client: Any, wanted: str | None) -> str:
    """The image to build on: `wanted`, our own BusyBox, or the public one, pulled first where it is absent.

    Raises EngineUnavailable where it cannot be had.
    """
    from docker.errors import ImageNotFound

    from serving.backends.docker.engine import asking, require_image
    from serving.errors import EngineUnavailable

    ours = f"servestorm/busybox:{__version__}"
    if wanted:
        require_image(client, wanted)
        return wanted
    with asking(f"look for the image {ours}"):
        try:
            client.images.get(ours)
        except ImageNotFound:
            pass
        else:
            return ours
    try:
        require_image(client, PUBLIC_BASE)
    except EngineUnavailable as error:
        raise EngineUnavailable(
            f"no base with `cp` is here, and {PUBLIC_BASE} cannot be pulled: run `make airgap-images`, or name an "
            "image that is here with --base."
        ) from error
    return PUBLIC_BASE


def build(client: Any, model: ModelDir, tag: str, base: str) -> Any:
    """Build the image (docker.models.images.Image). Raises DeploymentError with the engine's words where it cannot."""
    from docker.errors import BuildError

    from serving.backends.docker.engine import asking, refusal
    from serving.errors import DeploymentError

    what = f"build {tag}"
    with asking(what), context(model, base) as stream:
        try:
            image, _ = client.images.build(fileobj=stream, custom_context=True, tag=tag, rm=True, forcerm=True)
        except BuildError as error:
            raise DeploymentError(refusal(what, str(error.msg))) from error
    return image


@contextmanager
def context(model: ModelDir, base: str) -> Iterator[IO[bytes]]:
    """The tar that the engine builds from: the same bytes for the same model. On disk: it may be larger than memory."""
    with tempfile.TemporaryFile() as stream:
        with tarfile.open(fileobj=stream, mode="w", dereference=True) as archive:
            text = dockerfile(model, base).encode()
            entry = tarfile.TarInfo("Dockerfile")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
            archive.add(model.path, "model", filter=_plain)
        stream.seek(0)
        yield stream


def dockerfile(model: ModelDir, base: str) -> str:
    """What the engine is to do. The files belong to the user that every server of ours runs as."""
    labels = {
        "org.opencontainers.image.title": f"servestorm/models-{model.name}",
        "org.opencontainers.image.description": f"The model {model.name} for TensorFlow Serving and TorchServe",
        "org.opencontainers.image.version": __version__,
        "org.opencontainers.image.vendor": "servestorm",
        "org.opencontainers.image.created": model.manifest.created_at,
        "org.opencontainers.image.revision": model.manifest.git_commit or "unknown",
        "org.opencontainers.image.base.name": base,
        "servestorm.model": model.name,
        "servestorm.parity": model.manifest.parity.status,
    }
    written = " ".join(f'{key}="{_quoted(value)}"' for key, value in labels.items())
    return (
        f"FROM {base}\nCOPY --chown={_USER}:{_USER} model/ /models/{model.name}/\n"
        f"LABEL {written}\nUSER {_USER}:{_USER}\n"
    )


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("\n", " ")


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Readable by everybody and without a time, so that the same model makes the same layer."""
    entry.mode = 0o755 if entry.isdir() else 0o644
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry
