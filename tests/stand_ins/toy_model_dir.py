"""A small model directory, complete enough for what packs or names it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from models.manifest import Artifact, Golden, Manifest, ModelDir, Parity, sha256_of, size_of


def toy_model(folder: Path, name: str = "toy") -> ModelDir:
    """A SavedModel and an archive that no server could serve, with a manifest that fits them."""
    path = folder / name
    version = path / "1"
    (version / "variables").mkdir(parents=True)
    (version / "saved_model.pb").write_bytes(bytes(range(256)) * 300)
    (version / "variables" / "variables.index").write_bytes(b"")
    (path / "golden").mkdir()
    (path / "golden" / "000.png").write_bytes(b"\x89PNG\r\n")
    archive = path / f"{name}.mar"
    with zipfile.ZipFile(archive, "w") as contents:
        told = {"model": {"modelName": name, "modelVersion": "1.0", "handler": "handler.py"}}
        contents.writestr("MAR-INF/MANIFEST.json", json.dumps(told))
    manifest = Manifest(
        name=name,
        architecture="foreign",
        input=None,
        labels=[],
        savedmodel=_artifact(path, version),
        mar=_artifact(path, archive),
        parity=Parity(status="NOT PROVED EQUAL", tolerance=1e-5, images=0, reason="a toy"),
        golden=[Golden(path="golden/000.png", sha256=sha256_of(path / "golden" / "000.png"), probabilities=[])],
        created_at="2026-11-22T00:00:00+00:00",
    )
    (path / "manifest.json").write_text(manifest.model_dump_json())
    return ModelDir(path)


def _artifact(folder: Path, path: Path) -> Artifact:
    return Artifact(path=path.relative_to(folder).as_posix(), sha256=sha256_of(path), size_bytes=size_of(path))
