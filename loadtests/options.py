"""The options of both locustfiles: declared once, explained with their units, checked in one place."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from loadtests.arrivals.options import Option, arrival_options
from loadtests.arrivals.processes import Arrivals
from loadtests.arrivals.table import ARRIVALS
from loadtests.arrivals.turns import Turns, read_turns
from loadtests.errors import LoadTestError
from loadtests.generator.addresses import endpoint_url, grpc_target
from loadtests.generator.endpoints_file import EndpointsFile
from loadtests.generator.targets import ENGINES, PlainRequest, TargetOptions, detect_engine, read_body, read_model
from serving.errors import ServingError
from serving.headers import Fields, Headers
from serving.wire import PAYLOADS

_DEFAULT_GRPC_CONNECTIONS: Final = 4
LONGEST_S: Final = 366 * 86_400.0
"""Of any time: a year is a typing error, and nanoseconds of more than a century do not fit."""
MOST_IMAGES: Final = 10_000
"""In one request: all of them are in memory, for each of the images."""
_SAME_LENGTH_S: Final = 1e-3
"""A command line rounds --duration; the turns do not."""


def options_for(arrivals_default: str) -> list[Option]:
    """All options; the locustfiles differ only in which arrival process is the default."""
    return [
        Option("--engine", ("auto", *ENGINES), "auto", "what serves at --host; http is any URL (see --http-path)"),
        Option("--protocol", ("rest", "grpc"), "rest", "how to speak to it"),
        Option("--grpc-target", str, "", "host:port[,host:port] of gRPC; default: --host with the engine's port"),
        Option(
            "--endpoints-file", str, "", "JSON list of endpoints in place of --host, followed while it changes", True
        ),
        Option(
            "--header",
            str,
            None,
            "NAME=VALUE sent with every request (repeatable), in gRPC's metadata too; VALUE may be env:NAME or "
            "file:PATH, such as Authorization='Bearer env:TOKEN'",
            hidden=True,
            repeatable=True,
        ),
        Option("--model", str, "cnn", "model name in URLs"),
        Option("--payload", PAYLOADS, "image", "encoded image bytes, base64 in JSON, or the float32 tensor"),
        Option("--images-per-request", int, 1, "images in one request"),
        Option("--manifest", str, "", "manifest.json of the model: its images are sent, its answers checked", True),
        Option("--http-method", str, "GET", "engine http: method"),
        Option("--http-path", str, "/", "engine http: path and query"),
        Option("--http-body-file", str, "", "engine http: file sent as the body", True),
        *arrival_options(arrivals_default),
        Option("--warmup", float, 5.0, "seconds of constant load before, left out of every figure"),
        Option("--turns", str, "", "JSON file: when this load takes turns with another; cuts its --duration", True),
        Option(
            "--start-file", str, "", "start at the moment of the monotonic clock (ns) that this file will hold", True
        ),
        Option("--max-in-flight", int, 1000, "requests under way at once; arrivals over it are dropped and counted"),
        Option("--give-up-in-flight", int, 0, "end the load where so many requests are under way (0: never)", True),
        Option("--connections", int, 0, "connections an endpoint (0: --max-in-flight for REST, 4 for gRPC)"),
        Option(
            "--closed-loop",
            int,
            0,
            "keep this many requests under way (a failed one rests 10 ms or more) instead of a schedule (0: open loop)",
        ),
        Option(
            "--keep-awake", ("auto", "on", "off"), "auto", "spin at idle priority; auto: on a virtual machine's core"
        ),
        Option("--timeout", float, 10.0, "seconds before a request is given up"),
        Option("--out", str, "", "folder for samples.parquet and summary.json", True),
        Option("--metrics-port", int, 0, "Prometheus port of the generator (0: none)"),
        Option("--metrics-host", str, "127.0.0.1", "address that --metrics-port listens on", True),
    ]


def add_options(parser: Any, arrivals_default: str) -> None:
    """Declare the options on Locust's parser."""
    group = parser.add_argument_group("servestorm", "What is sent, when, and where")
    for option in options_for(arrivals_default):
        option.add_to(group).include_in_web_ui = not option.hidden  # type: ignore[attr-defined] # Locust reads it


def headers_of(namespace: argparse.Namespace) -> Headers:
    """Of --header. Raises LoadTestError for what is none."""
    try:
        return Headers.of_options(namespace.header)
    except ServingError as error:
        raise LoadTestError(str(error)) from None


@dataclass(frozen=True)
class LoadOptions:
    """The options, checked."""

    hosts: list[str]
    namespace: argparse.Namespace
    file: EndpointsFile | None = None
    """Where `hosts` come from, to be looked at again."""
    turns: Turns | None = None
    """From the file that --turns names."""

    @property
    def headers(self) -> Headers:
        """Of --header. Raises LoadTestError for what is none."""
        return headers_of(self.namespace)

    def __getattr__(self, name: str) -> Any:
        """An option's value by its name: `options.peak_rate`."""
        return getattr(self.namespace, name)

    @property
    def grpc(self) -> bool:
        """True where gRPC is spoken."""
        return bool(self.protocol == "grpc")

    @property
    def connection_limit(self) -> int:
        """Connections an endpoint."""
        return int(self.connections or (_DEFAULT_GRPC_CONNECTIONS if self.grpc else self.max_in_flight))

    @property
    def out_dir(self) -> Path | None:
        """Folder for samples and summary."""
        return Path(self.out) if self.out else None

    def capped(self, run_time_s: float | None) -> float:
        """Measured seconds: --duration, or what Locust's -t leaves of it after the warm-up."""
        if self.turns:
            if run_time_s is not None:
                raise LoadTestError("--turns says how long the load takes: leave -t out.")
            return self.turns.duration_s
        if run_time_s is None:
            return float(self.duration)
        left = run_time_s - self.warmup
        if left <= 0:
            raise LoadTestError(f"-t {run_time_s:g} s leaves nothing after a warm-up of {self.warmup:g} s: raise it.")
        return float(min(self.duration, left))


def refuse_no_values(namespace: argparse.Namespace) -> None:
    """Raise LoadTestError for an option that is empty, infinite or NaN: nothing would refuse it later."""
    for option in options_for("constant"):
        if option.may_be_left_out and getattr(namespace, option.dest, "") is None:
            raise LoadTestError(f"{option.flag} is empty: give a value, or leave it out.")
    for name, value in vars(namespace).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise LoadTestError(f"--{name.replace('_', '-')} must be a finite number, not {value}.")


def refuse_too_long(option: str, seconds: float) -> None:
    """Raise LoadTestError for a time of more than a year."""
    if seconds > LONGEST_S:
        raise LoadTestError(f"{option} must be {LONGEST_S:,.0f} seconds or less, not {seconds:g}.")


def _refuse_what_no_request_can_carry(namespace: argparse.Namespace) -> None:
    """Raise LoadTestError for text that cannot stand in a request's head or name a host."""
    for name in ("host", "grpc_target", "http_method", "http_path", "metrics_host"):
        text = getattr(namespace, name, None) or ""
        parts = [part.strip() for part in text.split(",")] if name in ("host", "grpc_target") else [text]
        if name in ("host", "grpc_target") and "@" in text:
            endpoint_url(text)  # refuses a password, and does not repeat it
        if not (text.isascii() and text.isprintable()) or any(" " in part for part in parts):
            remedy = "percent-encode it" if name == "http_path" else "give it in ASCII without blanks"
            raise LoadTestError(f"--{name.replace('_', '-')} {text!r} cannot be sent: {remedy}.")


def read_options(namespace: argparse.Namespace) -> LoadOptions:
    """Check what a person typed. Raises LoadTestError naming the option and the remedy."""
    refuse_no_values(namespace)
    _refuse_what_no_request_can_carry(namespace)
    options = _with_hosts(namespace)
    for name in ("rate", "duration", "timeout", "images_per_request", "max_in_flight"):
        if getattr(options, name) <= 0:
            flag = "--" + name.replace("_", "-")
            raise LoadTestError(f"{flag} must be over 0, not {getattr(options, name):g}.")
    for name in ("duration", "warmup", "timeout"):
        refuse_too_long(f"--{name}", getattr(options, name))
    if options.images_per_request > MOST_IMAGES:
        raise LoadTestError(f"--images-per-request must be {MOST_IMAGES:,} or less, not {options.images_per_request}.")
    for name in ("warmup", "closed_loop", "connections", "seed", "peak_rate", "give_up_in_flight"):
        if getattr(options, name) < 0:
            flag = "--" + name.replace("_", "-")
            raise LoadTestError(f"{flag} must be 0 or more, not {getattr(options, name):g}.")
    if not 0 <= options.metrics_port <= 65535:
        raise LoadTestError(f"--metrics-port must be a port (1 to 65535) or 0, not {options.metrics_port}.")
    if options.give_up_in_flight and options.closed_loop:
        raise LoadTestError("--give-up-in-flight is for an open loop: leave it or --closed-loop out.")
    if options.give_up_in_flight > options.max_in_flight:
        raise LoadTestError(
            f"--give-up-in-flight {options.give_up_in_flight} would never come: {options.max_in_flight} requests are "
            "the most (--max-in-flight)."
        )
    return _with_turns(options)


def _with_turns(options: LoadOptions) -> LoadOptions:
    path = options.namespace.turns
    if not path:
        return options
    if options.closed_loop:
        raise LoadTestError("--turns cuts a schedule, and a closed loop has none: leave --closed-loop out.")
    if options.warmup:
        raise LoadTestError("--turns says what is warm-up: give --warmup 0.")
    turns = read_turns(Path(path))
    if abs(turns.duration_s - options.duration) > _SAME_LENGTH_S:
        raise LoadTestError(
            f"--duration is {options.duration:g} s, but the turns of {path} are {turns.duration_s:g} s long: "
            "give the sum of their length_s."
        )
    return replace(options, turns=turns)


def _with_hosts(namespace: argparse.Namespace) -> LoadOptions:
    host = getattr(namespace, "host", None) or ""
    if not namespace.endpoints_file:
        if not host:
            raise LoadTestError("no target: give --host http://HOST:PORT (several are separated by commas).")
        return LoadOptions([endpoint_url(part) for part in host.split(",") if part.strip()], namespace)
    if host or namespace.grpc_target:
        raise LoadTestError("--endpoints-file names the endpoints: leave --host and --grpc-target out.")
    file = EndpointsFile(Path(namespace.endpoints_file), grpc=namespace.protocol == "grpc")
    listed = file.read()
    if not listed:
        raise LoadTestError(f"--endpoints-file {file.path} lists no endpoint: there must be one to begin with.")
    return LoadOptions(listed, namespace, file)


def target_options(options: LoadOptions, numbers_of_images: Sequence[int] = ()) -> TargetOptions:
    """What the target builder needs; asks the server for its engine where none is named.

    `numbers_of_images` are the different ones that a trace asks for. Raises LoadTestError where they cannot be sent.
    """
    engine, headers = options.engine, options.headers
    manifest = Path(options.manifest) if options.manifest else None
    read_model(manifest)  # before the server is asked anything
    if engine == "auto":
        engine = detect_engine(options.hosts[0], options.model, headers=_read(headers))
    if numbers_of_images:
        _check_varied_images(options, engine)
    plain = None
    if engine == "http":
        body, content_type = read_body(Path(options.http_body_file)) if options.http_body_file else (b"", None)
        plain = PlainRequest(options.http_method, options.http_path, body, content_type)
    return TargetOptions(
        hosts=options.hosts,
        grpc_targets=_grpc_targets(options),
        engine=engine,
        protocol=options.protocol,
        model=options.model,
        payload=options.payload,
        images_per_request=options.images_per_request,
        numbers_of_images=numbers_of_images,
        manifest=manifest,
        timeout_s=options.timeout,
        plain=plain,
        headers=headers,
    )


def _read(headers: Headers) -> Fields:
    """The values for a question over REST. Raises LoadTestError where one cannot be read."""
    try:
        return headers.read()
    except ServingError as error:
        raise LoadTestError(str(error)) from None


def _check_varied_images(options: LoadOptions, engine: str) -> None:
    arrivals_only = "--trace-format timestamps-iso --trace-column TIMESTAMP replays the arrivals only"
    if engine == "http":
        raise LoadTestError(f"engine http sends one body, not the images that --trace asks for: {arrivals_only}.")
    if options.turns:
        raise LoadTestError(f"--turns cannot cut a trace with images of its own: {arrivals_only}.")
    if options.images_per_request != 1:
        raise LoadTestError(
            f"--trace says how many images each request carries: leave --images-per-request out ({arrivals_only})."
        )


def _grpc_targets(options: LoadOptions) -> list[str]:
    if options.file:
        return options.hosts if options.grpc else []
    return [grpc_target(part) for part in options.grpc_target.split(",") if part.strip()]


def build_schedule(options: LoadOptions, duration_s: float) -> Arrivals:
    """Arrivals of the measured time, from its start, with the process and its parameters for the record."""
    parameters = {name: process.parameters(options) for name, process in ARRIVALS.items()}[options.arrivals]
    arrivals = ARRIVALS[options.arrivals].arrivals(options, parameters, duration_s)
    if arrivals.schedule.is_empty():
        remedy = "--duration" if options.arrivals == "trace" else "--rate or --duration"
        raise LoadTestError(f"the {options.arrivals} schedule has no arrival in {duration_s:g} s: raise {remedy}.")
    return replace(arrivals, record={"process": options.arrivals, **parameters, **arrivals.record})
