"""The rights that the backend needs, and which of them this account lacks.

`deploy/k8s/role.yaml` grants exactly these; a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from serving.backends.kubernetes.cluster import ROLE, Cluster, asking
from serving.backends.kubernetes.settings import KubernetesSettings
from serving.errors import EngineUnavailable

When = Literal["always", "port-forward", "autoscaling"]


@dataclass(frozen=True)
class Rule:
    """Verbs on resources of one API group."""

    group: str
    resource: str
    """With its subresource, such as pods/exec."""
    verbs: tuple[str, ...]
    when: When = "always"


NEEDED = (
    Rule("", "namespaces", ("get",)),
    # a release of the chart, and what Helm keeps of it
    Rule("", "configmaps", ("create", "delete", "get", "patch")),
    Rule("", "services", ("create", "delete", "get", "patch")),
    Rule("apps", "deployments", ("create", "delete", "get", "patch")),
    Rule("", "secrets", ("create", "delete", "get", "list", "update")),
    # what becomes of it
    Rule("", "pods", ("list", "watch")),
    Rule("", "pods/log", ("get",)),
    Rule("", "events", ("list", "watch")),
    Rule("apps", "deployments/scale", ("patch",)),
    # a load from inside, and the figures of the servers' own control groups
    Rule("", "pods/exec", ("create", "get")),
    Rule("", "pods/portforward", ("create", "get"), "port-forward"),
    Rule(
        "autoscaling",
        "horizontalpodautoscalers",
        ("create", "delete", "get", "list", "patch", "watch"),
        "autoscaling",
    ),
)


def needed(settings: KubernetesSettings) -> list[Rule]:
    """The rules that a study with these settings needs."""
    asked = {
        "always": True,
        "port-forward": settings.reach == "port-forward",
        "autoscaling": settings.autoscaling is not None,
    }
    return [rule for rule in NEEDED if asked[rule.when]]


def require_access(cluster: Cluster, settings: KubernetesSettings) -> None:
    """Raise EngineUnavailable that names every verb on every resource that we lack in the namespace."""
    with asking("tell what you may do"):
        lacking = list(_lacking(cluster, settings.namespace, needed(settings)))
    if lacking:
        raise EngineUnavailable(
            f"your account of context {cluster.context} may not {rules_text(lacking)} in namespace "
            f"{settings.namespace}: have somebody run `kubectl apply --namespace {settings.namespace} --filename "
            f"{ROLE}` and bind that role to your account."
        )


def may_forward(cluster: Cluster, namespace: str) -> bool:
    """Whether pods may be reached through the API."""
    rules = [rule for rule in NEEDED if rule.when == "port-forward"]
    with asking("tell what you may do"):
        return not any(_lacking(cluster, namespace, rules))


def _lacking(cluster: Cluster, namespace: str, rules: Sequence[Rule]) -> Iterator[Rule]:
    """Each rule with the verbs of it that are not granted."""
    for rule in rules:
        verbs = tuple(verb for verb in rule.verbs if not _may(cluster, namespace, rule, verb))
        if verbs:
            yield Rule(rule.group, rule.resource, verbs, rule.when)


def _may(cluster: Cluster, namespace: str, rule: Rule, verb: str) -> bool:
    from kubernetes.client import V1ResourceAttributes, V1SelfSubjectAccessReview, V1SelfSubjectAccessReviewSpec

    resource, _, part = rule.resource.partition("/")
    asked = V1ResourceAttributes(
        namespace=namespace,
        name=namespace if resource == "namespaces" else None,
        group=rule.group,
        resource=resource,
        subresource=part or None,
        verb=verb,
    )
    review = V1SelfSubjectAccessReview(spec=V1SelfSubjectAccessReviewSpec(resource_attributes=asked))
    return bool(cluster.authorization.create_self_subject_access_review(review).status.allowed)


def rules_text(rules: Sequence[Rule]) -> str:
    """'create and get pods/exec, nor list events', for a sentence."""
    return ", nor ".join(f"{_listed(rule.verbs)} {_full_name(rule)}" for rule in rules)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _full_name(rule: Rule) -> str:
    """As `kubectl auth can-i` takes it: deployments.apps/scale."""
    resource, slash, part = rule.resource.partition("/")
    return f"{resource}{'.' if rule.group else ''}{rule.group}{slash}{part}"
