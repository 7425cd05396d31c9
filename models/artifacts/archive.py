"""Write the study's network as a TorchServe archive: TorchScript, handler and preprocessing in one .mar."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from models import preprocessing
from models.errors import ModelError
from models.manifest import InputSpec
from models.training.torch_cnn import Cnn, Probabilities
from models.training.weights import CnnWeights, to_torch

ARCHIVER_TIMEOUT_S = 300


def write_torchscript(weights: CnnWeights, spec: InputSpec, classes: int, path: Path) -> None:
    """Trace and freeze the network with these weights: normalised float32 NCHW to softmax.

    Torch 2.13 calls TorchScript deprecated; it is what TorchServe 0.12 loads without the network's source.
    """
    network = Cnn(spec.height, spec.width, spec.channels, classes)
    to_torch(weights, network)
    example = torch.from_numpy(np.zeros((2, spec.channels, spec.height, spec.width), np.float32))
    with torch.inference_mode():
        traced = torch.jit.trace(Probabilities(network).eval(), example)
    # Through memory: torch's own file writer ends the process with an abort where the disk is full.
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.freeze(traced.eval()), buffer)
    path.write_bytes(buffer.getbuffer())


def write_mar(
    weights: CnnWeights, spec: InputSpec, classes: int, target: Path, warmup_image: bytes, version: int
) -> None:
    """Write `target` (NAME.mar) with torch-model-archiver. Raises ModelError where that fails."""
    stage = target.parent / "mar-contents"
    stage.mkdir()
    write_torchscript(weights, spec, classes, stage / "cnn.pt")
    shutil.copy(Path(__file__).parent / "handler" / "handler.py", stage)
    shutil.copy(preprocessing.__file__, stage)
    (stage / "input.json").write_text(spec.model_dump_json(indent=2))
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
    command += ["--version", f"{version}.0", "--serialized-file", "cnn.pt", "--handler", "handler.py"]
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
