"""Load from inside the cluster: one agent or several, what befalls them, and what is brought back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from loadtests.arrivals.processes import poisson
from loadtests.samples.recorder import SCHEMA, shift_times
from models.manifest import ModelDir
from servestorm.cli import main
from servestorm.cli.verbs import run
from servestorm.errors import StudyError
from servestorm.plan.cells import Variant
from servestorm.plan.study_plan import parse_plan
from servestorm.rundir.shapes.study import DeploymentSections
from servestorm.study import generator_cluster, runner
from servestorm.study.backend_choice import choose_backend
from servestorm.study.cores import Cores
from servestorm.study.generator_cluster import ClusterGenerator
from servestorm.study.generator_local import LocalGenerator
from servestorm.study.load import GeneratorError, LoadCommand, LoadOrder
from servestorm.study.scenarios.table import SCENARIO_CELLS
from serving.backends.kubernetes import agents as agents_module
from serving.backends.kubernetes.settings import KubernetesSettings
from serving.backends.kubernetes.values import values_of
from serving.deployment import Batching, Budget, Endpoint
from serving.engines import ENGINES
from serving.errors import DeploymentError
from tests.source_tree import STAND_INS
from tests.stand_ins.agents_here import AgentsHere
from tests.stand_ins.toy_engine import write_toy_model

KNOWN_SERVER = STAND_INS / "known_server.py"
TOY = """#!{python}
import json, sys, time
from pathlib import Path
mode, words = {mode!r}, sys.argv[1:]
out = Path(words[words.index("--out") + 1]) if "--out" in words else None
print("toy", *words, flush=True)
if mode == "refuse":
    print("servestorm: --rate must be over 0, not 0.")
    sys.exit(2)
if mode == "hang" or out is None:
    time.sleep(600)
out.mkdir(parents=True)
(out / "summary.json").write_text(json.dumps({{"valid": False}}))
if mode == "silent":
    (out / "summary.json").unlink()
sys.exit(4)
"""
VARIANT = Variant(0, 0, "rest", "image", 1, 1, 1, 1000, "", "")
SHORT = LoadCommand("steady.py", ("--rate", "50", "--duration", "1", "--warmup", "0"), 1.0, 1)


class Deployment:
    """What a generator asks of a deployment of pods."""

    name = "r"

    def __init__(self, port, front_file):
        self.front = [Endpoint(0, f"http://127.0.0.1:{port}", "", "")]
        self.front_file = front_file
        self.looks = 0
        self.at_look = {}
        """What is done at which look at whether it lives."""

    def alive(self):
        self.looks += 1
        return self.at_look.get(self.looks, lambda: True)() is not False

    def logs(self, lines):
        return "its last line"


@contextmanager
def server(*arguments):
    process = subprocess.Popen([sys.executable, KNOWN_SERVER, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    try:
        yield int(process.stdout.readline().split()[0])
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """A function that offers a load from agents that are processes here; it returns the load's folder."""
    model = ModelDir(write_toy_model(tmp_path / "pods" / "models" / "toy"))
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(generator_cluster, "POLL_S", 0.05)
    monkeypatch.setattr(agents_module, "_POLL_S", 0.05)
    made = []

    def start(load=SHORT, *, number=1, toy=None, port=9, reach="service", limit_s=60.0, prepare=None, deployment=None):
        here = AgentsHere(tmp_path / "pods", number, monkeypatch)
        made.append(here)
        if toy:
            program = tmp_path / "bin" / "locust"
            program.parent.mkdir()
            program.write_text(TOY.format(python=sys.executable, mode=toy))
            program.chmod(0o755)
            here.path = f"{program.parent}:{here.path}"
        deployment = deployment or Deployment(port, tmp_path / "front.json")
        settings = KubernetesSettings(namespace="k3", agents=number, reach=reach)
        backend = SimpleNamespace(cluster=here.cluster, settings=settings)
        if prepare:
            prepare(here, deployment)
        try:
            ClusterGenerator(backend).offer(
                LoadOrder(load, deployment, model, "savedmodel", VARIANT, seed=4, out=out, cores=(0,), limit_s=limit_s)
            )
        finally:
            left = [path for each in here.pods for path in here.results(each["metadata"]["name"]).iterdir()]
            assert left == []
            assert here.pids() == []
        return out

    yield start
    for here in made:
        for pid in here.pids():
            os.kill(pid, signal.SIGKILL)


def test_one_agent_offers_the_load_and_its_files_are_brought_back(offer):
    with server("--fixed-ms", 2) as port:
        out = offer(port=port)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["ok"] == summary["scheduled"] == 50
    assert summary["answers"] == "checked"
    assert summary["endpoints"] == [f"http://127.0.0.1:{port}"]
    assert pq.read_table(out / "samples.parquet").num_rows == 50
    assert "50 of 50 right" in (out / "generator.log").read_text()
    (told,) = json.loads((out / "agents.json").read_text())
    assert (told["pod"], told["node"], told["clock_shift_ns"]) == ("agent-0", "node1", 0)
    command = json.loads((out / "generator.json").read_text())
    assert command == told["command"]
    assert command[command.index("--keep-awake") + 1] == "off"
    assert "--master" not in command


def test_the_union_of_three_agents_is_the_schedule(offer):
    load = LoadCommand(
        "steady.py", ("--rate", "90", "--arrivals", "poisson", "--duration", "3", "--warmup", "0"), 3.0, 1
    )
    with server("--fixed-ms", 2) as port:
        out = offer(load, number=3, port=port)
    summary = json.loads((out / "summary.json").read_text())
    scheduled = np.sort(pq.read_table(out / "samples.parquet")["scheduled_ns"].to_numpy())
    asked = poisson(90, 3, 4).whole()
    assert summary["workers"] == 3
    assert summary["ok"] == summary["scheduled"] == len(asked)
    assert (scheduled - scheduled[0] == asked - asked[0]).all()
    told = json.loads((out / "agents.json").read_text())
    assert [each["pod"] for each in told] == ["agent-0", "agent-0", "agent-1", "agent-2"]
    assert all(each["command"][-3:] == ["--worker", "--master-host", "127.0.0.1"] for each in told[1:])


def test_the_load_follows_the_pods_that_are_ready(offer, tmp_path):
    def listed(*ports):
        listing = [{"rest": f"http://127.0.0.1:{port}", "grpc": f"127.0.0.1:{port}"} for port in ports]
        (tmp_path / "new").write_text(json.dumps(listing))
        (tmp_path / "new").rename(tmp_path / "front.json")

    load = LoadCommand("steady.py", ("--rate", "50", "--duration", "6", "--warmup", "0"), 6.0, 1)
    with server("--fixed-ms", 2) as one, server("--fixed-ms", 2) as two:

        def change_when_it_runs(here, deployment):
            def watch():
                end = time.monotonic() + 30
                while time.monotonic() < end and not list(tmp_path.glob("pods/agent-0/*/out/samples.parts/*.parquet")):
                    time.sleep(0.05)
                listed(two)

            listed(one)
            threading.Thread(target=watch, daemon=True).start()

        out = offer(load, reach="pods", prepare=change_when_it_runs)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["endpoints"] == [f"http://127.0.0.1:{one}", f"http://127.0.0.1:{two}"]
    assert summary["ok"] == 300
    assert set(pq.read_table(out / "samples.parquet")["endpoint"].to_pylist()) == {0, 1}


def test_a_load_survives_streams_that_break(offer):
    def breaking(here, deployment):
        here.breaks = lambda count: count % 4 == 3

    with server("--fixed-ms", 2) as port:
        out = offer(port=port, prepare=breaking)
    assert json.loads((out / "summary.json").read_text())["ok"] == 50


def test_an_agent_that_is_killed_under_load_is_named_and_the_others_stop(offer):
    def kill(here):
        name = here.pods.pop()["metadata"]["name"]
        for path in here.results(name).glob("*/*/pid"):
            os.killpg(int(path.read_text()), signal.SIGKILL)

    def prepare(here, deployment):
        deployment.at_look[40] = lambda: kill(here)

    with pytest.raises(GeneratorError, match="load agent agent-2 on node node1 was deleted under load: run the load"):
        offer(number=3, toy="hang", prepare=prepare)


def test_a_server_that_dies_under_load_ends_the_load(offer):
    def prepare(here, deployment):
        deployment.at_look[20] = lambda: False

    with pytest.raises(DeploymentError, match="a server died under load; its last lines: its last line"):
        offer(toy="hang", prepare=prepare)


def test_ctrl_c_ends_the_load_in_the_pods(offer):
    def interrupt():
        raise KeyboardInterrupt

    def prepare(here, deployment):
        deployment.at_look[20] = interrupt

    with pytest.raises(KeyboardInterrupt):
        offer(number=2, toy="hang", prepare=prepare)


def test_a_load_that_does_not_end_is_ended_and_its_log_kept(offer, tmp_path):
    with pytest.raises(GeneratorError, match="still busy after 2 s and was ended"):
        offer(toy="hang", limit_s=2.0)
    assert "toy -f loadtests/steady.py" in (tmp_path / "out" / "generator.log").read_text()


def test_a_cluster_that_no_longer_answers_is_given_up(offer, monkeypatch):
    monkeypatch.setattr(generator_cluster, "PATIENCE_S", 0.5)

    def prepare(here, deployment):
        def quiet():
            here.breaks = lambda count: True
            monkeypatch.setattr(
                here.cluster.core, "list_namespaced_pod", lambda *_, **__: (_ for _ in ()).throw(OSError("no route"))
            )

        deployment.at_look[20] = quiet

    with pytest.raises(GeneratorError, match=r"given up after 0 s without an answer: the (stream|Kubernetes API)"):
        offer(toy="hang", prepare=prepare)


def test_options_that_the_generator_refuses_are_our_own_fault(offer):
    with pytest.raises(StudyError, match="refuses its options: servestorm: --rate must be over 0, not 0"):
        offer(toy="refuse")


def test_a_load_without_a_summary_has_no_result(offer):
    with pytest.raises(GeneratorError, match="ended with code 4 and without a summary: toy"):
        offer(toy="silent")


def test_an_invalid_load_has_a_result(offer):
    out = offer(toy="invalid")
    assert json.loads((out / "summary.json").read_text()) == {"valid": False}


def test_samples_are_told_in_this_machine_s_time(tmp_path):
    rows = {field.name: [0, 1] for field in SCHEMA}
    rows.update(scheduled_ns=[1000, 2000], sent_ns=[1001, None], first_byte_ns=[1002, None], done_ns=[1003, None])
    rows.update(outcome=["ok", "dropped"], correct=[True, None], warmup=[True, False])
    pq.write_table(pa.table(rows, schema=SCHEMA), tmp_path / "samples.parquet")
    shift_times(tmp_path / "samples.parquet", -400)
    moved = pq.read_table(tmp_path / "samples.parquet")
    assert moved.schema == SCHEMA
    assert moved["scheduled_ns"].to_pylist() == [600, 1600]
    assert moved["sent_ns"].to_pylist() == [601, None]
    assert moved["done_ns"].to_pylist() == [603, None]
    assert moved["outcome"].to_pylist() == ["ok", "dropped"]


def test_a_load_from_another_machine_is_told_in_this_one_s_time(offer, monkeypatch):
    moved = []
    monkeypatch.setattr(agents_module.Agents, "clock_shift_ns", lambda *_: 12_345)
    monkeypatch.setattr(generator_cluster, "shift_times", lambda path, shift_ns: moved.append((path.name, shift_ns)))
    with server("--fixed-ms", 2) as port:
        out = offer(port=port)
    assert moved == [("samples.parquet", 12_345)]
    assert json.loads((out / "agents.json").read_text())[0]["clock_shift_ns"] == 12_345


@pytest.mark.parametrize("follows", [False, True])
def test_a_generator_here_follows_pods_that_come_and_go(follows, tmp_path):
    (tmp_path / "front.json").write_text('[{"rest": "http://127.0.0.1:9", "grpc": "127.0.0.1:9"}]')
    model = ModelDir(write_toy_model(tmp_path / "toy"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").write_text("{}")
    LocalGenerator(python=(sys.executable, "-c", "raise SystemExit(4)"), follows=follows).offer(
        LoadOrder(
            SHORT,
            Deployment(9, tmp_path / "front.json"),
            model,
            "savedmodel",
            VARIANT,
            seed=1,
            out=tmp_path / "out",
            cores=(0,),
            limit_s=30,
        )
    )
    command = json.loads((tmp_path / "out" / "generator.json").read_text())
    assert ("--endpoints-file" in command, "--host" in command) == (follows, not follows)
    if follows:
        assert command[command.index("--endpoints-file") + 1] == str(tmp_path / "front.json")


KUBERNETES = "name: a\nengines: [savedmodel]\nbackend: kubernetes\n"


def chosen(text):
    plan = parse_plan(KUBERNETES + text, "plan")
    return choose_backend(plan, Cores((), (0,), ())).generator


def test_where_load_comes_from_is_the_plan_s_to_say():
    assert chosen("") == LocalGenerator(follows=False)
    assert chosen("kubernetes: {reach: pods}\n") == LocalGenerator(follows=True)
    assert chosen("kubernetes: {reach: port-forward}\n") == LocalGenerator(follows=False)
    inside = chosen("load_from: cluster\nkubernetes: {agents: 3}\n")
    assert isinstance(inside, ClusterGenerator)
    assert inside.backend.settings.agents == 3


def test_the_command_line_goes_over_the_plan(tmp_path, monkeypatch):
    plan = tmp_path / "plan.yaml"
    plan.write_text(KUBERNETES)
    begun = []

    class Begun(Exception):
        pass

    def study(plan, *_, **__):
        begun.append(plan.load_from)
        raise Begun

    monkeypatch.setattr(runner, "Study", study)
    for words in ([], ["--load-from", "cluster"], ["--load-from", "here"]):
        assert main.main(["run", str(plan), *words]) == 70
    assert begun == ["here", "cluster", "here"]


def test_a_study_that_goes_on_takes_its_load_from_where_it_did(tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(KUBERNETES)

    def began_with(**plan):
        return SimpleNamespace(study=SimpleNamespace(plan=DeploymentSections(**plan)))

    begun = began_with(load_from="cluster")
    assert run._planned(plan, None, begun).load_from == "cluster"
    assert run._planned(plan, "here", begun).load_from == "here"
    assert run._planned(plan, None, began_with()).load_from == "here"


def test_load_from_a_cluster_needs_one(tmp_path, capsys):
    plan = tmp_path / "plan.yaml"
    plan.write_text("name: a\nengines: [savedmodel]\n")
    assert main.main(["run", str(plan), "--load-from", "cluster"]) == 2
    assert "--load-from cluster needs backend kubernetes" in capsys.readouterr().err


def test_no_agent_starts_beside_a_server_whose_start_is_timed(tmp_path):
    plan = parse_plan(KUBERNETES + "load_from: cluster\nsteady: {rate_per_s: 10, duration_s: 10}\n", "plan")
    bench = SimpleNamespace(plan=plan, backend=choose_backend(plan, Cores((), (0,), ())).backend)
    model = ModelDir(write_toy_model(tmp_path / "toy"))

    def load(scenario):
        settings = SCENARIO_CELLS[scenario].backend(bench).settings
        return values_of(settings, ENGINES["savedmodel"], model, Budget(()), Batching(), 1)["load"]

    assert load("coldstart") == {"enabled": False}
    assert (load("steady")["mode"], load("steady")["workers"]) == ("agents", 1)
