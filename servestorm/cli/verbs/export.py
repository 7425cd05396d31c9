"""`servestorm export`: one set of weights in a SavedModel and a .mar, proved equal."""

from __future__ import annotations

import argparse

from models.manifest import ModelDir
from models.quiet_import import import_tensorflow_quietly
from servestorm.study.progress import Display, ProgressStep


def run(arguments: argparse.Namespace) -> int:
    """Export, and print what lies where and how equal it is."""
    import_tensorflow_quietly()
    from models.artifacts.export import export_model
    from models.datasets.load import load_dataset

    dataset = load_dataset(arguments.dataset, data_dir=arguments.data_dir, seed=arguments.seed)
    with Display([ProgressStep(f"export {arguments.name}", "export", 25.0)]) as display, display.step():
        model = export_model(
            arguments.name,
            arguments.weights,
            dataset,
            out_dir=arguments.out,
            version=arguments.version,
            weights_from=arguments.weights_from,
            progress=display.fraction,
        )
    print(describe(model))
    return 0


def describe(model: ModelDir) -> str:
    """What a model directory holds, and whether its artifacts are proved equal: one line each."""
    manifest, parity = model.manifest, model.manifest.parity
    lines = [f"model directory: {model.path}"]
    for name, artifact in (("SavedModel", manifest.savedmodel), ("MAR", manifest.mar)):
        if artifact:
            lines.append(f"{name}: {artifact.path}, {artifact.size_bytes / 2**20:.1f} MiB")
    figure = f"{parity.max_abs_difference:.1e}" if parity.max_abs_difference is not None else "unknown"
    lines.append(
        f"parity: {parity.status}; largest difference of any probability {figure} on {parity.images} images, "
        f"{parity.tolerance:g} allowed"
    )
    if parity.reason:
        lines.append(f"reason: {parity.reason}")
    return "\n".join(lines)
