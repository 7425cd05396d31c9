"""`servestorm init`: a plan that runs, from the one copy that there is."""

from __future__ import annotations

import pytest

from servestorm.cli.main import main, parser
from servestorm.plan import bundled_plans
from servestorm.plan.bundled_plans import BUNDLED_PLANS, plan_path
from servestorm.plan.study_plan import load_plan
from tests.source_tree import ROOT


def test_the_plans_that_it_offers_are_those_of_the_tree():
    assert sorted(BUNDLED_PLANS) == sorted(path.stem for path in (ROOT / "studies").glob("*.yaml"))
    assert [plan_path(name) for name in BUNDLED_PLANS] == [ROOT / "studies" / f"{name}.yaml" for name in BUNDLED_PLANS]


@pytest.mark.parametrize("name", BUNDLED_PLANS)
def test_a_plan_is_written_and_can_be_read(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init", "my studies", "--plan", name]) == 0
    written = tmp_path / "my studies" / f"{name}.yaml"
    assert written.read_bytes() == plan_path(name).read_bytes()
    assert load_plan(written).name == name
    next_line = capsys.readouterr().out.splitlines()[1]
    assert next_line.startswith(f"next: servestorm run 'my studies/{name}.yaml' --dry-run")


def test_without_arguments_it_writes_the_default_plan_here_and_never_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    written = tmp_path / "quickstart.yaml"
    written.write_text("name: mine\n")
    assert main(["init"]) == 2
    assert "quickstart.yaml exists and is left as it is: give another DIR" in capsys.readouterr().err
    assert written.read_text() == "name: mine\n"


def test_a_file_in_place_of_the_folder_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["init", str(tmp_path / "file")]) in (2, 3)
    assert "give another DIR" in capsys.readouterr().err


def test_outside_a_checkout_the_copy_of_the_wheel_is_read(tmp_path, monkeypatch, capsys):
    package = tmp_path / "site-packages" / "servestorm" / "plan"
    (package / "studies").mkdir(parents=True)
    monkeypatch.setattr(bundled_plans, "__file__", str(package / "bundled_plans.py"))
    assert bundled_plans.plans_folder() == package / "studies"
    assert main(["init", str(tmp_path)]) == 3
    assert "was not installed with servestorm" in capsys.readouterr().err


def test_a_run_without_a_plan_is_the_default_one_from_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert parser().parse_args(["run"]).plan is None
    assert main(["run", "--dry-run"]) == 0
    assert "train and export cnn" in capsys.readouterr().out
