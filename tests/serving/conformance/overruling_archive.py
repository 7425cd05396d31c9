"""A model whose archive holds a model-config.yaml that overrules TorchServe's configuration."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from models.manifest import ModelDir, sha256_of, size_of

NAME = "model-config.yaml"
OWN_SETTINGS = """\
minWorkers: 2
maxWorkers: 2
batchSize: 7
maxBatchDelay: 200
responseTimeout: 9
startupTimeout: 99
"""


def with_own_settings(model: ModelDir, folder: Path, text: str = OWN_SETTINGS) -> ModelDir:
    """A copy of the model in `folder`, with `text` as its archive's model-config.yaml."""
    shutil.copytree(model.path, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    path = folder / manifest["mar"]["path"]
    with zipfile.ZipFile(model.mar_path) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            if name != "MAR-INF/MANIFEST.json":
                new.writestr(name, old.read(name))
        about = json.loads(old.read("MAR-INF/MANIFEST.json"))
        about["model"]["configFile"] = NAME
        new.writestr("MAR-INF/MANIFEST.json", json.dumps(about))
        new.writestr(NAME, text)
    manifest["mar"] |= {"sha256": sha256_of(path), "size_bytes": size_of(path)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return ModelDir(folder)
