"""A backend that passes for a cluster: stand-in servers as processes, told of as pods."""

from __future__ import annotations

import os
from dataclasses import replace

from serving.backend import Leftovers
from serving.backends import KubernetesBackend
from serving.backends.kubernetes.leftovers import KubernetesLeftover
from serving.backends.process import ProcessBackend
from serving.deployment import EventLog
from serving.errors import DeploymentError

POD = ("installed", "spawned", "scheduled", "initialized", "image_pulled", "started")
NODE = {
    "name": "node1",
    "cpus": 2.0,
    "memory_bytes": 8 * 2**30,
    "os_image": "Debian GNU/Linux 12",
    "instance_type": None,
    "this_machine": True,
}


class ToyCluster(KubernetesBackend):
    """Starts the servers of toy_engine.py, whose addresses nobody knows before they are ready."""

    def __init__(self, settings) -> None:
        super().__init__(settings)
        self.left = [KubernetesLeftover("release", "study-1", "servestorm")]
        self.budgets, self.stopped, self.fails_with = [], [], None

    def check(self, engine):
        return f"image toy/{engine.name}:1 in Kubernetes 1.32.13, context toy"

    def describe(self):
        return {"version": "1.32.13", "context": "toy", "nodes": [NODE], "helm": "4.1"}

    def leftovers(self):
        return Leftovers(list(self.left), self.left.clear)

    def start(self, order):
        self.budgets.append(order.budget)
        ours = EventLog(listener=lambda event: _as_of_pods(event, order.events))
        bare = replace(order.budget, cpus=tuple(os.sched_getaffinity(0)), memory_bytes=None, cpu_quota=None)
        return ToyPods(self, ProcessBackend().start(replace(order, budget=bare, events=ours)), order.events)


def _as_of_pods(event, events) -> None:
    if event.name == "spawned":
        for name in POD:
            events.add(name, None if name == "installed" else event.replica, t_ns=event.t_ns)
    elif event.name != "port_bound":
        events.add(event.name, event.replica, event.detail, event.t_ns)


class ToyPods:
    """Pods behind a Service."""

    use_disturbs = True

    def __init__(self, cluster, inner, events) -> None:
        self.cluster, self.inner, self.events = cluster, inner, events
        self.endpoints = []

    @property
    def front(self):
        return self.endpoints[:1]

    def wait_ready(self, timeout_s):
        if self.cluster.fails_with:
            raise DeploymentError(self.cluster.fails_with)
        self.inner.wait_ready(timeout_s)
        self.endpoints = self.inner.endpoints
        self.events.add("service_ready")

    def records(self):
        return {"pods.json": "[]\n", "cluster-events.txt": "Scheduled\n"}

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cluster.stopped.append(self)
        self.inner.stop()
