"""`servestorm train`: a network in Keras, in torch, or in both."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from servestorm.cli.exit_codes import work_begins
from servestorm.cli.option_types import NETWORK_NAMES, AddVerb, count, data_options, path, size

if TYPE_CHECKING:
    from models.training.learner import Framework
    from models.training.record import TrainingRecord

_LIBRARY = {"keras": "tensorflow", "torch": "torch"}
IMPORT_GUESS_S, EPOCH_GUESS_S = 5.0, 6.0


def add_options(add: AddVerb) -> None:
    """The verb's options, for the command line."""
    parser = add(
        "train",
        "train the network in Keras and in torch; record time, loss and accuracy",
        "servestorm train",
        "servestorm train --framework torch --dataset cifar10 --epochs 20 --out build/weights/cifar",
        "servestorm train --network resnet50-torchvision --dataset synthetic --epochs 1 --out build/weights/resnet50",
    )
    data_options(parser)
    parser.add_argument("--network", choices=NETWORK_NAMES, default="cnn", help="what is trained (default: cnn)")
    parser.add_argument(
        "--size",
        type=size,
        metavar="HEIGHTxWIDTH",
        help="pixels of the network's input, to which images are resized (default: 32x32 for cnn, else 224x224)",
    )
    parser.add_argument(
        "--pretrained",
        type=path,
        metavar="FILE",
        help="published weights of the network (.weights.h5 of Keras or .pth of torch): their features stay, and a new "
        "dense head learns",
    )
    parser.add_argument("--classes", type=count, help="of data set synthetic (default: 10)")
    parser.add_argument("--images", type=count, help="of data set synthetic, in all (default: 1000)")
    parser.add_argument("--batch-size", type=count, default=32, help="images a training step (default: 32)")
    parser.add_argument(
        "--compile",
        action="store_true",
        help="let the framework's compiler make the training step (XLA in Keras, torch.compile in torch)",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the layers' outputs; bfloat16 keeps weights in float32 (default: float32)",
    )
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu", help="to train on (default: cpu)")
    parser.add_argument(
        "--processes",
        type=count,
        default=1,
        help="that compute a part of each batch, data-parallel: torch alone, on the CPU (default: 1)",
    )
    parser.add_argument("--framework", choices=("keras", "torch", "both"), default="both", help="used (default: both)")
    parser.add_argument("--epochs", type=count, default=6, help="passes over the training data (default: 6)")
    parser.add_argument(
        "--out",
        type=path,
        default=Path("build/weights/cnn"),
        metavar="DIR",
        help="for weights and training records (default: build/weights/cnn)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, and print one line a framework."""
    from servestorm.study.model_preparation import training_only
    from servestorm.study.progress import Display, ProgressStep
    from serving.extras import require

    frameworks: tuple[Framework, ...] = ("keras", "torch") if arguments.framework == "both" else (arguments.framework,)
    require("train", "servestorm train", *(_LIBRARY[framework] for framework in frameworks))
    from models.atomic import require_writable
    from models.datasets.load import load_dataset
    from models.networks.catalogue import network_named
    from models.networks.pretrained import weights_form
    from models.training.devices import use_device
    from models.training.learner import StepOptions
    from models.training.train import require_possible, train

    require_writable(arguments.out)
    network = network_named(arguments.network)
    if arguments.pretrained:
        weights_form(network, arguments.pretrained)
    options = StepOptions(arguments.compile, arguments.precision, arguments.device, arguments.processes)
    for framework in frameworks:
        require_possible(framework, options, arguments.batch_size)
    guess_s = IMPORT_GUESS_S + EPOCH_GUESS_S * arguments.epochs
    work_begins()
    dataset = load_dataset(
        arguments.dataset,
        data_dir=arguments.data_dir,
        seed=arguments.seed,
        size=arguments.size or (network.side, network.side),
        classes=arguments.classes,
        images=arguments.images,
    )
    for framework in frameworks:
        use_device(framework, arguments.device)
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
                        batch_size=arguments.batch_size,
                        network=arguments.network,
                        pretrained=arguments.pretrained,
                        options=options,
                    )
                )
    for record in records:
        print(_line(record))
    print(f"weights and training records: {arguments.out}")
    return 0


def _line(record: TrainingRecord) -> str:
    last, seconds = record.epochs[-1], record.seconds
    used = ""
    if record.use and (cpu_s := [epoch.cpu_s for epoch in record.epochs if epoch.cpu_s is not None]):
        share = sum(cpu_s) / (seconds * record.use.cores)
        used = f", {share:.0%} of {record.use.cores} cores, {record.use.rss_peak_bytes / 2**20:,.0f} MiB"
    epochs = "1 epoch" if len(record.epochs) == 1 else f"{len(record.epochs)} epochs"
    return (
        f"{record.framework}: top-1 {last.top1:.2%}, top-5 {last.top5:.2%}, loss {last.loss:.4f} on "
        f"{record.test_images} held-out images; {epochs}, {seconds:.1f} s, {record.images_per_s:,.0f} images/s{used}"
    )
