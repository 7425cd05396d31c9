"""What works where only the core is installed, and the sentences for what does not.

tests/core/check.sh installs the wheel without extras and runs this file with that environment's Python.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from models.manifest import Manifest, ModelDir, sha256_of, size_of
from servestorm.cli.main import VERBS
from serving.extras import EXTRAS

HERE = Path(__file__).parent
COMMAND = Path(sys.executable).with_name("servestorm")
# what both the core and an extra's own packages may bring is none of these
ABSENT = {module for modules in EXTRAS.values() for module in modules} - {"websocket"}


def servestorm(*arguments: object, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=120, cwd=cwd, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def server():
    """Addresses of a server that answers alike over REST and gRPC."""
    process = subprocess.Popen([sys.executable, HERE / "answering_server.py"], stdout=subprocess.PIPE, text=True)
    try:
        rest, grpc = process.stdout.readline().split()
        yield f"http://127.0.0.1:{rest}", f"127.0.0.1:{grpc}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> ModelDir:
    """A model directory whose artifacts are no models, and whose golden image the server answers rightly."""
    folder = tmp_path_factory.mktemp("models") / "toy"
    (folder / "1").mkdir(parents=True)
    (folder / "golden").mkdir()
    for path in ("1/saved_model.pb", "toy.mar", "golden/000.png"):
        (folder / path).write_bytes(b"some bytes")
    artifacts = {
        kind: {"path": path, "sha256": sha256_of(folder / path), "size_bytes": size_of(folder / path)}
        for kind, path in (("savedmodel", "1"), ("mar", "toy.mar"))
    }
    manifest = {
        "name": "toy",
        "architecture": "cnn",
        "labels": ["a", "b"],
        "input": {"height": 2, "width": 2, "mean": [0.5] * 3, "std": [0.5] * 3},
        "parity": {"status": "proved", "tolerance": 1e-5, "images": 256},
        "golden": [
            {"path": "golden/000.png", "sha256": sha256_of(folder / "golden/000.png"), "probabilities": [0.25, 0.75]}
        ],
        "created_at": "2026-01-01T00:00:00Z",
        **artifacts,
    }
    (folder / "manifest.json").write_text(Manifest.model_validate(manifest).model_dump_json())
    return ModelDir(folder)


def test_no_extra_is_installed():
    assert {name for name in ABSENT if importlib.util.find_spec(name)} == set()


def test_everything_but_the_engines_own_code_can_be_imported(tmp_path):
    script = """if True:
        import importlib, pkgutil, loadtests, servestorm, serving.backends, serving.engines, serving.wire
        def names(package):
            return (module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."))
        packages = loadtests, servestorm, serving.backends, serving.engines, serving.wire
        # those that patch the process run in `servestorm load`
        patching = ("loadtests.locust_side", "loadtests.steady", "loadtests.bursty")
        modules = [name for package in packages for name in names(package) if not name.startswith(patching)]
        for name in modules:
            importlib.import_module(name)
        print(len(modules))
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_every_verb_explains_itself(verb, tmp_path):
    assert "exit codes: 0" in servestorm(*filter(None, [verb]), "--help", cwd=tmp_path).stdout


def test_a_schedule_is_drawn(tmp_path):
    told = servestorm("schedule", "--arrivals", "mmpp", "--mmpp-rates", "20,200", "--mmpp-dwells", "4,1", cwd=tmp_path)
    assert "index of dispersion" in told.stdout


@pytest.mark.parametrize(("load", "protocol"), [("steady", "rest"), ("steady", "grpc"), ("bursty", "grpc")])
def test_load_is_generated_and_answers_are_checked(load, protocol, server, model, tmp_path):
    rest, grpc = server
    options = ["--engine", "savedmodel", "--protocol", protocol, "--grpc-target", grpc, "--model", "toy"]
    options += ["--manifest", model.path / "manifest.json", "--rate", "50", "--duration", "2", "--warmup", "0"]
    done = subprocess.run(
        [COMMAND, "load", load, "--headless", "--host", rest, "--out", "out", *map(str, options)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode in (0, 4), done.stderr  # 4: this machine was too busy for a valid load
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["ok"] == summary["scheduled"] > 50
    assert (tmp_path / "out" / "samples.parquet").is_file()


def test_a_study_of_servers_that_run_already_goes_from_plan_to_comparison(server, model, tmp_path):
    rest, grpc = server
    engines = ["savedmodel", "tfserving"]
    plan = {
        "name": "core",
        "model": {"name": "toy", "path": str(model.path)},
        "engines": engines,
        "backend": "attach",
        "attach": {engine: {"rest": rest, "grpc": grpc} for engine in engines},
        "design": "blocks",  # both names are of one endpoint, which cannot take turns with itself
        "repetitions": 3,
        "steady": {"rate_per_s": 100, "duration_s": 1, "warmup_s": 0},
    }
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))
    done = subprocess.run([COMMAND, "run", "plan.yaml"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode in (0, 4), done.stderr  # 4: this machine was too busy for valid loads
    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "study.json").read_text())["state"] == "complete"
    drawn = (run / "report.html").read_bytes(), (run / "results.json").read_bytes()
    assert b"<svg" in drawn[0]
    servestorm("report", run, "--paper", cwd=tmp_path)
    assert (run / "results.json").read_bytes() == drawn[1]
    compared = subprocess.run([COMMAND, "compare", run, run], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert compared.returncode in (0, 4), compared.stderr
    assert "steady" in compared.stdout


def test_doctor_names_the_extras_that_the_default_study_lacks(tmp_path):
    told = servestorm("doctor", cwd=tmp_path, code=3)
    assert "pip install 'servestorm[savedmodel,torchserve,train]'" in told.stdout
    assert "pip install 'servestorm[docker]'" in told.stdout
    assert "pip install 'servestorm[kubernetes]'" in told.stdout


def test_clean_looks_at_this_machine(tmp_path):
    told = servestorm("clean", "--dry-run", cwd=tmp_path)
    assert "Docker was not looked at: backend docker needs Docker's SDK" in told.stdout
    assert "Kubernetes was not looked at: backend kubernetes needs the Kubernetes client" in told.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train"], "servestorm train needs TensorFlow and torch: pip install 'servestorm[train]'."),
        (["train", "--framework", "torch"], "servestorm train needs torch: pip install 'servestorm[train]'."),
        (["export"], "servestorm export needs TensorFlow, Keras, torch,"),
        (["import", "--name", "x", "--savedmodel", "."], "servestorm import needs TensorFlow: pip install"),
        (["serve", "--engine", "savedmodel", "--model", "MODEL"], "engine savedmodel needs TensorFlow,"),
        (["serve", "--engine", "torchserve", "--model", "MODEL"], "pip install 'servestorm[torchserve]'."),
        (["image", "MODEL"], "backend docker needs Docker's SDK: pip install 'servestorm[docker]'."),
    ],
)
def test_a_verb_without_its_extra_exits_3_and_names_it(arguments, sentence, model, tmp_path):
    places = [str(model.path) if word == "MODEL" else word for word in arguments]
    told = servestorm(*places, cwd=tmp_path, code=3)
    assert told.stdout == ""
    assert told.stderr.startswith("servestorm: ") and sentence in told.stderr
    assert told.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"engines": ["savedmodel"]}, "engine savedmodel needs TensorFlow,"),
        ({"engines": ["torchserve"]}, "engine torchserve needs TorchServe: pip install 'servestorm[torchserve]'."),
        ({"backend": "docker", "engines": ["savedmodel"]}, "backend docker needs Docker's SDK"),
        ({"backend": "kubernetes", "engines": ["savedmodel"]}, "backend kubernetes needs the Kubernetes client"),
    ],
)
def test_a_plan_without_its_extra_exits_3_and_starts_nothing(keys, sentence, model, tmp_path):
    plan = {"name": "p", "model": {"name": "toy", "path": str(model.path)}, "cold_starts": 1, **keys}
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))
    assert sentence in servestorm("run", "plan.yaml", cwd=tmp_path, code=3).stderr
    assert not (tmp_path / "runs").exists()


def test_a_model_that_must_be_trained_first_names_the_extra(server, tmp_path):
    attach = {"savedmodel": {"rest": server[0]}}
    plan = {"name": "p", "engines": ["savedmodel"], "backend": "attach", "attach": attach}
    plan["steady"] = {"rate_per_s": 10, "duration_s": 1}
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))
    told = servestorm("run", "plan.yaml", cwd=tmp_path, code=3).stderr
    assert "training model cnn needs TensorFlow" in told and "pip install 'servestorm[train]'" in told


def test_the_embedded_server_names_its_extra(model, tmp_path):
    command = [Path(sys.executable).with_name("savedmodel-server"), f"--model_base_path={model.path}", "--port=0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert "pip install 'servestorm[savedmodel]'" in done.stderr and "Traceback" not in done.stderr
