"""sbom.py IMAGE: prints what the image holds of Debian and Python packages, as a CycloneDX 1.5 document in JSON.

It asks the package managers inside the image, so that it needs Docker and nothing else. Exit code 3 without an engine
or the image.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

_DEBIAN = r"command -v dpkg-query >/dev/null && dpkg-query -W -f '${Package}\t${Version}\t${Architecture}\n'; true"
_PYTHON = (
    "import importlib.metadata as m\nfor d in m.distributions(): print(d.metadata['Name'], d.version, sep='\\t')\n"
)
Component = dict[str, Any]


def main(image: str) -> int:
    """Write the document to standard output; returns the exit code."""
    inspected = subprocess.run(["docker", "image", "inspect", image], capture_output=True, text=True, check=False)
    if inspected.returncode:
        print(
            f"sbom: {image} is not here ({inspected.stderr.strip()}): make it with make airgap-images.", file=sys.stderr
        )
        return 3
    print(json.dumps(document(image, json.loads(inspected.stdout)[0], debian(image) + python(image)), indent=1))
    return 0


def document(image: str, inspected: dict[str, Any], components: list[Component]) -> dict[str, Any]:
    """The whole document; the image's own digest makes its serial number."""
    digest: str = inspected["Id"].removeprefix("sha256:")
    groups = [digest[:8], digest[8:12], f"4{digest[13:16]}", f"8{digest[17:20]}", digest[20:32]]
    itself = {"type": "container", "bom-ref": image, "name": image, "version": f"sha256:{digest}"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{'-'.join(groups)}",
        "version": 1,
        "metadata": {"timestamp": datetime.now(UTC).isoformat(timespec="seconds"), "component": itself},
        "components": sorted(components, key=lambda component: str(component["purl"])),
    }


def debian(image: str) -> list[Component]:
    """Debian's packages; none where the image has no dpkg."""
    rows = [line.split("\t") for line in _inside(image, "sh", "-c", _DEBIAN).splitlines()]
    return [
        _component(name, version, f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={arch}")
        for name, version, arch in rows
    ]


def python(image: str) -> list[Component]:
    """Python's packages; none where the image has no environment of ours."""
    interpreter = "/opt/servestorm/bin/python"
    if "yes" not in _inside(image, "sh", "-c", f"[ -x {interpreter} ] && echo yes; true"):
        return []
    rows = {tuple(line.split("\t")) for line in _inside(image, interpreter, "-c", _PYTHON).splitlines()}
    return [
        _component(name, version, f"pkg:pypi/{quote(name.lower().replace('_', '-'))}@{quote(version)}")
        for name, version in rows
    ]


def _component(name: str, version: str, purl: str) -> Component:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _inside(image: str, program: str, *arguments: str) -> str:
    run = ["docker", "run", "--rm", "--read-only", "--network", "none", "--entrypoint", program]
    return subprocess.run([*run, image, *arguments], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
