"""Our ResNet-50 and VGG-16 against torchvision's own, weight for weight, and the names that its files have.

    pip download --no-deps torchvision==0.2.2 && unzip torchvision-0.2.2-*.whl -d build/torchvision
    python benchmarks/networks/torchvision_twins.py [--torchvision build/torchvision]

torchvision 0.2.2 is the newest one of pure Python (yanked only so that nobody installs it unasked); a current wheel
is built for one version of torch. Its model files are loaded alone, since the package itself needs an older Pillow.
Names of tensors have not changed since. It prints the largest difference of a probability and of a logit on random
pictures, and writes tests/models/networks/recorded/torchvision-0.2.2.json, which the tests compare our tables with.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from models.artifacts.parity import largest_difference, largest_logit_difference, networks_apart
from models.networks.catalogue import NETWORKS
from models.networks.pretrained import read_pretrained
from models.networks.torch_layers import Probabilities
from models.networks.weights import to_keras, to_torch

VERSION = "0.2.2"
RECORDED = Path(__file__).resolve().parents[2] / "tests" / "models" / "networks" / "recorded"
FILES = {"resnet50-torchvision": ("resnet", "resnet50"), "vgg16": ("vgg", "vgg16")}
IMAGES = 4


def main() -> int:
    """Exit code 1 where a twin differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torchvision", type=Path, default=Path("build/torchvision"), help="the unpacked wheel")
    folder = parser.parse_args().torchvision / "torchvision" / "models"
    print("| network | framework | largest difference of a probability | of a logit, of the largest | verdict |")
    print("| --- | --- | --- | --- | --- |")
    names, good = {}, True
    for network, (file, function) in FILES.items():
        theirs = scrambled(getattr(loaded(folder / f"{file}.py"), function)())
        state = {key: value for key, value in theirs.state_dict().items() if "num_batches" not in key}
        names[network] = {key: list(value.shape) for key, value in state.items()}
        good = compared(network, theirs) and good
    (RECORDED / f"torchvision-{VERSION}.json").write_text(json.dumps(names, indent=1) + "\n")
    return 0 if good else 1


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scrambled(network: torch.nn.Module) -> torch.nn.Module:
    """With batch norms worth carrying."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                tensor.data.copy_(0.3 + 0.4 * torch.rand(tensor.shape, generator=generator))
    return network.eval()


def compared(name: str, theirs: torch.nn.Module) -> bool:
    network = NETWORKS[name]
    images = np.random.default_rng(0).normal(0, 1, (IMAGES, network.side, network.side, 3)).astype(np.float32)
    channels_first = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        expected = Probabilities(theirs)(channels_first).numpy().astype(np.float64)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        torch.save(theirs.state_dict(), path)
        pretrained = read_pretrained(network, path)
    spec = pretrained.scale.spec((network.side, network.side))
    module = network.torch_network(spec, pretrained.classes).eval()
    to_torch(network, pretrained.weights, module)
    with torch.inference_mode():
        in_torch = Probabilities(module)(channels_first).numpy().astype(np.float64)
    model = network.keras_network(spec, pretrained.classes)
    to_keras(network, pretrained.weights, model)
    answers = {"torch": in_torch, "keras": model.predict(images, verbose=0).astype(np.float64)}
    good = True
    for framework, outputs in answers.items():
        reason = networks_apart(expected, outputs)[1]
        figures = largest_difference(expected, outputs), largest_logit_difference(expected, outputs)
        print(f"| {name} | {framework} | {figures[0]:.1e} | {figures[1]:.1e} | {reason or 'equal'} |", flush=True)
        good = good and reason is None
    return good


if __name__ == "__main__":
    sys.exit(main())
