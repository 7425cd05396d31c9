"""A run is named by its path, its ID, or `latest`, wherever a command takes one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from servestorm.cli.main import main, parser
from servestorm.errors import StudyError
from servestorm.rundir.run_names import find_run
from tests.stand_ins.synthetic_run import make_run

IDS = ("20261128-101500-full", "20261129-025143-quickstart", "20261129-025143-quickstart-2", "20261201-000000-a")


@pytest.fixture
def out(tmp_path) -> Path:
    for name in IDS:
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "study.json").write_text("{}")
    (tmp_path / "runs" / "zz-notes").mkdir()
    return tmp_path / "runs"


def test_an_id_a_path_and_latest_name_the_same_run(out):
    for name in (IDS[-1], str(out / IDS[-1]), "latest"):
        assert find_run(name, out) == out / IDS[-1]


def test_a_run_that_a_person_has_renamed_is_named_and_never_the_latest(out):
    (out / IDS[0]).rename(out / "zz-baseline")
    assert find_run("zz-baseline", out) == out / "zz-baseline"
    assert find_run("latest", out) == out / IDS[-1]


def test_a_results_file_is_taken_as_it_is(out, tmp_path):
    (tmp_path / "results.json").write_text("{}")
    assert find_run(str(tmp_path / "results.json"), out) == tmp_path / "results.json"


def test_a_name_that_is_unknown_is_refused_with_the_newest_runs(out):
    newest = ", ".join(reversed(IDS[1:]))
    with pytest.raises(StudyError, match=f"^there is no run 2026 in {out}; the newest there: {newest}\\.$"):
        find_run("2026", out)
    with pytest.raises(StudyError, match=rf"x is not a directory or a results\.json; the newest in {out}: {newest}\.$"):
        find_run(str(out / "x"), out)


def test_where_there_is_no_run_at_all_the_sentence_says_how_one_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"there is no run in .*: start one with `servestorm run`"):
        find_run("latest", tmp_path)
    with pytest.raises(StudyError, match=r"there is no run x in .*: give a run such as .*/ID, its ID, or `latest`"):
        find_run("x", tmp_path)


def test_report_and_compare_take_an_id_and_latest(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made = make_run(tmp_path / "made")
    for name in IDS[:2]:
        shutil.copytree(made, tmp_path / "runs" / name)
    assert main(["report", IDS[0]]) == 0
    assert main(["report", "latest"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: runs/{IDS[1]}/report.html"
    assert main(["compare", IDS[0], "latest"]) in (0, 4)
    for arguments in (["report", "typo"], ["compare", "typo", "latest"], ["compare", "latest", "typo"]):
        assert main(arguments) == 2
        assert f"there is no run typo in runs; the newest there: {IDS[1]}, {IDS[0]}." in capsys.readouterr().err
    assert main(["run", "--resume", "typo"]) == 2
    assert f"there is no run typo in runs; the newest there: {IDS[1]}, {IDS[0]}." in capsys.readouterr().err


def test_every_option_that_names_a_run_explains_that_an_id_will_do():
    commands = next(action for action in parser()._actions if action.choices).choices
    named = [
        (verb, action.metavar, action.help)
        for verb, command in commands.items()
        for action in command._actions
        if action.metavar in ("RUN", "OLD", "NEW", "ID")
    ]
    assert [(verb, metavar) for verb, metavar, _ in named] == [
        ("run", "RUN"), ("report", "RUN"), ("compare", "OLD"), ("compare", "NEW"), ("claims", "RUN"),
    ]  # fmt: skip
    assert all(re.search("ID of a run|likewise", text) for _, _, text in named)
