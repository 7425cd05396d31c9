"""An image built from a tar by the Docker Engine, with what it refuses as one sentence."""

from __future__ import annotations

import logging
from typing import IO, Any

from serving.backends.docker.engine import asking, refusal
from serving.errors import DeploymentError

log = logging.getLogger(__name__)

_PARENT_GONE = "unknown parent image id"
"""What the classic builder says where a layer was in its cache a moment ago and was removed since, by `docker rmi` or
`docker system prune` beside it (Docker 20.10.24, seen; github.com/moby/moby/issues/36901)."""


def build_image(client: Any, stream: IO[bytes], what: str, tag: str, **options: Any) -> Any:
    """Build the tar `stream` (a Dockerfile and its files) as `tag` (docker.models.images.Image).

    `what` says what is to be done, for the sentence of an error; `options` are those of docker's `images.build`. A
    build whose cached layer was removed meanwhile is done once more without the cache. Raises DeploymentError with
    the engine's words where it cannot.
    """
    from docker.errors import BuildError

    for nocache in ({}, {"nocache": True}):
        stream.seek(0)
        with asking(what):
            try:
                built, _ = client.images.build(
                    fileobj=stream, custom_context=True, tag=tag, rm=True, forcerm=True, **{**options, **nocache}
                )
            except BuildError as error:
                reason = str(error.msg)
            else:
                return built
        if _PARENT_GONE not in reason.lower():
            break
        log.info("a cached layer of %s was removed meanwhile: it is built without the cache.", tag)
    raise DeploymentError(refusal(what, reason))
