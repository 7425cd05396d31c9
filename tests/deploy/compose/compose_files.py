"""What the compose files say, and what a person who runs them would find on disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tests.source_tree import ROOT

COMPOSE = ROOT / "deploy" / "compose"
FILES = (ROOT / "docker-compose.yml", ROOT / "docker-compose.airgap.yml")
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+):-(?P<default>[^}]*)\}")


class _Tagged(yaml.SafeLoader):
    """Reads compose's own tags, which plain YAML does not know, as what they hold."""


def _plain(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return None


for tag in ("!reset", "!override"):
    _Tagged.add_constructor(tag, _plain)


def services(path: Path = FILES[0]) -> dict[str, dict[str, Any]]:
    """Service name to its description, variables not filled in."""
    return yaml.load(path.read_text(), _Tagged)["services"]


def variables(path: Path) -> dict[str, set[str]]:
    """Variable to the defaults that a compose file gives it."""
    found: dict[str, set[str]] = {}
    for match in _VARIABLE.finditer(path.read_text()):
        found.setdefault(match["name"], set()).add(match["default"])
    return found


def without_variables(text: str) -> str:
    """The text with each variable's default in its place."""
    return _VARIABLE.sub(lambda match: match["default"], text)


def env_file(path: Path) -> dict[str, str]:
    """Variable to value; those of a commented assignment too."""
    found = re.finditer(r"^(?:# )?(?P<name>[A-Z_]+)=(?P<value>.*)$", path.read_text(), re.MULTILINE)
    return {match["name"]: match["value"] for match in found}
