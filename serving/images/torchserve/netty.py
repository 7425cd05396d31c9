"""netty.py JAR FOLDER: puts the native transports for this machine's processor out of TorchServe's jar into FOLDER."""

import platform
import sys
import zipfile
from pathlib import Path

NAMES = {"x86_64": "x86_64", "aarch64": "aarch_64"}


def main(jar: str, folder: Path) -> None:
    """Copy REST's library and gRPC's; KeyError where the jar has none for this processor."""
    folder.mkdir(parents=True)
    with zipfile.ZipFile(jar) as archive:
        for prefix in ("libnetty", "libio_grpc_netty_shaded_netty"):
            name = f"{prefix}_transport_native_epoll_{NAMES[platform.machine()]}.so"
            (folder / name).write_bytes(archive.read(f"META-INF/native/{name}"))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
