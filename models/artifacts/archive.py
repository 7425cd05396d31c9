"""Write a network as a TorchServe archive: TorchScript, handler and preprocessing in one .mar."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from models import preprocessing
from models.artifacts.source import ExportSource
from models.atomic import require_space
from models.errors import ModelError
from models.networks.torch_layers import Probabilities
from models.networks.weights import for_one_reading, to_torch

ARCHIVER_TIMEOUT_S = 300
TORCHSCRIPT = "network.pt"
OVERHEAD_BYTES = 4 << 20
"""Of a TorchScript file beside its weights."""


def write_torchscript(source: ExportSource, path: Path) -> None:
    """Trace and freeze the network with the weights of `source`: normalised float32 NCHW to softmax.

    Torch 2.13 calls TorchScript deprecated; it is what TorchServe 0.12 loads without the network's source.
    """
    spec = source.input
    with torch.device("meta"):  # no memory for weights that are replaced at once
        module = source.network.torch_network(spec, len(source.labels))
    to_torch(source.network, for_one_reading(source.read()), module)
    needed = sum(tensor.nbytes for tensor in module.parameters())
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.num_batches_tracked = torch.tensor(0)
    example = torch.from_numpy(np.zeros((2, spec.channels, spec.height, spec.width), np.float32))
    with torch.inference_mode():
        frozen = torch.jit.freeze(torch.jit.trace(Probabilities(module).eval(), example).eval())
    del module
    # torch's file writer ends the process with an abort where the disk is full, and a buffer would be a second copy.
    require_space(path.parent, needed + OVERHEAD_BYTES)
    torch.jit.save(frozen, str(path))


def write_mar(source: ExportSource, target: Path, warmup_image: bytes, version: int) -> None:
    """Write `target` (NAME.mar) with torch-model-archiver. Raises ModelError where that fails."""
    stage = target.parent / "mar-contents"
    stage.mkdir()
    write_torchscript(source, stage / TORCHSCRIPT)
    shutil.copy(Path(__file__).parent / "handler" / "handler.py", stage)
    shutil.copy(preprocessing.__file__, stage)
    (stage / "input.json").write_text(source.input.model_dump_json(indent=2))
    (stage / "warmup.png").write_bytes(warmup_image)
    _archive(stage, target, version)
    shutil.rmtree(stage)


def _archive(stage: Path, target: Path, version: int) -> None:
    """Run the archiver beside its inputs, and with a temporary folder of its own.

    It assembles in TMPDIR/MODEL_NAME, which it deletes first: in the shared one, two exports would meet.
    """
    own = stage / "tmp"
    own.mkdir()
    command = [sys.executable, "-m", "model_archiver.model_packaging", "--model-name", target.stem]
    command += ["--version", f"{version}.0", "--serialized-file", TORCHSCRIPT, "--handler", "handler.py"]
    command += [
        "--extra-files",
        "preprocessing.py,input.json,warmup.png",
        "--export-path",
        str(target.parent),
    ]
    done = subprocess.run(
        command,
        cwd=stage,
        env={**os.environ, "TMPDIR": str(own)},
        capture_output=True,
        text=True,
        timeout=ARCHIVER_TIMEOUT_S,
        check=False,
    )
    if done.returncode or not target.is_file():
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise ModelError(f"torch-model-archiver could not write {target.name}: {last}")
