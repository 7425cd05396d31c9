"""`make airgap-images` says in one sentence what the machine lacks, before it does anything. No engine is touched."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.source_tree import ROOT

TOOLS = ("sh", "sed", "df", "awk", "cat", "sha256sum", "cut", "mkdir", "tail", "git", "mktemp", "rm", "tr")

ENGINE = """#!/bin/sh
case "$1 $2" in
  "info --format") echo / ;;
  "image inspect") exit {has_base} ;;
  "info ") exit {answers} ;;
  *) echo "unexpected: $*" >&2; exit 99 ;;
esac
"""


@pytest.fixture
def machine(tmp_path):
    """Runs the script from the repository's root on a machine that has only what is named."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, f"{tool} is part of every Debian"
        (folder / tool).symlink_to(found)

    def program(name: str, text: str) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    def run() -> subprocess.CompletedProcess[str]:
        command = [str(folder / "sh"), "serving/images/airgap.sh"]
        env = {"PATH": str(folder), "PYTHON": "python3.11"}
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)

    return program, run


def lacks(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 3, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_without_docker_it_says_what_to_install(machine):
    _, run = machine
    lacks(run(), "docker is missing", "apt-get install docker.io")


def test_without_an_engine_that_answers_it_says_so(machine):
    program, run = machine
    program("docker", ENGINE.format(answers=1, has_base=1))
    lacks(run(), "no Docker Engine answers")


def test_without_python_it_says_what_to_install(machine):
    program, run = machine
    program("docker", ENGINE.format(answers=0, has_base=1))
    lacks(run(), "python3.11 is missing", "apt-get install python3.11")


def test_the_base_needs_root(machine):
    program, run = machine
    program("docker", ENGINE.format(answers=0, has_base=1))
    program("python3.11", "#!/bin/sh\n")
    program("id", "#!/bin/sh\necho 1000\n")
    lacks(run(), "must be root", "sudo make airgap-images")


def test_the_base_needs_debootstrap(machine):
    program, run = machine
    program("docker", ENGINE.format(answers=0, has_base=1))
    program("python3.11", "#!/bin/sh\n")
    program("id", "#!/bin/sh\necho 0\n")
    lacks(run(), "debootstrap is missing", "apt-get install debootstrap")


def test_a_full_disk_is_told_before_anything_is_written(machine):
    program, run = machine
    program("docker", ENGINE.format(answers=0, has_base=0))
    program("python3.11", "#!/bin/sh\n")
    program("df", "#!/bin/sh\necho Filesystem\necho /dev/sda1 20000 19000 1000 95% /\n")
    lacks(run(), "/ has 1000 MB free and 10000 MB are needed", "docker system prune")
