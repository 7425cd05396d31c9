"""`servestorm wait`: until a server answers for its model, for scripts and for `serve ... &`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from servestorm.cli.option_types import AddVerb, seconds

if TYPE_CHECKING:
    import requests

READY: Final = "ready"
_POLL_S: Final = 0.25
_ANSWER_S: Final = 5.0
_NOT_YET: Final = (404, 503)
"""What TorchServe answers where the model or its worker is not there yet."""
_BYTES: Final = {"Content-Type": "application/octet-stream"}


def add_options(add: AddVerb) -> None:
    """The verb's options, for the command line."""
    parser = add(
        "wait",
        "wait until a server answers for its model",
        "servestorm wait http://127.0.0.1:8080",
        "servestorm wait http://127.0.0.1:8501 --model resnet --timeout 30",
    )
    parser.add_argument("url", metavar="URL", help="REST address of the server, as --host of a load")
    parser.add_argument("--model", default="cnn", metavar="NAME", help="model name in URLs (default: cnn)")
    parser.add_argument(
        "--timeout", type=seconds, default=120.0, metavar="S", help="longest wait, seconds (default: 120)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Ask until the answer comes, and print it in one line; DeploymentError where it does not come in time."""
    import requests

    from loadtests.generator.addresses import endpoint_url
    from serving.errors import DeploymentError

    url = endpoint_url(arguments.url)
    begun_s = time.monotonic()
    with requests.Session() as session:
        session.trust_env = False  # a load speaks to the server itself, without a proxy
        while (state := state_of(session, url, arguments.model)) != READY:
            if time.monotonic() - begun_s >= arguments.timeout:
                raise DeploymentError(
                    f"{url} is not ready after {arguments.timeout:g} s ({state}): see the server's messages, "
                    "or raise --timeout."
                )
            time.sleep(_POLL_S)
    print(f"{url} answers for {arguments.model} after {time.monotonic() - begun_s:.1f} s")
    return 0


def state_of(session: requests.Session, url: str, model: str) -> str:
    """READY, or what the server lacks; it is asked as TensorFlow Serving, then as TorchServe."""
    import requests

    name = quote(model, safe="")
    try:
        status = session.get(f"{url}/v1/models/{name}", timeout=_ANSWER_S)
        if "model_version_status" in status.text:
            return READY if '"AVAILABLE"' in status.text else f"the model {model} is being loaded"
        ping = session.get(f"{url}/ping", timeout=_ANSWER_S)
        if '"status"' not in ping.text:
            return f"it is neither TensorFlow Serving with a model {model} nor TorchServe"
        # its ping is healthy before a worker has the model
        answer = session.post(f"{url}/predictions/{name}", data=_image(), headers=_BYTES, timeout=_ANSWER_S)
        return f"TorchServe has no worker for {model}" if answer.status_code in _NOT_YET else READY
    except requests.exceptions.SSLError:
        return "TLS fails: its certificate is not trusted, or it speaks plain HTTP"
    except requests.RequestException:
        return "no answer"


def _image() -> bytes:
    """A small PNG; whether a model likes it does not matter here."""
    import loadtests

    return (Path(loadtests.__path__[0]) / "bundled_digits" / "000.png").read_bytes()
