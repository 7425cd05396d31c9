"""netty.py JAR FOLDER: puts the native transport of this machine's processor out of TorchServe's jar into FOLDER."""

import platform
import sys
import zipfile
from pathlib import Path

NAMES = {"x86_64": "x86_64", "aarch64": "aarch_64"}


def main(jar: str, folder: Path) -> None:
    """Copy the one library; KeyError where the jar has none for this processor."""
    name = f"libnetty_transport_native_epoll_{NAMES[platform.machine()]}.so"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(jar) as archive:
        (folder / name).write_bytes(archive.read(f"META-INF/native/{name}"))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
