"""make pin-digests: digests come from the registry or not at all."""

import subprocess
import sys

import pytest

from tests.source_tree import ROOT

SCRIPT = ROOT / "deploy" / "compose" / "pin_digests.py"
EXAMPLE = """\
# Images that are pulled
TFSERVING_IMAGE=tensorflow/serving:2.19.1
PYTHON_IMAGE=python:3.11-slim-bookworm
# BUILDER_IMAGE=python:3.11-slim-bookworm
TORCHSERVE_UPSTREAM=pytorch/torchserve:0.12.0-cpu
TRAINER_IMAGE=servestorm/trainer:0.1.0
ENGINE_CPUS=1
"""
# A docker program that knows a digest for every image, made of its name's length, and notes what it was asked.
REGISTRY = """\
#!/bin/sh
for reference; do :; done
echo "$reference" >> "$ASKED"
printf 'sha256:%064d\\n' "${#reference}"
"""


@pytest.fixture
def clone(tmp_path):
    """A repository with the script, its .env.example and an empty folder of programs."""
    (tmp_path / "deploy" / "compose").mkdir(parents=True)
    (tmp_path / "deploy" / "compose" / SCRIPT.name).write_text(SCRIPT.read_text())
    (tmp_path / ".env.example").write_text(EXAMPLE)
    (tmp_path / "bin").mkdir()
    return tmp_path


def pin(clone, docker=None):
    if docker is not None:
        program = clone / "bin" / "docker"
        program.write_text(docker)
        program.chmod(0o755)
    return subprocess.run(
        [sys.executable, clone / "deploy" / "compose" / SCRIPT.name],
        env={"PATH": f"{clone / 'bin'}:/bin" if docker else str(clone / "bin"), "ASKED": str(clone / "asked")},
        capture_output=True,
        text=True,
        check=False,
    )


def digest(reference):
    return f"{reference}@sha256:{len(reference):064d}"


def test_every_pulled_image_is_pinned_once_and_what_else_env_says_stays(clone):
    (clone / ".env").write_text(
        f"ENGINE_CPUS=2\nTFSERVING_IMAGE=tensorflow/serving:2.20.0@sha256:{'a' * 64}\n# mine\nMODELS=./m\n"
    )
    done = pin(clone, REGISTRY)
    assert done.returncode == 0, done.stderr
    assert (clone / ".env").read_text().splitlines() == [
        "ENGINE_CPUS=2",
        f"TFSERVING_IMAGE={digest('tensorflow/serving:2.20.0')}",  # the version that .env chose, not the example's
        "# mine",
        "MODELS=./m",
        f"PYTHON_IMAGE={digest('python:3.11-slim-bookworm')}",
        f"BUILDER_IMAGE={digest('python:3.11-slim-bookworm')}",
        f"TORCHSERVE_UPSTREAM={digest('pytorch/torchserve:0.12.0-cpu')}",
    ]
    asked = (clone / "asked").read_text().split()
    assert sorted(asked) == sorted(
        ["tensorflow/serving:2.20.0", "python:3.11-slim-bookworm", "pytorch/torchserve:0.12.0-cpu"]
    )


@pytest.mark.parametrize(
    ("docker", "says"),
    [
        (None, "no docker program is on the PATH"),
        ("#!/bin/sh\necho 'dial tcp: lookup failed' >&2\nexit 1\n", "dial tcp: lookup failed"),
        ("#!/bin/sh\necho sha256:short\n", "it told no digest"),
        (f"{REGISTRY}exit 1\n", "it told no digest"),
        (REGISTRY.replace("printf", '[ "$reference" = python:3.11-slim-bookworm ] && exit 1\nprintf'), "python:3.11"),
    ],
)
def test_without_every_digest_nothing_is_written_and_one_sentence_says_why(clone, docker, says):
    (clone / ".env").write_text("ENGINE_CPUS=2\n")
    done = pin(clone, docker)
    assert done.returncode == 3
    assert says in done.stderr and done.stderr.count("\n") == 1
    assert (clone / ".env").read_text() == "ENGINE_CPUS=2\n"
    assert {path.name for path in clone.iterdir()} - {"asked"} == {"deploy", "bin", ".env", ".env.example"}
