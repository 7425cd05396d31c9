"""A model whose artifact is what its manifest says, and still no model."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from models.manifest import ModelDir, sha256_of


def with_broken_artifact(model: ModelDir, folder: Path, artifact: str) -> ModelDir:
    """A copy of the model in `folder`, whose `artifact` (`savedmodel` or `mar`) no server can load."""
    shutil.copytree(model.path, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    path = folder / manifest[artifact]["path"]
    if path.is_dir():
        (path / "saved_model.pb").write_bytes(b"no graph")
    else:
        with zipfile.ZipFile(model.mar_path) as good, zipfile.ZipFile(path, "w") as bad:
            for name in good.namelist():
                bad.writestr(name, b"no weights" if name.endswith((".pt", ".pth")) else good.read(name))
    manifest[artifact]["sha256"] = sha256_of(path)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return ModelDir(folder)
