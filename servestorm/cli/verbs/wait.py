"""`servestorm wait`: until a server answers for its model, for scripts and for `serve ... &`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from servestorm.cli.option_types import AddVerb, name, seconds

if TYPE_CHECKING:
    from serving.headers import Headers

_POLL_S: Final = 0.25
_ANSWER_S: Final = 5.0


def add_options(add: AddVerb) -> None:
    """The verb's options, for the command line."""
    parser = add(
        "wait",
        "wait until a server answers for its model",
        "servestorm wait http://127.0.0.1:8080",
        "servestorm wait http://127.0.0.1:8501 --model resnet --timeout 30",
    )
    parser.add_argument("url", metavar="URL", help="REST address of the server, as --host of a load")
    parser.add_argument("--model", type=name, default="cnn", metavar="NAME", help="model name in URLs (default: cnn)")
    parser.add_argument(
        "--header",
        action="append",
        metavar="NAME=VALUE",
        help="sent with every request (repeatable); VALUE may be env:NAME or file:PATH, such as "
        "Authorization='Bearer env:TOKEN'",
    )
    parser.add_argument(
        "--timeout", type=seconds, default=120.0, metavar="S", help="longest wait, seconds (default: 120)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Ask until the answer comes, and print it in one line; DeploymentError where it does not come in time."""
    from serving.addresses import endpoint_url
    from serving.authorisation import REFUSED, REMEDY
    from serving.errors import DeploymentError
    from serving.headers import Headers

    url, headers = endpoint_url(arguments.url), Headers.of_options(arguments.header)
    for sentence in headers.exposed:
        sys.stderr.write(f"servestorm: {sentence}\n")
    begun_s = time.monotonic()
    while missing := _missing(url, arguments.model, headers):
        if time.monotonic() - begun_s >= arguments.timeout:
            remedy = REMEDY if missing.startswith(REFUSED) else "see the server's messages, or raise --timeout"
            raise DeploymentError(f"{url} is not ready after {arguments.timeout:g} s ({missing}): {remedy}.")
        time.sleep(_POLL_S)
    print(f"{url} answers for {arguments.model} after {time.monotonic() - begun_s:.1f} s")
    return 0


def _missing(url: str, model: str, headers: Headers) -> str:
    """What the server lacks before it answers for the model; '' where it is ready.

    A file with a token is read anew each time, for the server may write it as it starts.
    """
    from serving.headers import HeaderUnreadable
    from serving.http_client import NoAnswer
    from serving.server_kind import TORCHSERVE, server_kind, torchserve_lacks

    try:
        sent = headers.read()
        kind = server_kind(url, model, _ANSWER_S, sent)
        if kind.missing or kind.engine != TORCHSERVE:
            return kind.missing
        return torchserve_lacks(url, model, _image(), _ANSWER_S, sent)
    except HeaderUnreadable as error:
        return str(error).rstrip(".")
    except NoAnswer as error:
        return str(error)


def _image() -> bytes:
    """A small PNG; whether a model likes it does not matter here."""
    import loadtests

    return (Path(loadtests.__path__[0]) / "bundled_digits" / "000.png").read_bytes()
