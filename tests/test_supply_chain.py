"""What is fetched or installed anywhere in the source tree is named exactly and compared with a hash that lies here."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.source_tree import ROOT

IMAGES = ROOT / "serving" / "images" / "requirements"
TORCH = IMAGES / "torch.txt"
TOOLS = {"pip", "setuptools", "wheel"}
PROJECT = sorted([*(ROOT / "requirements").glob("*.txt"), *(path for path in IMAGES.glob("*.txt") if path != TORCH)])
OTHERS = [
    ROOT / "tests" / "deploy" / "chart" / "requirements.txt",
    ROOT / "benchmarks" / "fuzz" / "requirements.txt",
    ROOT / "benchmarks" / "savedmodel_server" / "peers.txt",
]
OF_ITS_OWN = {"requirements/lock.txt"}
"""Its package is no part of any environment."""


def name(path):
    return str(path.relative_to(ROOT))


def requirements(path: Path) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of each package, by canonical name; each line must pin exactly one version."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    entries = "\n".join(lines).replace("\\\n", " ").splitlines()
    found = {}
    for entry in entries:
        specifier, *hashes = entry.split()
        assert re.fullmatch(r"[\w.-]+==[\w.!+]+", specifier), f"{name(path)}: {specifier} is not pinned"
        package, version = specifier.split("==")
        found[canonicalize_name(package)] = (version, hashes)
    assert len(found) == len(entries), f"{name(path)} names a package twice"
    return found


def locked() -> dict[str, str]:
    return {package: version for package, (version, _) in requirements(ROOT / "constraints.txt").items()}


@pytest.mark.parametrize("path", [*PROJECT, *OTHERS], ids=name)
def test_every_package_of_a_list_has_a_hash(path):
    packages = requirements(path)
    assert packages
    for package, (_, hashes) in packages.items():
        assert hashes, f"{name(path)}: {package} has no hash"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes), package
        assert len(set(hashes)) == len(hashes), package


@pytest.mark.parametrize("path", [path for path in PROJECT if name(path) not in OF_ITS_OWN], ids=name)
def test_a_list_has_the_versions_of_the_constraints(path):
    versions = {package: version for package, (version, _) in requirements(path).items()}
    if path.name == "savedmodel.txt":
        assert versions.pop("tensorflow-cpu") == locked()["tensorflow"]
    assert versions == {package: locked().get(package) for package in versions}


def test_a_package_has_the_same_hashes_in_every_list():
    seen: dict[tuple[str, str], set[frozenset[str]]] = {}
    for path in PROJECT:
        for package, (version, hashes) in requirements(path).items():
            seen.setdefault((package, version), set()).add(frozenset(hashes))
    assert {key for key, variants in seen.items() if len(variants) > 1} == set()


def test_the_working_environment_is_all_of_the_constraints_but_torch():
    environment = requirements(ROOT / "requirements" / "dev.txt")
    assert set(locked()) == set(environment) | TOOLS | {"torch"}
    assert set(requirements(ROOT / "requirements" / "tools.txt")) == TOOLS


def test_the_core_s_list_names_what_the_wheel_asks_for_and_no_extra():
    core = requirements(ROOT / "requirements" / "core.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {canonicalize_name(Requirement(text).name) for text in project["dependencies"]} <= set(core)
    assert not {"tensorflow", "torch", "torchserve", "docker", "kubernetes"} & set(core)


@pytest.mark.parametrize("path", sorted([*ROOT.glob("requirements/*.in"), *IMAGES.glob("*.in")]), ids=name)
def test_a_list_holds_what_it_is_made_from(path):
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    wanted = {canonicalize_name(Requirement(line).name) for line in lines}
    assert wanted == set(requirements(path.with_suffix(".txt")))


def test_hashes_of_other_platforms_are_among_them():
    """A wheel for each of x86_64, aarch64 and macOS, and the source: a package with machine code has many files."""
    environment = requirements(ROOT / "requirements" / "dev.txt")
    for package in ("numpy", "pyarrow", "grpcio", "pydantic-core"):
        assert len(environment[package][1]) > 20, package


def test_torch_is_the_one_package_without_a_hash_and_its_list_says_why():
    assert requirements(TORCH) == {"torch": (locked()["torch"], [])}
    assert "without a hash" in TORCH.read_text()
    unhashed = [
        name(path) for path in tracked("*.txt") if path.name != "constraints.txt" and is_list_without_hashes(path)
    ]
    assert unhashed == [name(TORCH)]


def is_list_without_hashes(path: Path) -> bool:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return any(re.match(r"[\w.-]+==[\w.!+]+$", line) for line in lines)


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository by git's patterns, without logs of past work."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no clone of the repository")
    command = ["git", "ls-files", "-co", "--exclude-standard", *patterns]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / each for each in names if not each.startswith("findings/") and (ROOT / each).is_file()]


SCRIPTS = ("Makefile", "*.sh", ".ci/*", "*Dockerfile*")
PROGRAMS = (*SCRIPTS, "*.py", "*.yml", "*.yaml", "*.env", ".env.*")
PIP = re.compile(r"\bpip(?: --python \S+)? (?:install|wheel|download)\s|\$\(INSTALL\)|\bpip_install\s")
NO_COMMAND = re.compile(r"#|@?echo |INSTALL :=|.*\|\| \{ echo |say |\.\.\.")


def pip_commands(path: Path) -> list[str]:
    """Lines of a script that call pip, with their continuations; not what a function passes on for its callers."""
    lines = [line.strip() for line in path.read_text().replace("\\\n", " ").splitlines()]
    calls = [line for line in lines if PIP.search(line) and not NO_COMMAND.match(line)]
    return [line for line in calls if '"$@"' not in line]


def test_no_program_mixes_package_indexes():
    """With two indexes pip takes the higher version: whoever may upload to one can replace a package of the other."""
    mixing = [path for path in tracked(*PROGRAMS) if "extra-index-url" in path.read_text().lower().replace("_", "-")]
    assert [name(path) for path in mixing if path != Path(__file__)] == []


def test_a_script_installs_with_pip_only_what_has_a_hash_or_lies_here():
    commands = {(name(path), command) for path in tracked(*SCRIPTS) for command in pip_commands(path)}
    assert len(commands) > 10
    for place, command in commands:
        torch = "torch.txt" in command or "$(TORCH_LIST)" in command  # the exception, which has a test of its own
        built_here = "--no-deps" in command and command.endswith(("dist/*.whl", '"$what" ;;'))
        assert torch or built_here or "--require-hashes" in command or "--no-index" in command, f"{place}: {command}"


def test_a_program_in_python_that_calls_pip_demands_hashes():
    calling = [path for path in tracked("*.py") if '"pip",' in path.read_text() and path != Path(__file__)]
    assert calling
    assert [name(path) for path in calling if '"--require-hashes"' not in path.read_text()] == []


def test_torch_comes_from_one_index_and_alone():
    makefile = (ROOT / "Makefile").read_text()
    assert "$(INSTALL) $(if $(TORCH_INDEX),--no-deps --index-url $(TORCH_INDEX)) -r $(TORCH_LIST)" in makefile
    install = (ROOT / "serving" / "images" / "install.sh").read_text()
    assert 'pip_install --no-deps --index-url "$TORCH_INDEX" -r "$here/torch.txt"' in install
    for path in tracked("Makefile", "*.sh", "*Dockerfile*"):
        for line in path.read_text().splitlines():
            if "--index-url" in line:
                assert "TORCH" in line, f"{name(path)}: {line}"


def test_an_image_installs_through_the_one_script_that_demands_hashes():
    install = (ROOT / "serving" / "images" / "install.sh").read_text()
    assert install.count("--require-hashes") == 2
    for path in sorted((ROOT / "serving" / "images").glob("*/Dockerfile")):
        runs = re.findall(r"^RUN .*(?:\\\n.*)*", path.read_text(), re.MULTILINE)
        assert not [run for run in runs if re.search(r"pip3? .*install|curl|wget", run)], path.parent.name


def test_the_airgapped_build_demands_hashes_of_what_it_downloads():
    text = (ROOT / "serving" / "images" / "airgap.sh").read_text()
    assert 'do collect "$list" --require-hashes; done' in text
    assert "--no-build-isolation" in text and "--force-check-gpg" in (ROOT / "serving/images/base.sh").read_text()


def test_npm_installs_by_a_lock_with_integrity():
    lock = json.loads((ROOT / "tests/servestorm/report/axe/package-lock.json").read_text())
    packages = {key: value for key, value in lock["packages"].items() if key}
    assert packages
    for package in packages.values():
        algorithm, _, digest = package["integrity"].partition("-")
        assert algorithm == "sha512" and len(base64.b64decode(digest)) == 64
        assert "resolved" not in package  # the registry is the reader's own
    unlocked = re.compile(r"\bnpm[\"', ]+(install|i|add)\b")
    using = [path for path in tracked("*.py", *SCRIPTS) if unlocked.search(path.read_text())]
    assert [name(path) for path in using if path != Path(__file__)] == []


def test_no_list_names_a_package_index():
    for path in [*PROJECT, *OTHERS, TORCH, ROOT / "constraints.txt"]:
        assert not re.search(r"https?://|--(extra-)?index|--find-links", path.read_text()), name(path)
