"""What studies leave on a real cluster: nothing in the end, whatever ended them."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.manifest import ModelDir
from serving.backends.kubernetes.cluster import Cluster
from serving.backends.kubernetes.namespace import read
from tests.deploy.chart.tools import helm
from tests.source_tree import ROOT
from tests.system.cluster.space import Space

pytestmark = [pytest.mark.kubernetes, pytest.mark.helm, pytest.mark.system, pytest.mark.timeout(600)]
STUDY = Path(__file__).with_name("interrupted_study.py")


@pytest.fixture
def with_helm(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "helm").symlink_to(helm())
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")


@pytest.fixture
def studies(own: Space, model: ModelDir, tmp_path: Path, with_helm: None) -> Iterator[list[tuple[Any, str, str]]]:
    """Two studies under way, each in a namespace that it made: process, namespace, release."""
    names = [f"servestorm-test-{secrets.token_hex(3)}" for _ in range(2)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, STUDY, model.path, name, tmp_path / name],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        for name in names
    ]
    try:
        yield [(one, name, one.stdout.readline().strip()) for one, name in zip(processes, names, strict=True)]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
        clean()


def clean(*options: str) -> str:
    command = [sys.executable, "-m", "servestorm.cli.main", "clean", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


@pytest.mark.alone
def test_a_killed_study_is_cleaned_up_after_and_a_living_one_goes_on_and_leaves_nothing_itself(
    own: Space, studies: Any
) -> None:
    (killed, first, gone), (living, second, stays) = studies
    cluster = Cluster.connect()
    assert gone and stays and gone != stays
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    told = clean("--dry-run")
    assert f"would remove release {gone} in namespace {first}\n" in told
    assert f"would remove namespace {first}\n" in told and stays not in told and second not in told
    assert Space(own.api, first).get("Deployment", gone)
    told = clean()
    assert f"removed release {gone} in namespace {first}\n" in told and f"removed namespace {first}\n" in told
    own.until("the end of what was killed", lambda: read(cluster, first) is None)
    assert Space(own.api, second).get("Deployment", stays) and living.poll() is None
    told = clean()
    assert gone not in told and stays not in told
    living.send_signal(signal.SIGINT)
    living.wait()
    own.until("the end of what was interrupted", lambda: read(cluster, second) is None)
