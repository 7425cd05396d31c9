"""The command line. Import-light: a verb's own module, with its heavy imports, loads when the verb runs."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from loadtests.arrivals.options import arrival_options
from servestorm import __version__
from servestorm.cli.exit_codes import guard
from servestorm.cli.option_types import ENGINES, Parser, count, cpus, data_options, models_dir, numbers, port, size
from servestorm.cli.verbs.compare import add_options as _compare
from servestorm.cli.verbs.image import add_options as _image

EXIT_CODES = (
    "exit codes: 0 fine, 1 an objective missed or a regression, 2 usage, 3 environment (says what to install), "
    "4 INVALID or inconclusive, 70 a bug of ours, 130 interrupted"
)


def _train(add: Callable[..., argparse.ArgumentParser]) -> None:
    parser = add("train", "train the network in Keras and in torch, and record time, loss and accuracy")
    data_options(parser)
    parser.add_argument("--framework", choices=("keras", "torch", "both"), default="both", help="where (default: both)")
    parser.add_argument("--epochs", type=count, default=6, help="passes over the training data (default: 6)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/weights/cnn"),
        metavar="DIR",
        help="for weights and training-FRAMEWORK.json (default: build/weights/cnn)",
    )


def _export(add: Callable[..., argparse.ArgumentParser]) -> None:
    parser = add("export", "carry one set of weights into a SavedModel and a .mar, and prove both equal")
    data_options(parser)
    parser.add_argument("--name", default="cnn", help="model name in URLs (default: cnn)")
    parser.add_argument(
        "--weights",
        type=Path,
        default=Path("build/weights/cnn"),
        metavar="DIR",
        help="what `servestorm train --out` wrote (default: build/weights/cnn)",
    )
    parser.add_argument(
        "--weights-from",
        choices=("keras", "torch"),
        default="keras",
        help="the framework whose weights both artifacts get (default: keras)",
    )
    parser.add_argument("--version", type=count, default=1, help="SavedModel version directory (default: 1)")
    models_dir(parser)


def _import(add: Callable[..., argparse.ArgumentParser]) -> None:
    parser = add("import", "take a model of your own: a SavedModel, a .mar, or both")
    parser.add_argument("--name", required=True, help="model name in URLs")
    parser.add_argument("--savedmodel", type=Path, metavar="DIR", help="folder that holds saved_model.pb")
    parser.add_argument("--mar", type=Path, metavar="FILE", help="TorchServe archive")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="JPEG and PNG files that both artifacts must answer alike"
    )
    parser.add_argument(
        "--size",
        type=size,
        metavar="HxW",
        help="pixels, where a SavedModel takes tensors and does not tell (such as 224x224)",
    )
    for name, what in (("mean", "taken from"), ("std", "dividing")):
        parser.add_argument(
            f"--{name}",
            type=numbers,
            metavar="R,G,B",
            help=f"{what} pixel values of 0..1, where a SavedModel takes tensors",
        )
    parser.add_argument("--version", type=count, default=1, help="SavedModel version directory (default: 1)")
    models_dir(parser)


def _serve(add: Callable[..., argparse.ArgumentParser]) -> None:
    parser = add("serve", "start a model on one engine on 127.0.0.1, until Ctrl-C")
    parser.add_argument("--engine", choices=ENGINES, required=True, help="what serves it")
    parser.add_argument(
        "--model",
        type=Path,
        default=Path("build/models/cnn"),
        metavar="DIR",
        help="model directory (default: build/models/cnn)",
    )
    parser.add_argument("--replicas", type=count, default=1, help="servers side by side (default: 1)")
    parser.add_argument(
        "--cpus", type=cpus, metavar="LIST", help="cores for all replicas, such as 0 or 0,2-3 (default: all)"
    )
    parser.add_argument("--threads", type=count, default=1, help="intra-op threads a replica (default: 1)")
    parser.add_argument("--max-batch-size", type=count, default=1, help="images; 1 means no batching (default: 1)")
    parser.add_argument(
        "--batch-timeout-us", type=count, default=1000, help="longest wait for a batch, microseconds (default: 1000)"
    )
    parser.add_argument(
        "--port", type=port, help="REST port of the first replica, the next ones count up (default: free ports)"
    )
    parser.add_argument(
        "--ready-timeout", type=float, default=120.0, metavar="S", help="longest wait, seconds (default: 120)"
    )


def _run(add: Callable[..., argparse.ArgumentParser]) -> None:
    parser = add(
        "run",
        "carry out a study as its plan says: cold starts, loads, capacity, scaling, sweeps, autoscaling; then a report",
    )
    parser.add_argument(
        "plan",
        type=Path,
        nargs="?",
        metavar="PLAN",
        help="YAML file (default: studies/quickstart.yaml)",
    )
    parser.add_argument(
        "--resume", metavar="ID", help="go on with a study that was stopped: its complete runs are kept"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the runs and the expected time, start nothing")
    parser.add_argument(
        "--load-from",
        choices=("here", "cluster"),
        help="where load comes from: this machine, or pods beside the servers in their cluster (default: as planned)",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="in a cluster: stop at the first run that fails, and leave its release there",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs"), metavar="DIR", help="the run becomes DIR/ID (default: runs)"
    )


def _report(add: Callable[..., argparse.ArgumentParser]) -> None:
    parser = add("report", "draw report.html and results.json again from what lies in a run directory")
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory, such as runs/ID")
    parser.add_argument(
        "--paper", action="store_true", help="also the plain form of papers: three runs, mean, deviation, t, p < 0.05"
    )


def _schedule(add: Callable[..., argparse.ArgumentParser]) -> None:
    parser = add("schedule", "print the statistics of an arrival process and draw it, without sending anything")
    for option in arrival_options("poisson"):
        option.add_to(parser)


def _load(add: Callable[..., argparse.ArgumentParser]) -> None:
    parser = add("load", "offer load by hand with Locust: steady, bursty, or a locustfile of your own")
    parser.add_argument("locustfile", help="steady, bursty, or a path")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="Locust's options and ours; see `load steady --help`")


def _doctor(add: Callable[..., argparse.ArgumentParser]) -> None:
    add("doctor", "tell what this machine has of Java, Docker, kubectl, helm, Prometheus, and what to install")


def _clean(add: Callable[..., argparse.ArgumentParser]) -> None:
    parser = add(
        "clean", "end and remove what killed studies left: processes, folders, containers, networks, images, releases"
    )
    parser.add_argument("--dry-run", action="store_true", help="only print it")
    parser.add_argument(
        "--context", help="of the kubeconfig, for the cluster that is looked at (default: the current one)"
    )
    parser.add_argument("--namespace", help="looked at where no other may be (default: servestorm)")


# verb -> (adds its options, module whose `run(arguments) -> int` carries it out)
VERBS: dict[str, tuple[Callable[[Callable[..., argparse.ArgumentParser]], None], str]] = {
    "train": (_train, "servestorm.cli.verbs.train"),
    "export": (_export, "servestorm.cli.verbs.export"),
    "import": (_import, "servestorm.cli.verbs.import_"),
    "image": (_image, "servestorm.cli.verbs.image"),
    "serve": (_serve, "servestorm.cli.verbs.serve"),
    "run": (_run, "servestorm.cli.verbs.run"),
    "report": (_report, "servestorm.cli.verbs.report"),
    "compare": (_compare, "servestorm.cli.verbs.compare"),
    "load": (_load, "servestorm.cli.verbs.load"),
    "schedule": (_schedule, "servestorm.cli.verbs.schedule"),
    "doctor": (_doctor, "servestorm.cli.verbs.doctor_verb"),
    "clean": (_clean, "servestorm.cli.verbs.clean"),
}


def parser() -> argparse.ArgumentParser:
    """The whole command line, every option with its unit."""
    top = Parser(
        prog="servestorm",
        description="Which server serves your image model better, and is the difference real?",
        epilog=EXIT_CODES,
    )
    top.add_argument("--version", action="version", version=f"servestorm {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=EXIT_CODES)

    for options, _ in VERBS.values():
        options(add)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code. argparse's own errors exit with 2."""
    arguments = parser().parse_args(argv)
    return guard(lambda: _carry_out(arguments))


def _carry_out(arguments: argparse.Namespace) -> int:
    """The verb, after what an earlier, killed command left running was ended; `clean` tells what it ends itself."""
    from serving.orphans import reap_orphans

    if arguments.verb != "clean" and (ended := reap_orphans()):
        what = "process" if ended == 1 else "processes"
        sys.stderr.write(f"servestorm: ended {ended} {what} that an earlier, killed command had left.\n")
    _, module = VERBS[arguments.verb]
    return int(importlib.import_module(module).run(arguments))


if __name__ == "__main__":
    sys.exit(main())
