"""The plans that come with servestorm: `studies/` of a checkout, of which the wheel carries a copy."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from servestorm.errors import StudyEnvironmentError

BUNDLED_PLANS: Final = ("quickstart", "full", "docker", "kubernetes", "attach", "training", "resnet50")
"""Their names, the default first."""


def plan_path(name: str) -> Path:
    """The file of one of BUNDLED_PLANS; raises StudyEnvironmentError where it was not installed."""
    path = plans_folder() / f"{name}.yaml"
    if not path.is_file():
        raise StudyEnvironmentError(f"{path} was not installed with servestorm: install its wheel again.")
    return path


def plans_folder() -> Path:
    """The folder of the plans: of the checkout that we run from, or the copy that the wheel carries."""
    package = Path(__file__).resolve().parent
    checkout = package.parents[1]
    if (checkout / "pyproject.toml").is_file() and (checkout / "studies").is_dir():
        return checkout / "studies"
    return package / "studies"
