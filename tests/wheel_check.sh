#!/bin/sh
# Builds the wheel, installs it without the working tree, and uses it from an empty directory.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3.11}
case $python in /*) ;; *) python="$root/$python" ;; esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m build --quiet --wheel --no-isolation --outdir "$work/dist" "$root"
"$python" -m venv "$work/venv"
# The dependencies are the working environment's; a .pth line adds them, and not the project, which is there as editable.
site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
echo "$site" > "$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/dependencies.pth"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$work"/dist/*.whl

cd "$work"
"$work/venv/bin/python" - <<'PY'
import importlib.metadata, importlib.resources, pathlib, sys
import loadtests, models, serving, servestorm
for package in (loadtests, models, serving, servestorm):
    assert pathlib.Path(package.__file__).is_relative_to(sys.prefix), f"{package.__name__} comes from {package.__file__}"
    assert importlib.resources.files(package).joinpath("py.typed").is_file(), f"{package.__name__} lost its py.typed"
images = list(importlib.resources.files(loadtests).joinpath("bundled_digits").iterdir())
assert len(images) == 32, f"the wheel carries {len(images)} bundled digits instead of 32"
for name in ("report/report.html.j2", "report/report.css", "analysis/prices.yaml"):
    assert importlib.resources.files(servestorm).joinpath(name).is_file(), f"the wheel lost servestorm/{name}"
for name in ("index.html", "seconds.css", "charts.js", "live.js"):
    page = importlib.resources.files(loadtests).joinpath("locust_side", "page", name)
    assert page.is_file(), f"the wheel lost loadtests/locust_side/page/{name}"
from serving.backends.kubernetes.helm import chart_folder
assert chart_folder().is_relative_to(sys.prefix), f"the chart comes from {chart_folder()}"
for name in ("Chart.yaml", "values.yaml", "values.schema.json", "templates/_names.tpl", "templates/server/hpa.yaml", "files/wait.sh"):
    assert chart_folder().joinpath(name).is_file(), f"the wheel lost the chart's {name}"
from servestorm.plan.bundled_plans import BUNDLED_PLANS, plan_path
for name in BUNDLED_PLANS:
    assert plan_path(name).is_relative_to(sys.prefix), f"the plan {name} comes from {plan_path(name)}"
assert importlib.metadata.version("servestorm") == servestorm.__version__
PY
"$work/venv/bin/servestorm" --help > /dev/null
"$work/venv/bin/servestorm" init study > /dev/null
cmp "study/quickstart.yaml" "$root/studies/quickstart.yaml"
"$work/venv/bin/servestorm" run study/quickstart.yaml --dry-run > /dev/null
"$work/venv/bin/servestorm" run --dry-run > /dev/null
"$work/venv/bin/savedmodel-server" --help > /dev/null
"$work/venv/bin/python" -m locust -f "$("$work/venv/bin/python" -c 'import loadtests; print(loadtests.__path__[0])')/steady.py" --list > /dev/null
echo "wheel: built, installed and used from an empty directory"
