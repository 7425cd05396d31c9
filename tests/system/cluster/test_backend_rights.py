"""The backend under an account that has exactly the rights of deploy/k8s/role.yaml, on a real cluster."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from models.manifest import ModelDir
from serving.backend import AutoscalerOrder, DeploymentOrder
from serving.backends.kubernetes.access import NEEDED, Rule, require_access, rules_text
from serving.backends.kubernetes.backend import KubernetesBackend
from serving.backends.kubernetes.cluster import ROLE, Cluster
from serving.backends.kubernetes.settings import KubernetesSettings
from serving.deployment import Batching, Budget, EventLog
from serving.engines import ENGINES
from serving.errors import EngineUnavailable
from serving.probe import first_answer
from serving.wire import WIRES
from tests.deploy.chart.rendering import Object
from tests.deploy.chart.tools import helm
from tests.source_tree import ROOT
from tests.system.cluster.space import Space, space

pytestmark = [pytest.mark.kubernetes, pytest.mark.helm, pytest.mark.system, pytest.mark.timeout(1200)]
SCALING = AutoscalerOrder(min_replicas=1, max_replicas=2, cpu_percent=80, scale_down_stabilization_s=0)
BUDGET = Budget(cpus=(), cpu_quota=0.3, memory_bytes=1024**3)
SMALL = {
    "load": {"resources": {"requests": {"cpu": "50m", "memory": "256Mi"}}},
    "balancer": {"resources": {"requests": {"cpu": "50m"}, "limits": {"cpu": "500m"}}},
}
"""So that everything fits on two CPUs."""


@dataclass
class Account:
    """A service account with a role of its own, in a namespace that studies may use."""

    space: Space
    role: Object
    """As role.yaml has it."""
    values: Path

    def may(self, rules: list[Object]) -> None:
        """Give it these rights and no others."""
        rbac = client.RbacAuthorizationV1Api(self.space.api)
        name = self.role["metadata"]["name"]
        rbac.replace_namespaced_role(name, self.space.name, {**self.role, "rules": rules})

    def settings(self, **settings: Any) -> KubernetesSettings:
        """Of a backend that may do all that there is to do."""
        images = {"haproxy": "servestorm/haproxy:0.1.0"}
        common: Any = {"namespace": self.space.name, "images": images, "values": (self.values,)}
        return KubernetesSettings(balancer="haproxy", **common, **settings)


@pytest.fixture(scope="module")
def account(own: Space, tmp_path_factory: Any) -> Iterator[Account]:
    (role,) = [each for each in yaml.safe_load_all((ROOT / ROLE).read_text()) if each and each["kind"] == "Role"]
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("account")
    with space(own.api, servestorm="studies") as made:
        rbac = client.RbacAuthorizationV1Api(own.api)
        made.core.create_namespaced_service_account(made.name, {"metadata": {"name": "study"}})
        rbac.create_namespaced_role(made.name, role)
        subject = {"kind": "ServiceAccount", "name": "study", "namespace": made.name}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["metadata"]["name"]}
        binding = {"metadata": {"name": "study"}, "roleRef": reference, "subjects": [subject]}
        rbac.create_namespaced_role_binding(made.name, binding)
        asked = {"spec": {"expirationSeconds": 3600}}
        token = made.core.create_namespaced_service_account_token("study", made.name, asked).status.token
        patch.setenv("KUBECONFIG", str(kubeconfig(own.api, token, folder / "kubeconfig")))
        (folder / "helm").symlink_to(helm())
        patch.setenv("PATH", str(folder), prepend=":")
        try:
            (folder / "values.yaml").write_text(yaml.safe_dump(SMALL))
            yield Account(made, role, folder / "values.yaml")
        finally:
            patch.undo()


def kubeconfig(api: Any, token: str, path: Path) -> Path:
    """A kubeconfig that knows the cluster and one token."""
    authority = base64.b64encode(Path(api.configuration.ssl_ca_cert).read_bytes()).decode()
    cluster = {"server": api.configuration.host, "certificate-authority-data": authority}
    rules_text = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "here", "cluster": cluster}],
        "users": [{"name": "study", "user": {"token": token}}],
        "contexts": [{"name": "study", "context": {"cluster": "here", "user": "study"}}],
        "current-context": "study",
    }
    path.write_text(json.dumps(rules_text))
    return path


def start(account: Account, model: ModelDir, workdir: Path, settings: KubernetesSettings) -> Any:
    """A deployment of one replica."""
    backend = KubernetesBackend(settings)
    assert "context study" in backend.check(ENGINES["savedmodel"])
    common: Any = {"budget": BUDGET, "batching": Batching(), "workdir": workdir, "events": EventLog()}
    return backend.start(DeploymentOrder(ENGINES["savedmodel"], model, replicas=1, **common))


def test_a_deployment_lives_and_scales_with_exactly_the_rights_of_the_role(
    account: Account, model: ModelDir, tmp_path: Path
) -> None:
    account.may(account.role["rules"])
    before = account.space.inventory()
    with start(account, model, tmp_path, account.settings(reach="port-forward", agents=1)) as deployment:
        deployment.wait_ready(300)
        first_answer(deployment.front[0], WIRES["savedmodel"], model, timeout_s=60)
        deployment.scale(2)
        deployment.wait_ready(300)
        assert len(deployment.endpoints) == 2
        assert deployment.use().cpu_s
        assert deployment.logs()
        records = deployment.records()
        assert records["pods.json"] and records["cluster-events.txt"]
    account.space.until("the removal of everything", lambda: account.space.inventory() <= before, patience_s=60)


def test_an_autoscaled_deployment_lives_with_exactly_the_rights_of_the_role(
    account: Account, model: ModelDir, tmp_path: Path
) -> None:
    account.may(account.role["rules"])
    before = account.space.inventory()
    settings = account.settings(reach="port-forward", autoscaling=SCALING)
    with start(account, model, tmp_path, settings) as deployment:
        deployment.wait_ready(300)
        first_answer(deployment.front[0], WIRES["savedmodel"], model, timeout_s=60)
    account.space.until("the removal of everything", lambda: account.space.inventory() <= before, patience_s=120)


@pytest.mark.parametrize("rule", NEEDED, ids=lambda rule: f"{rule.group or 'core'}-{rule.resource}".replace("/", "-"))
def test_a_right_that_was_taken_away_is_named(account: Account, rule: Rule) -> None:
    rules = copy.deepcopy(account.role["rules"])
    verb = rule.verbs[-1]
    for granted in rules:
        if rule.group in granted["apiGroups"] and rule.resource in granted["resources"]:
            granted["verbs"] = [each for each in granted["verbs"] if each != verb]
    account.may([granted for granted in rules if granted["verbs"]])
    settings = account.settings(reach="port-forward", autoscaling=SCALING, agents=1)
    wanted = rules_text([Rule(rule.group, rule.resource, (verb,))])
    account.space.until(f"the refusal of {wanted}", lambda: wanted in complaint(settings))
    assert ROLE in complaint(settings)


def complaint(settings: KubernetesSettings) -> str:
    """What is said to lack; empty where nothing is."""
    try:
        require_access(Cluster.connect(), settings)
    except EngineUnavailable as error:
        return str(error)
    return ""


def test_an_account_that_may_only_read_is_told_what_it_lacks_and_nothing_is_made(account: Account) -> None:
    read = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}
    account.may([read])
    before = account.space.inventory()
    account.space.until("the refusal", lambda: "create" in complaint(account.settings()))
    with pytest.raises(EngineUnavailable, match=r"may not .*create.* configmaps.* in namespace"):
        KubernetesBackend(account.settings()).check(ENGINES["savedmodel"])
    assert account.space.inventory() == before
