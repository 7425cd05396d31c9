"""Load from inside the cluster: what Locust is told, where its run goes, and how a job ends."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading

import pytest

from tests.deploy.chart.rendering import CHART, VALUES, container, flags, labels_of, pod_of, render
from tests.source_tree import ROOT

CI = CHART / "ci"
WEB, JOB, WORKERS, AGENTS = (
    CI / f"{name}-values.yaml" for name in ("load-web", "load-job", "load-job-workers", "load-agents")
)
_PARSE = """
import json, sys
from locust.argument_parser import get_parser
from loadtests.locust_side.users import install
install("on-off")
for arguments in json.load(sys.stdin):
    options = vars(get_parser(default_config_files=[]).parse_args(arguments))
    print(json.dumps({key: value for key, value in options.items() if isinstance(value, (str, int, float, list))}))
"""


def jobs(rendered, component="load"):
    return [job for job in rendered.all("Job") if labels_of(job)["app.kubernetes.io/component"] == component]


def job_of(rendered, component="load"):
    (job,) = jobs(rendered, component)
    return job


def arguments_of(values):
    """Arguments of every Locust that a values file starts."""
    found = []
    for thing in render(values=values).objects:
        if thing["kind"] in ("Deployment", "Job", "Pod"):
            found += [
                each["args"]
                for each in pod_of(thing)["containers"]
                if each["image"].split(":")[0].endswith("generator") and "args" in each
            ]
    return found


@pytest.mark.helm
def test_locust_with_our_options_takes_every_argument_that_any_values_file_gives_it():
    every = [arguments for values in VALUES for arguments in arguments_of(values)]
    assert len(every) > len(VALUES)
    command = [sys.executable, "-c", _PARSE]
    done = subprocess.run(command, input=json.dumps(every), capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    parsed = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(parsed) == len(every)
    for arguments, options in zip(every, parsed, strict=True):
        assert (ROOT / options["locustfile"]).is_file()
        assert options["keep_awake"] == "off" or "--worker" in arguments  # it would use up the CPU limit
    seeds = {options["seed"] for options in parsed}
    assert 1_000_000 in seeds, "a large whole number was given as 1e+06"


@pytest.mark.helm
def test_the_load_goes_to_the_release_and_its_answers_are_compared_with_the_model_s():
    given = flags(arguments_of(WEB)[0])
    assert given["host"] == "http://r-servestorm:8501"
    assert given["engine"] == "savedmodel"
    assert (given["protocol"], given["grpc-target"]) == ("grpc", "r-servestorm:8500")
    assert given["manifest"] == "/models/cnn/manifest.json"
    pod = pod_of(render(values=WEB).get("Deployment", "-load"))
    assert container(pod, "model-0")["image"].startswith("servestorm/models-cnn")
    assert any(mount["mountPath"] == "/models/cnn" for mount in container(pod, "load")["volumeMounts"])


@pytest.mark.helm
def test_the_load_can_be_another_model_s():
    job = job_of(render(values=WORKERS))
    assert flags(container(pod_of(job), "load")["args"])["model"] == "resnet"
    mounts = {mount["mountPath"]: mount for mount in container(pod_of(job), "load")["volumeMounts"]}
    assert mounts["/models/resnet"]["subPath"] == "resnet"
    assert "/models/cnn" not in mounts


@pytest.mark.helm
def test_the_load_can_go_elsewhere_and_then_asks_for_the_engine():
    rendered = render(values=JOB)
    load = flags(container(pod_of(job_of(rendered)), "load")["args"])
    assert load["host"] == "http://elsewhere.vision:8080"
    assert load["engine"] == "torchserve"  # as load.options says
    assert "manifest" not in load
    unnamed = render("load.enabled=true", "load.mode=job", "load.target=http://elsewhere:1", "load.workers=0")
    assert flags(container(pod_of(job_of(unnamed)), "load")["args"])["engine"] == "auto"


@pytest.mark.helm
@pytest.mark.parametrize(
    ("values", "kind", "suffix"),
    [(WEB, "Deployment", "-load"), (WEB, "Deployment", "-load-worker"), (AGENTS, "Deployment", "-load-agent")],
)
def test_every_pod_of_a_load_has_the_variables_that_headers_refer_to(values, kind, suffix):
    settings = ("load.headersSecret=token", "load.headers.Authorization=Bearer env:TOKEN")
    (main,) = pod_of(render(*settings, values=values).get(kind, suffix))["containers"]
    assert main["envFrom"] == [{"secretRef": {"name": "token"}}]
    (main,) = pod_of(render(values=values).get(kind, suffix))["containers"]
    assert "envFrom" not in main


@pytest.mark.helm
def test_headers_go_with_the_load_as_they_are_written():
    load = container(pod_of(job_of(render(values=JOB))), "load")
    assert {"--header=Authorization=Bearer env:TOKEN", "--header=X-Team=vision"} <= set(load["args"])
    assert load["envFrom"] == [{"secretRef": {"name": "elsewhere-token"}}]
    literal = render("load.headers.X-Team=$(POD_NAME)", values=JOB)
    # Kubernetes reads $$( as a $( that it leaves alone.
    assert "--header=X-Team=$$(POD_NAME)" in container(pod_of(job_of(literal)), "load")["args"]


@pytest.mark.helm
def test_a_web_load_has_a_master_and_the_workers_that_were_asked_for():
    rendered = render(values=WEB)
    assert rendered.get("Deployment", "-load-worker")["spec"]["replicas"] == 3
    worker = flags(container(pod_of(rendered.get("Deployment", "-load-worker")), "worker")["args"])
    assert worker["master-host"] == rendered.get("Service", "-load")["metadata"]["name"]
    assert "--master" in container(pod_of(rendered.get("Deployment", "-load")), "load")["args"]
    assert rendered.get("Service", "-load")["spec"]["publishNotReadyAddresses"] is True
    assert not rendered.all("Job")


@pytest.mark.helm
def test_a_job_runs_once_and_writes_its_run():
    job = job_of(render(values=JOB))
    assert job["spec"]["backoffLimit"] == 0
    assert pod_of(job)["restartPolicy"] == "Never"
    load = container(pod_of(job), "load")
    assert {"--headless", "--out=/results/$(POD_NAME)"} <= set(load["args"])
    assert "--master" not in load["args"]
    assert any(mount["mountPath"] == "/results" for mount in load["volumeMounts"])
    assert not jobs(render(values=JOB), "load-worker")


@pytest.mark.helm
def test_a_job_with_workers_waits_for_all_of_them():
    rendered = render(values=WORKERS)
    workers = job_of(rendered, "load-worker")
    assert workers["spec"]["parallelism"] == workers["spec"]["completions"] == 4
    master = flags(container(pod_of(job_of(rendered)), "load")["args"])
    assert master["expect-workers"] == "4"
    assert "master" in master


@pytest.mark.helm
def test_results_go_into_a_claim_that_outlives_the_release_or_one_that_is_there():
    rendered = render(values=WORKERS)
    claim = rendered.get("PersistentVolumeClaim", "-results")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert claim["spec"]["storageClassName"] == "standard"
    volumes = {volume["name"]: volume for volume in pod_of(job_of(rendered))["volumes"]}
    assert volumes["results"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    workers = {volume["name"]: volume for volume in pod_of(job_of(rendered, "load-worker"))["volumes"]}
    assert "emptyDir" in workers["results"]  # one claim may go to one node only
    given = render("load.results.claimName=mine", values=WORKERS)
    assert not given.all("PersistentVolumeClaim")
    named = {volume["name"]: volume for volume in pod_of(job_of(given))["volumes"]}
    assert named["results"]["persistentVolumeClaim"]["claimName"] == "mine"


@pytest.mark.helm
def test_a_changed_load_is_a_new_job_and_a_changed_server_is_not():
    def names(*settings):
        return sorted(job["metadata"]["name"] for job in render(*settings, values=WORKERS).all("Job"))

    before = names()
    assert names("resources.limits.cpu=3", "replicas=1", "batching.maxSize=4") == before
    after = names("load.options.rate=300")
    assert not set(after) & set(before), "a job cannot be changed in place"


@pytest.mark.helm
def test_the_generator_keeps_away_from_the_servers_where_that_is_possible():
    pod = pod_of(render(values=WEB).get("Deployment", "-load-worker"))
    terms = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    weights = {
        term["podAffinityTerm"]["labelSelector"]["matchLabels"]["app.kubernetes.io/component"]: term["weight"]
        for term in terms
    }
    assert weights == {"server": 100, "load": 50, "load-worker": 50, "load-agent": 50}
    agent = pod_of(render(values=AGENTS).get("Deployment", "-load-agent"))
    assert agent["affinity"] == pod["affinity"]
    assert "affinity" not in pod_of(job_of(render(values=WORKERS)))


@pytest.mark.helm
def test_agents_wait_idle_with_the_model_beside_them_and_offer_nothing_by_themselves():
    rendered = render(values=AGENTS)
    agents = rendered.get("Deployment", "-load-agent")
    assert agents["spec"]["replicas"] == 3
    assert agents["spec"]["strategy"] == {"type": "Recreate"}
    each = container(pod_of(agents), "agent")
    assert each["command"] == ["tini", "--", "sleep", "infinity"]
    assert "args" not in each
    assert each["resources"]["limits"]["cpu"] == "500m"
    assert {mount["mountPath"] for mount in each["volumeMounts"]} == {"/tmp", "/results", "/models/cnn"}
    assert {"name": "LOCUST_MASTER_BIND_HOST", "value": "0.0.0.0"} in each["env"]
    assert not rendered.all("Job")
    assert not rendered.has("Deployment", "-load") and not rendered.has("Service", "-load")


@pytest.mark.helm
def test_agents_whose_answers_are_not_checked_need_no_model():
    unchecked = render("load.checkAnswers=false", values=AGENTS)
    each = container(pod_of(unchecked.get("Deployment", "-load-agent")), "agent")
    assert {mount["mountPath"] for mount in each["volumeMounts"]} == {"/tmp", "/results"}


@pytest.mark.helm
def test_a_job_begins_when_its_target_answers():
    rendered = render(values=WORKERS)
    wait = container(pod_of(job_of(rendered)), "wait")
    assert wait["command"] == ["sh", "/scripts/wait.sh", "http://r-servestorm:8501/v1/models/cnn"]
    assert "wait.sh" in rendered.get("ConfigMap", "-scripts")["data"]
    elsewhere = container(pod_of(job_of(render(values=JOB))), "wait")
    assert elsewhere["command"][-1] == "http://elsewhere.vision:8080/"


@pytest.fixture
def awakening():
    """A server that is not ready for its first two requests, and then does not know the path."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(503 if len(asked) <= 2 else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/look", asked
        server.shutdown()


def test_waiting_ends_with_the_first_answer_that_is_not_the_balancer_s_own(awakening):
    url, asked = awakening
    done = subprocess.run(
        ["sh", str(CHART / "files" / "wait.sh"), url], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert asked == ["/look"] * 3
    assert done.stdout == f"servestorm: waiting for {url}\n"


@pytest.mark.helm
def test_a_pod_that_is_held_for_its_results_still_ends_with_the_load_s_verdict(tmp_path):
    locust = tmp_path / "locust"
    locust.write_text('#!/bin/sh\necho "$@"\nexit 4\n')
    locust.chmod(0o755)
    held = container(pod_of(job_of(render("load.results.holdSeconds=1", values=JOB))), "load")
    init, separator, *command = held["command"]
    assert (init, separator) == ("tini", "--")
    done = subprocess.run(
        [*command, *held["args"]],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    assert done.returncode == 4
    assert done.stdout.splitlines() == [" ".join(held["args"]), "servestorm: exit code 4; results stay for 1 s"]
    assert "command" not in container(pod_of(job_of(render(values=WORKERS))), "load")
