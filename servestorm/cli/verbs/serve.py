"""`servestorm serve`: a model on one engine, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from servestorm.cli.exit_codes import work_begins
from servestorm.cli.option_types import ENGINE_NAMES, LAST_PORT, AddVerb, count, cpus, path, port, seconds
from servestorm.errors import StudyError

if TYPE_CHECKING:
    from models.manifest import ModelDir
    from serving.deployment import Deployment, Endpoint, Engine
    from serving.server_settings import OrderedSettings


def add_options(add: AddVerb) -> None:
    """The verb's options, for the command line."""
    parser = add(
        "serve",
        "start a model on one engine on 127.0.0.1, until Ctrl-C",
        "servestorm serve --engine savedmodel",
        "servestorm serve --engine torchserve --replicas 2 --cpus 0,1 --port 8080",
    )
    parser.add_argument("--engine", choices=ENGINE_NAMES, required=True, help="the server")
    parser.add_argument(
        "--model",
        type=path,
        default=Path("build/models/cnn"),
        metavar="DIR",
        help="model directory (default: build/models/cnn)",
    )
    parser.add_argument("--replicas", type=count, default=1, help="number of servers (default: 1)")
    parser.add_argument(
        "--cpus", type=cpus, metavar="LIST", help="cores for all replicas, such as 0 or 0,2-3 (default: all)"
    )
    parser.add_argument("--threads", type=count, default=1, help="intra-op threads each (default: 1)")
    parser.add_argument("--max-batch-size", type=count, default=1, help="images; 1 means no batching (default: 1)")
    parser.add_argument(
        "--batch-timeout-us",
        type=count,
        default=1000,
        help="microseconds after which a batch is run although it is not full; TorchServe takes whole milliseconds, "
        "rounded up (default: 1000)",
    )
    parser.add_argument("--port", type=port, help="REST port of the first replica; others follow (default: free ports)")
    parser.add_argument(
        "--ready-timeout", type=seconds, default=120.0, metavar="S", help="longest wait, seconds (default: 120)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Start, wait until ready, print addresses and how to ask, and stay until Ctrl-C (exit code 130)."""
    import shutil

    from models.manifest import ModelDir
    from servestorm.study.progress import Display, ProgressStep
    from serving.backend import DeploymentOrder
    from serving.backends import BACKENDS
    from serving.deployment import Batching, Budget, EventLog
    from serving.engines import ENGINES
    from serving.errors import DeploymentError
    from serving.orphans import scratch_folder

    usable = os.sched_getaffinity(0)
    cores = arguments.cpus or tuple(sorted(usable))
    if missing := sorted(set(cores) - usable):
        raise StudyError(f"core {missing[0]} is not usable here: choose of {', '.join(map(str, sorted(usable)))}.")
    if arguments.port and arguments.port + arguments.replicas - 1 > LAST_PORT:
        raise StudyError(
            f"--port {arguments.port} leaves no ports for {arguments.replicas} replicas: give a lower one."
        )
    engine, model = ENGINES[arguments.engine], ModelDir(arguments.model)
    batching = Batching(arguments.max_batch_size, arguments.batch_timeout_us)
    ports = None if arguments.port is None else range(arguments.port, arguments.port + arguments.replicas)
    budget = Budget(cpus=cores, threads=arguments.threads)
    work_begins()
    workdir = scratch_folder()
    try:
        with BACKENDS["process"].start(
            DeploymentOrder(
                engine,
                model,
                replicas=arguments.replicas,
                budget=budget,
                batching=batching,
                workdir=workdir,
                events=EventLog(),
                ports=ports,
            )
        ) as deployment:
            with Display([ProgressStep(f"starting {engine.name}", "the start", 10.0)]) as display, display.step():
                deployment.wait_ready(arguments.ready_timeout)
                _require_settings(engine, model, deployment, engine.ordered(budget, batching))
            for endpoint in deployment.endpoints:
                print(_addresses(endpoint))
            if line := _how_to_ask(arguments.engine, model, deployment.endpoints[0]):
                print(line)
            sys.stdout.flush()
            sys.stderr.write("Serving until Ctrl-C.\n")
            while deployment.alive():
                time.sleep(0.5)
            raise DeploymentError(f"{engine.name} ended by itself; its last lines: {deployment.logs(10)}")
    finally:
        shutil.rmtree(workdir, ignore_errors=True)


def _require_settings(engine: Engine, model: ModelDir, deployment: Deployment, ordered: OrderedSettings) -> None:
    """Raise DeploymentError where a server runs with another setting than the options say."""
    from serving.server_settings import require_as_ordered

    for endpoint in deployment.endpoints:
        settings = engine.settings(deployment.server(endpoint), model)
        require_as_ordered(f"{engine.name} replica {endpoint.replica}", settings, ordered)


def _addresses(endpoint: Endpoint) -> str:
    lines = [f"replica {endpoint.replica}: REST {endpoint.rest_url}, gRPC {endpoint.grpc_target}"]
    lines.append(f"  metrics {endpoint.metrics_url}")
    if endpoint.management_url:
        lines.append(f"  management {endpoint.management_url}")
    return "\n".join(lines)


def _how_to_ask(engine: str, model: ModelDir, endpoint: Endpoint) -> str:
    """A line to paste that gets a prediction for a golden image; empty where there is none. Serving goes on anyway."""
    from models.errors import ModelError
    from serving.errors import WireError

    try:
        return _line_to_paste(engine, model, endpoint)
    except (ModelError, WireError) as error:
        return f"no request to paste: {error}"


def _line_to_paste(engine: str, model: ModelDir, endpoint: Endpoint) -> str:
    import json

    from serving.wire import WIRES, payload_spec

    if not model.manifest.golden:
        return ""
    image = model.path / model.manifest.golden[0].path
    spec = payload_spec(model.manifest)
    if WIRES[engine].artifact == "savedmodel" and spec.image_signature is None:
        return ""  # the pixels of an image as JSON are no line to paste
    request = WIRES[engine].rest_predict(model.name, model.golden_images()[:1], "image", spec)
    url = f"{endpoint.rest_url}{request.path}"
    curl = f"curl -s -H 'Content-Type: {request.content_type}'"
    try:
        # a JSON body is written by the shell from the image, so that the line works for any image
        body = json.loads(request.body)
    except ValueError:
        return f"{curl} --data-binary @{image} {url}"
    marked = json.dumps(body).replace(_encoded(body), "'\"$(base64 -w0 " + str(image) + ")\"'")
    return f"{curl} -d '{marked}' {url}"


def _encoded(body: dict[str, list[object]]) -> str:
    """The base64 text within a predict body."""
    value: object = body["instances"][0]
    while isinstance(value, dict):
        value = next(iter(value.values()))
    return str(value)
