"""The images as they run: locked up as tightly as a cluster would, small, without a compiler, quick to stop."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import requests

from models.manifest import ModelDir
from servestorm import __version__
from tests.exported_cnn import exported_cnn
from tests.requirements_here import need_image

pytestmark = [pytest.mark.docker, pytest.mark.system]

LARGEST_MB = {
    "savedmodel": 1500,
    "torchserve": 1300,
    "trainer": 2300,
    "generator": 450,
    "prometheus": 260,
    "haproxy": 160,
    "busybox": 5,
}
LOCKED_UP = (
    *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--user", "10001:10001", "--pids-limit", "512", "--label", "servestorm.test=images"),
)
COMPILERS = "gcc cc g++ c++ cpp clang tcc as ld make cmake go rustc cargo javac gfortran"
COMPILED = """
import importlib.util, os, sys
stale = []
for name in sys.argv[1:]:
    source = importlib.util.find_spec(name).origin
    data = open(importlib.util.cache_from_source(source), "rb").read(16)
    if int.from_bytes(data[8:12], "little") != int(os.stat(source).st_mtime):
        stale.append(name)
print(stale)
"""


def reference(image: str) -> str:
    return f"servestorm/{image}:{__version__}"


def docker(*arguments: str, code: int = 0) -> str:
    """What the engine said on standard output; its errors show in the assertion."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == code, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def run(image: str, *arguments: str, options: tuple[str, ...] = (), code: int = 0) -> str:
    """Output of a container of this image that ends by itself."""
    return docker("run", "--rm", *LOCKED_UP, *options, reference(image), *arguments, code=code)


@contextmanager
def running(image: str, *arguments: str, options: tuple[str, ...] = ()) -> Iterator[str]:
    """Name of a container of this image; it is removed, its volumes too."""
    name = docker("run", "--detach", *LOCKED_UP, *options, reference(image), *arguments).strip()
    try:
        yield name
    finally:
        docker("rm", "--force", "--volumes", name)


def until_answers(name: str, *question: str) -> None:
    """Wait until the image's own probe says yes; fails with the log if the container ends first."""
    deadline = time.monotonic() + 120
    while subprocess.run(["docker", "exec", name, "answers", *question], capture_output=True, check=False).returncode:
        state = docker("inspect", "--format", "{{.State.Status}}", name).strip()
        said = subprocess.run(["docker", "logs", "--tail", "30", name], capture_output=True, text=True, check=False)
        assert state == "running", said.stdout + said.stderr
        assert time.monotonic() < deadline, said.stdout + said.stderr
        time.sleep(0.2)


def address(name: str) -> str:
    return docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name).strip()


def stops_by_itself(name: str) -> None:
    """SIGTERM ends it; what does not hear it, the engine kills, which the exit code tells."""
    docker("stop", "--time", "20", name)
    assert docker("inspect", "--format", "{{.State.ExitCode}}", name).strip() != "137"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> ModelDir:
    return exported_cnn(tmp_path_factory)


def with_model(model: ModelDir) -> tuple[str, ...]:
    return ("--volume", f"{model.path}:/models/cnn:ro", "--env", "MODEL_NAME=cnn")


@pytest.mark.parametrize("image", LARGEST_MB)
def test_an_image_stays_within_its_size(image):
    need_image(reference(image))
    size_mb = int(docker("image", "inspect", "--format", "{{.Size}}", reference(image))) / 1e6
    assert size_mb < LARGEST_MB[image]


@pytest.mark.parametrize("image", LARGEST_MB)
def test_an_image_holds_no_compiler_and_runs_as_user_10001(image):
    need_image(reference(image))
    look = f"id -u; id -g; for name in {COMPILERS}; do command -v $name; done; true"
    assert run(image, "-c", look, options=("--entrypoint", "sh")).split() == ["10001", "10001"]
    assert docker("image", "inspect", "--format", "{{.Config.User}}", reference(image)).strip() == "10001:10001"


@pytest.mark.parametrize("image", LARGEST_MB)
def test_an_image_carries_oci_labels(image):
    need_image(reference(image))
    labels = json.loads(docker("image", "inspect", "--format", "{{json .Config.Labels}}", reference(image)))
    told = {key.removeprefix("org.opencontainers.image."): value for key, value in labels.items()}
    assert told["title"] == f"servestorm/{image}"
    assert told["version"] == __version__
    assert all(told[key] for key in ("description", "revision", "licenses", "vendor", "base.name"))


@pytest.mark.parametrize(
    ("image", "modules"),
    [
        ("savedmodel", ["tensorflow", "keras", "numpy", "serving.savedmodel_server"]),
        ("torchserve", ["torch", "numpy", "ts"]),
        ("generator", ["locust", "pyarrow", "loadtests.locust_side.users"]),
    ],
)
def test_python_compiles_nothing_when_a_container_starts(image, modules):
    need_image(reference(image))
    told = run(image, "-c", COMPILED, *modules, options=("--entrypoint", "/opt/servestorm/bin/python"))
    assert told.strip() == "[]"


def test_the_embedded_server_answers_right_from_a_read_only_root_and_hears_sigterm(model):
    need_image(reference("savedmodel"))
    monitoring = "--file_system_poll_wait_seconds=0"
    with running("savedmodel", monitoring, options=with_model(model)) as name:
        until_answers(name, "8501", "/v1/models/cnn", "AVAILABLE")
        png = model.golden_images()[0]
        body = {"instances": [{"b64": base64.b64encode(png).decode()}]}
        reply = requests.post(f"http://{address(name)}:8501/v1/models/cnn:predict", json=body, timeout=30)
        assert reply.status_code == 200, reply.text
        expected = model.manifest.golden[0].probabilities
        assert np.allclose(reply.json()["predictions"][0], expected, atol=1e-4)
        said = subprocess.run(["docker", "logs", name], capture_output=True, text=True, check=True)
        assert "listening" in said.stdout.lower() and said.stderr == ""
        stops_by_itself(name)


def test_torchserve_answers_right_from_a_read_only_root_and_hears_sigterm(model):
    need_image(reference("torchserve"))
    with running("torchserve", options=with_model(model)) as name:
        until_answers(name, "8081", "/models/cnn", '"READY"')
        url = f"http://{address(name)}"
        reply = requests.post(f"{url}:8080/predictions/cnn", data=model.golden_images()[0], timeout=30)
        assert reply.status_code == 200, reply.text
        expected = model.manifest.golden[0].probabilities
        assert np.allclose(reply.json()["predictions"][0], expected, atol=1e-4)
        assert "ts_inference_requests_total" in requests.get(f"{url}:8082/metrics", timeout=30).text
        refused = requests.post(f"{url}:8081/models", params={"url": "other.mar"}, timeout=30)
        assert refused.status_code == 405
        stops_by_itself(name)


def test_the_embedded_server_can_be_stopped_while_it_still_starts(model):
    need_image(reference("savedmodel"))
    with running("savedmodel", options=with_model(model)) as name:
        while "serving.savedmodel_server" not in docker("top", name):
            time.sleep(0.05)
        stops_by_itself(name)


def test_the_embedded_server_tells_its_versions():
    need_image(reference("savedmodel"))
    assert f"savedmodel-server {__version__}, TensorFlow 2." in run("savedmodel", "--version")


def test_the_generator_runs_the_locustfiles_and_holds_no_framework():
    need_image(reference("generator"))
    assert "Steady" in run("generator", "-f", "loadtests/steady.py", "--list")
    python = ("--entrypoint", "python")
    assert "--peak-rate" in run("generator", "loadtests/bursty.py", "--help", options=python)
    look = "import importlib.util as u; print([m for m in ('tensorflow', 'torch', 'ts', 'grpc') if u.find_spec(m)])"
    assert run("generator", "-c", look, options=python).strip() == "[]"


def test_the_trainer_leaves_a_model_alone_that_is_there_already(model):
    need_image(reference("trainer"))
    assert "is there already" in run("trainer", options=with_model(model))


def test_the_trainer_says_whose_the_models_folder_must_be():
    need_image(reference("trainer"))
    options = ("--volume", "/usr/share:/models:ro")
    done = subprocess.run(
        ["docker", "run", "--rm", *LOCKED_UP, *options, reference("trainer")],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 3
    assert "user 10001 may not write to /models" in done.stderr and "chown 10001:10001" in done.stderr


def test_haproxy_takes_its_configuration_where_the_official_image_does(tmp_path):
    need_image(reference("haproxy"))
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n"
        "frontend here\n  bind :8404\n  http-request return status 200 content-type text/plain string fine\n"
    )
    mount = ("--volume", f"{config}:/usr/local/etc/haproxy/haproxy.cfg:ro")
    with running("haproxy", options=mount) as name:
        deadline = time.monotonic() + 30
        while True:
            try:
                assert requests.get(f"http://{address(name)}:8404/", timeout=5).text == "fine"
                break
            except requests.ConnectionError:
                assert time.monotonic() < deadline, docker("logs", name)
                time.sleep(0.1)
        stops_by_itself(name)


def test_prometheus_starts_with_what_it_brings_and_hears_sigterm():
    need_image(reference("prometheus"))
    with running("prometheus") as name:
        until_answers(name, "9090", "/-/ready", "200")
        stops_by_itself(name)
