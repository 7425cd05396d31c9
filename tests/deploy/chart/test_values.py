"""The chart's values: every key explained, and whatever is no key or makes no sense refused in a sentence."""

from __future__ import annotations

import json
import re
import subprocess

import pytest
import yaml

from loadtests.options import options_for
from serving.headers import Header
from tests.deploy.chart.rendering import CHART, VALUES, refusal, render
from tests.deploy.chart.tools import helm

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
SET_BY_THE_CHART = {"model", "grpc-target", "manifest", "keep-awake", "metrics-port", "metrics-host", "out"}
NEEDS_A_FILE = {
    "endpoints-file",
    "http-body-file",
    "trace",
    "trace-column",
    "trace-bin",
    "trace-time-scale",
    "trace-rate-scale",
    "trace-format",
    "trace-filter",
}
OF_A_STUDY = {"turns", "start-file", "give-up-in-flight"}
"""A study decides these: when its engines take turns, and when a probe cannot pass any more."""
SECRET = {"header"}
"""Its value would stand in the arguments of the load's pods."""


def schemas(node=SCHEMA, path="values"):
    """Every schema in the schema, with where it stands."""
    yield path, node
    for name, child in {**node.get("properties", {}), **node.get("definitions", {})}.items():
        yield from schemas(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from schemas(node[key], f"{path}.{key}")


def resolved(node):
    reference = node.get("$ref")
    return SCHEMA["definitions"][reference.rsplit("/", 1)[1]] if reference else node


def test_every_object_of_the_schema_is_closed_and_everything_is_described():
    objects = 0
    for path, found in schemas():
        node = resolved(found)
        if node.get("type") == "object":
            objects += 1
            closed = node.get("additionalProperties")
            assert closed is False or (isinstance(closed, dict) and "type" in closed), f"{path} takes anything"
        if not path.endswith((".items", ".additionalProperties")) or "properties" in node:
            assert node["description"].endswith("."), path
    assert objects > 40


def keys(node, schema, path=""):
    """Keys of values beside the schema's at the same place."""
    schema = resolved(schema)
    if isinstance(node, dict) and "properties" in schema:
        yield path, set(node), set(schema["properties"])
        for name, child in node.items():
            if name in schema["properties"]:
                yield from keys(child, schema["properties"][name], f"{path}.{name}")


def test_the_defaults_name_every_key_of_the_schema():
    optional = {"global", "ephemeral-storage"}
    for path, given, known in keys(DEFAULTS, SCHEMA):
        missing = known - given - optional if path != ".load.options" else set()
        assert not missing, f"values.yaml does not show {path}: {missing}"


DNS = "prometheus.discovery=dns"
MODEL = "models[0].name=cnn,models[0].source"


@pytest.mark.helm
@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("replica=2", "replica"),
        ("resources.limit.cpu=2", "limit"),
        (f"{MODEL}.img.repository=x", "img"),
        (f"{MODEL}.url.url=ftp://a/b,models[0].source.url.sha256={'0' * 64}", "url"),
        (f"{MODEL}.pvc.claimName=a,models[0].source.image.repository=b", "maxProperties"),
        (f"{MODEL}.pvc.claimName=a,models[0].source.pvc.subPath=/absolute", "subPath"),
        ("models[0].name=cnn", "source"),
        ("models=null", "models"),
        ("images.tfserving.tga=1", "tga"),
        ("autoscaling.targets.cpu=50", "cpu"),
        ("balancer.mode=sometimes", "'auto'"),
        ("engine=triton", "'torchserve'"),
        ("replicas=two", "replicas"),
        ("threads=0", "threads"),
        ("resources.limits.cpu=fast", "cpu"),
        ("resources.limits=null", "limits"),
        ("load.options.peak_rate=9", "peak_rate"),
        ("load.options.protocol=soap", "'grpc'"),
        ("load.headers.X Team=vision", "X Team"),
        ("load.target=http://me:word@elsewhere", "target"),
        ("load.grpcTarget=me:word@elsewhere:1", "grpcTarget"),
        ("tolerations[0].keys=a", "keys"),
        ("networkPolicy.from[0].podSelectors.a=b", "podSelectors"),
        ("podLabels.app\\.kubernetes\\.io/name=mine", "app.kubernetes.io/name"),
        ("probes.liveness.period=3", "period"),
    ],
)
def test_a_typing_error_is_refused_and_named(setting, told):
    error = refusal(setting)
    assert "schema" in error
    assert told in error


@pytest.mark.helm
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            (
                "models[0].name=a",
                "models[0].source.image.repository=x",
                "models[1].name=a",
                "models[1].source.image.repository=y",
            ),
            "Two models are named a: give each a name of its own.",
        ),
        (
            (
                "models[0].name=a",
                "models[0].source.url.url=https://h/a.mar?b=c",
                "models[0].source.url.sha256=" + "f" * 64,
            ),
            "set engine to torchserve",
        ),
        (("load.model=other",), "load.model other is none of the models (cnn): correct one of them."),
        (
            ("autoscaling.enabled=true", "autoscaling.minReplicas=9"),
            "autoscaling.minReplicas is 9, more than maxReplicas (4): lower it.",
        ),
        (("autoscaling.enabled=true", "autoscaling.targets.cpuPercent=null"), "set one of autoscaling.targets."),
        (("autoscaling.enabled=true", "autoscaling.targets.requestsQueued=1"), "set batching.maxSize over 1."),
        (
            ("autoscaling.enabled=true", "autoscaling.targets.requestsPerSecond=1", "prometheus.enabled=true", DNS),
            "which prometheus.discovery dns does not tell: set it to kubernetes.",
        ),
        (("replicas=40",), "There can be 40 replicas and the balancer has 32 slots: raise balancer.slots."),
        (("load.enabled=true", "load.workers=0"), "load.mode web needs at least one worker: set load.workers to 1"),
        (
            ("load.enabled=true", "load.mode=agents", "load.workers=0"),
            "load.mode agents needs at least one worker: set load.workers to 1 or more.",
        ),
        (
            ("load.enabled=true", "load.mode=job", "load.options.duration=3500", "load.results.holdSeconds=100"),
            "The load takes 3600 s and load.deadlineSeconds is 3600: raise it",
        ),
        (("load.headers.Authorization=Bearer abc",), "load.headers.Authorization holds a secret that everyone could"),
        (("load.headers.X-Api-Key=abc",), "load.headers.X-Api-Key holds a secret that everyone could read"),
        (("load.headers.X-Team=env:TEAM",), "name the Secret that holds it in load.headersSecret."),
        (("load.headers.X-Team=Bearer file:/a",), "refers to a file, of which the load's pods have none"),
        (("workers=2",), "There are 2 workers for 1 threads: raise resources.limits.cpu or lower workers."),
    ],
)
def test_values_that_contradict_each_other_are_refused_in_a_sentence(settings, sentence):
    assert sentence in refusal(*settings)


@pytest.mark.helm
@pytest.mark.parametrize(
    "name",
    [
        *("Authorization", "X-Auth", "X_Auth", "Author", "X-Api-Key", "X_Api_Key", "Apikey"),
        *("Token", "X-Tokens", "Cookie", "X-Team", "Session-Id"),
    ],
)
def test_the_chart_and_the_generator_take_the_same_headers_for_secrets(name):
    command = [helm(), "template", "r", str(CHART), "--set", f"load.headers.{name}=abc"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (f"load.headers.{name} holds a secret" in done.stderr) == Header.parse(name, "abc").looks_secret
    assert (done.returncode != 0) == Header.parse(name, "abc").looks_secret


@pytest.mark.helm
def test_what_contradicts_in_one_engine_is_right_in_another():
    assert render("engine=torchserve", "autoscaling.enabled=true", "autoscaling.targets.requestsQueued=1").objects
    assert render("autoscaling.enabled=true", "autoscaling.targets.requestsQueued=1", "batching.maxSize=2").objects


def test_the_load_s_options_are_those_of_the_locustfiles():
    known = {option.flag.removeprefix("--"): option for option in options_for("on-off")}
    offered = SCHEMA["properties"]["load"]["properties"]["options"]["properties"]
    assert set(offered) == set(known) - SET_BY_THE_CHART - NEEDS_A_FILE - OF_A_STUDY - SECRET
    for name, schema in offered.items():
        kind = known[name].kind
        if isinstance(kind, tuple):
            assert set(schema["enum"]) == set(kind) - {"trace"}
        else:
            assert schema["type"] == {int: "integer", float: "number", str: "string"}[kind]


@pytest.mark.helm
def test_the_notes_tell_the_next_three_commands_of_what_was_installed():
    def notes(*arguments):
        command = [helm(), "install", "r", str(CHART), "--dry-run=client", "--namespace", "vision"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.partition("NOTES:\n")[2]

    plain = notes()
    assert re.findall(r"^  (\d)\. ", plain, re.MULTILINE) == ["1", "2", "3"]
    assert "kubectl --namespace vision rollout status deployment/r-servestorm" in plain
    assert "locust -f loadtests/bursty.py --headless --host http://127.0.0.1:8501 --engine tfserving" in plain
    web = notes("--set", "load.enabled=true")
    assert "port-forward deployment/r-servestorm-load 8089:8089" in web
    agents = notes("--values", str(CHART / "ci" / "load-agents-values.yaml"))
    assert "one of the 3 idle generators" in agents
    assert "exec deployment/r-servestorm-load-agent -- locust --headless --out=/results/mine" in agents
    assert "--host=http://r-servestorm:8080" in agents and "--rate=40" in agents
    job = notes("--values", str(CHART / "ci" / "load-job-values.yaml"))
    assert "exitCode" in job and re.findall(r"^  (\d)\. ", job, re.MULTILINE) == ["1", "2", "3"]
    rates = notes("--values", str(CHART / "ci" / "autoscaling-rates-values.yaml"))
    assert "r-servestorm-adapter-rules" in rates and "r-servestorm-prometheus" in rates
    assert "may reach the API server at port 443 or 6443" in rates and "API server" not in plain
    assert "networkPolicy.loadTo opens other targets" in web and "loadTo" not in job


@pytest.mark.helm
def test_a_cloud_s_values_differ_in_a_few_lines():
    clouds = [path for path in VALUES if path.stem in ("eks", "gke", "aks")]
    assert len(clouds) == 3
    for path in clouds:
        lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
        assert len(lines) < 20
        registry = yaml.safe_load(path.read_text())["images"]["registry"]
        rendered = render("load.enabled=true", "load.mode=job", "load.results.size=1Gi", values=path)
        assert rendered.server()["initContainers"][0]["image"] == f"{registry}/servestorm/models-cnn:0.1.0"
        assert rendered.get("PersistentVolumeClaim", "-results")["spec"]["storageClassName"]
