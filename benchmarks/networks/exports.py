"""Trains and exports every network at its full size and proves both artifacts equal: parity, sizes, time and memory.

    python benchmarks/networks/exports.py [--network resnet50-keras ...] [--out build/exports]

Each network learns one epoch of the synthetic data set in torch (its weights are kept in --out and used again), and is
then exported in a process of its own. Memory is that process's largest resident size and that of its largest child,
such as the handler's process, together, in multiples of the weights.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.artifacts.export import export_model, trained_on
from models.networks.catalogue import NETWORKS
from models.training.record import load_record, record_path

IMAGES, BATCH_SIZE = 256, 16


def main() -> int:
    """Exit code 1 where an export fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", choices=list(NETWORKS), help="(default: all)")
    parser.add_argument("--out", type=Path, default=Path("build/exports"), help="folder of the model directories")
    parser.add_argument("--one", choices=list(NETWORKS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(exported(options.one, options.out)))
        return 0
    columns = ["network", "input", "weights, MB", "probability apart", "logit apart", "SavedModel, MB", "MAR, MB", "s"]
    print(f"| {' | '.join([*columns, 'memory'])} |\n|{' --- |' * 9}")
    codes = [row_of(name, options.out) for name in options.network or NETWORKS]
    return max(codes)


def row_of(name: str, out: Path) -> int:
    command = [sys.executable, __file__, "--one", name, "--out", str(out)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False) if trained(name, out) else None
    if done is None or done.returncode:
        print(f"| {name} | failed |", flush=True)
        return 1
    row = json.loads(done.stdout.splitlines()[-1])
    sizes = " | ".join(f"{row[key] / 1e6:.1f}" for key in ("savedmodel_bytes", "mar_bytes"))
    peak_mb, base_mb = (row[key] / 1e6 for key in ("peak_bytes", "base_bytes"))
    memory = f"{1e6 * peak_mb / row['weights_bytes']:.1f} x ({peak_mb:,.0f} MB; {base_mb:,.0f} MB before)"
    apart = f"{row['probability']:.1e} | {row['logit']:.1e}"
    print(
        f"| {name} | {row['side']}x{row['side']} | {row['weights_bytes'] / 1e6:.1f} | {apart} | {sizes} | "
        f"{row['seconds']:.0f} | {memory} |",
        flush=True,
    )
    return 0


def exported(name: str, out: Path) -> Mapping[str, Any]:
    weights = out / "weights" / name
    dataset = trained_on(weights, "torch")
    base, began_s = peak(), time.monotonic()
    model = export_model(name, weights, dataset, out, weights_from="torch")
    manifest = model.manifest
    return {
        "side": NETWORKS[name].side,
        "weights_bytes": 4 * load_record(weights, "torch").parameters,
        "probability": manifest.parity.max_abs_difference,
        "logit": manifest.parity.max_logit_difference,
        "savedmodel_bytes": manifest.savedmodel.size_bytes if manifest.savedmodel else 0,
        "mar_bytes": manifest.mar.size_bytes if manifest.mar else 0,
        "seconds": time.monotonic() - began_s,
        "peak_bytes": peak(),
        "base_bytes": base,
    }


def trained(name: str, out: Path) -> bool:
    """Whether the weights are there."""
    weights = out / "weights" / name
    if not record_path(weights, "torch").exists():
        asked = ["--dataset", "synthetic", "--images", str(IMAGES), "--batch-size", str(BATCH_SIZE), "--epochs", "1"]
        command = [sys.executable, "-m", "servestorm", "train", "--network", name, "--framework", "torch", *asked]
        subprocess.run([*command, "--out", str(weights)], stdout=subprocess.DEVNULL, check=False)
    return record_path(weights, "torch").exists()


def peak() -> int:
    """Of this process and of its largest child, together: both are there at once."""
    return sum(resource.getrusage(whose).ru_maxrss for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) * 1024


if __name__ == "__main__":
    sys.exit(main())
