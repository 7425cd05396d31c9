"""What the tests on a cluster share: a namespace, the model that the cluster's image holds, and a client inside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.manifest import ModelDir
from tests.deploy.chart.tools import need_helm
from tests.requirements_here import need_kubernetes
from tests.system.cluster.askers import POD, question_file
from tests.system.cluster.release import REST
from tests.system.cluster.space import Space, config_map, pod, space

MODELS, GENERATOR = "servestorm/models-cnn:0.1.0", "servestorm/generator:0.1.0"
SCRIPTS = [Path(__file__).with_name(name) for name in ("asker.py", "newer_model.py")]


@pytest.fixture(scope="session")
def own() -> Iterator[Space]:
    """A namespace for the session."""
    images = [f"servestorm/{role}:0.1.0" for role in (*REST, "haproxy")]
    api = need_kubernetes(MODELS, GENERATOR, *images)
    need_helm()
    with space(api) as made:
        yield made


@pytest.fixture(scope="session")
def model(own, tmp_path_factory) -> ModelDir:
    """The model that the cluster's image holds, whatever it is."""
    own.start(pod("model", MODELS, ["sleep", "3600"]))
    folder = tmp_path_factory.mktemp("cnn") / "cnn"
    own.fetch("model", "/models/cnn", folder)
    own.core.delete_namespaced_pod("model", own.name, grace_period_seconds=0)
    return ModelDir(folder)


@pytest.fixture(scope="session")
def inside(own, model) -> Space:
    """The namespace, with a pod from which releases are asked."""
    files = {script.name: script.read_bytes() for script in SCRIPTS}
    files |= {f"{engine}.json": question_file(engine, model) for engine in REST}
    own.core.create_namespaced_config_map(own.name, config_map("scripts", files))
    own.start(pod(POD, GENERATOR, ["sleep", "infinity"]))
    return own
