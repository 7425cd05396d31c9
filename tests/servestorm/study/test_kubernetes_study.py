"""A study in a cluster: what its plan may say, and what becomes of its runs, without a cluster."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from servestorm.analysis.doubt_facts import LoadConditions, RunFacts, facts_of
from servestorm.analysis.doubts import doubts
from servestorm.analysis.results import compute
from servestorm.analysis.scenarios.coldstart import ledger
from servestorm.cli import main
from servestorm.compare.conditions import differences
from servestorm.errors import StudyError
from servestorm.plan.cells import cells_of
from servestorm.plan.deployments import CHART_CPUS, CHART_MEMORY_MIB
from servestorm.plan.study_plan import load_plan, loaded_from, parse_plan
from servestorm.report import sentences
from servestorm.report.facts import environment
from servestorm.report.sections import cold_start, scaling
from servestorm.rundir.record import read_run
from servestorm.rundir.results_file import RecordedStudy
from servestorm.rundir.shapes.cell import EventFile, UseFile
from servestorm.rundir.shapes.study import DeploymentSections
from servestorm.study import runner, scraper
from servestorm.study.backend_choice import choose_backend
from servestorm.study.cores import Cores, assign
from servestorm.study.expected_time import expected_s
from servestorm.study.resume import complete_cells
from servestorm.study.round_run import _budget
from servestorm.study.runner import Study
from serving.backends import KubernetesBackend
from serving.backends.kubernetes import settings as kubernetes_settings
from serving.errors import DeploymentError
from tests.source_tree import ROOT
from tests.stand_ins.made_up_machine import MadeUpMachine
from tests.stand_ins.synthetic_run import make_run
from tests.stand_ins.toy_cluster import NODE, ToyCluster
from tests.stand_ins.toy_engine import toy_engines, toy_generator, toy_plan, write_toy_model

GOOD = "name: a\nengines: [savedmodel]\n"
CLUSTER = GOOD + "backend: kubernetes\n"
S = 10**9


def refusal(text: str) -> str:
    with pytest.raises(StudyError) as caught:
        parse_plan(text, "plan.yaml")
    return str(caught.value)


def backend(text: str = "", **options) -> KubernetesBackend:
    made = choose_backend(parse_plan(CLUSTER + text, "plan"), Cores((), (0,), ()), **options).backend
    assert isinstance(made, KubernetesBackend)
    return made


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD + "kubernetes: {}\n", "backend process cannot enforce `kubernetes`: set backend: kubernetes"),
        (CLUSTER + "docker: {}\n", "backend kubernetes cannot enforce `docker`: set backend: docker"),
        (CLUSTER + "kubernetes: {namespace: My_Own}\n", "plan.yaml:4: `kubernetes.namespace`"),
        (CLUSTER + "kubernetes: {reach: ingress}\n", "plan.yaml:4: `kubernetes.reach`"),
        (CLUSTER + "kubernetes: {contxt: a}\n", "there is no key `kubernetes.contxt`, did you mean `context`?"),
        (CLUSTER + "kubernetes: {reach: pods, balancer: haproxy}\n", "reach pods goes past the balancer"),
        (CLUSTER + "page_cache: cold\n", "the files of an image cannot be dropped from the page cache"),
        (CLUSTER + "cpus: {engine: [0], generator: [1]}\n", "scheduler places the servers: leave cpus.engine out"),
        (GOOD + "cpus: {generator: [1]}\n", "`cpus.engine` is missing"),
        (GOOD + "load_from: cluster\n", "backend process has no cluster that load could come from"),
        (
            CLUSTER + "model: [{name: a}, {name: b}]\nkubernetes: {model_image: mine:1}\n",
            "kubernetes.model_image is of one model",
        ),
    ],
)
def test_what_cannot_be_had_in_a_cluster_is_refused(text, told):
    assert told in refusal(text)


@pytest.mark.parametrize("key", ["threads: 2", "batching: {max_batch_size: 4}"])
@pytest.mark.parametrize(
    "where",
    ["backend: attach\nattach: {savedmodel: {rest: http://a:1}}\n", "backend: docker\ndocker: {project: p}\n"],
)
def test_an_endpoint_that_runs_already_is_not_told_threads_or_batching(where, key):
    told = refusal(f"{GOOD}{where}steady: {{rate_per_s: 1, duration_s: 1}}\n{key}\n")
    assert f"an endpoint that runs already has {key.partition(':')[0]} of its own: leave it out" in told


def test_the_study_that_comes_with_servestorm_asks_for_cold_starts_scaling_and_an_autoscaler():
    plan = load_plan(ROOT / "studies" / "kubernetes.yaml")
    assert (plan.backend, plan.limits.cpus, plan.scaling.replicas) == ("kubernetes", 0.25, [1, 2, 3])
    assert {cell.scenario for cell in cells_of(plan)} == {"coldstart", "scaling", "autoscaling"}


def test_a_plan_that_says_nothing_of_a_cluster_is_stored_as_before_there_was_one(tmp_path):
    record = read_run(make_run(tmp_path))
    assert not record.stored.study["plan"].keys() & {"kubernetes", "load_from", "autoscaling"}
    record = replace(record, study=record.study.model_copy(update={"state": "interrupted"}))
    plan = parse_plan((record.path / "plan.yaml").read_text(), "plan.yaml")
    assert len(complete_cells(record, cells_of(plan), plan)) == len(record.cells)


def test_the_command_line_may_move_the_generator_where_there_is_a_cluster():
    plan = parse_plan(CLUSTER, "plan")
    inside = loaded_from(plan, "cluster")
    assert inside.model_dump(mode="json")["load_from"] == "cluster"
    assert "load_from" not in loaded_from(inside, "here").model_dump(mode="json")
    with pytest.raises(StudyError, match="--load-from cluster needs backend kubernetes, and the plan's is process"):
        loaded_from(parse_plan(GOOD, "plan"), "cluster")


def test_the_backend_gets_what_the_plan_says():
    said = backend(
        "kubernetes: {context: kind, namespace: mine, images: {savedmodel: own:2, generator: gen:3}, registry: reg.io, "
        "model_image: m:4, values: [a.yaml, b.yaml], balancer: haproxy}\n",
        keep=True,
    ).settings
    assert (said.context, said.namespace, said.registry, said.model_image) == ("kind", "mine", "reg.io", "m:4")
    assert said.images == {"savedmodel": "own:2", "generator": "gen:3"}
    assert said.values == (Path("a.yaml"), Path("b.yaml"))
    assert (said.reach, said.balancer, said.keep, said.autoscaling) == ("service", "haproxy", True, None)
    assert backend("kubernetes: {reach: port-forward}\n").settings == replace(
        kubernetes_settings.KubernetesSettings(), reach="port-forward"
    )


def test_pods_of_the_generator_are_made_only_where_load_comes_from_the_cluster():
    assert backend("kubernetes: {agents: 3}\n").settings.agents == 0
    assert backend("kubernetes: {agents: 3}\nload_from: cluster\n").settings.agents == 3
    assert backend("load_from: cluster\n").settings.agents == 1


def test_a_cluster_has_limits_also_where_the_plan_has_none_and_they_are_the_charts():
    chart = yaml.safe_load((ROOT / "deploy" / "k8s" / "servestorm" / "values.yaml").read_text())
    assert chart["resources"]["limits"] == {"cpu": f"{CHART_CPUS:g}", "memory": f"{CHART_MEMORY_MIB // 1024}Gi"}
    assert (CHART_CPUS, CHART_MEMORY_MIB) == (
        kubernetes_settings.DEFAULT_CPUS,
        kubernetes_settings.DEFAULT_MEMORY_MIB,
    )
    for text, cpus, memory_mib in (
        ("", 1, 2048),
        ("limits: {cpus: 0.25}\n", 0.25, 2048),
        ("limits: {memory_mib: 512}\n", 1, 512),
    ):
        plan = parse_plan(CLUSTER + text, "plan")
        budget = _budget(SimpleNamespace(plan=plan, cores=Cores((), (0,), ())), cells_of(plan)[0])
        assert (budget.cpus, budget.cpu_quota, budget.memory_bytes) == ((), cpus, memory_mib * 2**20)
        assert plan.replica_limits == (cpus, memory_mib)
    assert DeploymentSections(backend="docker").replica_limits == (None, None)


def test_cores_are_the_generators_alone_and_those_that_are_named_must_be_there():
    plan = parse_plan(CLUSTER + "limits: {cpus: 0.5}\n", "plan")
    cores = assign(plan, {0, 1, 2})
    assert (cores.engine, cores.generator) == ((), (0, 1, 2))
    assert cores.notes == ("Each replica may use 0.5 CPU of its node on average, which the kernel enforces.",)
    named = parse_plan(CLUSTER + "cpus: {generator: [2]}\n", "plan")
    assert assign(named, {0, 1, 2}).generator == (2,)
    with pytest.raises(StudyError, match="cpus names core 2, which this process may not use"):
        assign(named, {0, 1})


def test_a_release_is_expected_to_take_longer_than_a_container():
    def start_s(where):
        plan = parse_plan(f"{GOOD}backend: {where}\ncold_starts: 1\n", "plan")
        return expected_s(plan, cells_of(plan)[:1])

    assert start_s("kubernetes") > start_s("docker") + 5


def event(name: str, t_s: float, replica: int | None = 0) -> EventFile:
    return EventFile(name=name, t_ns=round(t_s * S), replica=replica, detail="")


POD = [
    event("start", 0, None),
    event("spawned", 1.5),
    event("installed", 2, None),
    event("scheduled", 1.75),
    event("initialized", 4.75),
    event("image_pulled", 5),
    event("started", 5.5),
    event("ready", 11.5),
    event("service_ready", 11.75, None),
    event("first_right_answer", 12),
]
PHASES_S = {
    "spawned": 1.5,
    "scheduled": 0.25,
    "initialized": 3,
    "image_pulled": 0.25,
    "started": 0.5,
    "ready": 6,
    "first_right_answer": 0.5,
}


def test_a_pods_cold_start_begins_with_its_creation_and_its_phases_add_up():
    found = ledger(POD, {})
    assert {phase: found[f"{phase}_s"] for phase in PHASES_S} == PHASES_S
    assert found["total_s"] == 10.5 == sum(PHASES_S.values()) - PHASES_S["spawned"]
    assert found["deployment_s"] == 12
    assert not found.keys() & {"port_bound_s", "created_s", "image_present_s"}


def test_a_step_that_the_cluster_did_not_tell_leaves_both_phases_beside_it_unknown():
    found = ledger([one for one in POD if one.name != "image_pulled"], {})
    assert found["image_pulled_s"] is None and found["started_s"] is None
    assert found["initialized_s"] == 3 and found["total_s"] == 10.5


@pytest.fixture
def pods_run(tmp_path):
    """A made-up study whose cold starts are of pods."""
    run = make_run(tmp_path)
    change_plan(run, backend="kubernetes", limits={"cpus": 0.25, "memory_mib": None}, kubernetes={"balancer": "none"})
    study = json.loads((run / "study.json").read_text())
    study["cores"] = {"engine": [], "generator": [0, 1], "notes": []}
    (run / "study.json").write_text(json.dumps(study))
    environment = json.loads((run / "environment.json").read_text())
    environment["kubernetes"] = {"version": "1.32.13", "context": "toy", "nodes": [NODE, NODE]}
    (run / "environment.json").write_text(json.dumps(environment))
    for folder in (run / "cells").glob("*-coldstart-*"):
        (folder / "events.json").write_text(json.dumps([event.model_dump() for event in POD]))
        (folder / "settled.json").write_text("[]")
    return run


def change_plan(run: Path, **changes) -> None:
    study = json.loads((run / "study.json").read_text())
    study["plan"] |= changes
    (run / "study.json").write_text(json.dumps(study))


def test_the_report_tells_of_pods_nodes_and_the_way_of_the_load(pods_run):
    results = compute(read_run(pods_run))
    row = results.metric("coldstart.initialized_s")
    assert (row.label, row.values["savedmodel"].value) == ("scheduled to model copied", 3)
    assert results.metric("coldstart.total_s").label == "pod created to first right answer"
    assert results.metric("coldstart.ready_s").label == "server started to ready"
    assert results.metric("coldstart.port_bound_s") is None
    assert results.runs[0].phases_s == {**PHASES_S, "steady": None}
    (part,) = cold_start.section(results).parts
    assert "pod created to scheduled, scheduled to model copied" in part.caption
    assert "order to pod created" not in part.caption
    assert "seconds from the pod's creation" in part.drawing.wide
    assert any(
        "A cold start, from pod created to the first right answer" in told for told in sentences.summary(results)
    )
    (part,) = scaling.section(results).parts
    assert "each replica a pod, each limited to 0.25 CPU and 2,048 MiB" in part.caption
    facts = dict(fact for block in environment(results) for fact in block.facts)
    assert (facts["Kubernetes"], facts["Nodes"]) == ("1.32.13", "2 × node (2 CPUs, 8.0 GiB, Debian GNU/Linux 12)")
    assert facts["Limits of a replica"] == "0.25 CPU and 2,048 MiB"
    assert (facts["Load comes from"], facts["Load goes to"]) == ("this machine", "the Service")
    assert facts["Balancer"] == "the Service, by connections"
    assert facts["Engine's cores"] == "chosen by the cluster"


@pytest.mark.parametrize(
    ("nodes", "changes", "told"),
    [
        ([NODE], {}, "The load generator ran on a node of the cluster"),
        ([NODE], {"load_from": "cluster"}, "The cluster has one node, so that the load generator ran beside"),
        (None, {"kubernetes": {"reach": "port-forward"}}, "Requests went through the API server"),
    ],
)
def test_what_servers_and_generator_share_is_told(pods_run, nodes, changes, told):
    environment = json.loads((pods_run / "environment.json").read_text())
    environment["kubernetes"]["nodes"] = nodes
    (pods_run / "environment.json").write_text(json.dumps(environment))
    change_plan(pods_run, **changes)
    assert [note for note in compute(read_run(pods_run)).notes if note.startswith(told)]


def test_nodes_elsewhere_or_unknown_give_no_reason_to_doubt(pods_run):
    environment = json.loads((pods_run / "environment.json").read_text())
    for nodes in ([{**NODE, "this_machine": False}] * 2, None):
        environment["kubernetes"]["nodes"] = nodes
        (pods_run / "environment.json").write_text(json.dumps(environment))
        assert compute(read_run(pods_run)).notes == []


def test_an_endpoint_that_runs_already_is_not_said_to_have_the_plans_threads(tmp_path):
    run = make_run(tmp_path)
    change_plan(run, backend="attach")
    facts = dict(fact for block in environment(compute(read_run(run))) for fact in block.facts)
    assert not facts.keys() & {"Threads a replica", "Batching"}


def facts(**changes) -> RunFacts:
    watch = {"elapsed_s": 10.0, "cores": [0], "other_s": 5.0}
    used = UseFile(ready={"t_ns": 0}, end={"t_ns": 10 * S}, watch=watch)
    return replace(RunFacts("003-scaling", 3, 1, (), (0,), used, None, quota_cpus=1.0), **changes)


def test_pods_are_not_said_to_share_cores_that_nobody_knows():
    assert {doubt.kind for doubt in doubts([facts()])} == {"other_load"}
    assert doubts([facts(use=UseFile(ready={}, end={}), quota_cpus=4.0)]) == []


def test_what_this_machine_did_is_no_fact_of_a_run_whose_load_came_from_the_cluster(pods_run):
    record = read_run(pods_run)
    cell = next(cell for cell in record.cells if cell.cell.scenario == "steady")
    busy = {"elapsed_s": 10.0, "cores": [0], "other_s": 9.0}
    (cell.path / "use.json").write_text(json.dumps({**cell.use.model_dump(exclude_unset=True), "watch": busy}))
    assert "other_load" in {doubt.kind for doubt in compute(read_run(pods_run)).doubts}
    change_plan(pods_run, load_from="cluster")
    assert "other_load" not in {doubt.kind for doubt in compute(read_run(pods_run)).doubts}


def test_a_service_that_deals_out_connections_is_named_where_replicas_were_loaded_unevenly(pods_run):
    record = read_run(pods_run)
    cell = next(cell for cell in record.cells if cell.cell.replicas == 2)
    behind = facts_of(replace(cell, events=POD), LoadConditions((), (0,), 1.0))
    assert behind.balanced and behind.by_service
    (doubt,) = doubts([replace(behind, busiest_over_mean=1.6)])
    assert "the Service dealt unevenly (of itself it deals out connections, not requests), or" in doubt.sentence
    behind = facts_of(replace(cell, events=POD), LoadConditions((), (0,), 1.0, haproxy=True))
    (doubt,) = doubts([replace(behind, busiest_over_mean=1.6)])
    assert "the balancer dealt unevenly, or" in doubt.sentence


def test_load_from_elsewhere_or_another_way_there_is_another_question():
    def side(**plan):
        asked = {"backend": "kubernetes", "model": [{"name": "cnn"}], **plan}
        study = RecordedStudy.model_validate({"plan": asked, "cores": {"engine": [], "generator": [], "notes": []}})
        return SimpleNamespace(study=study, models=[], engines=["savedmodel"], server_settings=[])

    assert differences(side(), side(limits={"cpus": 1.0, "memory_mib": 2048}, load_from="here")) == []
    assert differences(side(), side(load_from="cluster")) == ["load_from (here against cluster)"]
    assert differences(side(), side(kubernetes={"reach": "pods"})) == ["kubernetes.reach (service against pods)"]
    assert differences(side(), side(limits={"cpus": 0.25})) == [
        "limits (1 CPU, 2048 MiB against 0.25 CPU, 2048 MiB)",
    ]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Makes a Study in a cluster of stand-ins."""
    monkeypatch.setattr(scraper, "_start_prometheus", lambda *_: None)
    monkeypatch.setattr(runner, "ENGINES", toy_engines())
    model = write_toy_model(tmp_path / "toy")

    def make(keep=False, **changes):
        text = toy_plan(model, **{"engines": ["savedmodel"], "backend": "kubernetes", **changes})
        made = Study(
            parse_plan(text, "plan"), text, tmp_path / "runs", toy_generator(), keep=keep, machine=MadeUpMachine()
        )
        made.backend = ToyCluster(made.backend.settings)
        return made

    return make


def test_a_study_in_a_cluster_leaves_a_whole_run_with_what_the_cluster_told(study, capsys):
    before = os.sched_getaffinity(0)
    made = study()
    record = read_run(made.carry_out())
    assert all(cell.complete for cell in record.cells)
    assert made.backend.left == []
    assert "removed 1 release that an earlier, killed study had left" in capsys.readouterr().err
    assert record.stored.environment["kubernetes"]["nodes"] == [NODE]
    assert record.study.engines["savedmodel"].endswith("in Kubernetes 1.32.13, context toy")
    for cell in record.cells:
        assert (cell.path / "pods.json").read_text() == "[]\n"
        assert (cell.path / "cluster-events.txt").is_file() and (cell.path / "server.log").is_file()
    assert {(budget.cpus, budget.cpu_quota) for budget in made.backend.budgets} == {((), 1.0)}
    assert os.sched_getaffinity(0) == before
    results = compute(record)
    assert results.metric("coldstart.total_s").values["savedmodel"].value > 0
    assert results.metric("scaling.factor_x2").values["savedmodel"].n == 1


def test_addresses_that_come_with_readiness_are_scraped_from_then_on_and_the_load_goes_to_the_front(study):
    record = read_run(study(cold_starts=0, steady=None).carry_out())
    cell = next(cell for cell in record.cells if cell.cell.replicas == 2)
    assert (cell.path / "metrics.parquet").is_file()
    command = json.loads((cell.path / "generator.json").read_text())
    assert command[command.index("--host") + 1].count("http://") == 1


BOTH = {"engines": ["savedmodel", "torchserve"], "cold_starts": 0, "scaling": None}


def test_the_releases_of_a_round_stand_at_the_same_time(study):
    record = read_run(study(**BOTH).carry_out())
    assert len(record.cells) == 6 and all(cell.complete and cell.slices for cell in record.cells)
    for first, second in zip(record.cells[::2], record.cells[1::2], strict=True):
        times = [{event.name: event.t_ns for event in cell.events} for cell in (first, second)]
        assert max(one["service_ready"] for one in times) < min(one["load_started"] for one in times)
        assert max(one["load_ended"] for one in times) < min(one["stopped"] for one in times)
        hosts = [json.loads((cell.path / "generator.json").read_text()) for cell in (first, second)]
        assert len({host[host.index("--host") + 1] for host in hosts}) == 2


def test_with_keep_a_round_that_fails_ends_the_study_and_names_the_engine(study):
    made = study(keep=True, **BOTH)
    made.backend.fails_with = "the pods wait for a node."
    said = (
        r"--keep ended the study with 000-\S+ and 001-\S+: \w+: the pods wait for a node. It was started beside \w+: "
    )
    with pytest.raises(DeploymentError, match=said + "if both cannot stand at once here, set `design: blocks`"):
        made.carry_out()
    assert len(made.backend.stopped) == 2


def test_with_keep_a_study_ends_with_the_first_run_that_fails_and_says_what_it_left(study):
    made = study(keep=True)
    made.backend.fails_with = "the pods wait for a node"
    with pytest.raises(DeploymentError, match=r"--keep ended the study with 000-\S+: the pods wait for a node"):
        made.carry_out()
    outcomes = [cell.outcome for cell in read_run(made.path).cells]
    assert [outcome.reason for outcome in outcomes] == ["the pods wait for a node"]


def test_without_keep_the_next_run_is_tried(study):
    made = study()
    made.backend.fails_with = "the pods wait for a node"
    with pytest.raises(DeploymentError, match="savedmodel failed 2 times without a success"):
        made.carry_out()
    assert len(made.backend.stopped) == 2


def test_keeping_a_release_is_refused_where_there_is_none(tmp_path, capsys):
    (tmp_path / "plan.yaml").write_text(GOOD)
    assert main.main(["run", str(tmp_path / "plan.yaml"), "--keep", "--dry-run"]) == 2
    assert "--keep leaves a Helm release, and backend process makes none" in capsys.readouterr().err
