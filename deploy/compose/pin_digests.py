"""Write the digests that the registry tells for every pulled image of .env.example into .env: make pin-digests.

A tag can be moved, a digest cannot. Nothing is written unless the registry told all of them. Needs Docker with buildx,
and nothing that is not in Python itself. Exit codes: 0 written, 3 the registry or a program is not there.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = re.compile(r"(?P<name>[A-Z_]+_(?:IMAGE|UPSTREAM))=(?P<reference>[^\s@]+)(?:@\S+)?$")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
OWN = "servestorm/"
_PATIENCE_S = 120.0


class NotToBeHad(Exception):
    """Docker or the registry does not tell; the sentence says what to do."""


def pulled(text: str, *, commented: bool = False) -> dict[str, str]:
    """Variable to reference, without a digest, of each image in an env file that is not ours.

    `commented`: also of those that a comment names, as in .env.example.
    """
    found = (VARIABLE.match(line.removeprefix("# ") if commented else line) for line in text.splitlines())
    return {m["name"]: m["reference"] for m in found if m and not m["reference"].startswith(OWN)}


def digest_of(reference: str) -> str:
    """What the registry says that `reference` is now. Raises NotToBeHad."""
    command = ["docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", reference]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    except FileNotFoundError:
        raise NotToBeHad("no docker program is on the PATH: install Docker with its buildx plug-in.") from None
    except subprocess.TimeoutExpired:
        raise NotToBeHad(f"the registry of {reference} does not answer: try again where it can be reached.") from None
    digest = told.stdout.strip()
    if told.returncode == 0 and DIGEST.fullmatch(digest):
        return digest
    reason = (told.stderr.strip().splitlines() or ["it told no digest"])[0]
    raise NotToBeHad(
        f"the digest of {reference} cannot be read ({reason}): "
        "install Docker's buildx plug-in where it lacks, and try again where the registry can be reached."
    )


def pinned(text: str, references: dict[str, str]) -> str:
    """The env file `text` with each variable of `references` set to it: in its place, or at the end."""
    lines = text.splitlines()
    for name, reference in references.items():
        line = f"{name}={reference}"
        places = [i for i, old in enumerate(lines) if old.startswith(f"{name}=")]
        if places:
            lines[places[-1]] = line
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def main(root: Path = ROOT) -> int:
    """Ask for every digest, then write .env."""
    env = root / ".env"
    own = env.read_text() if env.exists() else ""
    wanted = {**pulled((root / ".env.example").read_text(), commented=True), **pulled(own)}
    try:
        digests = {reference: digest_of(reference) for reference in dict.fromkeys(wanted.values())}
    except NotToBeHad as error:
        print(f"pin-digests: {error}", file=sys.stderr)
        return 3
    references = {name: f"{reference}@{digests[reference]}" for name, reference in wanted.items()}
    aside = env.with_name(".env.new")
    aside.write_text(pinned(own, references))
    aside.replace(env)
    for name, reference in references.items():
        print(f"{name}={reference}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
