"""Runs in a pod: makes version 2 of the model under /models out of version 1, and offers it for download on port 8000.

The SavedModel's folder 1 becomes 2 and the archive's own version 2.0, so that answers stay the same and the version
that a server tells does not. Prints the archive's SHA-256, then serves.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import sys
import tarfile
import zipfile
from pathlib import Path

PORT = 8000
_MANIFEST = "MAR-INF/MANIFEST.json"


def renumber(archive: Path) -> None:
    """Give a .mar the version 2.0."""
    with zipfile.ZipFile(archive) as whole:
        files = {name: whole.read(name) for name in whole.namelist()}
    manifest = json.loads(files[_MANIFEST])
    manifest["model"]["modelVersion"] = "2.0"
    files[_MANIFEST] = json.dumps(manifest).encode()
    with zipfile.ZipFile(archive, "w") as changed:
        for name, content in files.items():
            changed.writestr(name, content)


def main() -> None:
    """Make it, tell its checksum, serve it."""
    model = Path(sys.argv[1])
    (model / "1").rename(model / "2")
    renumber(model / f"{model.name}.mar")
    folder = model.parent / "offered"
    folder.mkdir()
    with tarfile.open(folder / "newer.tar", "w") as archive:
        archive.add(model, model.name)
    print(hashlib.sha256((folder / "newer.tar").read_bytes()).hexdigest(), flush=True)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    http.server.ThreadingHTTPServer(("", PORT), handler).serve_forever()


if __name__ == "__main__":
    main()
