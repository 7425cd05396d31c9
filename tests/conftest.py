"""How the tests share a machine: which of them stay on one worker, and which run while no other does.

`make test` starts a few workers (pytest-xdist). A worker takes whole groups of tests: those of a file, or of several
files that share something expensive, so that it is made once.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.one_at_a_time import beside_others, shared_folder

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Torch's threads wait for each other by spinning: on a busy machine two of them are slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Under nohup, or in the background of a shell, Ctrl-C is ignored, by what the tests start too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

TOGETHER = ("deploy/chart", "models/artifacts", "serving/conformance", "serving/savedmodel_server")
"""Folders of tests that share what is expensive: rendered charts, an exported model, a running server."""
ENGINES = ("docker", "kubernetes")
"""Tests with these marks use one Docker Engine or one cluster, which all of them load and look through."""
ALONE = "alone"
"""Tests that no other may run beside: at the end, for while one of them waits, nothing else begins."""
LONGEST_FIRST = (
    "system/test_study_end_to_end.py",
    "containers",
    "serving/savedmodel_server",
    "loadtests/locust_side/test_distributed.py",
    "loadtests/locust_side/test_locustfiles.py",
    "models/artifacts",
    "servestorm/study/test_runner.py",
    "servestorm/study/test_runner_scenarios.py",
    "servestorm/study/test_generator_cluster.py",
    "models/training/test_training.py",
    "serving/conformance",
    "deploy/chart",
    "loadtests/generator/test_endpoints_file.py",
    "servestorm/report/test_page.py",
    "servestorm/rundir/test_shapes.py",
    "servestorm/cli/test_cli.py",
)
"""Groups that take long, so that no worker begins one when the other has nothing left to do."""


def group_of(item: pytest.Item) -> str:
    """The tests that the item must share a worker with."""
    if item.get_closest_marker("alone"):
        return ALONE
    if any(item.get_closest_marker(name) for name in ENGINES):
        return "containers"
    file = item.path.relative_to(item.config.rootpath / "tests").as_posix()
    return next((folder for folder in TOGETHER if file.startswith(f"{folder}/")), file)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test its group, and put groups together, the longest first."""
    groups: dict[str, list[pytest.Item]] = {name: [] for name in LONGEST_FIRST}
    for item in items:
        group = group_of(item)
        item.add_marker(pytest.mark.xdist_group(group))
        groups.setdefault(group, []).append(item)
    groups[ALONE] = groups.pop(ALONE, [])
    items[:] = [item for members in groups.values() for item in members]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Tests of several workers run at the same time, unless one of them is marked `alone`."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    folder = shared_folder(item.config._tmp_path_factory)
    with beside_others(folder, item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture
def closed_port():
    """A port that is taken by a socket which does not listen: it refuses connections."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]
