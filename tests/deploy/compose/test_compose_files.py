"""docker-compose.yml and docker-compose.airgap.yml: valid, closed, pinned, and explained."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

import servestorm
from loadtests.options import options_for
from serving.engines.tensorflow_settings import GRPC_THREADS
from tests.deploy.compose.compose_files import COMPOSE, FILES, env_file, services, variables, without_variables
from tests.requirements_here import lacking
from tests.source_tree import ROOT

NAMES = sorted(services())
AIRGAP = env_file(ROOT / ".env.airgap")
IMAGE = re.compile(r"[a-z0-9./-]+:(?P<tag>[A-Za-z0-9._-]+)")


def configuration(*arguments: str, **variables: str) -> dict:
    """What Docker Compose makes of the files, every profile on; no engine is asked."""
    command = ["docker", "compose", "--project-directory", str(ROOT), *arguments, "--profile", "*"]
    # what a person's own .env or environment says is not the files'
    env = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "DOCKER_"))}
    command += ["config", "--format", "json"]
    asked = subprocess.run(command, capture_output=True, text=True, env=env | variables, check=False)
    assert asked.returncode == 0, asked.stderr
    return json.loads(asked.stdout)


@pytest.fixture(scope="module")
def compose():
    version = ["docker", "compose", "version"]
    if shutil.which("docker") is None or subprocess.run(version, capture_output=True, check=False).returncode:
        lacking("docker", "Docker Compose is not here: .ci/docker installs it on Debian")
    empty = ["--env-file", "/dev/null"]
    return {
        "default": configuration(*empty, "-f", str(FILES[0])),
        "airgap": configuration("--env-file", str(ROOT / ".env.airgap"), "-f", str(FILES[0]), "-f", str(FILES[1])),
    }


def test_the_default_files_are_valid_and_every_host_path_exists(compose):
    for name, project in compose.items():
        for service in project["services"].values():
            paths = [Path(m["source"]) for m in service.get("volumes", []) if m["type"] == "bind"]
            if "build" in service:
                paths.append(ROOT / service["build"]["dockerfile"])
            assert [path for path in paths if not path.exists()] == [], name


AIRGAPPED = ["--env-file", str(ROOT / ".env.airgap")]
BOTH_FILES = ["-f", str(FILES[0]), "-f", str(FILES[1])]


@pytest.mark.parametrize(
    ("own", "arguments"),
    [
        ("copied", ["--env-file", "OWN", *BOTH_FILES]),
        ("copied", ["--env-file", "OWN", *AIRGAPPED, *BOTH_FILES]),
        ("copied", [*AIRGAPPED, "--env-file", "OWN", *BOTH_FILES]),
        ("pinned", ["--env-file", "OWN", *AIRGAPPED, *BOTH_FILES]),
    ],
)
def test_a_persons_own_env_file_does_not_bring_a_registry_back(compose, own, arguments, tmp_path):
    env = tmp_path / ".env"
    env.write_text((ROOT / ".env.example").read_text())
    if own == "pinned":  # as `make pin-digests` leaves it
        pinned = (f"{name}_IMAGE=registry.example/{name.lower()}:1" for name in ("HAPROXY", "PROMETHEUS", "BUILDER"))
        env.write_text("\n".join([env.read_text(), *pinned, ""]))
    project = configuration(*(str(env) if argument == "OWN" else argument for argument in arguments))
    assert project["services"] == compose["airgap"]["services"]


def test_no_registry_is_needed_for_what_the_airgapped_file_starts(compose):
    project = compose["airgap"]
    assert {"tfserving", "grafana"} & set(project["services"]) == set()
    assert "savedmodel" in project["services"]
    for service in project["services"].values():
        assert service["image"].startswith("servestorm/")
        assert all(value.startswith("servestorm/") or not value for value in service["build"]["args"].values())
        assert not service["build"]["dockerfile"].endswith(".upstream")


def test_both_tensorflow_servers_get_the_same_flags_files_and_limits(compose):
    real, ours = compose["default"]["services"]["tfserving"], compose["airgap"]["services"]["savedmodel"]
    for part in ("command", "environment", "volumes", "deploy", "healthcheck", "user", "read_only", "cap_drop"):
        assert real[part] == ours[part], part


def test_every_engine_has_the_same_budget_and_the_same_threads(compose):
    for project in compose.values():
        engines = [
            project["services"][n] for n in ("tfserving", "savedmodel", "torchserve") if n in project["services"]
        ]
        limits = [engine["deploy"]["resources"]["limits"] for engine in engines]
        assert len(engines) == 2
        assert limits[0] == limits[1] and {"cpus", "memory", "pids"} <= set(limits[0])
        assert engines[0]["environment"]["OMP_NUM_THREADS"] == engines[1]["environment"]["OMP_NUM_THREADS"]


def test_tensorflow_serving_has_a_grpc_thread_for_every_call_in_flight():
    service = services()["tfserving"]
    assert f"--grpc_max_threads={GRPC_THREADS}" in service["command"]
    (in_flight,) = (option.default for option in options_for("constant") if option.flag == "--max-in-flight")
    assert service["deploy"]["resources"]["limits"]["pids"] > in_flight + 500  # and the server's other threads


def test_model_name_alone_is_enough_for_another_model(compose):
    """No service and no file that a service reads still names the default model."""
    for name, files in {"default": FILES[:1], "airgap": FILES}.items():
        options = [word for file in files for word in ("-f", str(file))]
        other = configuration("--env-file", "/dev/null", *options, MODEL_NAME="zebra")["services"]
        default = compose[name]["services"]
        assert set(other) == set(default)
        for service, found in other.items():
            assert not re.search(r"\bcnn\b", json.dumps(found)), f"{service}: {found}"
            named = len(re.findall(r"\bcnn\b", json.dumps(default[service])))
            assert json.dumps(found).count("zebra") == named, service
            for mount in found.get("volumes", []):
                files_read = Path(mount["source"]).rglob("*") if mount["type"] == "bind" else ()
                texts = [path.read_text() for path in files_read if path.is_file()]
                assert not [text for text in texts if re.search(r"\bcnn\b", text)], mount
        assert sum("zebra" in json.dumps(found) for found in other.values()) >= 5


def test_every_log_is_bounded(compose):
    for project in compose.values():
        for name, service in project["services"].items():
            assert service["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "2"}}, name


def test_both_prometheus_images_have_a_volume_of_their_own(compose):
    """They write as different users and in different formats."""
    volumes = {name: {mount["source"] for mount in project["services"]["prometheus"]["volumes"]
                      if mount["type"] == "volume"} for name, project in compose.items()}  # fmt: skip
    assert volumes == {"default": {"prometheus"}, "airgap": {"prometheus-debian"}}


@pytest.mark.parametrize("name", NAMES)
def test_a_service_can_write_nowhere_gain_nothing_and_is_limited(name):
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & set(service)
    assert not [m for m in service.get("volumes", []) if "docker.sock" in m]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("trainer", "locust-worker")])
def test_a_service_that_serves_tells_whether_it_is_well(name):
    assert services()[name]["healthcheck"]["test"][0] == "CMD"


def test_only_loopback_is_published():
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert len(ports) >= 8
    assert [port for port in ports if not re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z_]+:-\d+\}:\d+", port)] == []


def test_every_image_is_pinned_to_a_version_and_ours_to_this_one():
    text = "".join(file.read_text() for file in FILES)
    images = {default for file in FILES for name, found in variables(file).items() for default in found
              if name.endswith(("_IMAGE", "_UPSTREAM"))}  # fmt: skip
    assert len(images) >= 9
    for image in images:
        match = IMAGE.fullmatch(image)
        assert match and match["tag"] not in ("latest", "stable", "main"), image
        if image.startswith("servestorm/") and "base" not in image:
            assert match["tag"] == servestorm.__version__
    assert "@sha256:" not in text, "a digest is what a registry told a person: make pin-digests puts it into .env"


def test_a_variable_has_one_default_and_env_example_tells_it():
    told = env_file(ROOT / ".env.example")
    found: dict[str, set[str]] = {}
    for file in FILES:
        for name, defaults in variables(file).items():
            found.setdefault(name, set()).update(defaults)
    assert set(found) == set(told)
    for name, defaults in found.items():
        assert told[name] in defaults, name
        assert defaults <= {told[name], AIRGAP.get(name, told[name])}, name


def test_env_airgap_says_what_the_airgapped_file_says():
    overlay = variables(FILES[1])
    assert AIRGAP["COMPOSE_FILE"] == f"{FILES[0].name}:{FILES[1].name}"
    assert {name: {AIRGAP[name]} for name in overlay} == overlay


def test_every_variable_of_env_example_is_explained():
    lines = (ROOT / ".env.example").read_text().splitlines()
    explained = False
    for line in lines:
        explained = line.startswith("#") or (explained and bool(line))
        assert explained or not line, line


def test_the_flags_of_tensorflow_serving_are_real_and_their_files_are_read():
    from google.protobuf import text_format

    from serving.savedmodel_server.textproto import message_class
    from tests.serving.engines.tensorflow_serving_flags import TF_SERVING_FLAGS

    flags = dict(flag.removeprefix("--").split("=", 1) for flag in services()["tfserving"]["command"])
    assert set(flags) <= TF_SERVING_FLAGS
    folder = COMPOSE / "tfserving"
    messages = {
        "batching_parameters_file": message_class("BatchingParameters")(),
        "monitoring_config_file": message_class("MonitoringConfig")(),
    }
    for flag, message in messages.items():
        path = folder / Path(flags[flag]).name
        assert text_format.Parse(path.read_text(), message).ByteSize() > 0
    model = f"${{MODEL_NAME:-{env_file(ROOT / '.env.example')['MODEL_NAME']}}}"
    assert (flags["model_name"], flags["model_base_path"]) == (model, f"/srv/models/{model}")
    assert {file.name for file in folder.iterdir()} == {Path(flags[flag]).name for flag in messages}


def test_prometheus_asks_every_service_where_it_listens():
    config = yaml.safe_load((COMPOSE / "prometheus" / "prometheus.yml").read_text())
    asked = {job["job_name"]: job["dns_sd_configs"][0] for job in config["scrape_configs"] if "dns_sd_configs" in job}
    names = {job: found["names"] for job, found in asked.items()}
    assert names == {job: ["locust-master" if job == "generator" else job] for job in asked}
    assert set(asked) - {"generator", "savedmodel"} <= set(NAMES)
    properties = (COMPOSE / "torchserve" / "config.properties").read_text()
    assert f"metrics_address=http://0.0.0.0:{asked['torchserve']['port']}\n" in properties
    flags = services()["tfserving"]["command"]
    assert f"--rest_api_port={asked['tfserving']['port']}" in flags
    monitoring = (COMPOSE / "tfserving" / "monitoring.config").read_text()
    path = next(job["metrics_path"] for job in config["scrape_configs"] if job["job_name"] == "tfserving")
    assert f'path: "{path}"' in monitoring
    assert f"--metrics-port={asked['generator']['port']}" in services()["locust-master"]["command"]


def test_the_load_generator_knows_every_option_that_it_is_given():
    from loadtests.options import options_for

    ours = {option.flag for option in options_for("constant")}
    locust = {"-f", "--host", "--master", "--worker", "--master-host"}
    for name in ("locust-master", "locust-worker"):
        words = [word.split("=")[0] for word in services()[name]["command"] if word.startswith("-")]
        assert set(words) <= ours | locust, name


def test_the_balancer_s_configuration_is_one():
    haproxy = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if haproxy is None:
        lacking("haproxy", "HAProxy is not here: apt-get install haproxy")
    file = COMPOSE / "haproxy" / "haproxy.cfg"
    env = {"TENSORFLOW_SERVICE": "tfserving", "MODEL_NAME": "cnn", "BALANCER_SLOTS": "64"}
    checked = subprocess.run([haproxy, "-c", "-f", str(file)], capture_output=True, text=True, env=env, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "WARNING" not in checked.stderr
    defaults = yaml.safe_load(without_variables(FILES[0].read_text()))["services"]["haproxy"]["environment"]
    assert defaults == env
