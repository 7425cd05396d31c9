"""Without an extra: the core never imports it, and the verb that needs it names it with exit code 3.

tests/core/check.sh shows the same where nothing but the core is installed.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from servestorm.cli.main import main
from serving.extras import EXTRAS
from tests.stand_ins.toy_engine import write_toy_model

MODULES = sorted({module for modules in EXTRAS.values() for module in modules})


@pytest.fixture
def without_extras(monkeypatch):
    """No package of any extra can be imported."""
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)


def test_the_core_imports_nothing_of_an_extra():
    script = f"""if True:
        import importlib, pkgutil, sys, loadtests, servestorm, serving.backends, serving.engines, serving.wire
        packages = loadtests, servestorm, serving.backends, serving.engines, serving.wire
        modules = [m.name for p in packages for m in pkgutil.walk_packages(p.__path__, p.__name__ + ".")]
        # those that patch the process run in `servestorm load`
        for name in modules:
            if not name.startswith(("loadtests.locust_side", "loadtests.steady", "loadtests.bursty")):
                importlib.import_module(name)
        print(*(name for name in {MODULES} if name in sys.modules))
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train"], "servestorm train needs TensorFlow and torch: pip install 'servestorm[train]'."),
        (["train", "--framework", "torch"], "servestorm train needs torch: pip install 'servestorm[train]'."),
        (["export"], "pip install 'servestorm[train]'."),
        (["import", "--name", "x", "--savedmodel", "."], "servestorm import needs TensorFlow: pip install"),
        (["serve", "--engine", "savedmodel", "--model", "MODEL"], "pip install 'servestorm[savedmodel]'."),
        (
            ["serve", "--engine", "torchserve", "--model", "MODEL"],
            "engine torchserve needs TorchServe: pip install 'servestorm[torchserve]'.",
        ),
        (["image", "MODEL"], "backend docker needs Docker's SDK: pip install 'servestorm[docker]'."),
    ],
)
def test_a_verb_without_its_extra_exits_3_and_names_it(arguments, sentence, without_extras, tmp_path, capsys):
    model = write_toy_model(tmp_path / "toy")
    assert main([str(model) if word == "MODEL" else word for word in arguments]) == 3
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("servestorm: ") and sentence in said.err


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"engines": ["savedmodel"]}, "engine savedmodel needs TensorFlow,"),
        ({"engines": ["torchserve"]}, "engine torchserve needs TorchServe: pip install 'servestorm[torchserve]'."),
        ({"backend": "docker", "engines": ["savedmodel"]}, "backend docker needs Docker's SDK"),
        ({"backend": "kubernetes", "engines": ["savedmodel"]}, "backend kubernetes needs the Kubernetes client"),
    ],
)
def test_a_plan_without_its_extra_exits_3_before_anything_starts(keys, sentence, without_extras, tmp_path, capsys):
    model = write_toy_model(tmp_path / "toy")
    plan = {"name": "p", "model": {"name": "toy", "path": str(model)}, "cold_starts": 1, **keys}
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))
    assert main(["run", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "runs")]) == 3
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_an_import_that_fails_late_is_named_too(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--framework", "torch"]) == 3
    assert "this command needs scikit-learn: pip install 'servestorm[train]'." in capsys.readouterr().err


def test_the_embedded_server_names_its_extra(tmp_path):
    script = f"""if True:
        import sys
        sys.modules.update(dict.fromkeys({MODULES}))
        from serving.savedmodel_server.__main__ import main
        sys.exit(main(["--model_base_path={tmp_path}", "--port=0"]))
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("savedmodel-server: it needs ") and "Traceback" not in done.stderr
    assert done.stderr.endswith("pip install 'servestorm[savedmodel]'.\n")
