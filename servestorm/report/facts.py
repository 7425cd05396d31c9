"""What was served, on which machine and with which settings: terms and values of the page's environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from servestorm.analysis.figures import ServedAccuracy
from servestorm.analysis.results import Results
from servestorm.plan.labels import ENGINE_SHORT
from servestorm.report import sentences, settings
from servestorm.rundir.shapes.environment import ManifestFile, NodeFile

Fact = tuple[str, object]
"""(term, value); a value of None is unknown."""


@dataclass(frozen=True)
class Block:
    """Terms and values that belong together."""

    title: str
    facts: list[Fact]


def meta(results: Results) -> list[str]:
    """The line under the headline: when, which models, and how requests were made."""
    plan = results.study.plan
    began = results.study.started_at.replace("T", " ").replace("+00:00", " UTC")
    if plan.training:
        return [began, settings.load_text(results, "training")]
    protocols = " and ".join({"rest": "REST", "grpc": "gRPC"}[protocol] for protocol in plan.protocol)
    images = " or ".join(map(str, plan.images_per_request))
    return [
        began,
        *(
            f"{model.name}, trained on {model.dataset}" if model and model.dataset else model.name if model else "None"
            for model in results.models
        ),
        f"{protocols}, payload {' and '.join(plan.payload)}",
        f"{images} image{'' if images == '1' else 's'} a request",
    ]


def _containers(results: Results) -> list[Fact]:
    """The containers of a study on Docker; nothing for any other."""
    engine, plan = results.environment.docker_engine, results.study.plan
    if not engine:
        return []
    kind = f"{engine.version}, cgroups v{engine.cgroup_version}, {engine.storage_driver}"
    return [
        ("Docker Engine", kind),
        ("Limits of a replica", settings.limits_text(results).removeprefix(", each limited to ") or "none"),
        ("Balancer", "HAProxy" if plan.docker_reach.balancer == "haproxy" else "the load generator"),
    ]


def _pods(results: Results) -> list[Fact]:
    """The cluster of a study on Kubernetes; nothing for any other."""
    cluster, plan = results.environment.kubernetes, results.study.plan
    if not cluster:
        return []
    chosen = plan.cluster_reach
    from_cluster = plan.load_from == "cluster"
    return [
        ("Kubernetes", cluster.version),
        ("Nodes", _nodes_text(cluster.nodes)),
        ("Limits of a replica", settings.limits_text(results).removeprefix(", each limited to ")),
        ("Load comes from", "pods of the cluster" if from_cluster else "this machine"),
        ("Load goes to", _REACHED.get(chosen.reach, "the Service")),
        ("Balancer", _BALANCER[chosen.balancer] if chosen.reach == "service" else "the load generator"),
    ]


_REACHED = {"pods": "the pods", "port-forward": "the pods, through the API server"}
_BALANCER = {"haproxy": "HAProxy", "none": "the Service, by connections"}


def environment(results: Results) -> list[Block]:
    """The machine, the study, what the servers ran with, the software."""
    here, plan, cores = results.environment, results.study.plan, results.study.cores
    memory = f"{here.memory_bytes / 2**30:.1f} GiB" if here.memory_bytes else None
    machine: list[Fact] = [
        ("Processor", here.cpu_model),
        ("Cores", f"{here.cores_usable} of {here.cores} usable"),
        ("Memory", memory),
        ("System", here.system),
        ("Kernel", here.kernel),
        *(
            [("Cores of a training", ", ".join(map(str, cores.engine)))]
            if plan.training
            else [
                ("Engine's cores", ", ".join(map(str, cores.engine)) or "chosen by the cluster"),
                ("Generator's cores", ", ".join(map(str, cores.generator))),
            ]
        ),
    ]
    study: list[Fact] = [
        *(
            fact
            for model in results.models
            for fact in (
                ("Model", f"{model.name} {model.version}" if model else "None "),
                ("Artifacts", sentences.parity_text(model)),
                *_accuracy_facts(results, model),
            )
        ),
        *settings.of_trainings(results),
        *_containers(results),
        *_pods(results),
        ("Seed", plan.seed),
        ("Git commit", (here.git_commit or "")[:12] or None),
        *((ENGINE_SHORT[name], version) for name, version in results.study.engines.items()),
    ]
    software: list[Fact] = [
        ("Python", here.python),
        ("Java", here.java),
        *here.packages.items(),
    ]
    servers: list[Fact] = [*settings.of_servers(results)]
    blocks = (("Machine", machine), ("Study", study), ("Server settings", servers), ("Software", software))
    return [
        Block(title, [(term, "unknown" if value is None else value) for term, value in facts])
        for title, facts in blocks
        if facts
    ]


def _accuracy_facts(results: Results, model: ManifestFile | None) -> list[Fact]:
    """Of the export, and of what each engine answered under load."""
    if model is None or model.accuracy is None:
        return []
    served = [one for one in results.figures.accuracy if one.model == model.name]
    images = f"{model.accuracy.images:,} held-out images"
    return [
        ("Accuracy of the export", f"{100 * model.accuracy.top1:.1f} % top-1 on {images}"),
        *((f"Accuracy under load, {ENGINE_SHORT[one.engine]}", _served_text(one)) for one in served),
    ]


def _served_text(served: ServedAccuracy) -> str:
    """'97.8 % top-1 (95 % interval 95.7 to 98.9): all of 12,345 answers were the export's'."""
    low, high = served.top1_percent_ci
    right = f"{served.answers - served.wrong:,} of" if served.wrong else "all of"
    of_export = f"{right} {served.answers:,} answers were the export's"
    return f"{served.top1_percent:.1f} % top-1 (95 % interval {low:.1f} to {high:.1f}): {of_export}"


def _nodes_text(nodes: Sequence[NodeFile] | None) -> str | None:
    """'2 x m7i.large (2 CPUs, 8.0 GiB, Debian GNU/Linux 12)'; None where nodes could not be read."""
    if not nodes:
        return None
    counts: dict[str, int] = {}
    for node in nodes:
        cpus, memory = node.cpus, node.memory_bytes
        size = [f"{cpus:g} CPUs" if cpus else "", f"{memory / 2**30:.1f} GiB" if memory else "", node.os_image]
        kind = f"{node.instance_type or 'node'} ({', '.join(filter(None, size))})".removesuffix(" ()")
        counts[kind] = counts.get(kind, 0) + 1
    return "; ".join(f"{count} × {kind}" for kind, count in counts.items())
