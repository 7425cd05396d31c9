"""A study on containers: what its plan may say, and what becomes of its runs, without an engine."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from servestorm.analysis.cost import capacity_costs
from servestorm.analysis.doubt_facts import LoadConditions, RunFacts, facts_of
from servestorm.analysis.doubts import doubts
from servestorm.analysis.results import compute
from servestorm.analysis.scenarios.coldstart import ledger
from servestorm.compare.conditions import differences
from servestorm.errors import StudyError
from servestorm.plan.cells import cells_of, variants_of
from servestorm.plan.study_plan import load_plan, parse_plan
from servestorm.report import settings
from servestorm.report.sections import cold_start
from servestorm.rundir.metrics_table import Point, table_bytes
from servestorm.rundir.record import read_run
from servestorm.rundir.results_file import RecordedStudy
from servestorm.rundir.shapes.cell import EventFile, UseFile
from servestorm.rundir.shapes.study import LimitsSection
from servestorm.study.backend_choice import choose_backend
from servestorm.study.cell_load import CellLoad
from servestorm.study.cores import Cores, assign
from servestorm.study.expected_time import expected_s
from servestorm.study.generator_local import LocalGenerator
from servestorm.study.machine_counters import MachineWatch
from servestorm.study.resume import complete_cells
from servestorm.study.round_run import _budget
from servestorm.study.runner import Study
from servestorm.study.scenarios.table import SCENARIO_CELLS
from serving.backend import Leftovers
from serving.backends.docker.backend import DockerBackend
from serving.backends.docker.leftovers import DockerLeftover
from serving.backends.docker.project import ProjectBackend
from serving.deployment import Endpoint, EventLog, Use
from serving.errors import EngineUnavailable
from tests.source_tree import ROOT
from tests.stand_ins.synthetic_run import bare_record, make_run

GOOD = "name: a\nengines: [savedmodel]\n"
STUDY = ROOT / "studies" / "docker.yaml"
S = 10**9


def refusal(text: str) -> str:
    with pytest.raises(StudyError) as caught:
        parse_plan(GOOD + text, "plan.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "limits: {cpus: 0.5}\n",
            "backend process cannot enforce `limits`: set backend: docker or kubernetes, or leave it out",
        ),
        ("docker: {bake: true}\n", "backend process cannot enforce `docker`"),
        ("backend: docker\nlimits: {}\n", "plan.yaml:4: `limits`: give cpus, memory_mib or both"),
        ("backend: docker\nlimits: {cpu: 1}\n", "there is no key `limits.cpu`, did you mean `cpus`?"),
        ("backend: docker\npage_cache: [warm, cold]\n", "the files of an image cannot be dropped from the page cache"),
        ("backend: docker\ndocker: {project: a}\ncold_starts: 2\n", "that runs already has no cold_starts"),
        (
            "backend: docker\ndocker: {project: a, bake: true}\nsteady: {rate_per_s: 1, duration_s: 1}\n",
            "containers of a running project cannot be given limits, a model or other images",
        ),
        ("backend: docker\ndocker: {replicas: 2}\n", "docker.replicas is of a running project"),
        ("backend: docker\nattach: {savedmodel: {rest: http://a:1}}\n", "but backend is docker: set backend: attach"),
    ],
)
def test_what_cannot_be_had_on_containers_is_refused(text, told):
    assert told in refusal(text)


def test_the_study_that_comes_with_servestorm_asks_for_what_its_page_promises():
    plan = load_plan(STUDY)
    assert (plan.backend, plan.limits.cpus, plan.scaling.replicas) == ("docker", 0.25, [1, 2, 3])
    assert (plan.cpus.engine, plan.cpus.generator) == ([0], [1])
    assert plan.docker.balancer == "haproxy"


def test_a_plan_that_says_nothing_of_containers_is_stored_as_before_there_were_any():
    stored = parse_plan(GOOD, "plan").model_dump(mode="json")
    assert not stored.keys() & {"docker", "limits"}
    stored = parse_plan(GOOD + "backend: docker\nlimits: {cpus: 1}\n", "plan").model_dump(mode="json")
    assert stored["limits"] == {"cpus": 1.0, "memory_mib": None} and "docker" not in stored


def test_a_run_begun_before_there_were_containers_may_still_go_on(tmp_path):
    record = read_run(make_run(tmp_path))
    record = replace(record, study=record.study.model_copy(update={"state": "interrupted"}))
    plan = parse_plan((record.path / "plan.yaml").read_text(), "plan.yaml")
    assert not record.stored.study["plan"].keys() & {"docker", "limits"}
    assert len(complete_cells(record, cells_of(plan), plan)) == len(record.cells)


def test_containers_of_a_project_are_as_many_as_the_plan_says_and_have_no_cold_start():
    text = "backend: docker\ndocker: {project: servestorm, replicas: 3}\nsteady: {rate_per_s: 1, duration_s: 1}\n"
    plan = parse_plan(GOOD + text, "plan")
    cells = cells_of(plan)
    assert {(cell.scenario, cell.replicas) for cell in cells} == {("steady", 3)}
    backend = choose_backend(plan, Cores((0,), (1,), ())).backend
    assert isinstance(backend, ProjectBackend) and backend.project == "servestorm"


def test_the_backend_gets_what_the_plan_says_and_the_generators_cores_for_the_balancer():
    text = "backend: docker\ndocker: {balancer: haproxy, images: {savedmodel: mine:2}, bake: true}\n"
    backend = choose_backend(parse_plan(GOOD + text, "plan"), Cores((0,), (1, 2), ())).backend
    assert isinstance(backend, DockerBackend)
    assert (backend.settings.balancer, backend.settings.balancer_cpus) == ("haproxy", (1, 2))
    assert backend.settings.images == {"savedmodel": "mine:2"} and backend.settings.bake


def test_a_quarter_of_a_cpu_is_expected_to_take_longer_to_start():
    def start_s(limits):
        plan = parse_plan(GOOD + f"backend: docker\n{limits}cold_starts: 1\n", "plan")
        return expected_s(plan, cells_of(plan)[:1])

    assert start_s("limits: {cpus: 0.25}\n") > 2 * start_s("")


SCALING = "scaling: {replicas: [1, 2, 4], duration_s: 1}\n"


def test_replicas_with_a_quota_want_cores_for_what_it_comes_to_and_the_result_tells_of_it():
    plan = parse_plan(GOOD + "backend: docker\nlimits: {cpus: 0.25}\n" + SCALING, "plan")
    cores = assign(plan, set(range(8)))
    assert cores.engine == (0,)
    assert cores.notes == ("Each replica may use 0.25 CPU of core 0 on average, which the kernel enforces.",)
    plan = parse_plan(GOOD + "backend: docker\nlimits: {cpus: 0.75}\n" + SCALING, "plan")
    assert "4 replicas share core 0" in " ".join(assign(plan, {0, 1}).notes)


def event(name: str, t_s: float, replica: int | None = 0) -> EventFile:
    return EventFile(name=name, t_ns=round(t_s * S), replica=replica, detail="")


CONTAINER = [
    event("start", 0, None),
    event("image_present", 1, None),
    event("created", 3),
    event("spawned", 3.5),
    event("started", 4),
    event("port_bound", 7),
    event("ready", 8),
    event("first_right_answer", 9),
]


def test_a_containers_start_has_its_own_phases_which_add_up():
    found = ledger(CONTAINER, {})
    phases = ("image_present", "created", "started", "port_bound", "ready", "first_right_answer")
    assert [found[f"{phase}_s"] for phase in phases] == [1, 2, 1, 3, 1, 1]
    assert found["total_s"] == 5.5  # from the order to start the container, as a process's
    assert found["deployment_s"] == 9 and "image_built_s" not in found


def test_a_baked_image_is_a_phase_of_the_deployment():
    built = [event("start", 0, None), event("image_built", 0.75, None), *CONTAINER[1:]]
    found = ledger(built, {})
    assert (found["image_built_s"], found["image_present_s"], found["deployment_s"]) == (0.75, 0.25, 9)


def test_a_process_has_no_phases_of_a_container():
    found = ledger([event("start", 0, None), *[e for e in CONTAINER[3:] if e.name != "started"]], {})
    assert found["port_bound_s"] == 3.5
    assert not found.keys() & {"image_present_s", "created_s", "started_s"}


@pytest.fixture
def contained_run(tmp_path):
    """A made-up study whose cold starts are of containers, with limits and a balancer."""
    run = make_run(tmp_path)
    study = json.loads((run / "study.json").read_text())
    study["plan"] |= {
        "backend": "docker",
        "limits": {"cpus": 0.25, "memory_mib": 512},
        "docker": {"balancer": "haproxy"},
    }
    (run / "study.json").write_text(json.dumps(study))
    environment = json.loads((run / "environment.json").read_text())
    environment["docker_engine"] = {"ServerVersion": "20.10.24", "CgroupVersion": "1", "Driver": "overlay2"}
    (run / "environment.json").write_text(json.dumps(environment))
    for folder in (run / "cells").glob("*-coldstart-*"):
        (folder / "events.json").write_text(json.dumps([event.model_dump() for event in CONTAINER]))
        (folder / "settled.json").write_text("[]")
    return run


def test_the_report_shows_a_containers_phases_its_limits_and_its_engine(contained_run):
    results = compute(read_run(contained_run))
    assert results.metric("coldstart.created_s").values["savedmodel"].value == 2
    assert results.metric("coldstart.image_built_s") is None
    (part,) = cold_start.section(results).parts
    assert "container created to started" in part.caption
    assert any("container created to started" in row[0] for row in part.table.rows)
    assert "seconds from the container start" in str(part.drawing)
    from servestorm.report.facts import environment

    facts = dict(fact for block in environment(results) for fact in block.facts)
    assert facts["Limits of a replica"] == "0.25 CPU and 512 MiB" and facts["Balancer"] == "HAProxy"
    assert facts["Docker Engine"] == "20.10.24, cgroups v1, overlay2"
    assert settings.limits_text(results) == ", each limited to 0.25 CPU and 512 MiB"


def test_the_report_of_processes_says_nothing_of_containers(tmp_path):
    results = compute(read_run(make_run(tmp_path)))
    assert results.metric("coldstart.created_s") is None and settings.limits_text(results) == ""
    assert "seconds from the process start" in str(cold_start.section(results).parts[0].drawing)


def test_behind_a_balancer_the_replicas_own_counters_tell_how_evenly_it_dealt(contained_run):
    record = read_run(contained_run)
    cell = next(cell for cell in record.cells if cell.cell.scenario == "scaling" and cell.cell.replicas == 2)
    cell = replace(cell, cell=replace(cell.cell, engine="savedmodel"))
    labels = '{"API": "predict", "entrypoint": "REST"}'
    counters = {0: (5, 35), 1: (7, 17)}  # 30 and 10 requests
    points = [
        Point(1000 * place, replica, ":tensorflow:serving:request_latency_count", labels, value)
        for replica, values in counters.items()
        for place, value in enumerate(values)
    ]
    (cell.path / "metrics.parquet").write_bytes(table_bytes(points))
    even = facts_of(cell, LoadConditions((0,), (1,)))
    assert even.busiest_over_mean == pytest.approx(1, abs=0.01) and not even.balanced  # dealt by the generator
    behind = replace(cell, events=[*cell.events, event("balancer_ready", 9, None)])
    found = facts_of(behind, LoadConditions((0,), (1,)))
    assert found.busiest_over_mean == 1.5 and found.balanced
    said = [doubt.sentence for doubt in doubts([found]) if doubt.kind == "uneven_balancing"]
    assert "the balancer dealt unevenly, or they are not equally fast" in said[0]
    (cell.path / "metrics.parquet").unlink()
    assert facts_of(behind, LoadConditions((0,), (1,))).busiest_over_mean is None


def facts(**changes) -> RunFacts:
    used = UseFile(ready={"t_ns": 0, "throttled_s": 1.0}, end={"t_ns": 10 * S, "throttled_s": 7.0})
    return replace(RunFacts("003-scaling", 3, 1, (0,), (1,), used, None), **changes)


def test_a_planned_quota_is_a_note_and_its_replicas_do_not_share_what_they_are_given():
    assert {doubt.kind for doubt in doubts([facts()])} == {"shared_cores", "throttled"}
    (doubt,) = doubts([facts(quota_cpus=0.25)])
    assert (doubt.severity, doubt.kind) == ("note", "throttled")
    assert "The plan's limit of 0.25 CPU held a replica back for 6.00 s of 10.0 s" in doubt.sentence
    assert "shared_cores" in {doubt.kind for doubt in doubts([facts(quota_cpus=0.5)])}  # 1.5 of one core


def test_a_replica_with_a_quota_needs_no_more_of_a_machine_than_that(tmp_path):
    metric = SimpleNamespace(
        scenario="capacity",
        key="capacity.images_per_s",
        group="capacity",
        values={"savedmodel": SimpleNamespace(value=100.0, quotable=100.0)},
    )

    def cheapest(plan):
        record = bare_record(tmp_path, [0], **plan)
        return min(cost.usd_per_million for cost in capacity_costs(metric, [metric], record)["savedmodel"])

    assert cheapest({"limits": LimitsSection(cpus=0.25)}) == pytest.approx(cheapest({}) / 4)


def test_runs_with_other_limits_are_no_answers_to_the_same_question(tmp_path):
    def side(**plan):
        plan = {"backend": "docker", "model": [{"name": "cnn"}], **plan}
        study = RecordedStudy.model_validate({"plan": plan, "cores": {"engine": [0], "generator": [], "notes": []}})
        return SimpleNamespace(study=study, models=[], engines=["savedmodel"], server_settings=[])

    limited = side(limits={"cpus": 0.25, "memory_mib": None})
    assert differences(limited, side(limits={"cpus": 0.25, "memory_mib": None})) == []
    assert differences(limited, side()) == ["limits (0.25 CPU against none)"]
    assert differences(side(), side(docker={"balancer": "haproxy"})) == ["docker.balancer (none against haproxy)"]


def test_a_study_on_containers_first_removes_what_a_killed_one_left(monkeypatch, capsys, tmp_path):
    left, removed = [DockerLeftover("container", "x", None)], []

    def check(_backend, _engine):
        assert removed == left
        raise EngineUnavailable("far enough")

    monkeypatch.setattr(DockerBackend, "leftovers", lambda _: Leftovers(left, lambda: removed.extend(left)))
    monkeypatch.setattr(DockerBackend, "check", check)
    text = GOOD + "backend: docker\n"
    with pytest.raises(EngineUnavailable, match="far enough"):
        Study(parse_plan(text, "plan"), text, tmp_path).carry_out()
    assert "removed 1 container that an earlier, killed study had left" in capsys.readouterr().err


def test_every_cell_gets_the_plans_limits():
    plan = parse_plan(GOOD + "backend: docker\nlimits: {cpus: 0.25, memory_mib: 512}\n", "plan")
    bench = SimpleNamespace(plan=plan, cores=Cores((0,), (1,), ()))
    budget = _budget(bench, cells_of(plan)[0])
    assert (budget.cpus, budget.cpu_quota, budget.memory_bytes) == ((0,), 0.25, 512 * 2**20)


def test_load_goes_to_what_stands_in_front_of_the_replicas(tmp_path, monkeypatch):
    front = Endpoint(0, "http://10.0.0.9:8501", "10.0.0.9:8500", "")
    started = []

    def drive(command, **_):
        started.extend(command)
        raise KeyboardInterrupt

    monkeypatch.setattr("servestorm.study.generator_local.run_to_end", drive)
    plan = parse_plan(GOOD + "backend: docker\nsteady: {rate_per_s: 1, duration_s: 1}\n", "plan")
    cell = next(cell for cell in cells_of(plan) if cell.scenario == "steady")
    model = SimpleNamespace(name="cnn", path=tmp_path)
    use = Use(cpu_s=None, rss_bytes=None, rss_peak_bytes=None, disk_bytes=None)
    deployment = SimpleNamespace(front=[front], endpoints=[], use=lambda: use, cpu_elsewhere_s=lambda: 0.0)
    settings = (deployment, EventLog(), LocalGenerator(), Cores((0,), (1,), ()))
    load = CellLoad(plan, cell, variants_of(plan)[0], model, *settings)
    with pytest.raises(KeyboardInterrupt):
        SCENARIO_CELLS["steady"].measure(load, tmp_path / "cell")
    assert started[started.index("--host") + 1] == "http://10.0.0.9:8501"
    assert started[started.index("--grpc-target") + 1] == "10.0.0.9:8500"


def test_cpu_time_of_containers_counts_as_ours_and_not_as_other_programs():
    told = iter([5.0, 1005.0])
    found = MachineWatch([0], lambda: next(told)).stop()
    assert found.ours_s >= 1000 - 1e-6 and found.other_s == 0  # a sum of floats
