"""`servestorm train`: the network in Keras, in torch, or in both."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from servestorm.cli.option_types import AddVerb, count, data_options

if TYPE_CHECKING:
    from models.training.train import TrainingRecord

_LIBRARY = {"keras": "tensorflow", "torch": "torch"}
IMPORT_GUESS_S, EPOCH_GUESS_S = 5.0, 6.0


def add_options(add: AddVerb) -> None:
    """The verb's options, for the command line."""
    parser = add(
        "train",
        "train the network in Keras and in torch; record time, loss and accuracy",
        "servestorm train",
        "servestorm train --framework torch --dataset cifar10 --epochs 20 --out build/weights/cifar",
    )
    data_options(parser)
    parser.add_argument("--framework", choices=("keras", "torch", "both"), default="both", help="used (default: both)")
    parser.add_argument("--epochs", type=count, default=6, help="passes over the training data (default: 6)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/weights/cnn"),
        metavar="DIR",
        help="for weights and training records (default: build/weights/cnn)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, and print one line a framework."""
    from models.quiet_import import import_tensorflow_quietly
    from servestorm.study.model_preparation import training_only
    from servestorm.study.progress import Display, ProgressStep
    from serving.extras import require

    frameworks = ("keras", "torch") if arguments.framework == "both" else (arguments.framework,)
    require("train", "servestorm train", *(_LIBRARY[framework] for framework in frameworks))
    if arguments.framework != "torch":
        import_tensorflow_quietly()
    from models.datasets.load import load_dataset
    from models.training.train import train

    guess_s = IMPORT_GUESS_S + EPOCH_GUESS_S * arguments.epochs
    dataset = load_dataset(arguments.dataset, data_dir=arguments.data_dir, seed=arguments.seed)
    records = []
    with Display([ProgressStep(f"train in {name}", "training", guess_s) for name in frameworks]) as display:
        for framework in frameworks:
            with display.step():
                records.append(
                    train(
                        framework,
                        dataset,
                        arguments.out,
                        epochs=arguments.epochs,
                        seed=arguments.seed,
                        progress=training_only(display.fraction),
                    )
                )
    for record in records:
        print(_line(record))
    print(f"weights and training records: {arguments.out}")
    return 0


def _line(record: TrainingRecord) -> str:
    last, seconds = record.epochs[-1], sum(epoch.seconds for epoch in record.epochs)
    return (
        f"{record.framework}: top-1 {last.top1:.2%}, top-5 {last.top5:.2%}, loss {last.loss:.4f} on "
        f"{record.test_images} held-out images; {len(record.epochs)} epochs, {seconds:.1f} s"
    )
