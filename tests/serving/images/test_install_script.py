"""install.sh puts into an image only files whose hash is in its list: the real pip, and a wheelhouse of tiny wheels."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.source_tree import ROOT

SCRIPT = ROOT / "serving" / "images" / "install.sh"


def wheel(folder: Path, package: str, version: str, content: str) -> str:
    """Write a wheel of one module; its SHA-256."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{package}-{version}-py3-none-any.whl"
    info = f"{package}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{package}.py", content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def image(tmp_path):
    """A build stage: `lists` are written beside the script, then it installs them from the folder `wheels`."""
    if shutil.which("python3.11") is None:
        pytest.skip("python3.11 is not on the PATH")
    build, wheels = tmp_path / "build", tmp_path / "wheels"
    build.mkdir()
    shutil.copy(SCRIPT, build)
    tool = wheel(wheels, "builder", "1", "")
    (build / "build.txt").write_text(f"# Made.\nbuilder==1 \\\n    --hash=sha256:{tool}\n")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "pip").write_text(f'#!/bin/sh\nexec {sys.executable} -m pip "$@"\n')
    (programs / "pip").chmod(0o755)

    def install(**lists: str) -> subprocess.CompletedProcess[str]:
        for list_name, text in lists.items():
            (build / f"{list_name}.txt").write_text(text)
        environment = {
            "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin:{Path(shutil.which('python3.11') or '').parent}",
            "ENVIRONMENT": str(tmp_path / "environment"), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels),
            "PIP_CONFIG_FILE": "/dev/null", "HOME": str(tmp_path),
        }  # fmt: skip
        command = ["sh", str(build / "install.sh"), *(f"{each}.txt" for each in lists)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    return wheels, tmp_path / "environment" / "lib" / "python3.11" / "site-packages", install


def test_a_package_with_its_hash_is_installed_and_nothing_else(image):
    wheels, packages, install = image
    digest = wheel(wheels, "serveit", "1.0", "VALUE = 1")
    other = "0" * 64
    done = install(server=f"# Made.\nserveit==1.0 \\\n    --hash=sha256:{other} \\\n    --hash=sha256:{digest}\n")
    assert done.returncode == 0, done.stderr
    assert (packages / "serveit.py").read_text() == "VALUE = 1"
    assert not (packages / "builder.py").exists()


def test_a_package_with_another_content_is_refused(image):
    wheels, packages, install = image
    digest = wheel(wheels, "serveit", "1.0", "VALUE = 1")
    wheel(wheels, "serveit", "1.0", "VALUE = 'replaced'")
    done = install(server=f"serveit==1.0 \\\n    --hash=sha256:{digest}\n")
    assert done.returncode != 0
    assert "hash" in done.stderr.lower()
    assert not (packages / "serveit.py").exists()


def test_a_package_without_a_hash_is_refused(image):
    wheels, packages, install = image
    wheel(wheels, "serveit", "1.0", "VALUE = 1")
    done = install(server="serveit==1.0\n")
    assert done.returncode != 0 and "hash" in done.stderr.lower()
    assert not (packages / "serveit.py").exists()


def test_what_the_wheelhouse_built_has_the_hash_that_it_wrote_down(image):
    wheels, packages, install = image
    built = wheel(wheels, "serveit", "1.0", "VALUE = 'built'")
    (wheels / "built.txt").write_text(f"serveit==1.0 --hash=sha256:{built}\ntorch==2.0 --hash=sha256:{'1' * 64}\n")
    source = f"serveit==1.0 \\\n    --hash=sha256:{'0' * 64}\n"
    done = install(server=source)
    assert done.returncode == 0, done.stderr
    assert (packages / "serveit.py").read_text() == "VALUE = 'built'"


def test_torch_of_a_wheelhouse_needs_its_hash_too(image):
    wheels, packages, install = image
    wheel(wheels, "torch", "2.0", "VALUE = 'other'")
    (wheels / "built.txt").write_text(f"torch==2.0 --hash=sha256:{'1' * 64}\n")
    done = install(torch="# why\ntorch==2.0\n")
    assert done.returncode != 0 and "hash" in done.stderr.lower()
    assert not (packages / "torch.py").exists()
