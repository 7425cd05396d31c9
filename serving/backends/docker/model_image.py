"""A model directory as an image that carries the model and `cp`, for volumes and init containers."""

from __future__ import annotations

import io
import re
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from models.confined_paths import require_confined
from models.manifest import ModelDir
from serving.backends.docker.engine import asking, require_image
from serving.backends.docker.image_build import build_image
from serving.containers import USER, image, own_version
from serving.errors import EngineUnavailable, ServingError

PUBLIC_BASE = "busybox:1.37.0-musl"
"""The smallest official image with `cp`; taken where our own BusyBox was not built."""

_REFERENCE = re.compile(r"([\w.-]+(:\d+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:[\w][\w.-]{0,127})?")


def verified(model: ModelDir) -> list[str]:
    """What the model holds, after each file was compared with the manifest's SHA-256."""
    kinds = []
    require_confined(model.path)  # the whole folder is packed, and links are followed
    if model.manifest.savedmodel:
        model.verify("savedmodel")
        kinds.append("SavedModel")
    if model.manifest.mar:
        model.verify("mar")
        kinds.append("MAR")
    model.golden_images()  # they are packed too
    return kinds


def reference(name: str, tag: str | None) -> str:
    """The image's name: `tag`, or one made of the model's. Raises ServingError where an engine would refuse it."""
    wanted = tag or image(f"models-{name.lower()}")
    if _REFERENCE.fullmatch(wanted):
        return wanted
    if tag:
        raise ServingError(f"--tag {tag} is no image name: write it like registry/name:tag, the name in lower case.")
    raise ServingError(f"model name {name} cannot be part of an image's name: choose one with --tag.")


def base_image(client: Any, wanted: str | None) -> str:
    """The image to build on: `wanted`, our own BusyBox, or the public one, pulled first where it is absent.

    Raises EngineUnavailable where it cannot be had.
    """
    from docker.errors import ImageNotFound

    ours = image("busybox")
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
    with context(model, base) as stream:
        return build_image(client, stream, f"build {tag}", tag)


@contextmanager
def context(model: ModelDir, base: str) -> Iterator[IO[bytes]]:
    """The tar that the engine builds from: the same bytes for the same model. On disk: it may be larger than memory."""
    with tempfile.TemporaryFile() as stream:
        with tarfile.open(fileobj=stream, mode="w", dereference=True) as archive:
            text = dockerfile(model, base).encode()
            entry = tarfile.TarInfo("Dockerfile")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
            for layer, names in layers(model).items():
                for name in names:
                    archive.add(model.path / name, f"{layer}/{name}", filter=_plain)
        stream.seek(0)
        yield stream


def layers(model: ModelDir) -> dict[str, list[str]]:
    """What of the model's folder goes into which layer of the image: each artifact into one of its own.

    So what differs between two exports of the same weights, or was added to them, is all that a registry and a node
    get anew: a manifest of kilobytes, not artifacts of half a gigabyte.
    """
    manifest = model.manifest
    artifacts = {"savedmodel": manifest.savedmodel, "mar": manifest.mar}
    tops = {Path(artifact.path).parts[0]: kind for kind, artifact in artifacts.items() if artifact}
    found: dict[str, list[str]] = {"savedmodel": [], "mar": [], "rest": []}
    for child in sorted(path.name for path in model.path.iterdir()):
        found[tops.get(child, "rest")].append(child)
    return {layer: names for layer, names in found.items() if names}


def dockerfile(model: ModelDir, base: str) -> str:
    """What the engine is to do. The files belong to the user that every server of ours runs as."""
    labels = {
        "org.opencontainers.image.title": f"servestorm/models-{model.name}",
        "org.opencontainers.image.description": f"The model {model.name} for TensorFlow Serving and TorchServe",
        "org.opencontainers.image.version": own_version(),
        "org.opencontainers.image.vendor": "servestorm",
        "org.opencontainers.image.created": model.manifest.created_at,
        "org.opencontainers.image.revision": model.manifest.git_commit or "unknown",
        "org.opencontainers.image.base.name": base,
        "servestorm.model": model.name,
        "servestorm.parity": model.manifest.parity.status,
    }
    written = " ".join(f'{key}="{_quoted(value)}"' for key, value in labels.items())
    copies = "".join(f"COPY --chown={USER} {layer}/ /models/{model.name}/\n" for layer in layers(model))
    return f"FROM {base}\n{copies}LABEL {written}\nUSER {USER}\n"


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("\n", " ")


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Readable by everybody and without a time, so that the same model makes the same layer."""
    entry.mode = 0o755 if entry.isdir() else 0o644
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry
